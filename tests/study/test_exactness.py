"""compare(exact=True): each component in ULP of 60 digits, and the node that lost the digits."""

import json

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.cli.entry import run
from tinygrad_sm.loss.composite import FORMS
from tinygrad_sm.study.stability.truth import Judge
from tinygrad_sm.study.stability.truth import exact as in_decimals
from tinygrad_sm.study.ulp import ulps_off

pytest.importorskip("mpmath", reason="needs the extra symbolic: mpmath")

A = [2.0, 1.0, 0.1]
RANDOM = np.random.default_rng(0).normal(size=(4, 3)) * 5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("logits", [A, [40.0, 0.0, 0.0], [0.0, 300.0, 299.0], [1e-8, 0.0, -1e-8]])
def test_the_errors_are_those_against_sixty_decimals(logits, form):
    """By decimal arithmetic and another formula, −R/S for the right class."""
    c = tg.compare(logits, 0, form=form, exact=True)
    truth = in_decimals(tuple(logits), 0).gradient
    judge = Judge("float64", 1e-3)
    for k, right in enumerate(truth):
        assert c.exact.gradient[k] == float(right)
        for grad, off in ((c.composite_grad, c.exact.composite_ulps),
                          (c.fused_grad, c.exact.fused_ulps)):  # fmt: skip
            assert off[k] == pytest.approx(judge.ulps(float(grad[k]), right), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("options", [
    {}, {"weight": [1.0, 2.0, 3.0]}, {"label_smoothing": 0.1}, {"temperature": 3.0},
    {"reduction": "none"}, {"reduction": "sum"}, {"ignore_index": 1}, {"form": "shifted"},
])  # fmt: skip
def test_every_option_and_dtype(options, dtype):
    c = tg.compare(RANDOM, [0, 2, 1, 1], dtype=dtype, exact=True, **options)
    assert c.exact.gradient.dtype == dtype
    assert c.exact.composite_ulps.shape == c.exact.fused_ulps.shape == (4, 3)
    assert c.exact.fused_ulps.max() <= 5
    assert np.isfinite(c.exact.composite_ulps).all()
    off = np.abs(c.fused_grad.astype(float) - c.exact.gradient)
    assert (off <= 5 * np.spacing(np.abs(c.exact.gradient)).astype(float)).all()


def test_soft_targets_and_another_axis():
    y = np.random.default_rng(1).random((3, 4))
    c = tg.compare(RANDOM.T, y, axis=0, exact=True)
    assert c.exact.fused_ulps.shape == (3, 4)
    assert len(c.tables()[2].rows) == 3
    assert {row[1] for row in c.tables()[3].rows} >= {"a", "e", "s", "p", "L"}


def test_a_target_of_a_wider_dtype_than_the_logits():
    a, y = [[2.0, 1.0, 0.1], [0.5, 2.0, 1.0]], np.array([[0.2, 0.3, 0.5], [0.1, 0.6, 0.3]])
    for dtype in (np.float16, np.float32):
        exact = tg.compare(a, y, dtype=dtype, temperature=0.5, exact=True).exact
        assert exact.fused_ulps.max() <= 1
        assert [x.node.op for x in exact.nodes][-1] == "neg"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("logits", [[2.0, 1.0, -np.inf, -3.0], [-np.inf, 40.0, 0.0]])
def test_a_masked_class_is_as_if_it_were_not_there(logits, form):
    """The oracle: 60 decimals of the other classes alone."""
    there = np.isfinite(logits)
    target = int(np.flatnonzero(there)[0])
    c = tg.compare(logits, target, form=form, exact=True)
    truth = in_decimals(tuple(np.compress(there, logits)), 0).gradient
    assert c.exact.gradient[there].tolist() == [float(x) for x in truth]
    assert c.exact.gradient[~there].tolist() == c.exact.fused_ulps[~there].tolist() == [0.0]
    assert c.exact.fused_ulps.max() <= 5
    assert np.isfinite([one.value for one in c.exact.nodes]).all()


@pytest.mark.parametrize("form", FORMS)
def test_rows_with_masks_and_one_that_has_nothing_else(form):
    logits = np.array([[1.0, -np.inf, 0.5], [-np.inf] * 3, [30.0, 0.0, -np.inf]])
    y = np.array([[0.25, 0.0, 0.75], [0.0] * 3, [1.0, 0.0, 0.0]])
    c = tg.compare(logits, y, form=form, exact=True)
    assert c.exact.gradient[1].tolist() == [0.0] * 3
    assert c.exact.fused_ulps.max() <= 5
    alone = tg.compare([1.0, 0.5], [0.25, 0.75], exact=True)
    assert c.exact.gradient[0, [0, 2]] * 3 == pytest.approx(alone.exact.gradient, rel=1e-15)


# Where the digits went ----------------------------------------------------------------------------

LOST = [
    (A, 0, "naive", "no digits were lost: each node rounds, and the gradient is off by 2 ULP"),
    ([40.0, 0.0, 0.0], 0, "naive", "backward, at node 1 'e' (exp): 2 contributions, each off by "
     "less than 1 ULP, cancel to a sum that is off by"),
    ([40.0, 0.0, 0.0], 0, "shifted", "backward, at node 3 'e' (exp): 2 contributions"),
    ([40.0, 0.0, 0.0], 0, "logsumexp", "backward, at node 0 'a' (leaf): 2 contributions"),
    ([1000.0, 0.0], 1, "naive", "forward, at node 1 'e' (exp): its arguments are exact, its value "
     "is no finite number"),
    ([0.1, 600.0], 0, "shifted", "no digits were lost"),
    ([0.1, 709.7, 3.3], 2, "shifted", "forward, at node 3 'e' (exp): its arguments are off by "
     "less than 1 ULP, its value is off by"),
]  # fmt: skip


@pytest.mark.parametrize(("logits", "target", "form", "said"), LOST)
def test_the_node_that_lost_the_digits(logits, target, form, said):
    c = tg.compare(logits, target, form=form, exact=True)
    assert c.exact.lost.startswith(said), c.exact.lost
    assert f"digits:  {said}" in str(c)
    assert said[:20].replace("'", "&#x27;") in c._repr_mimebundle_()["text/html"]


def test_the_nodes_are_those_of_the_graph():
    c = tg.compare([40.0, 0.0, 0.0], 0, exact=True)
    nodes = {one.node.name: one for one in c.exact.nodes if one.node.name}
    assert nodes["a"].value == 0
    assert nodes["a"].cotangent == c.exact.composite_ulps.max() > 1e15
    assert nodes["e"].value < 2
    assert nodes["p"].cotangent < 2


def test_what_was_not_asked_for_is_not_there(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mpmath", None)
    c = tg.compare(A, 0)
    assert c.exact is None
    assert len(c.tables()) == 2
    with pytest.raises(TypeError, match=r"mpmath, which is not installed: python -m pip install"):
        tg.compare(A, 0, exact=True)


@pytest.mark.parametrize(("logits", "target", "amiss"), [
    (np.zeros((20_001, 1)), np.zeros(20_001, int), "1 to 20000 logits; got 20001$"),
    ([1.0, -np.inf], 1, "finite losses; a class that is masked by -inf has a target"),
    (np.zeros((0, 3)), np.zeros(0, int), "1 to 20000 logits; got 0$"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::tinygrad_sm.errors.LossWarning")
def test_what_is_refused(logits, target, amiss):
    with pytest.raises(ValueError, match=f"exact is for {amiss}"):
        tg.compare(logits, target, reduction="sum", exact=True)


# Counting -----------------------------------------------------------------------------------------


def test_units_in_the_last_place_of_the_exact_number():
    exact = tg.precise([1, 1, 0, "1e-400", "1e400", 3]) + tg.precise([0, 2.0**-60, 0, 0, 0, 0])
    found = np.array([1 + 2**-52, 1.0, 5e-324, 0.0, np.inf, np.nan])
    expected = [1, 2**-8, 1, 0, np.inf, np.inf]
    assert ulps_off(found, exact) == pytest.approx(expected, abs=1e-60)
    assert ulps_off(np.float32([1 + 2**-23]), tg.precise([1])) == 1


# The command --------------------------------------------------------------------------------------


def test_the_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["compare", "--exact", "--logits", "40,0,0", "--target", "0"]
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert "│     0 │ -8.4967085105831777e-18 │             5.5e+15 │               1 │" in out
    assert "digits:  backward, at node 1 'e' (exp): 2 contributions" in out
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["exact"]
    assert found["digits"] == 50 + 17
    assert found["nodes"][1]["node"]["name"] == "e"
    assert "gradient" not in found
    assert run([*arguments, "--json", "--arrays"]) == 0
    assert json.loads(capsys.readouterr().out)["exact"]["gradient"][0] == -8.4967085105831777e-18
