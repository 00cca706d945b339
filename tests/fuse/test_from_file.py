"""A user's function is run, or one sentence says why not."""

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.fuse.from_file import output_of

FILE = """
import numpy as np
import tinygrad_sm as tg
import beside

def loss():
    a = tg.Tensor([2.0, 1.0, 0.1], name="a")
    e = a.exp()
    return -np.log(e / e.sum())[beside.RIGHT]

def fails():
    raise KeyError("no such thing")

def number():
    return 3.0

def needs(x):
    return x

value = 1
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "beside.py").write_text("RIGHT = 0\n")
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("def f(:\n")
    return tmp_path


def test_a_function_is_run_and_what_it_returns_can_be_fused(path):
    result = tg.fuse(output_of(f"{path}/mine.py:loss"))
    assert [rewrite.made.op for rewrite in result.rewrites] == ["SoftmaxWithLoss"]
    np.testing.assert_allclose(result.output.item(), 0.4170300162778335)


@pytest.mark.parametrize(
    ("place", "error", "sentence"),
    [
        ("mine.py", ValueError, "must look like FILE.py:function"),
        ("mine.py:", ValueError, "must look like FILE.py:function"),
        (":loss", ValueError, "must look like FILE.py:function"),
        ("missing.py:loss", ValueError, "missing.py is not a Python file that can be read"),
        ("mine.txt:loss", ValueError, "mine.txt is not a Python file that can be read"),
        ("broken.py:f", ValueError, "broken.py failed: SyntaxError"),
        ("mine.py:nothing", ValueError, "has no function 'nothing'"),
        ("mine.py:value", ValueError, "has no function 'value'"),
        ("mine.py:fails", ValueError, "fails of .*mine.py failed: KeyError: 'no such thing'"),
        ("mine.py:needs", ValueError, "needs of .*mine.py failed: TypeError"),
        ("mine.py:number", TypeError, "must return a Tensor; it returned float"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(path, place, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        output_of(f"{path}/{place}" if not place.startswith(":") else place)
    assert isinstance(caught.value, tg.TinygradError)
    assert "\n" not in str(caught.value)
