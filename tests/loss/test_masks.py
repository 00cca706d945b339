"""A logit −inf masks its class; +inf and NaN are errors that name the row."""

import warnings

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import EVERY_FORM, composite, run

import tinygrad_sm as tg
from tinygrad_sm.loss.composite import FORMS

INF = np.inf


@pytest.mark.parametrize("loss_function", EVERY_FORM)
@pytest.mark.parametrize("target", [[0], [1], [[1, 0, 0]], [[0.5, 0.25, 0]], [[0, 0, 0]], [-100]])
def test_a_masked_class_is_as_if_it_were_not_there(loss_function, target):
    logits, target = np.array([[2.0, 1.0, -INF]]), np.array(target)
    loss, grad = run(loss_function, logits, target, reduction="sum")
    smaller = target[:, :2] if target.ndim == 2 else target
    expected, expected_grad = run(loss_function, logits[:, :2], smaller, reduction="sum")
    assert loss == expected
    assert grad[:, :2] == pytest.approx(expected_grad, rel=1e-15)
    assert grad[0, 2] == 0


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMS), st.data())
def test_any_mask_that_leaves_the_right_class(seed, form, data):
    """Composite, fused and the oracle on the classes that are left, with all options."""
    rng = np.random.default_rng(seed)
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 6)))
    logits = rng.normal(size=shape) * 5
    index = rng.integers(0, shape[1], shape[0])
    logits[rng.random(shape) < 0.4] = -INF
    logits[np.arange(shape[0]), index] = rng.normal(size=shape[0])
    by_class = data.draw(st.booleans())
    target = index if by_class else rng.random(shape) * np.isfinite(logits)
    options = {
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])),
        "temperature": data.draw(st.sampled_from([1.0, 3.0])),
        "weight": data.draw(st.sampled_from([None, 0.1 + rng.random(shape[1])])),
    }
    cotangent = rng.normal(size=shape[:1] if options["reduction"] == "none" else ())
    exact, exact_grad, size, grad_size = oracle.loss_and_gradient(
        logits, target, cotangent=cotangent, **options
    )
    for function in (tg.cross_entropy, composite(form)):
        loss, grad = run(function, logits, target, cotangent, **options)
        oracle.check_loss(loss, exact, size)
        oracle.check_gradient(grad, exact_grad, grad_size)
        assert (grad[np.isneginf(logits)] == 0).all()


@pytest.mark.parametrize("target", [[1], [[0.25, 0.5, 0.25]]])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_masked_right_class_warns_and_has_an_infinite_loss_and_a_finite_gradient(
    target, reduction
):
    a = tg.Tensor([[2.0, -INF, 1.0]])
    with pytest.warns(tg.LossWarning, match="right class is masked") as caught:
        loss = tg.cross_entropy(a, target, reduction=reduction)
    assert [w.filename for w in caught] == [__file__]  # the user's line, not one of ours
    loss.backward(np.ones(loss.shape))
    assert (loss.numpy() == INF).all()
    p = np.exp([2.0, -INF, 1.0]) / np.exp([2.0, 1.0]).sum()
    y = [[0, 1, 0]] if target == [1] else target
    assert a.grad == pytest.approx(p - y, rel=1e-14)


def test_the_layer_and_linear_warn_at_the_users_line_too():
    for call in (
        lambda: tg.SoftmaxWithLoss().forward([-INF, 1.0], 0),
        lambda: tg.linear_cross_entropy([[1.0]], [[1.0], [1.0]], [0], bias=[-INF, 0.0]),
    ):
        with pytest.warns(tg.LossWarning) as caught:
            assert call() == INF
        assert [w.filename for w in caught] == [__file__]


def test_smoothing_makes_every_class_a_right_one():
    with pytest.warns(tg.LossWarning):
        assert tg.cross_entropy([[2.0, -INF]], [0], label_smoothing=0.1) == INF


def test_the_composites_at_a_masked_right_class():
    """logsumexp has the fused node's values; the other two break at log(0), and say so."""
    logits = tg.Tensor([[2.0, -INF, 1.0]])
    loss, grad = run(composite("logsumexp"), logits, [1])
    with pytest.warns(tg.LossWarning):
        fused_loss, fused_grad = run(tg.cross_entropy, logits, [1])
    assert loss == fused_loss == INF
    assert grad == pytest.approx(fused_grad, rel=1e-14)
    for form in ("naive", "shifted"):
        with np.errstate(all="ignore"):
            loss = tg.composite_cross_entropy(logits, [1], form=form)
            trace = loss.backward(trace=True)
        assert loss.item() == INF
        assert "log(0)" in str(tg.first_breakdown(trace))


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_a_row_without_any_class_left_does_no_harm_if_it_does_not_count(loss_function):
    """Padding: the row is all −inf, and ignored, or has no target."""
    logits = np.array([[2.0, 1.0], [-INF, -INF]])
    for target in (np.array([0, -100]), np.array([[1.0, 0.0], [0.0, 0.0]])):
        loss, grad = run(loss_function, logits, target, reduction="sum")
        assert loss == pytest.approx(np.log1p(np.exp(-1)), rel=1e-14)
        assert np.isfinite(grad).all()
        assert (grad[1] == 0).all()


def test_all_masked_and_a_target_is_an_infinite_loss():
    for target in ([1], [[0.0, 1.0]]):
        a = tg.Tensor([[-INF, -INF]])
        with pytest.warns(tg.LossWarning):
            loss = tg.cross_entropy(a, target)
        loss.backward()
        assert loss.item() == INF
        assert a.grad.tolist() == [[0, -1]]
        composite = tg.composite_cross_entropy(a, target, form="logsumexp")
        assert composite.item() == INF
        assert tg.grad(composite, a).tolist() == [[0, -1]]


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_masks_cost_no_warning(loss_function):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(loss_function, [[2.0, -INF], [-INF, 0.0]], [0, 1], label_smoothing=0.0)


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_the_cotangent_of_a_target_at_a_masked_class_without_any_is_0(loss_function):
    """−log p is infinite there; 0 lets a teacher with the same mask be differentiated."""
    y = tg.Tensor([[0.75, 0.25, 0.0]])
    grad = tg.grad(loss_function(np.array([[2.0, 1.0, -INF]]), y), y)
    lse = np.log(np.exp([2.0, 1.0]).sum())
    assert grad == pytest.approx(np.array([[lse - 2, lse - 1, 0]]), rel=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_no_where_without_a_mask_and_one_with_it(form):
    a, masked = tg.Tensor([[2.0, 1.0]]), tg.Tensor([[2.0, -INF]])
    operations = [n.op for n in tg.graph(tg.composite_cross_entropy(a, [0], form=form)).nodes]
    assert "where" not in operations
    operations = [n.op for n in tg.graph(tg.composite_cross_entropy(masked, [0], form=form)).nodes]
    assert operations.count("where") == 1


def test_a_mask_does_not_hide_that_the_naive_form_breaks():
    a = tg.Tensor([[1000.0, 0.0, -INF]])
    with np.errstate(all="ignore"):
        trace = tg.composite_cross_entropy(a, [0]).backward(trace=True)
    assert tg.first_breakdown(trace).cause.startswith("exp overflowed")


@pytest.mark.parametrize("loss_function", EVERY_FORM)
@pytest.mark.parametrize("wrong", [np.nan, INF])
def test_nan_and_inf_name_the_row(loss_function, wrong):
    for shape, at, axis, where in (
        ((3,), (1,), 0, "they hold"),
        ((3, 2), (1, 0), -1, "row 1 of the logits holds"),
        ((3, 2), (1, 0), 0, "row 0 of the logits holds"),
        ((2, 3, 4), (1, 2, 0), -1, r"row \(1, 2\) of the logits holds"),
        ((2, 3, 4), (1, 2, 3), 1, r"row \(1, 3\) of the logits holds"),
        ((400, 300), (399, 7), -1, "row 399 of the logits holds"),
        ((1, 600_000), (0, 599_999), -1, "row 0 of the logits holds"),
    ):
        logits = np.zeros(shape)
        logits[at] = wrong
        rest = np.delete(shape, axis)
        for target in (np.zeros(rest, int), np.zeros(shape)):
            with pytest.raises(tg.TinygradError, match=where + r" NaN or \+inf") as caught:
                loss_function(tg.Tensor(logits), target, axis=axis)
            assert isinstance(caught.value, ValueError)


def test_linear_counts_rows_over_the_chunks():
    x = np.ones((7, 2))
    x[5, 0] = np.nan
    with pytest.raises(ValueError, match="row 5 of the logits holds NaN"):
        tg.linear_cross_entropy(x, np.ones((3, 2)), np.zeros(7, int), chunk_rows=2)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_loss_beyond_float32_is_inf_and_said_once(reduction):
    a = tg.Tensor(np.array([[3e38, -3e38], [3e38, -3e38]], np.float32))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = tg.cross_entropy(a, [1, 1], reduction=reduction)
    assert [w.category for w in caught] == [tg.LossWarning]
    assert np.isinf(loss.numpy()).any()
    loss.backward(np.ones(loss.shape))
    assert np.isfinite(a.grad).all()


def test_large_targets_and_weights_are_no_cause_for_a_warning():
    with np.errstate(all="raise"):
        tg.cross_entropy(np.zeros((1, 2), "f2"), np.array([[300, 300]], "f2"))
        tg.cross_entropy(np.zeros((1, 2), "f4"), np.array([[1e25, 0.0]], "f4"))
        tg.cross_entropy(np.zeros((1, 2)), [1], weight=[1e200, 1.0])
