"""A worksheet in each format: answers are in the key and nowhere else, and the checks check."""

import json
import re
import shutil
import subprocess
from base64 import b64decode
from html.parser import HTMLParser

import pytest

from tinygrad_sm.study.worksheets import KINDS
from tinygrad_sm.texts import LANGUAGES
from viz.values import number
from viz.worksheets import Worksheet, worksheet_files

PREFIX = "worksheet-7"


@pytest.fixture(scope="module", params=LANGUAGES)
def sheet(request):
    return Worksheet(7, lang=request.param)


@pytest.fixture(scope="module")
def files(sheet):
    return worksheet_files(sheet)


def text_of(page):
    found = []
    parser = HTMLParser()
    parser.handle_data = found.append
    parser.feed(page.decode())
    return " ".join(" ".join(found).split()).replace("\N{WORD JOINER}", "")


def test_every_format_comes_with_its_key(files):
    suffixes = ("html", "tex", "ipynb")
    plain = {f"{PREFIX}{key}.{suffix}" for key in ("", "-answers") for suffix in suffixes}
    pictures = {f"{PREFIX}{key}-{i}.pdf" for key in ("", "-answers") for i in (1, 2, 3, 4)}
    assert set(files) == plain | pictures


def test_the_same_seed_gives_the_same_bytes(sheet, files):
    again = worksheet_files(Worksheet(7, lang=sheet.lang), ["html", "ipynb"])
    assert {name: files[name] for name in again} == again


def test_one_format_and_some_kinds():
    files = worksheet_files(Worksheet(1, ["diamond"]), ["html"])
    assert list(files) == ["worksheet-1.html", "worksheet-1-answers.html"]
    assert text_of(files["worksheet-1.html"]).count("∂L/∂x =") == 1


def test_an_unknown_format_is_one_sentence():
    with pytest.raises(ValueError, match="format must be one of html, tex, ipynb; got 'doc'"):
        worksheet_files(Worksheet(1), ["doc"])


# Pictures -----------------------------------------------------------------------------------------


def test_a_picture_has_lines_where_the_key_has_numbers(sheet):
    for question in sheet.questions:
        asked = question.asked.source
        answered = question.answered.source
        assert "______" in asked
        assert "______" not in answered
        for letter, _, blank in question.lettered:
            assert f"{letter}:" in asked
            assert f"{letter}:" in answered
            for x in blank.value.ravel():
                assert number(x) in answered


def test_pictures_are_the_same_in_every_language():
    one, other = (Worksheet(5, lang=lang) for lang in LANGUAGES)
    for a, b in zip(one.questions, other.questions, strict=True):
        assert a.asked.source == b.asked.source


# HTML ---------------------------------------------------------------------------------------------


def test_the_page_asks_and_the_key_answers(sheet, files):
    page, key = (text_of(files[f"{PREFIX}{which}.html"]) for which in ("", "-answers"))
    for question in sheet.questions:
        for letter, label, blank in question.lettered:
            assert f"{letter} {label} =" in page
            answer = " ".join(number(x) for x in blank.value.ravel())
            assert f"{letter} {label} = {answer}" in re.sub(" +", " ", key)
        for said, _ in question.typical:
            assert said in key
            assert said not in page
    assert f'lang="{sheet.lang}"' in files[f"{PREFIX}.html"].decode()


def test_the_page_needs_nothing_from_elsewhere(files):
    for which in ("", "-answers"):
        page = files[f"{PREFIX}{which}.html"].decode()
        assert "default-src 'none'" in page
        assert not re.search(r'(?:src|href)="(?!data:)', page)
        assert "<script" not in page
        for picture in re.findall(r"svg\+xml;base64,([^\"]+)", page):
            assert b"prefers-color-scheme" not in b64decode(picture)  # it stands on white paper
        assert len(page) < 100_000
        assert page.count("<img") == page.count('alt="') == 4


# LaTeX --------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
@pytest.mark.parametrize("which", ["", "-answers"])
def test_latex_takes_it(sheet, files, which, tmp_path):
    kotex = shutil.which("kpsewhich") and subprocess.run(
        ["kpsewhich", "kotex.sty"], capture_output=True, check=False
    )
    if sheet.lang == "ko" and not (kotex and kotex.stdout):
        pytest.skip("no Korean LaTeX here")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{PREFIX}{which}.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout
    assert "Overfull" not in done.stdout


def test_latex_has_the_answers_in_the_key_alone(sheet, files):
    source, key = (files[f"{PREFIX}{which}.tex"].decode() for which in ("", "-answers"))
    for question in sheet.questions:
        last = question.problem.blanks[-1].value.ravel()[0]
        assert f"${number(last)}$" in key
    assert "$" not in source.split(r"\begin{document}")[1]


# Notebook -----------------------------------------------------------------------------------------


def code(notebook):
    return [c for c in json.loads(notebook)["cells"] if c["cell_type"] == "code"]


def test_the_keys_answers_pass_the_checks(files):
    names = {}
    for cell in code(files[f"{PREFIX}-answers.ipynb"]):
        exec(cell["source"], names)


def test_a_blank_sheet_says_what_is_blank(sheet, files):
    answer, check, *_ = code(files[f"{PREFIX}.ipynb"])
    names = {}
    exec(answer["source"], names)
    with pytest.raises(AssertionError) as error:
        exec(check["source"], names)
    assert str(error.value) == sheet.say("blank", letter="A", label="∂L/∂v")


def test_a_wrong_answer_is_named(sheet, files):
    cells = {cell["id"]: cell["source"] for cell in code(files[f"{PREFIX}-answers.ipynb"])}
    for question in sheet.questions:
        for letter, label, blank in question.lettered:
            names = {}
            exec(cells[f"{question.problem.kind}-answer"], names)
            names[f"q{question.number}_{blank.variable}"] = blank.value * 1.02 + 0.002
            with pytest.raises(AssertionError) as error:
                exec(cells[f"{question.problem.kind}-check"], names)
            assert str(error.value) == sheet.say("wrong", letter=letter, label=label)


def test_the_key_is_the_sheet_with_solutions(files):
    """nbgrader makes the sheet by taking out what stands between its marks."""
    sheet, key = (json.loads(files[f"{PREFIX}{which}.ipynb"]) for which in ("", "-answers"))
    for cell in key["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = re.sub(
                r"\n### BEGIN SOLUTION.*### END SOLUTION", "", cell["source"], flags=re.DOTALL
            )
    assert key == sheet


def test_nbgrader_knows_the_cells(files):
    kinds = [c["metadata"]["nbgrader"] for c in code(files[f"{PREFIX}.ipynb"])]
    assert [(k["solution"], k["grade"], k["locked"]) for k in kinds] == [
        (True, False, False), (False, True, True)
    ] * 4  # fmt: skip
    assert len({k["grade_id"] for k in kinds}) == 8


def test_its_pictures_are_of_a_kind_that_jupyterlab_shows(files):
    cells = json.loads(files[f"{PREFIX}.ipynb"])["cells"]
    attached = [cell["attachments"] for cell in cells if "attachments" in cell]
    assert len(attached) == 4
    for (name, data), kind in zip([next(iter(a.items())) for a in attached], KINDS, strict=True):
        assert name == f"{kind}.png"
        assert b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_no_name_is_asked_for_twice(files):
    """otter checks all questions at the end, when all names are set."""
    written = "\n".join(cell["source"] for cell in code(files[f"{PREFIX}.ipynb"]))
    names = re.findall(r"^(\w+) = \.\.\.", written, re.MULTILINE)
    assert len(names) == len(set(names)) == 17


def test_the_notebook_is_valid(files):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    for which in ("", "-answers"):
        nbformat.validate(nbformat.reads(files[f"{PREFIX}{which}.ipynb"].decode(), 4))
