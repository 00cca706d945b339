"""Whatever multiplies the loss afterwards: the gradient is the exact product, rounded once."""

import tracemalloc

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_sm as tg

PROMISED_ULP = 5.0


def exact_gradient(a, t):
    """Softmax minus one-hot in 60 digits, with R/S at the right class."""
    with mpmath.workdps(60):
        e = [mpmath.exp(mpmath.mpf(float(x))) for x in a]
        total = mpmath.fsum(e)
        others = mpmath.fsum(x for k, x in enumerate(e) if k != t)
        return [-others / total if k == t else x / total for k, x in enumerate(e)]


def worst_ulp(found, rows, targets, g, divisor=1):
    """The distance to g·(p − y)/divisor in units of the last place of the result's dtype."""
    limits, worst = np.finfo(found.dtype), 0.0
    factors = np.broadcast_to(np.asarray(g, np.float64), len(rows))
    with mpmath.workdps(60):
        for row, t, factor, got in zip(rows, targets, factors, found, strict=True):
            for exact, x in zip(exact_gradient(row, t), got, strict=True):
                want = exact * mpmath.mpf(float(factor)) / divisor
                if abs(want) > float(limits.max):
                    continue
                size = max(abs(want), mpmath.mpf(float(limits.tiny)))
                unit = mpmath.ldexp(float(limits.eps), int(mpmath.frexp(size)[1]) - 1)
                worst = max(worst, float(abs(mpmath.mpf(float(x)) - want) / unit))
    return worst


DTYPES = st.sampled_from([np.float16, np.float32, np.float64])


@st.composite
def problems(draw):
    """Logits in some dtype, classes, and a cotangent of any size that the dtype has."""
    dtype = draw(DTYPES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, classes = draw(st.sampled_from([(1, 2), (1, 40), (3, 5), (7, 130)]))
    a = draw(st.sampled_from([1.0, 12.0, 300.0])) * rng.standard_normal((rows, classes))
    limits = np.finfo(dtype)
    exponent = draw(st.integers(int(limits.minexp) - int(limits.nmant), int(limits.maxexp) - 1))
    g = draw(st.sampled_from([-1.0, 1.0])) * dtype(draw(st.sampled_from([1.0, 1.7, 1.999])))
    return a.astype(dtype), rng.integers(0, classes, rows), np.ldexp(g, exponent).astype(dtype)


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from(["mean", "sum"]))
def test_any_cotangent_of_a_single_loss(problem, reduction):
    a, t, g = problem
    leaf = tg.Tensor(a)
    loss = tg.cross_entropy(leaf, t, reduction=reduction)
    first, second = tg.grad(loss, leaf, g), tg.grad(loss, leaf, g)
    assert first.dtype == a.dtype
    divisor = len(a) if reduction == "mean" else 1
    assert worst_ulp(first, a, t, g, divisor) <= PROMISED_ULP
    assert np.array_equal(first, second, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(problems(), st.booleans())
def test_any_cotangents_of_the_rows(problem, mixed):
    a, t, g = problem
    gs = np.full(len(a), g)
    if mixed:
        gs[::2] = [1.0, 0.5, 0.0, -2.0][: len(gs[::2])]
    leaf = tg.Tensor(a)
    loss = tg.cross_entropy(leaf, t, reduction="none")
    first, second = tg.grad(loss, leaf, gs), tg.grad(loss, leaf, gs)
    assert worst_ulp(first, a, t, gs) <= PROMISED_ULP
    assert np.array_equal(first, second, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_any_dout_of_the_layer(problem):
    a, t, g = problem
    layer = tg.SoftmaxWithLoss()
    layer.forward(a, t)
    first = layer.backward(g)
    assert first.dtype == a.dtype
    assert worst_ulp(first, a, t, g, len(a)) <= PROMISED_ULP
    assert np.array_equal(layer.backward(g), first, equal_nan=True)


def test_a_dout_beyond_the_range_of_half_floats():
    a = np.array([[12.0, 1.0, 0.1]], np.float16)
    layer = tg.SoftmaxWithLoss()
    assert layer.forward(a, [0]).dtype == layer.y.dtype == np.float16
    found = layer.backward(65536 * 2)
    assert found.dtype == np.float16
    assert worst_ulp(found, a, [0], 65536 * 2) <= 1.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("backwards", [1, 2])
def test_loss_scaling_saves_what_it_is_there_to_save(dtype, backwards):
    margin = 2.0 - np.log(np.finfo(dtype).smallest_subnormal)  # the gradient itself underflows
    a = np.array([[margin, 0.0]], dtype)
    leaf = tg.Tensor(a)
    loss = tg.cross_entropy(leaf, [0]) * 1024
    for _ in range(backwards):
        leaf.zero_grad()
        loss.backward()
    assert worst_ulp(leaf.grad, a, [0], 1024.0) <= PROMISED_ULP
    assert leaf.grad[0, 1] > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("g", [1.0, 0.75, 2.0**10, 60000.0])
def test_linear_and_loss_together(dtype, reduction, g):
    """With x and W the identity and one row, the gradient of the bias is that of the logits."""
    margin = 2.0 - np.log(np.finfo(dtype).smallest_subnormal)
    x, w = tg.Tensor(np.ones((1, 1), dtype)), tg.Tensor(np.array([[margin], [0], [-2]], dtype))
    b = tg.Tensor(np.zeros(3, dtype))
    loss = tg.linear_cross_entropy(x, w, [0], bias=b, reduction=reduction)
    seed = np.full(loss.shape, g, dtype)
    first, again = tg.grad(loss, [b, w], seed), tg.grad(loss, [b, w], seed)
    for each, same in zip(first, again, strict=True):
        assert np.array_equal(each, same)
        assert worst_ulp(each.reshape(1, 3), w.numpy().T, [0], seed.item()) <= PROMISED_ULP


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("target", [[0], [[1.0, 0.0, 0.0]]])
def test_an_infinite_cotangent_is_no_error(target, temperature):
    a = tg.Tensor([[2.0, 1.0, 0.1]])
    found = tg.grad(tg.cross_entropy(a, target, temperature=temperature), a, np.inf)
    assert found.tolist() == [[-np.inf, np.inf, np.inf]]


@pytest.mark.parametrize(
    ("shape", "axis"), [((200, 1000), -1), ((10, 20, 1000), -1), ((10, 1000, 20), 1)]
)
def test_reading_the_gradient_copies_nothing(shape, axis):
    """The array that backward leaves is nobody else's: a view of another would be copied."""
    a = tg.Tensor(np.zeros(shape))
    tg.cross_entropy(a, np.zeros(np.delete(shape, axis), int), axis=axis).backward()
    x, w, b = tg.Tensor(np.zeros((10, 20, 30))), tg.Tensor(np.zeros((400, 30))), np.zeros(400)
    bias = tg.Tensor(b)
    tg.linear_cross_entropy(x, w, np.zeros((10, 20), int), bias=bias).backward()
    for leaf in (a, x, w, bias):
        tracemalloc.start()
        assert leaf.grad.shape == leaf.shape
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < leaf.grad.nbytes
