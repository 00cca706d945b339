"""compare: what it says of inputs whose answer is known, and that it never says the opposite."""

import json
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_sm as tg
from tinygrad_sm.loss.composite import FORMS

A, Y = [2.0, 1.0, 0.1], [1, 0, 0]
P = np.exp(A) / np.exp(A).sum()
INF = np.inf
MODULE = sys.modules[
    "tinygrad_sm.study.comparing"
]  # by attribute there is the function of that name


# Figures ------------------------------------------------------------------------------------------


def test_the_example_of_the_article():
    c = tg.compare(A, Y)
    assert c.composite_loss == pytest.approx(-np.log(P[0]), rel=1e-14)
    assert c.fused_loss == pytest.approx(-np.log(P[0]), rel=1e-14)
    for grad in (c.composite_grad, c.fused_grad, c.textbook_grad):
        assert grad == pytest.approx(P - Y, rel=1e-14)
    assert c.probabilities == pytest.approx(P, rel=1e-14)
    assert c.contributions.numerator.tolist() == pytest.approx([-1, 0, 0], rel=1e-15)
    assert c.contributions.denominator == pytest.approx(P, rel=1e-14)
    assert c.contributions.add_up
    assert c.agree
    assert c.verdict.startswith("agree")
    assert c.max_abs_error == np.abs(c.composite_grad - c.fused_grad).max() < 1e-15
    assert 0 < c.max_ulp_error < 8
    assert c.breakdown is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("axis", [0, 1])
def test_contributions_are_the_terms_of_the_proof_scaled_like_the_loss(form, reduction, axis):
    rng = np.random.default_rng(0)
    logits, y = (x.swapaxes(0, axis) for x in (rng.normal(size=(2, 3, 4)), rng.random((2, 3, 4))))
    c = tg.compare(logits, y, form=form, reduction=reduction, axis=axis, temperature=2.0)
    e = np.exp(logits / 2)
    p = e / e.sum(axis=axis, keepdims=True)
    scale = 0.5 / (logits.size / logits.shape[axis] if reduction == "mean" else 1)
    assert c.contributions.numerator == pytest.approx(-y * scale, rel=1e-13)
    denominator = p * y.sum(axis=axis, keepdims=True) * scale
    assert c.contributions.denominator == pytest.approx(denominator, rel=1e-13)
    assert c.contributions.add_up
    assert c.agree
    rest = tuple(np.delete(logits.shape, axis))
    assert np.shape(c.fused_loss) == (rest if reduction == "none" else ())


def test_class_weights_smoothing_and_ignored_rows_are_in_the_target():
    c = tg.compare([A, A], [0, -100], weight=[2, 1, 1], label_smoothing=0.3, reduction="sum")
    assert c.target == pytest.approx(np.array([[2 * 0.8, 0.1, 0.1], [0, 0, 0]]))
    assert (c.fused_grad[1] == 0).all()
    assert c.agree


# Verdicts and reasons -----------------------------------------------------------------------------


def test_identical():
    c = tg.compare([0.0, 0.0], 0)
    assert (c.max_abs_error, c.max_ulp_error) == (0, 0)
    assert c.verdict == "agree: the two gradients are the same to the last bit"
    assert "every rounding came out alike" in c.reason


def test_rounding():
    c = tg.compare(A, Y)
    assert "ULP), which is rounding" in c.verdict
    assert "the composite rounds each of exp, sum, div, log and their vjps" in c.reason
    assert "cancel" not in c.reason


@pytest.mark.parametrize("form", ["naive", "shifted"])
def test_cancellation_at_margin_40(form):
    """All digits of the right class are lost in the composite, which is rounding of its terms."""
    c = tg.compare([40.0, 0.0, 0.0], 0, form=form)
    assert c.agree
    assert c.fused_grad[0] == pytest.approx(-2 * np.exp(-40.0), rel=1e-14)
    assert c.composite_grad[0] == 0
    assert c.max_ulp_error > 1e15
    assert "the terms −y and +p·Σy cancel to" in c.reason
    assert "no digit of it is left in the composite" in c.reason


def test_overflow_names_the_exp_node():
    c = tg.compare([1000.0, 0.0], 1)
    assert c.verdict == "differ: one of the gradients is not a number"
    assert "forward pass, at node 1 'e' (exp): exp overflowed: exp(1000) is above" in c.reason
    assert (c.breakdown.node.op, c.breakdown.index) == ("exp", (0,))
    assert c.fused_grad.tolist() == [1, -1]
    assert np.isnan(c.max_abs_error)
    assert c.max_ulp_error == INF
    assert tg.compare([1000.0, 0.0], 1, form="shifted").breakdown is not None  # log(0) instead
    assert tg.compare([1000.0, 0.0], 1, form="logsumexp").agree


@pytest.mark.parametrize(
    ("logits", "target", "form", "broke", "underflow"),
    [
        ([-800.0, -801.0], 0, "naive", "0 was divided by 0", "node 1 'e' (exp)"),
        ([0.0, 800.0], 0, "shifted", "log(0) is -inf", "node 3 'e' (exp)"),
        (np.array([-120.0, 0.0], np.float32), 0, "naive", "log(0) is -inf", "node 1 'e' (exp)"),
    ],
)
def test_underflow_is_named_beside_what_it_broke(logits, target, form, broke, underflow):
    c = tg.compare(logits, target, form=form)
    assert not c.agree
    assert broke in c.reason
    dtype = np.asarray(logits).dtype
    assert f"the 0 is an underflow at {underflow}: too small for {dtype}" in c.reason


def test_digits_lost_in_the_denormal_numbers():
    c = tg.compare([-700.0, -740.5], 0)  # exp(-740.5) is denormal: two digits are left
    assert not c.agree
    assert "digits were lost in the composite" in c.reason
    assert c.breakdown is None


@pytest.mark.parametrize("form", FORMS)
def test_labels_that_do_not_sum_to_1(form):
    c = tg.compare(A, [1, 1, 0], form=form)
    assert c.agree
    assert c.fused_grad.round(3).tolist() == [0.318, -0.515, 0.197]
    assert c.textbook_grad == pytest.approx(P - [1, 1, 0], rel=1e-14)
    assert "Σy is 2 and not 1, so the gradient is Σy·p − y;" in c.reason
    off = np.abs(2 * P - P).max()
    assert f"the textbook's p − y would be off by up to {off:.3g}" in c.reason
    assert "Σy is" not in tg.compare(A, [0.5, 0.25, 0.25], form=form).reason


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_each_form_in_each_dtype(form, dtype):
    c = tg.compare(A, Y, form=form, dtype=dtype)
    assert c.agree
    assert c.form == form
    assert c.composite_grad.dtype == c.fused_grad.dtype == c.logits.dtype == dtype
    assert c.contributions.numerator.dtype == dtype
    assert c.composite_grad.astype(float) == pytest.approx(P - Y, rel=3e-3)


@pytest.mark.parametrize("form", FORMS)
def test_masks(form):
    c = tg.compare([[2.0, 1.0, -INF], [-INF, 0.0, -INF]], [0, 1], form=form)
    assert c.agree
    assert c.contributions.add_up
    assert c.fused_grad[1].tolist() == [0, 0, 0]


def test_a_masked_right_class():
    with pytest.warns(tg.LossWarning):
        c = tg.compare([2.0, -INF], 1)
    assert not c.agree
    assert "log(0) is -inf" in c.reason
    assert "underflow" not in c.reason  # a mask is a 0 on purpose
    with pytest.warns(tg.LossWarning):
        c = tg.compare([2.0, -INF], 1, form="logsumexp")
    assert c.agree
    assert c.composite_loss == c.fused_loss == INF


def test_no_rows():
    for reduction in ("sum", "none"):
        c = tg.compare(np.zeros((0, 3)), np.zeros(0, int), reduction=reduction)
        assert c.agree
        assert "0×3" in str(c)
    assert "no rows" in str(c)


def test_numpys_warnings_are_not_the_users():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tg.compare([1000.0, -1000.0], 1)


def test_a_tensor_that_is_given_stays_as_it_was():
    a = tg.Tensor(A)
    y = tg.Tensor([1.0, 0.0, 0.0])
    assert tg.compare(a, y).agree
    assert a.grad is y.grad is None


# Notes --------------------------------------------------------------------------------------------

SOFT = [[0.7, 0.2, 0.1], [0, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("logits", "target", "options", "note"),
    [
        (P, 0, {}, "the logits look like probabilities, each row sums to 1: then softmax is"),
        (np.float32(SOFT), [0, 1], {}, "the logits look like probabilities"),
        (P, Y, {}, "the logits look like probabilities"),
        (np.transpose(SOFT), [0, 1], {"axis": 0}, "the logits look like probabilities"),
        (Y, A, {}, "logits and target look swapped"),
        (SOFT, [[3.0, -1.0, 0.5], A], {}, "logits and target look swapped"),
        ([A, A], [[0.5, 0.7, -0.2], Y], {}, "has negative elements, e.g. -0.2 at (0, 2)"),
        ([A, A], [Y, [1, 1, 0]], {}, "row 1 of the target is no distribution: it sums to 2"),
        (A, [0.5, 0.25, 0.2], {}, "the target is no distribution: it sums to 0.95"),
    ],
)
def test_what_is_likely_a_mistake(logits, target, options, note):
    c = tg.compare(logits, target, **options)
    assert sum(note in found for found in c.notes) == 1, c.notes
    assert c.to_dict()["notes"] == list(c.notes)
    assert f"note:    {c.notes[-1]}" in str(c)
    assert "<p>" + c.notes[-1][:20] in c._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(
    ("logits", "target", "options"),
    [
        (A, Y, {}),
        ([A, A], [0, -100], {}),
        ([A, A], SOFT, {"weight": [1, 2, 3], "label_smoothing": 0.1}),
        ([A, A], np.float16(SOFT), {}),
        ([A, A], np.round(SOFT, 3), {"dtype": "float16"}),
        ([A, A], [Y, [0, 0, 0]], {}),  # a row that is left out
        (np.zeros((2, 3)), [0, 1], {}),
        (np.ones((2, 1)), [0, 0], {}),  # one class
        (np.random.default_rng(0).random((64, 10)), np.zeros(64, int), {}),
        (np.random.default_rng(0).normal(size=(64, 1000)), np.zeros(64, int), {}),
        (np.log(P), 0, {}),  # normalised already, and rightly so
        (np.zeros((0, 3)), np.zeros((0, 3)), {"reduction": "sum"}),
    ],
)
def test_no_note_on_what_is_usual(logits, target, options):
    assert tg.compare(logits, target, **options).notes == ()


# Cost ---------------------------------------------------------------------------------------------


def test_the_bytes_that_each_side_keeps():
    c = tg.compare(np.random.default_rng(0).normal(size=(64, 100)), np.zeros(64, int))
    assert c.fused_cost.bytes == 64 * 100 * 8 + 8  # the gradient and the loss
    assert c.composite_cost.bytes >= 3 * 64 * 100 * 8  # e, p and log p
    assert f"kept for backward, fused             {c.fused_cost.bytes:,} B" in str(c)


def test_time_is_measured_only_when_asked_for():
    c = tg.compare(A, Y)
    assert (c.composite_cost.seconds, c.fused_cost.seconds, c.fused_cost.runs) == (None, None, 0)
    assert "forward and backward" not in str(c)
    a = tg.Tensor(A)
    c = tg.compare(a, Y, seconds=1e-9, reduction="none")
    assert c.composite_cost.runs == c.fused_cost.runs == 1
    assert min(c.composite_cost.seconds, c.fused_cost.seconds) > 0
    assert "forward and backward, composite" in str(c)
    assert a.grad is None


# Never the opposite -------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.data())
def test_no_difference_is_reported_where_there_is_only_rounding(seed, data):
    rng = np.random.default_rng(seed)
    shape = data.draw(st.sampled_from([(3,), (1,), (4, 3), (2, 7), (3, 2, 5), (2, 60)]))
    axis = data.draw(st.integers(0, len(shape) - 1))
    dtype = data.draw(st.sampled_from(["float64", "float32", "float16"]))
    spread = data.draw(st.sampled_from([0.1, 1.0, 5.0, 20.0]))
    logits = np.clip(rng.normal(size=shape) * spread, -38, 38)
    rest = shape[:axis] + shape[axis + 1 :]
    index = data.draw(st.booleans())
    target = rng.integers(0, shape[axis], rest) if index else rng.random(shape)
    c = tg.compare(
        logits, target, axis=axis, dtype=dtype,
        form=data.draw(st.sampled_from(FORMS)),
        reduction=data.draw(st.sampled_from(["mean", "sum", "none"])),
        label_smoothing=data.draw(st.sampled_from([0.0, 0.1])),
        temperature=data.draw(st.sampled_from([1.0, 2.0, 4.0])),
        weight=data.draw(st.sampled_from([None, 0.1 + rng.random(shape[axis])])),
    )  # fmt: skip
    assert c.agree, str(c)
    assert c.contributions.add_up
    assert c.breakdown is None


def _off(vjp, factor):
    return lambda g, *args, **params: vjp(g, *args, **params) * factor


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("op", "argument"), [("exp", 0), ("sum", 0), ("div", 0), ("div", 1), ("log", 0), ("mul", 1)]
)
def test_a_wrong_vjp_in_the_composite_is_a_difference(monkeypatch, op, argument, dtype):
    primitive = getattr(tg, op)
    vjps = list(primitive._vjps)
    vjps[argument] = _off(vjps[argument], 1.001)
    monkeypatch.setattr(primitive, "_vjps", tuple(vjps))
    c = tg.compare([A], [Y], dtype=dtype)
    assert not c.agree
    assert "more than rounding explains" in c.verdict
    assert c.max_abs_error > 1e-5


def test_a_forgotten_edge_is_a_difference(monkeypatch):
    """e = exp(a) has two consumers; without the denominator the gradient is −y alone."""
    monkeypatch.setattr(tg.sum, "_vjps", (_off(tg.sum._vjps[0], 0.0),))
    assert not tg.compare(A, 0).agree


def test_a_wrong_fused_gradient_is_a_difference(monkeypatch):
    fused = tg.cross_entropy

    def ignores_the_row_sum(a, y, **options):
        return fused(a, np.asarray(y) / np.sum(y), **options)

    monkeypatch.setattr(MODULE, "cross_entropy", ignores_the_row_sum)
    assert not tg.compare(A, [1.0, 1.0, 0.0]).agree
    assert tg.compare(A, [1.0, 0.0, 0.0]).agree


def test_a_wrong_fused_loss_is_a_difference_though_the_gradients_agree(monkeypatch):
    fused = tg.cross_entropy
    monkeypatch.setattr(MODULE, "cross_entropy", lambda *a, **k: fused(*a, **k) + 1e-6)
    c = tg.compare(A, Y)
    assert c.verdict.startswith("differ: the losses, by more than rounding explains")
    assert c.reason.startswith("the losses differ")


# How it shows itself ------------------------------------------------------------------------------


def test_str_holds_the_figures():
    c = tg.compare(A, Y)
    text = str(c)
    assert "3 logits (float64), naive composite against the fused node, reduction 'mean'" in text
    for value in (*c.composite_grad, *c.fused_grad, c.composite_loss, c.fused_loss):
        assert f"{value:.17g}" in text
    for word in ("0.659001", "numerator −y", "denominator +p·Σy", f"verdict: {c.verdict}",
                 f"reason:  {c.reason}", "yes"):  # fmt: skip
        assert word in text
    assert repr(c) == f"<Comparison: {c.verdict}>"
    assert "no digit" in str(tg.compare([40.0, 0.0], 0))


def test_the_row_that_differs_most_is_shown():
    logits = np.zeros((5, 3))
    logits[3, 0] = 20.0
    c = tg.compare(logits, [0, 0, 0, 0, 0])
    assert "row 3 of 5, where the gradients differ most" in str(c)
    assert c.tables()[0][1][0][1] == "20"
    turned = tg.compare(logits.T, [0, 0, 0, 0, 0], axis=0)
    assert turned.caption() == c.caption()
    assert turned.tables() == c.tables()
    assert "losses" not in str(c)


def test_a_broken_row_is_the_one_shown():
    c = tg.compare([[0.0, 0.0], [1000.0, 0.0]], [0, 1])
    assert "row 1 of 2" in c.caption()
    assert "nan" in str(c)


@pytest.mark.parametrize(
    "c",
    [
        pytest.param(lambda: tg.compare(A, Y), id="plain"),
        pytest.param(lambda: tg.compare([1000.0, 0.0], 1), id="overflow"),
        pytest.param(lambda: tg.compare([[A], [A]], [[0], [1]], reduction="none"), id="none"),
        pytest.param(lambda: tg.compare([2.0, -INF], 0), id="mask"),
        pytest.param(lambda: tg.compare(A, Y, dtype="float16"), id="float16"),
        pytest.param(
            lambda: tg.compare(np.zeros((0, 3)), np.zeros(0, int), reduction="sum"), id="empty"
        ),
    ],
)
def test_to_dict_is_json(c):
    c = c()
    text = json.dumps(c.to_dict(), allow_nan=False)
    back = json.loads(text)
    assert back["verdict"] == c.verdict
    assert back["agree"] is c.agree
    assert back["shape"] == list(c.logits.shape)
    found = np.array(back["fused_grad"], dtype=float).reshape(c.logits.shape)  # "NaN" too
    assert np.array_equal(found.astype(c.logits.dtype), c.fused_grad, equal_nan=True)
    assert np.array_equal(
        np.array(back["logits"], dtype=float).reshape(c.logits.shape), c.logits.astype(float)
    )
    assert (back["breakdown"] is None) == (c.breakdown is None)


def test_in_a_notebook():
    c = tg.compare(A, Y)
    bundle = c._repr_mimebundle_()
    assert bundle["text/plain"] == str(c)
    html = bundle["text/html"]
    assert html.count("<table>") == html.count("</table>") == 2
    assert f"{c.fused_grad[0]:.17g}" in html
    assert "<p>agree: " in html


def test_large_inputs_are_cut_to_what_fits():
    rng = np.random.default_rng(0)
    c = tg.compare(rng.normal(size=(128, 1000)), rng.integers(0, 1000, 128))
    text = str(c)
    assert c.agree
    assert len(text.splitlines()) < 50
    assert max(map(len, text.splitlines())) < 400
    assert "row" in c.caption()
    assert "12 of 1000 classes, those with the largest gradients" in c.caption()
    shown = [int(row[0]) for row in c.tables()[1][1]]
    assert shown == sorted(set(shown))
    row = int(c.caption().split()[1])
    assert int(c.target[row].argmax()) in shown
    largest = np.argsort(-abs(c.fused_grad[row]))
    assert set(largest[:11].tolist()) <= set(shown)  # and the one that differs most
    assert "of 1000" in c._repr_mimebundle_()["text/html"]


def test_losses_by_row_are_summed_up():
    text = str(tg.compare([A, [0.0, 0.0, 9.0]], [0, 0], reduction="none"))
    assert "2 rows from 0.41703 to 9.00025" in text


@pytest.mark.parametrize("dtype", [int, "complex", "f99"])
def test_dtypes_that_are_not_floats(dtype):
    with pytest.raises(TypeError, match="dtype must be a floating-point type"):
        tg.compare(A, Y, dtype=dtype)
