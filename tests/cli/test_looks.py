"""How pictures look, and frames, from the command line."""

from pathlib import Path

import pytest

from tinygrad_sm.cli.entry import run
from tinygrad_sm.cli.looks import OF_EVERY, OF_ONE_GRAPH
from viz.options import DrawOptions, PictureOptions

FILE = """
import tinygrad_sm as tg

def loss():
    w, x = tg.Tensor(2.0, name="w"), tg.Tensor(3.0, name="x")
    return ((w * x).named("z") ** 2).named("L")

def vector():
    return tg.Tensor([1.0, 2.0], name="a").tanh()
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FILE)

    def call(*arguments):
        status = run(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_the_command_has_every_option_by_its_name():
    assert {*OF_EVERY} == PictureOptions.__optional_keys__
    assert {*OF_EVERY, *OF_ONE_GRAPH} == DrawOptions.__optional_keys__


def test_a_picture_has_the_options_of_the_library(command):
    status, _, err = command(
        "draw", "mine.py:loss", "--title", "My loss", "--label", "z=$w_1 x$", "--note", "0=given",
        "--warning", "L=look", "--no-dtypes", "--no-legend", "--digits", "2", "-o", "x.mmd",
    )  # fmt: skip
    assert (status, err) == (0, "")
    text = Path("x.mmd").read_text(encoding="utf-8")
    for words in ("My loss", "w₁x", "given", "⚠ look"):
        assert words in text
    assert "float64" not in text
    assert "double border" not in text


def test_dot_on_standard_output_has_them_too(command):
    _, dark, _ = command("draw", "--theme", "dark")
    assert 'bgcolor="#14171C"' in dark
    _, sideways, _ = command("draw", "--direction", "LR", "--no-gradients", "--compact")
    assert "rankdir=LR" in sideways
    assert "∂" not in sideways


def test_compare_and_fuse_pass_them_on(command):
    options = ("--title", "Two", "--format", "dot")
    assert command("compare", "--theme", "mono", *options, "-o", "a")[0] == 0
    assert all("Two" in file.read_text(encoding="utf-8") for file in Path("a").iterdir())
    assert command("fuse", "mine.py:loss", *options, "-o", "b")[0] == 1
    (picture,) = Path("b").iterdir()
    assert "Two" in picture.read_text(encoding="utf-8")


def test_frames_in_numbered_files(command):
    status, out, _ = command("draw", "mine.py:loss", "--frames", "-o", "step.dot")
    assert status == 0
    assert out.splitlines() == [f"step-{i:02}.dot" for i in range(1, 8)]
    assert "backward 4 of 4" in Path("step-07.dot").read_text(encoding="utf-8")
    assert command("draw", "mine.py:loss", "--frames", "--numbered", "-o", "x.svg")[0] == 0
    assert Path("x-07.svg").exists()


def test_frames_that_play(command):
    status, out, _ = command("draw", "--frames", "--seconds", "2", "-o", "x.svg")
    assert (status, out) == (0, "x.svg\n")
    assert "animation:36s step-end" in Path("x.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["draw", "--frames"], "--frames goes with --output"),
        (["draw", "--scale", "2"], "--scale goes with --output"),
        (
            ["draw", "--scale", "2", "-o", "x.svg"],
            "scale or dpi, one of them, is for .png and .gif",
        ),
        (["draw", "--seconds", "2", "-o", "x.svg"], "--numbered and --seconds go with --frames"),
        (["draw", "--frames", "--numbered", "-o", "x.gif"], "--output must end in one of"),
        (["draw", "-o", "x.gif"], "--output must end in one of"),
        (["draw", "levels", "--frames", "-o", "x.svg"], "--frames is for the picture of one"),
        (["draw", "comparison", "--no-values"], "--values is for the picture of one graph"),
        (
            ["draw", "mine.py:vector", "--frames", "-o", "x.svg"],
            "that is a single number",
        ),
        (["draw", "--theme", "blue"], "theme must be 'auto', 'light', 'dark' or 'mono'"),
        (["draw", "--label", "e"], "--label must be NODE=TEXT"),
        (["draw", "--note", "q=x"], "--note: no node is called 'q'; there are a, e, s, p, y, L"),
        (["draw", "--warning", "99=x"], "there is no node 99"),
        (["compare", "--digits", "3"], "--digits goes with --output"),
        (["fuse", "--theme", "dark"], "--theme goes with --output"),
    ],
)
def test_what_is_refused(command, arguments, sentence):
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["mine.py"]
