"""`fuse`, and `draw` on a user's file: what they print, what they leave, and their exit status."""

import json
from pathlib import Path

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.cli.entry import run
from tinygrad_sm.cli.examples import SPELLINGS, linear_levels, spelled
from tinygrad_sm.cli.user_code import guarded, output_of

FILE = """
from dataclasses import dataclass
import numpy as np
import tinygrad_sm as tg
import beside

@dataclass
class Settings:
    right: int = beside.RIGHT

def softmax(a=None):
    a = tg.Tensor([2.0, 1.0, 0.1], name="a") if a is None else a
    e = a.exp()
    return e / e.sum()

def loss():
    print("on its way")
    return -np.log(softmax()[Settings().right]).named("L")

def near():
    return -np.log(softmax() + 1e-7).sum() * 0 + softmax().exp().sum()

def nothing():
    return tg.Tensor([1.0, 2.0], name="a").tanh()

def broken():
    return -softmax(tg.Tensor([1000.0, 1.0], name="a")).log()[1]

def fails():
    return {}["no such thing"]

def leaves():
    raise SystemExit

number = lambda: 3.0

def needs(x, *rest, y=1):
    return x

value = 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "beside.py").write_text("RIGHT = 0\n")
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "wrong.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "early.py").write_text("\n1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    return tmp_path


@pytest.fixture
def command(capsys):
    def call(*arguments):
        status = run([str(a) for a in arguments])
        return status, *capsys.readouterr()

    return call


def test_a_function_of_the_users_is_fused(command):
    status, out, err = command("fuse", "mine.py:loss")
    assert (status, err) == (0, "on its way\n")
    assert "SoftmaxWithLoss: 6 operations" in out
    assert "Because: " in out
    assert "The output is 0.41703001627783" in out


def test_nothing_found_is_status_1_and_says_what_was_missing(command):
    assert command("fuse", "mine.py:nothing") == (
        1, "mine.py:nothing\nNothing to fuse was found.\n\n", ""
    )  # fmt: skip
    Path("mine.py").write_text(
        "import tinygrad_sm as tg\ndef f():\n    e = tg.Tensor([1.0, 2.0]).exp()\n"
        "    return -(e / (e.sum() + 1e-7)).log()[1]\n"
    )
    status, out, _ = command("fuse", "mine.py:f")
    assert status == 1
    assert "is almost a match of 'softmax': the denominator is not" in out


def test_an_overflow_is_told_by_the_story_and_not_by_a_warning(command):
    status, out, err = command("fuse", "mine.py:broken")
    assert (status, err) == (0, "")
    assert "The output is inf before, 999 after." in out


def test_json(command):
    status, out, _ = command("fuse", "mine.py:loss", "--json")
    found = json.loads(out)
    assert status == 0
    (rewrite,) = found["rewrites"]
    assert rewrite["made"]["op"] == "SoftmaxWithLoss"
    assert [node["op"] for node in rewrite["matched"]][:3] == ["exp", "sum", "div"]
    assert rewrite["operations_saved"] == 5
    assert found["near_misses"] == []
    assert found["output_before"] == pytest.approx(found["output_after"])
    assert len(found["before"]["nodes"]) > len(found["after"]["nodes"])
    _, out, _ = command("fuse", "mine.py:broken", "--json")
    assert json.loads(out)["output_before"] == "inf"


def test_without_an_argument_the_spellings_are_told(command):
    status, out, err = command("fuse", "-o", "out", "--format", "svg,mmd")
    assert (status, err) == (0, "")
    assert all(name in out for name in ("naive", "shifted", "logsumexp"))
    assert out.count("SoftmaxWithLoss: ") == len(SPELLINGS) - 1
    assert "almost a match" in out
    assert len(list(Path("out").iterdir())) == 2 * len(SPELLINGS)
    assert Path("out/naive-fusion.svg").read_bytes().startswith(b"<?xml")
    assert set(json.loads(command("fuse", "--json")[1])) == set(SPELLINGS)


def test_the_spellings_are_one_loss():
    *same, look_alike = [spelled(name).item() for name in SPELLINGS]
    np.testing.assert_allclose(same, same[0], rtol=1e-14)
    np.testing.assert_allclose(look_alike, same[0], rtol=1e-6)


def test_the_levels_are_one_loss():
    losses = [output.item() for output in linear_levels().values()]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-13)


def test_pictures_of_a_users_graph(command):
    status, out, _ = command("fuse", "mine.py:loss", "-o", "out")
    assert status == 0
    assert Path("out/loss-fusion.svg").exists()
    assert str(Path("out/loss-fusion.svg")) in out
    for place, text in (("loss", "∂:"), ("nothing", "double border")):
        status, out, _ = command("draw", f"mine.py:{place}", "-o", f"{place}.svg")
        assert (status, out) == (0, f"{place}.svg\n")
        assert text in Path(f"{place}.svg").read_text(encoding="utf-8").replace("\xa0", " ")
    status, out, err = command("draw", "mine.py:broken")
    assert (status, err) == (0, "")
    assert "broke: exp overflowed" in out


def test_draw_levels(command):
    status, out, err = command("draw", "levels", "-o", "levels.svg")
    assert (status, out, err) == (0, "levels.svg\n", "")
    assert "never by 3" in Path("levels.svg").read_text(encoding="utf-8").replace("\xa0", " ")


REFUSED = [
    ("mine.py", "'mine.py' must be FILE.py:function, such as model.py:loss"),
    ("mine.py:", "must be FILE.py:function"),
    (":loss", "must be FILE.py:function"),
    ("mine.txt:loss", "must be FILE.py:function"),
    ("mine.py:a b", "must be FILE.py:function"),
    ("missing.py:loss", "missing.py: there is no such file"),
    ("wrong.py:f", "wrong.py raised SyntaxError on line 2: "),
    ("early.py:f", "early.py raised ZeroDivisionError on line 2: division by zero"),
    ("mine.py:none", "mine.py has no function 'none'; it has softmax, loss, near"),
    ("empty.py:f", "empty.py has no function 'f'; it has none"),
    ("mine.py:value", "mine.py has no function 'value'"),
    ("mine.py:fails", "mine.py:fails raised KeyError on line 30: 'no such thing'"),
    ("mine.py:leaves", "mine.py:leaves raised SystemExit on line 33"),
    ("mine.py:needs", "mine.py:needs wants arguments (x); give a function that needs none"),
    ("mine.py:number", "mine.py:number returned a float; it must return the output, a Tensor"),
]


@pytest.mark.parametrize(("place", "sentence"), REFUSED)
def test_what_cannot_be_run_is_one_sentence_and_status_2(command, folder, place, sentence):
    before = sorted(folder.iterdir())
    status, out, err = command("fuse", place, "-o", "out")
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert [p for p in sorted(folder.iterdir()) if p.name != "__pycache__"] == before


def test_draw_refuses_the_same_and_options_that_do_nothing(command):
    for arguments, sentence in [
        (["mine.py:number"], "returned a float"),
        (["mine.py:loss", "--logits", "a.csv"], "--logits and --target are for composite"),
        (["levels", "--target", "0"], "--logits and --target are for composite"),
        (["levels", "--form", "naive"], "as are the options of the loss; got --form"),
        (["mine.py:loss", "--dtype", "float32"], "the options of the loss; got --dtype"),
        (["mine.py:loss", "--axis", "-1"], "the options of the loss; got --axis"),
        (["model"], "'model' is not one of 'composite', 'fused', 'comparison', 'levels', nor"),
    ]:
        status, out, err = command("draw", *arguments)
        assert (status, out) == (2, "")
        assert sentence in err


def test_a_file_leaves_nothing_behind():
    import sys

    path, modules = list(sys.path), set(sys.modules)
    with guarded("mine.py:loss", False):
        output_of("mine.py:loss")
    assert sys.path == path
    assert set(sys.modules) - modules <= {"beside"}
    with pytest.raises(tg.TinygradError), guarded("early.py:f", False):
        output_of("early.py:f")
    assert sys.path == path


def test_help_is_enough(command):
    status, out, _ = command("fuse", "--help")
    assert status == 0
    for word in ("FILE.py:function", "Exit status", "Examples", "--json", "--format"):
        assert word in out
