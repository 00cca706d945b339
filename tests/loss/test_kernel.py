"""The fused kernel: exact to a few ULP, and the same bits whatever threads, strides or buffers."""

import gc
import math
import os
import threading
import tracemalloc
import weakref

import mpmath
import numpy as np
import pytest

from benchmarks.exact import DISTRIBUTIONS, exact_cross_entropy
from tinygrad_sm.engine.threads import pool
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.loss.kernels import in_numpy
from tinygrad_sm.loss.kernels import rows as tiling
from tinygrad_sm.loss.kernels.in_numpy import chunk_sums, row_sums
from tinygrad_sm.loss.kernels.rows import NonFiniteRow

DTYPES = [np.float32, np.float64]
PROMISED_ULP = 5.0


chosen = [in_numpy.fill_in]


@pytest.fixture(params=["numpy", "compiled"], autouse=True)
def kernel(request):
    """Every test holds for every kernel."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the compiled kernel needs Numba, the extra fast")
        from tinygrad_sm.loss.kernels import compiled

        chosen[0] = compiled.fill_in
    else:
        chosen[0] = in_numpy.fill_in
    return request.param


def softmax_cross_entropy(*args, **options):
    return tiling.softmax_cross_entropy(*args, kernel=chosen[0], **options)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(params=["tiles", "wide"])
def layout(request, monkeypatch):
    """Many small tiles, or every row cut into parts: both ways through the kernel."""
    monkeypatch.setattr(tiling, "ALONE", 64)
    monkeypatch.setattr(tiling, "TILE", 1000)
    monkeypatch.setattr(tiling, "PART", 64 if request.param == "wide" else 1000)
    return request.param


# --- against exact values --------------------------------------------------------------------

FAMILIES = {
    "unit": lambda rng, shape: rng.standard_normal(shape),
    "scale 30": lambda rng, shape: 30 * rng.standard_normal(shape),
    "scale 700": lambda rng, shape: 700 * rng.standard_normal(shape),
    "scale 1e4": lambda rng, shape: 1e4 * rng.standard_normal(shape),
    "margin 20": lambda rng, shape: _with_margin(rng, shape, 20),
    "margin 40": lambda rng, shape: _with_margin(rng, shape, 40),
    "margin 700": lambda rng, shape: _with_margin(rng, shape, 700),
    "equal": lambda rng, shape: np.repeat(5 * rng.standard_normal((shape[0], 1)), shape[1], axis=1),
    "masked": lambda rng, shape: _masked(rng, shape),
    "all negative": lambda rng, shape: 3 * rng.standard_normal(shape) - 20,
}


def _with_margin(rng, shape, margin):
    a = rng.standard_normal(shape)
    a[:, 0] = a.max(axis=1) + margin
    return a


def _masked(rng, shape):
    a = rng.standard_normal(shape)
    a[rng.random(shape) < 0.4] = -np.inf
    a[:, 0] = 0.5
    return a


def exact_row(a, t, temperature=1.0):
    """Loss and gradient of one row times T, in 60 digits."""
    with mpmath.workdps(60):
        largest, divisor = mpmath.mpf(float(a.max())), mpmath.mpf(temperature)
        exps = [
            mpmath.exp((mpmath.mpf(float(x)) - largest) / divisor) if x > -np.inf else 0 for x in a
        ]
        rest = mpmath.fsum(e for k, e in enumerate(exps) if k != t)
        total = rest + exps[t]
        gradient = [e / total for e in exps]
        gradient[t] = -rest / total
        return (mpmath.log1p(rest / exps[t]) if exps[t] else mpmath.inf), gradient


def ulp_error(got, want, dtype):
    """|got - want| in units of the last place of `want`, or of the smallest normal number."""
    if want == mpmath.inf:
        return 0.0 if got == np.inf else np.inf
    limits = np.finfo(dtype)
    with mpmath.workdps(60):
        size = max(abs(mpmath.mpf(want)), mpmath.mpf(float(limits.tiny)))
        unit = mpmath.ldexp(float(limits.eps), int(mpmath.frexp(size)[1]) - 1)
        return float(abs(mpmath.mpf(float(got)) - want) / unit)


def worst_ulp(a, index, losses, gradient, temperature=1.0):
    worst, losses = 0.0, losses.astype(a.dtype)
    for row, t in enumerate(index):
        loss, exact = exact_row(a[row], t, temperature)
        errors = [ulp_error(x, y, a.dtype) for x, y in zip(gradient[row], exact, strict=True)]
        worst = max(worst, ulp_error(losses[row], loss, a.dtype), *errors)
    return worst


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("rows", "classes"), [(40, 2), (20, 10), (6, 130), (1, 1100)])
def test_within_the_promised_ulp(rng, family, dtype, rows, classes):
    a = FAMILIES[family](rng, (rows, classes)).astype(dtype)
    index = rng.integers(0, classes, rows)
    index[::2] = a[::2].argmax(axis=1)
    losses, gradient = softmax_cross_entropy(a, index=index)
    assert losses.dtype == np.float64
    assert gradient.dtype == dtype
    assert worst_ulp(a, index, losses, gradient) <= PROMISED_ULP


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_single_rows_keep_the_promise(rng, family, dtype):
    for classes in (1, 2, 3, 10, 24, 25):
        a = FAMILIES[family](rng, (1, classes)).astype(dtype)
        for t in {0, int(a.argmax()), classes - 1}:
            losses, gradient = softmax_cross_entropy(a, index=np.array([t]))
            assert worst_ulp(a, [t], losses, gradient) <= PROMISED_ULP


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_segments_keep_the_promise(rng, family, dtype, layout):
    a = FAMILIES[family](rng, (3, 300)).astype(dtype)
    index = rng.integers(0, 300, 3)
    losses, gradient = softmax_cross_entropy(a, index=index)
    assert worst_ulp(a, index, losses, gradient) <= PROMISED_ULP


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.7, 3.0, 0.01, 2.0, 1e30])
def test_temperatures_keep_the_promise(rng, family, dtype, temperature):
    for rows, classes in ((30, 3), (2, 150)):
        a = FAMILIES[family](rng, (rows, classes)).astype(dtype)
        index = rng.integers(0, classes, rows)
        index[::2] = a[::2].argmax(axis=1)
        losses, gradient = softmax_cross_entropy(
            a, index=index, temperature=temperature, scale=temperature
        )
        assert worst_ulp(a, index, losses, gradient, temperature) <= PROMISED_ULP


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_temperature_in_segments_and_tiles(rng, layout, family, dtype):
    a = FAMILIES[family](rng, (5, 150)).astype(dtype)
    index = a.argmax(axis=1)
    losses, gradient = softmax_cross_entropy(a, index=index, temperature=0.7, scale=0.7)
    assert worst_ulp(a, index, losses, gradient, 0.7) <= PROMISED_ULP


def test_sure_predictions_keep_a_gradient():
    _, gradient = softmax_cross_entropy(np.array([[37.43, 0.0]]), index=np.array([0]))
    assert gradient[0, 0] == -gradient[0, 1] == pytest.approx(-5.55e-17, rel=1e-2, abs=0.0)


def test_sums_are_exact_to_the_last_place(rng):
    for width in (1, 60, 64, 65, 129, 1000):
        terms = np.exp(30 * rng.standard_normal((50, width)))
        exact = np.array([mpmath.fsum(map(mpmath.mpf, row)) for row in terms])
        assert np.all(abs(row_sums(terms) - exact) <= 2 * np.spacing(exact.astype(float)))


def test_sums_of_any_width_are_good_to_three_places(rng):
    for width in (5, 10, 24, 32, 33, 47, 64, 100):
        terms = np.exp(rng.standard_normal((4000, width)) * rng.choice([0.01, 1, 3], (4000, 1)))
        exact = np.array([math.fsum(row) for row in terms])
        assert np.all(abs(row_sums(terms) - exact) <= 3 * np.spacing(exact))


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_scale_keeps_the_promise(rng, dtype):
    """Gradients down to the denormal ones, from scales up to nearly the largest number."""
    largest = 38 if dtype == np.float32 else 250
    for scale in 10.0 ** rng.uniform(-largest, largest, 150):
        classes = int(rng.integers(2, 50))
        a = (rng.standard_normal((1, classes)) * rng.choice([1, 30, 300, 700])).astype(dtype)
        index, scale = rng.integers(0, classes, 1), float(dtype(scale))
        _, gradient = softmax_cross_entropy(a, index=index, scale=scale)
        with mpmath.workdps(60):
            _, exact = exact_row(a[0], index[0])
            for got, p in zip(gradient[0], exact, strict=True):
                if abs(p * scale) < float(np.finfo(dtype).max):
                    assert ulp_error(got, p * scale, dtype) <= PROMISED_ULP


# --- smoothed and soft targets: digits count from the terms whose difference the gradient is ------


def worst_of_terms(family, rng, dtype, shape, compute=softmax_cross_entropy):
    """The worst error of loss and gradient, as `benchmarks.exact` counts it."""
    a, y = family.sample(rng, *shape)
    a, classes = a.astype(dtype), shape[1]
    if y.ndim > 1:
        y = y.astype(dtype)
        arguments = {"soft": y}
    else:
        coefficient = np.full(len(y), 1.0 - family.smoothing)
        smooth = np.full(classes, family.smoothing / classes)
        arguments = {"index": y, "coefficient": coefficient, "smooth": smooth}
    losses, gradient = compute(a, **arguments)
    errors = exact_cross_entropy(a, y, family.smoothing).errors(losses.astype(dtype), gradient)
    return max(errors.loss, errors.right_class, errors.other_classes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", DISTRIBUTIONS, ids=lambda family: family.name)
def test_distributions_keep_the_promise(rng, family, dtype):
    for shape in [(36, 2), (36, 3), (1, 10), (12, 30), (3, 200)]:
        assert worst_of_terms(family, rng, dtype, shape) <= PROMISED_ULP


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", DISTRIBUTIONS, ids=lambda family: family.name)
def test_distributions_in_tiles_and_segments_keep_it(rng, layout, family, dtype):
    assert worst_of_terms(family, rng, dtype, (3, 300)) <= PROMISED_ULP


@pytest.mark.parametrize("repeat", [1, 40])
def test_a_smoothed_target_keeps_the_right_class(repeat):
    a, index = np.repeat([[20.0, 0, 0, 0]], repeat, axis=0), np.zeros(repeat, np.intp)
    _, gradient = softmax_cross_entropy(
        a, index=index, coefficient=np.full(repeat, 1 - 1e-3), smooth=np.full(4, 1e-3 / 4)
    )
    with mpmath.workdps(60):
        rest = 3 * mpmath.exp(-20)
        exact = 3 * mpmath.mpf(1e-3) / 4 - rest / (1 + rest)
    for x in gradient[:, 0]:
        assert ulp_error(x, exact, np.float64) <= PROMISED_ULP


@pytest.mark.parametrize("repeat", [1, 40])
def test_a_soft_target_keeps_the_class_that_has_most_of_it(repeat):
    a = np.repeat([[-40.0, 0, -45]], repeat, axis=0)
    q = np.repeat([[1e-6, 1 - 1e-6, 0]], repeat, axis=0)
    _, gradient = softmax_cross_entropy(a, soft=q)
    with mpmath.workdps(60):
        first, last = mpmath.exp(-40), mpmath.exp(-45)
        s, total = mpmath.mpf(1e-6) + mpmath.mpf(1 - 1e-6), 1 + first + last
        exact = mpmath.mpf(1e-6) - s * (first + last) / total
    for x in gradient[:, 1]:
        assert ulp_error(x, exact, np.float64) <= PROMISED_ULP


@pytest.mark.parametrize("target", [np.float16, np.float32])
@pytest.mark.parametrize("classes", [10, 200, 3000])
def test_the_gradient_of_soft_rows_adds_up_to_nothing(rng, target, classes):
    a = (3 * rng.standard_normal((20, classes))).astype(np.float32)
    q = rng.dirichlet(np.full(classes, 0.3), 20).astype(target)
    _, gradient = softmax_cross_entropy(a, soft=q)
    sums = gradient.astype(np.float64).sum(axis=1)
    sizes = np.abs(gradient).astype(np.float64).sum(axis=1)
    assert np.all(np.abs(sums) <= 4 * np.finfo(np.float32).eps * sizes)


def test_equal_targets_have_a_sum(rng):
    for classes in (30, 128, 1000):
        a = rng.standard_normal((12, classes)).astype(np.float32)
        q = np.repeat(rng.uniform(0.5, 2, (12, 1)) / classes, classes, axis=1).astype(np.float32)
        losses, gradient = softmax_cross_entropy(a, soft=q)
        errors = exact_cross_entropy(a, q).errors(losses.astype(np.float32), gradient)
        assert max(errors.loss, errors.right_class, errors.other_classes) <= PROMISED_ULP


# --- targets of every kind against the definition --------------------------------------------


def assert_near(found, expected, rel, abs):
    """As pytest.approx says, in one step: it goes element by element."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    allowed = np.maximum(rel * np.abs(expected), abs)
    assert np.all((found == expected) | (np.abs(found - expected) <= allowed))


def definition(a, q, temperature, scale):
    x = a.astype(np.float64) / temperature
    largest = x.max(axis=1, keepdims=True)
    lse = largest + np.log(np.exp(x - largest).sum(axis=1, keepdims=True))
    losses = np.where(q == 0, 0, q * (lse - np.where(q == 0, 0, x))).sum(axis=1)
    pull = q.sum(axis=1, keepdims=True) * np.exp(x - lse) - q
    return losses, np.broadcast_to(scale, len(a))[:, None] / temperature * pull


def targets(rng, kind, rows, classes, dtype):
    """Arguments of the kernel, and the effective target that they stand for."""
    index, each = rng.integers(0, classes, rows), np.arange(rows)
    q = np.zeros((rows, classes))
    if kind == "soft":
        soft = rng.random((rows, classes)).astype(dtype)
        return {"soft": soft}, soft.astype(np.float64)
    if kind == "integers":
        q[each, index] = 2
        return {"soft": q.astype(np.int64)}, q
    arguments = {"index": index}
    weight = np.ones(rows)
    if kind != "index":
        active = rng.random(rows) < 0.7
        weight = rng.random(rows).astype(dtype) * active
        arguments["coefficient"] = weight
    q[each, index] = weight
    if kind == "smooth":
        smooth = rng.random(classes).astype(dtype) / classes
        arguments |= {"smooth": smooth, "active": active}
        q += active[:, None] * smooth
    return arguments, q


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["index", "weights", "smooth", "soft", "integers"])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("spread", [1.0, 1e3])
def test_follows_the_definition(rng, layout, dtype, kind, temperature, spread):
    a = (spread * rng.standard_normal((9, 170))).astype(dtype)
    arguments, q = targets(rng, kind, 9, 170, dtype)
    scale = rng.standard_normal(9)
    losses, gradient = softmax_cross_entropy(a, temperature=temperature, scale=scale, **arguments)
    expected_losses, expected = definition(a, q, temperature, scale)
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    terms = np.abs(scale).max() * max(1.0, q.sum(axis=1).max()) / temperature
    assert_near(losses, expected_losses, tolerance, tolerance)
    assert_near(gradient, expected, tolerance, tolerance * terms)


def test_one_hot_is_the_index(rng, layout):
    a = 30 * rng.standard_normal((20, 90))
    index = rng.integers(0, 90, 20)
    by_index = softmax_cross_entropy(a, index=index, scale=0.25)
    by_rows = softmax_cross_entropy(a, soft=np.eye(90)[index], scale=0.25)
    assert np.array_equal(by_index[1], by_rows[1])
    assert np.array_equal(by_index[0], by_rows[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [9, 90, 700])
def test_one_class_a_row_is_the_index_with_a_coefficient(rng, layout, dtype, classes):
    a = (rng.choice([3.0, 30.0], (20, 1)) * rng.standard_normal((20, classes))).astype(dtype)
    index, coefficient = rng.integers(0, classes, 20), rng.random(20).astype(dtype)
    coefficient[::3], coefficient[::4] = 0.0, 1.0
    q = np.zeros((20, classes), dtype)
    q[np.arange(20), index] = coefficient
    by_index = softmax_cross_entropy(a, index=index, coefficient=coefficient, scale=0.25)
    by_rows = softmax_cross_entropy(a, soft=q, threads=2, scale=0.25)
    assert np.array_equal(by_index[0], by_rows[0])
    assert np.array_equal(by_index[1], by_rows[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("classes", [10, 300])
def test_one_hot_rows_among_soft_ones_keep_the_promise(rng, family, dtype, classes):
    a = FAMILIES[family](rng, (12, classes)).astype(dtype)
    index = rng.integers(0, classes, 12)
    index[::2] = a[::2].argmax(axis=1)
    q = np.zeros((12, classes), dtype)
    q[np.arange(12), index] = 1.0
    q[0] = 1.0 / classes  # none of them takes the way of class indices
    losses, gradient = softmax_cross_entropy(a, soft=q)
    assert worst_ulp(a[1:], index[1:], losses[1:], gradient[1:]) <= PROMISED_ULP


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mass", [1.0, 0.01, 30.0])
@pytest.mark.parametrize("scale", [1.0, 1 / 128, 1e-30])
def test_few_soft_rows_are_those_of_many(rng, monkeypatch, family, mass, scale):
    a = FAMILIES[family](rng, (40, 10)).astype(np.float32)
    q = (mass * rng.dirichlet(np.ones(10), 40) * np.isfinite(a)).astype(np.float32)
    losses, gradient = softmax_cross_entropy(a, soft=q, scale=scale)
    single = [
        softmax_cross_entropy(x[None], soft=y[None], scale=scale) for x, y in zip(a, q, strict=True)
    ]
    monkeypatch.setattr(in_numpy, "SHORT", 0)
    expected_losses, expected = softmax_cross_entropy(a, soft=q, scale=scale)
    for found_losses, found in ((losses, gradient), map(np.concatenate, zip(*single, strict=True))):
        assert_near(found_losses, expected_losses, 4e-7, 1e-12)
        assert_near(found, expected, 4e-7, 2e-7 * scale * mass)
    assert softmax_cross_entropy(a, soft=q, want_grad=False)[1] is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("center", [0.0, 0.5, -7.0, 40.0])
def test_losses_of_soft_rows_do_not_depend_on_where_the_logits_lie(rng, layout, dtype, center):
    a = (center + rng.standard_normal((12, 300))).astype(dtype)
    a[:4] = center + 1e-3 * rng.standard_normal((4, 300))
    q = rng.random((12, 300)).astype(dtype)
    losses, _ = softmax_cross_entropy(a, soft=q)
    smoothed, _ = softmax_cross_entropy(
        a, index=np.arange(12), coefficient=np.full(12, 0.5), smooth=q[0]
    )
    exact = definition(a, q.astype(np.float64), 1.0, 1.0)[0]
    q = np.repeat(q[:1].astype(np.float64), 12, axis=0) + 0.5 * np.eye(12, 300)
    tolerance = 3 * float(np.finfo(dtype).eps)
    assert losses == pytest.approx(exact, rel=tolerance)
    assert smoothed == pytest.approx(definition(a, q, 1.0, 1.0)[0], rel=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scalar_products_of_long_rows(rng, dtype):
    values, weights = rng.random((2, 3, 9000)).astype(dtype)
    exact = (values.astype(np.float64) * weights).sum(axis=1)
    tolerance = 4 * float(np.finfo(dtype).eps)
    assert chunk_sums(values, weights).sum(axis=1) == pytest.approx(exact, rel=tolerance)
    assert chunk_sums(values, weights[:1]).sum(axis=1)[0] == pytest.approx(exact[0], rel=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [3, 33, 300, 3000])
@pytest.mark.parametrize("kind", ["index", "soft", "smooth", "cold"])
def test_a_row_has_its_bits_in_a_batch_of_any_size(rng, dtype, classes, kind):
    a = (rng.choice([1, 30, 1000], (12, 1)) * rng.standard_normal((12, classes))).astype(dtype)
    index = rng.integers(0, classes, 12)
    soft = rng.dirichlet(np.ones(classes), 12).astype(dtype)
    soft[5] = np.eye(classes)[2]  # and one of a single class

    def found(rows):
        if kind == "soft":
            return softmax_cross_entropy(a[rows], soft=soft[rows])
        more = {"smooth": np.full(classes, 0.1 / classes)} if kind == "smooth" else {}
        return softmax_cross_entropy(
            a[rows], index=index[rows], temperature=0.7 if kind == "cold" else 1.0, **more
        )

    together = found(slice(None))
    for size in (1, 5):
        apart = [found(slice(at, at + size)) for at in range(0, 12, size)]
        for whole, parts in zip(together, zip(*apart, strict=True), strict=True):
            assert np.array_equal(whole, np.concatenate(parts))


def test_one_kind_of_target_is_asked_for():
    with pytest.raises(ValueError, match="either"):
        softmax_cross_entropy(np.zeros((1, 2)))


# --- masks, NaN and the smallest shapes ------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [3, 200])
def test_masked_right_class(layout, dtype, classes):
    a = np.zeros((2, classes), dtype)
    a[0, 1] = a[1, :] = -np.inf
    losses, gradient = softmax_cross_entropy(a, index=np.array([1, 1]))
    assert np.all(losses == np.inf)
    assert gradient[0, 1] == -1.0
    assert gradient[0, 0] == pytest.approx(1 / (classes - 1))
    assert np.array_equal(gradient[1], -1.0 * (np.arange(classes) == 1))


def test_masked_classes_without_a_target_cost_nothing(rng, layout):
    a = rng.standard_normal((4, 120))
    a[:, ::3] = -np.inf
    q = rng.random((4, 120)) * np.isfinite(a)
    losses, gradient = softmax_cross_entropy(a, soft=q)
    expected_losses, expected = definition(a, q, 1.0, 1.0)
    assert losses == pytest.approx(expected_losses)
    assert gradient == pytest.approx(expected)
    assert np.all(gradient[:, ::3] == 0.0)


def test_ignored_rows_are_zero_even_when_masked(layout):
    a = np.full((2, 100), -np.inf)
    losses, gradient = softmax_cross_entropy(a, index=np.array([0, 5]), coefficient=np.zeros(2))
    assert np.all(losses == 0.0)
    assert np.all(gradient == 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("classes", [3, 200])
def test_a_row_that_is_not_finite_is_named(rng, layout, bad, classes):
    a = rng.standard_normal((30, classes))
    a[17, 2] = bad
    with pytest.raises(NonFiniteRow, match="row 17 ") as caught:
        softmax_cross_entropy(a, index=np.zeros(30, np.intp), threads=2)
    assert caught.value.row == 17


def test_smallest_shapes():
    losses, gradient = softmax_cross_entropy(np.zeros((0, 5)), index=np.zeros(0, np.intp))
    assert losses.shape == (0,)
    assert gradient.shape == (0, 5)
    losses, gradient = softmax_cross_entropy(np.full((3, 1), 900.0), index=np.zeros(3, np.intp))
    assert np.all(losses == 0.0)
    assert np.all(gradient == 0.0)
    losses, _ = softmax_cross_entropy(np.zeros((0, 5)), soft=np.zeros((0, 5)))
    assert losses.shape == (0,)


# --- the same bits ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["index", "smooth", "soft"])
def test_threads_buffers_and_wishes_change_no_bit(rng, layout, dtype, kind):
    a = (rng.choice([1.0, 400.0], (50, 1)) * rng.standard_normal((50, 160))).astype(dtype)
    arguments, _ = targets(rng, kind, 50, 160, dtype)
    losses, gradient = softmax_cross_entropy(a, threads=1, **arguments)
    for threads in (2, 3, 7):
        shared = a.copy()
        again, same = softmax_cross_entropy(shared, threads=threads, out=shared, **arguments)
        assert same is shared
        assert np.array_equal(again, losses)
        assert np.array_equal(same, gradient)
    only_losses, nothing = softmax_cross_entropy(a, want_grad=False, **arguments)
    assert nothing is None
    assert np.array_equal(only_losses, losses)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["weights", "soft"])
def test_a_heavy_row_changes_no_bit_of_its_neighbours(rng, dtype, kind):
    a = (rng.standard_normal((200, 200)) - 5.0).astype(dtype)
    arguments, _ = targets(rng, kind, 200, 200, dtype)
    heavy = next(v for name, v in arguments.items() if name != "index")
    heavy /= heavy.max() * heavy[0].size
    heavy[150] *= 1e4
    losses, gradient = softmax_cross_entropy(a, threads=1, **arguments)
    for threads in (2, 3, 7):
        again, same = softmax_cross_entropy(a, threads=threads, **arguments)
        assert np.array_equal(again, losses)
        assert np.array_equal(same, gradient)


def test_small_probabilities_keep_their_digits_at_a_large_scale():
    a, q = np.zeros((2, 200), np.float32), np.zeros((2, 200), np.float32)
    a[:, 5], a[0, 0], q[:, 1:3] = -95.0, 1.0, 0.5
    _, gradient = softmax_cross_entropy(a, soft=q, scale=2.0**24)
    expected = definition(a, q.astype(np.float64), 1.0, 2.0**24)[1]
    assert gradient[:, 5] == pytest.approx(expected[:, 5], rel=1e-6, abs=0.0)


def test_small_weights_keep_a_gradient():
    a = np.array([[700.0, 600.0, 0.0]], np.float32)
    for rows in (1, 2):  # the ways of one row and of a few
        a = np.repeat(a, rows, axis=0)
        _, gradient = softmax_cross_entropy(a, index=np.ones(rows, np.intp), scale=1e-20)
        assert gradient[:, 0] == pytest.approx(1e-20, rel=1e-6, abs=0.0)


@pytest.mark.parametrize("logits", [np.full((1, 3), 709.7), np.full((2, 3), 709.7)])
def test_exponentials_whose_sum_overflows(logits):
    losses, gradient = softmax_cross_entropy(logits, index=np.zeros(len(logits), np.intp))
    assert losses == pytest.approx(np.log(3.0))
    assert gradient[:, 1] == pytest.approx(1 / 3)


@pytest.mark.parametrize("classes", [3, 200])
def test_logits_over_a_temperature_that_overflow(layout, classes):
    a = np.zeros((2, classes))
    a[:, 0] = 1e300
    losses, gradient = softmax_cross_entropy(a, index=np.array([0, 1]), temperature=1e-20)
    assert losses.tolist() == [0.0, np.inf]  # 1e320
    assert not gradient[0].any()
    assert gradient[1, :3].tolist() == [1e20, -1e20, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["index", "smooth", "soft"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("small", [False, True])
def test_how_arrays_lie_in_memory_changes_no_bit(request, rng, dtype, kind, temperature, small):
    if not small:
        request.getfixturevalue("monkeypatch").setattr(tiling, "ALONE", 64)
    for rows, classes in ((40, 7), (40, 160)):
        a = (rng.choice([1.0, 400.0], (rows, 1)) * rng.standard_normal((rows, classes))).astype(
            dtype
        )
        arguments, _ = targets(rng, kind, rows, classes, dtype)
        expected = softmax_cross_entropy(a, temperature=temperature, **arguments)
        for lay in (_in_columns, _backwards):
            if kind == "soft":
                arguments["soft"] = lay(arguments["soft"])
            out = lay(np.zeros_like(a))
            for given in ({}, {"out": out}):
                found = softmax_cross_entropy(lay(a), temperature=temperature, **arguments, **given)
                assert np.array_equal(found[0], expected[0])
                assert np.array_equal(found[1], expected[1])
            assert found[1] is out


def _in_columns(a):
    return np.asfortranarray(a)


def _backwards(a):
    spread = np.zeros((2 * a.shape[0], 2 * a.shape[1]), a.dtype)[::-2, ::-2]
    spread[...] = a
    return spread


def test_wide_rows_backwards(rng, layout):
    a = 3 * rng.standard_normal((4, 300))
    q = rng.random((4, 300))
    expected = softmax_cross_entropy(a, soft=q)
    found = softmax_cross_entropy(_backwards(a), soft=_backwards(q))
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def test_without_a_gradient_only_tiles_are_allocated(rng):
    a = rng.standard_normal((512, 2000))
    tracemalloc.start()
    softmax_cross_entropy(a, index=np.zeros(512, np.intp), want_grad=False, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < a.nbytes / 2


@pytest.mark.parametrize("kind", ["index", "smooth", "soft"])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_gradient_is_released_at_once(rng, layout, kind, threads):
    a = rng.standard_normal((50, 160))
    arguments, _ = targets(rng, kind, 50, 160, a.dtype)
    gc.disable()
    try:
        gradient = softmax_cross_entropy(a, threads=threads, **arguments)[1]
        gone = weakref.ref(gradient)
        del gradient
        assert gone() is None
    finally:
        gc.enable()


# --- threads ---------------------------------------------------------------------------------


def test_two_calls_at_once_do_not_meet(rng, layout):
    inputs = [rng.standard_normal((60, 150)) for _ in range(4)]
    index = np.zeros(60, np.intp)
    expected = [softmax_cross_entropy(a, index=index, threads=1)[1] for a in inputs]
    results = [None] * 4

    def work(number):
        for _ in range(5):
            results[number] = softmax_cross_entropy(inputs[number], index=index, threads=3)[1]

    callers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(np.array_equal(x, y) for x, y in zip(results, expected, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own(rng, layout):
    a, index = rng.standard_normal((60, 150)), np.zeros(60, np.intp)
    expected = softmax_cross_entropy(a, index=index, threads=2)[1]
    child = os.fork()
    if child == 0:
        same = np.array_equal(softmax_cross_entropy(a, index=index, threads=2)[1], expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_pool_runs_every_task_once_and_passes_errors_on():
    done = []
    pool.run(done.append, 100, 4)
    assert sorted(done) == list(range(100))

    def fail(number):
        raise KeyError(number)

    with pytest.raises(KeyError):
        pool.run(fail, 10, 4)


def test_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv(pool.THREADS_VARIABLE, "3")
    assert pool.default_threads() == 3
    monkeypatch.setenv(pool.THREADS_VARIABLE, "100000")
    assert pool.default_threads() == pool.MAX_THREADS
    for text in ("0", "-1", "two", ""):
        monkeypatch.setenv(pool.THREADS_VARIABLE, text)
        with pytest.raises(ValueError, match=pool.THREADS_VARIABLE):
            pool.default_threads()
    monkeypatch.delenv(pool.THREADS_VARIABLE)
    assert 1 <= pool.default_threads() <= pool.MAX_THREADS


@pytest.fixture
def restored_threads():
    yield
    pool.set_threads(None)


def test_threads_from_an_argument(monkeypatch, restored_threads):
    monkeypatch.setenv(pool.THREADS_VARIABLE, "3")
    pool.set_threads(2)
    assert pool.default_threads() == 2
    pool.set_threads(np.int64(100000))
    assert pool.default_threads() == pool.MAX_THREADS
    pool.set_threads(None)
    assert pool.default_threads() == 3


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, InvalidValueError), (-1, InvalidValueError)]
    + [(n, InvalidTypeError) for n in (True, 2.0, "2", [2])],
)
def test_threads_are_a_positive_integer(restored_threads, n, error):
    pool.set_threads(2)
    with pytest.raises(error, match="n must be a positive integer or None; got"):
        pool.set_threads(n)
    assert pool.default_threads() == 2


def test_the_argument_changes_no_bit(rng, layout, restored_threads):
    a, index = rng.standard_normal((60, 150)), np.zeros(60, np.intp)
    expected = softmax_cross_entropy(a, index=index, threads=1)
    for n in (1, 2, 5):
        pool.set_threads(n)
        losses, gradient = softmax_cross_entropy(a, index=index)
        assert np.array_equal(losses, expected[0])
        assert np.array_equal(gradient, expected[1])


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_small_target_of_single_classes_is_its_classes(scale):
    logits = scale * np.random.default_rng(0).normal(size=(5, 7))
    index, values = np.array([0, 3, 6, 2, 0]), np.array([1.0, 2.5, 1.0, 0.5, 0.0])
    dense = np.zeros((5, 7))
    dense[np.arange(5), index] = values
    loss, gradient = softmax_cross_entropy(logits, soft=dense)
    same_loss, same_gradient = softmax_cross_entropy(logits, index=index, coefficient=values)
    assert (loss == same_loss).all()
    assert (gradient == same_gradient).all()
    dense[4, 1:3] = 0.5  # and a row of two classes has the loss of both
    loss, _ = softmax_cross_entropy(logits, soft=dense)
    top = logits[4].max()
    lse = top + np.log(np.exp(logits[4] - top).sum())
    assert loss[:4] == pytest.approx(same_loss[:4], rel=1e-15)
    assert loss[4] == pytest.approx(lse - logits[4, 1:3].mean(), rel=1e-13)
