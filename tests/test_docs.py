"""What the README and the pages of `docs` show is what the project does."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_sm.cli.entry import run
from tinygrad_sm.texts import texts

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/*.md")), ROOT / "examples/README.md"]
}
README = PAGES["README.md"]
EXAMPLES = [name for name, text in PAGES.items() if ">>> " in text]


EXTRAS = {
    "docs/arrays.md": ("sympy", "dask"), "docs/jax.md": ("jax",), "docs/proof.md": ("sympy",),
}  # fmt: skip


@pytest.mark.parametrize("page", EXAMPLES)
def test_its_python_examples_give_what_they_show(page, tmp_path):
    """In a Python of its own, since what one page defines is no business of another."""
    for extra in EXTRAS.get(page, ()):
        pytest.importorskip(extra, reason=f"the page shows {extra}")
    done = subprocess.run(
        [sys.executable, "-m", "doctest", str(ROOT / page)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pages_that_show_python_are_many():
    assert len(EXAMPLES) >= 7
    assert len(doctest.DocTestParser().get_examples(PAGES["docs/from-scratch.md"])) > 40


SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("tinygrad_sm", "viz", "examples")
    for path in ROOT.glob(f"{folder}/**/*.py")
)


@pytest.mark.parametrize("page", PAGES)
def test_its_python_runs_or_is_quoted_from_a_file(page):
    for kind, block in re.findall(r"```(py\w+)\n(.*?)```", PAGES[page], re.DOTALL):
        if kind == "pycon":
            assert block.strip().startswith(">>> ")
            assert block.rstrip(" ").endswith("\n\n"), "doctest would take the fence for output"
        else:
            assert all(line in SOURCE for line in block.splitlines()), block


SHOWN = re.findall(r"<!-- shown: tinygrad-sm (.*?) -->\n```text\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("command", "text"), SHOWN, ids=[command for command, _ in SHOWN])
def test_its_commands_print_what_it_shows(command, text, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(command.split()) == 0
    assert capsys.readouterr().out.startswith(text)


def test_a_command_is_shown():
    assert SHOWN


ON_PAGES = [
    (page, *found)
    for page, text in PAGES.items()
    if page != "README.md"
    for found in re.findall(
        r"<!-- shown: tinygrad-sm (.*?) -->\n```text\n(.*?)```", text, re.DOTALL
    )
]


@pytest.mark.parametrize(
    ("page", "command", "text"), ON_PAGES, ids=[" ".join(x[:2]) for x in ON_PAGES]
)
def test_what_a_page_shows_of_a_command_is_in_its_output(page, command, text, capsys, monkeypatch):
    if page == "docs/proof.md":
        for package in ("sympy", "mpmath"):
            pytest.importorskip(package, reason=f"needs the extra symbolic: {package}")
    monkeypatch.setenv("COLUMNS", "80")
    assert run(command.split()) in (0, 1)
    out = "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())
    assert text in out


def test_the_readme_is_read_in_three_minutes():
    text = re.sub(r"```.*?```|<!--.*?-->", "", README, flags=re.DOTALL)
    assert 300 < len(re.findall(r"\w[^\s|]*", text)) <= 700


@pytest.mark.parametrize("page", PAGES)
def test_what_it_links_to_exists(page):
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", PAGES[page])
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link


def test_links_are_found():
    assert len(re.findall(r"\]\((?!http)([^)]+)\)", README)) > 10


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_it_names_exists(page):
    named = re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*)`", PAGES[page])
    for path in named:
        assert (ROOT / path).exists() or path.startswith("out/"), path


@pytest.mark.parametrize("page", [name for name in PAGES if name.startswith("docs/")])
def test_every_page_is_on_the_site(page):
    name = page.removeprefix("docs/")
    assert re.search(rf"\b{re.escape(name)}$", (ROOT / "mkdocs.yml").read_text(), re.M)


def test_every_public_name_is_on_the_api_page():
    import tinygrad_sm as tg
    import viz

    page = PAGES["docs/api.md"]
    pulled = set(re.findall(r"^::: (\S+)$", page, re.M))
    for package in (tg, viz):
        for name in package.__all__:
            value = getattr(package, name)
            if not isinstance(value, type(tg.exp)):  # the primitives are listed by an example there
                assert {f"{package.__name__}.{name}", value.__module__} & pulled, name


def test_the_hooks_are_the_checks_of_ci():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    commands = re.findall(r"entry: (.+)", hooks)
    checks = (ROOT / ".ci/run").read_text(encoding="utf-8").replace("format --check", "format")
    assert len(commands) == 3
    for command in commands:
        assert f"\n{command}" in checks


@pytest.mark.parametrize(
    "name", ["comparison", "diamond", "formulas", "fusion", "levels", "overflow"]
)
def test_the_pictures_hold_todays_figures(name):
    from docs.make import GRAPHS

    if name == "formulas":
        pytest.importorskip("sympy", reason="needs the extra symbolic: SymPy")

    def words(svg: str) -> list[str]:
        return re.findall(r"<text[^>]*>(.*?)</text>", svg)

    kept = (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8")
    assert words(kept) == words(GRAPHS[name]().render("svg").decode()), "run python docs/make.py"
    assert len(words(kept)) > 20


def test_every_picture_of_the_documentation_is_made_by_a_script():
    from docs.make import GRAPHS, PLOTS

    by_scripts = {*GRAPHS, *PLOTS, "imports", "page"}  # imports_map.py, page_picture.py
    kept = {path.stem for suffix in ("svg", "png") for path in ROOT.glob(f"docs/*.{suffix}")}
    assert kept == by_scripts


@pytest.mark.parametrize(("lang", "page"), [("en", "beginners.md"), ("ko", "beginners.ko.md")])
def test_the_words_for_beginners_are_those_of_the_texts(lang, page):
    said = " ".join(PAGES[f"docs/{page}"].split())
    for entry in texts(lang, "glossary").values():
        assert f"**{entry['term']}**. {entry['meaning']}" in said
    for mistake in texts(lang, "mistakes").values():
        assert f"**{mistake['title']}.** {mistake['what']}" in said
    assert "Softmax-with-Loss 계층" in said


def test_both_pages_for_beginners_run_the_same_code_and_show_the_same_pictures():
    for pattern in (r"```\w+\n.*?```", r"\((\w+\.svg)\)", r"^## "):
        one, other = (
            re.findall(pattern, PAGES[f"docs/{page}"], re.DOTALL | re.MULTILINE)
            for page in ("beginners.md", "beginners.ko.md")
        )
        assert one == other


def test_the_map_of_the_house_is_todays():
    from docs.imports_map import arrows, imports_map

    def said(svg: str) -> list[str]:
        return sorted(re.findall(r"<title>(.*?)</title>", svg))

    kept = (ROOT / "docs" / "imports.svg").read_text(encoding="utf-8")
    assert said(kept) == said(imports_map().decode()), "run python docs/imports_map.py"
    assert ("viz", "tinygrad_sm.fusion") in arrows()
    assert len(arrows()) > 10
