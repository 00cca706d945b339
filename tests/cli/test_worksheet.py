"""`tinygrad-sm worksheet`: its files, all or none, and one sentence about bad input."""

import json
import re
from pathlib import Path

import pytest

from tinygrad_sm.cli.entry import run
from tinygrad_sm.cli.worksheet import FORMATS
from viz.worksheets import FORMATS as WRITTEN


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sheet_and_key_in_every_format(capsys):
    assert run(["worksheet", "--seed", "4", "-o", "new/sheets"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    named = out.splitlines()
    assert sorted(named) == sorted(str(p) for p in Path("new/sheets").iterdir())
    for key in ("", "-answers"):
        assert f"new/sheets/worksheet-4{key}.html" in named
        json.loads(Path(f"new/sheets/worksheet-4{key}.ipynb").read_text(encoding="utf-8"))


def test_one_kind_one_format_and_korean():
    assert run(["worksheet", "--kind", "diamond", "--format", "html", "--lang", "ko"]) == 0
    assert [p.name for p in sorted(Path().iterdir())] == [
        "worksheet-1-answers.html", "worksheet-1.html"
    ]  # fmt: skip
    assert "다이아몬드" in Path("worksheet-1.html").read_text(encoding="utf-8")


def test_another_seed_is_another_sheet(capsys):
    for seed in ("1", "2"):
        run(["worksheet", "--seed", seed, "--format", "ipynb"])
    one, two = (Path(f"worksheet-{i}.ipynb").read_text(encoding="utf-8") for i in (1, 2))
    assert re.findall(r"Tensor\((.*?),", one) != re.findall(r"Tensor\((.*?),", two)


def test_a_disk_that_fills_up_leaves_nothing(monkeypatch, capsys):
    real, written = Path.write_bytes, []

    def fills_up(path, content):
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path)
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", fills_up)
    assert run(["worksheet", "-o", "out"]) == 2
    assert "--output out: cannot be written to (No space left" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seed", "-1"], "-1 is not in the range x>=0"),
        (["--seed", "x"], "'x' is not a valid integer"),
        (["--seed", "9" * 300], "cannot be written to"),
        (["--lang", "fr"], "'fr' is not one of 'en', 'ko'"),
        (["--kind", "matrix"], "--kind must be among chain, diamond, softmax, mean; got 'matrix'"),
        (["--kind", ","], "--kind must be among .*; got ','"),
        (["--format", "pdf"], "--format must be among html, tex, ipynb; got 'pdf'"),
        (["-o", ""], "--output is empty"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, capsys, folder):
    assert run(["worksheet", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(sentence, err), err
    assert list(folder.iterdir()) == []


def test_the_command_offers_what_can_be_written():
    assert FORMATS == WRITTEN  # it names them before it loads what draws
