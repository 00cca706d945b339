"""Problems for a class: the engine's answers are right, and each seed is as hard as another."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.study.worksheets import KINDS, problem


def softmax(a):
    e = np.exp(a)
    return e / e.sum(axis=-1, keepdims=True)


PLAIN = SimpleNamespace(
    Tensor=lambda x, **_: np.array(x, float),
    exp=np.exp, log=np.log, sum=np.sum, mean=np.mean, softmax=softmax,
)  # fmt: skip


def loss_moved(program, name, via, by):
    """L, if the value `name` is moved: for its reader `via`, or for all. And the value's shape."""
    names = {"tg": PLAIN, "by": by}
    for line in program.splitlines():
        target, expression = re.sub(r'\.named\("\w+"\)', "", line).split(" = ", 1)
        if target == via:
            expression = re.sub(rf"\b{name}\b", f"({name} + by)", expression)
        exec(f"{target} = {expression}", names)
        if target == name and via is None:
            names[name] = names[name] + by
    return float(names["L"]), np.shape(names[name])


def numeric(program, name, via, h=1e-5):
    """∂L/∂name by central differences, with NumPy alone."""
    _, shape = loss_moved(program, name, via, 0.0)
    steps = h * np.eye(int(np.prod(shape))).reshape(-1, *shape)
    up, down = ([loss_moved(program, name, via, s * d)[0] for d in steps] for s in (1, -1))
    return (np.array(up) - np.array(down)).reshape(shape) / (2 * h)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_what_differences_say(kind, seed):
    found = problem(kind, seed)
    for blank in found.blanks:
        expected = numeric(found.program, blank.name, blank.via)
        np.testing.assert_allclose(blank.value, expected, rtol=1e-6, atol=1e-7)


def test_softmax_ends_in_p_minus_y_and_a_mean_in_a_share_of_it():
    for kind, share in (("softmax", 1), ("mean", 2)):
        found = problem(kind, 3)
        nodes = {node.name: node.value for node in found.trace.graph.nodes}
        answer = found.blanks[-1].value
        np.testing.assert_allclose(answer, (nodes["p"] - nodes["y"]) / share, atol=1e-15)


def test_a_seed_gives_the_same_sheet_and_another_seed_another():
    sheets = ["\n".join(problem(kind, seed).program for kind in KINDS) for seed in range(200)]
    again = "\n".join(problem(kind, 7).program for kind in KINDS)
    assert again == sheets[7]
    assert len(set(sheets)) == 200


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_are_alike_in_difficulty(kind):
    found = [problem(kind, seed) for seed in range(50)]
    asked = {tuple(blank.variable for blank in one.blanks) for one in found}
    assert len(asked) == 1
    for one in found:
        numbers = [node.value for node in one.trace.graph.nodes] + [b.value for b in one.blanks]
        assert max(np.abs(x).max() for x in numbers) <= 200
        assert all(np.any(blank.value) for blank in one.blanks)
    if kind in ("chain", "diamond"):
        assert all(float(b.value).is_integer() for one in found for b in one.blanks)


def test_typical_wrong_answers_are_the_mistakes():
    found = problem("softmax", 1)
    p = next(node.value for node in found.trace.graph.nodes if node.name == "p")
    wrong = {mistake.name: answer for mistake, answer in found.typical}
    assert list(wrong) == ["diagonal", "overwritten"]
    np.testing.assert_allclose(wrong["overwritten"], p)
    assert np.count_nonzero(wrong["diagonal"]) == 1
    typical = {m.name for m, _ in problem("mean", 1).typical}
    assert typical == {"diagonal", "mean-forgotten", "mean-twice"}
    assert [m.name for m, _ in problem("diamond", 1).typical] == ["overwritten"]


def test_what_cannot_be_is_one_sentence():
    with pytest.raises(ValueError, match=r"kind must be one of chain, .*; got 'matrix'"):
        problem("matrix", 1)
    with pytest.raises(ValueError, match="seed must not be negative; got -1"):
        problem("chain", -1)
    with pytest.raises(TypeError, match="seed must be an integer; got float") as error:
        problem("chain", 1.5)
    assert isinstance(error.value, tg.TinygradError)
