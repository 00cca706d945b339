"""The engine that a class types: it says what the engine says, and is as short as its name."""

import importlib.util
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_sm as tg

PATH = Path(__file__).parents[2] / "examples" / "engine_in_100_lines.py"
spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


def test_it_has_at_most_a_hundred_lines_and_needs_numpy_alone():
    text = PATH.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    assert "tinygrad_sm" not in text


def both(program, *arrays):
    """The gradients of a program by each engine; `program` is given operations and leaves."""
    leaves = [small.Node(x) for x in arrays]
    found = small.gradients(program(small.apply, *leaves))
    tensors = [tg.Tensor(x) for x in arrays]
    output = program(lambda op, *operands: getattr(tg, op)(*operands), *tensors)
    return [found[leaf] for leaf in leaves], tg.grad(output, tensors)


def used_twice(do, x, w):
    return do("sum", do("mul", do("mul", x, x), w))


def made_and_used_twice(do, x, w):
    e = do("exp", x)
    return do("sum", do("mul", do("mul", e, e), w))


def one_number_for_many(do, x, w):
    return do("div", do("sum", do("exp", x)), do("sum", do("div", w, do("sum", x))))


def softmax_cross_entropy(do, x, w):
    e = do("exp", x)
    p = do("div", e, do("sum", e))
    return do("neg", do("sum", do("mul", w, do("log", p))))


PROGRAMS = [used_twice, made_and_used_twice, one_number_for_many, softmax_cross_entropy]


@pytest.mark.parametrize("program", PROGRAMS)
@given(data=st.data(), shape=st.sampled_from([(3,), (2, 4)]))
def test_its_gradients_are_the_engines(program, data, shape):
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    ours, engines = both(program, random.uniform(0.5, 2, shape), random.uniform(0.5, 2, shape))
    for mine, theirs in zip(ours, engines, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-13, atol=1e-14)


def test_every_row_of_its_table_is_tried():
    used = set()

    def noted(op, *operands):
        used.add(op)
        return small.apply(op, *operands)

    for program in PROGRAMS:
        program(noted, small.Node([1.0, 2.0]), small.Node([3.0, 4.0]))
    assert used == set(small.TABLE)


def test_it_prints_the_textbooks_gradient(capsys):
    runpy.run_path(str(PATH), run_name="__main__")
    assert capsys.readouterr().out.count("[-0.341  0.242  0.099]") == 2
