"""What the README shows is what the project does."""

import doctest
import re
from pathlib import Path

import pytest

from tinygrad_sm.cli.entry import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_python_examples_give_what_they_show():
    found = doctest.testfile(str(ROOT / "README.md"), module_relative=False, encoding="utf-8")
    assert found.attempted > 20
    assert found.failed == 0


SHOWN = re.findall(r"<!-- shown: tinygrad-sm (.*?) -->\n```text\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("command", "text"), SHOWN, ids=[command for command, _ in SHOWN])
def test_its_commands_print_what_it_shows(command, text, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(command.split()) == 0
    assert capsys.readouterr().out.startswith(text)


def test_a_command_is_shown():
    assert SHOWN


def test_what_it_links_to_exists():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_picture_of_the_proof_holds_todays_figures():
    from docs.make import comparison

    def words(svg: str) -> list[str]:
        return re.findall(r"<text[^>]*>(.*?)</text>", svg)

    kept = (ROOT / "docs" / "comparison.svg").read_text(encoding="utf-8")
    assert words(kept) == words(comparison().render("svg").decode())
    assert len(words(kept)) > 30
