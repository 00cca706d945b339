"""Extreme weights, targets and temperatures: the finite answer, or one clear sentence."""

import numpy as np
import pytest

import tinygrad_sm as tg

A = np.array([[2.0, 1.0], [0.5, -1.0], [0.0, 3.0]])
T = np.array([0, 1, 1])
FORMS = [tg.cross_entropy, lambda *a, **o: tg.composite_cross_entropy(*a, form="logsumexp", **o)]


def loss_and_gradient(form, target, **options):
    a = tg.Tensor(A)
    loss = form(a, target, **options)
    return loss.item(), tg.grad(loss, a)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-200, 1e200, 1e308])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignored", [False, True])
def test_the_size_of_the_weights_cancels_in_a_mean(form, size, smoothing, ignored):
    target = np.where(np.arange(3) == 1, -100, T) if ignored else T
    options = {"label_smoothing": smoothing}
    expected = loss_and_gradient(form, target, weight=[1.0, 1.0], **options)
    loss, gradient = loss_and_gradient(form, target, weight=[size, size], **options)
    assert loss == pytest.approx(expected[0], rel=1e-14)
    assert gradient == pytest.approx(expected[1], rel=1e-13, abs=1e-16)


@pytest.mark.parametrize("weight", [[1e-300, 1e308], [5e-324, 1.0], [1e308, 1e-10]])
def test_only_weights_of_rows_that_are_there_count(weight):
    loss, gradient = loss_and_gradient(tg.cross_entropy, [0, 0, 0], weight=weight)
    expected = loss_and_gradient(tg.cross_entropy, [0, 0, 0])
    assert loss == pytest.approx(expected[0], rel=1e-14)
    assert gradient == pytest.approx(expected[1], rel=1e-13)


def test_weights_far_apart():
    loss, gradient = loss_and_gradient(tg.cross_entropy, T, weight=[1e308, 1e300])
    p = np.exp(A) / np.exp(A).sum(axis=1, keepdims=True)
    share = np.array([1.0, 1e-8, 1e-8]) / (1 + 2e-8)
    assert loss == pytest.approx(-(share * np.log(p[np.arange(3), T])).sum(), rel=1e-14)
    assert gradient == pytest.approx(share[:, None] * (p - np.eye(2)[T]), rel=1e-13)


def test_a_smoothed_weight_that_overflows_beside_the_others():
    with pytest.raises(ValueError, match="weight must not be so large that the smoothed target"):
        tg.cross_entropy(A, [0, 0, 0], weight=[1e-300, 1e308], label_smoothing=0.1)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_large_weight_in_a_sum(reduction):
    a = tg.Tensor(A)
    loss = tg.cross_entropy(a, T, weight=[1e307, 1e307], reduction=reduction)
    gradient = tg.grad(loss, a, np.ones(loss.shape))
    p = np.exp(A) / np.exp(A).sum(axis=1, keepdims=True)
    assert gradient / 1e307 == pytest.approx(p - np.eye(2)[T], rel=1e-14)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_target_whose_sum_overflows(form, dtype):
    big = np.full((3, 2), np.finfo(dtype).max * 0.4, dtype)
    with pytest.raises(ValueError, match="target, times weight, must have row sums of at most"):
        form(A.astype(dtype), big)
    with pytest.raises(ValueError, match="target, times weight, must have row sums of at most"):
        form(A.astype(dtype), np.ones((3, 2)), weight=[1e308, 1e308])
    many = np.full((3000, 2), np.finfo(dtype).max * 0.01, dtype)  # only all of them overflow
    assert np.isfinite(form(np.zeros((3000, 2), dtype), many, reduction="none")).all()


def test_integers_of_a_target_beside_half_floats():
    a = np.array([[2.0, 1.0]], np.float16)
    assert tg.cross_entropy(a, np.array([[100_000, 0]])) == pytest.approx(31326, rel=1e-3)


@pytest.mark.parametrize("temperature", [1e-301, 5e-324, 1e301])
def test_temperatures_beyond_reason(temperature):
    with pytest.raises(ValueError, match="temperature must lie between 1e-300 and 1e300; got"):
        tg.cross_entropy(A, T, temperature=temperature)


@pytest.mark.parametrize("temperature", [1e-300, 1e-100, 1e100, 1e300])
def test_temperatures_within_it(temperature):
    loss, gradient = loss_and_gradient(tg.cross_entropy, T, temperature=temperature)
    if temperature > 1:
        assert loss == pytest.approx(np.log(2))
        assert gradient * temperature == pytest.approx((0.5 - np.eye(2)[T]) / 3)
    else:
        assert loss == pytest.approx(0.5 / temperature)  # the second row: (1.5)/T over three rows
        expected = np.array([[0, 0], [1, -1], [0, 0]]) / 3
        assert gradient * temperature == pytest.approx(expected)


def test_a_gradient_over_the_temperature_that_overflows():
    a = tg.Tensor(A)
    loss = tg.cross_entropy(a, T, temperature=1e-300)
    with pytest.raises(ValueError, match="temperature must not be so small that the gradient"):
        tg.grad(loss, a, 1e20)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize(
    ("dtype", "size"), [("float16", 6e4), ("float32", 3e38), ("float64", 1e308)]
)
def test_a_loss_beyond_the_largest_number_says_so_once(dtype, size, reduction):
    a = tg.Tensor(5 * A, dtype=dtype)
    with pytest.warns(tg.LossWarning, match="or its value is beyond the largest number") as caught:
        loss = tg.cross_entropy(a, [1, 0, 0], weight=[size, size], reduction=reduction)
    assert np.isinf(loss.numpy()).any()
    assert len(caught) == 1
