"""Rows whose classes are cut: six numbers of each part, merged in any tree, do as well."""

from functools import partial

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kernel import DTYPES, FAMILIES, PROMISED_ULP, worst_of_terms, worst_ulp

from benchmarks.exact import DISTRIBUTIONS
from tinygrad_sm.loss.kernels import in_numpy, parts
from tinygrad_sm.loss.kernels import rows as tiling


def cut(x, ends):
    """The array in parts of its last axis, each with its start."""
    starts = [0, *ends]
    return [(s, x[..., s:e]) for s, e in zip(starts, [*ends, x.shape[-1]], strict=True)]


def computed(a, ends, order=None, **given):
    """Losses and gradient of rows cut at some classes, merged two by two in an order."""
    temperature, soft = given.get("temperature", 1.0), given.pop("soft", None)
    softs = [None] * (len(ends) + 1) if soft is None else [q for _, q in cut(soft, ends)]
    blocks = [
        (start, parts.part_of(piece, start, soft=q, **given))
        for (start, piece), q in zip(cut(a, ends), softs, strict=True)
    ]
    waiting = [parts.tell(block, start) for start, block in blocks]
    for which in order or [0] * len(ends):  # of those that wait, the one that the last is joined to
        last = waiting.pop()
        i = which % len(waiting)
        waiting[i] = parts.merge(np.stack([waiting[i], last], axis=1), temperature)
    (told,) = waiting
    gradient = np.empty_like(a)
    for start, block in blocks:
        block.gradient = np.empty(block.logits.shape, block.logits.dtype)
        parts.fill_in(block, start, told)
        gradient[:, start : start + block.logits.shape[1]] = block.gradient
    return parts.losses_of(told, temperature), gradient


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ends", [[1], [64], [3, 40, 41, 90]], ids=str)
def test_within_the_promised_ulp_however_classes_are_cut(family, dtype, ends, temperature):
    rng = np.random.default_rng(3)
    a = FAMILIES[family](rng, (8, 130)).astype(dtype)
    index = rng.integers(0, 130, 8)
    index[::2] = a[::2].argmax(axis=1)
    losses, gradient = computed(a, ends, index=index, temperature=temperature, scale=temperature)
    assert worst_ulp(a, index, losses, gradient, temperature) <= PROMISED_ULP


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", DISTRIBUTIONS, ids=lambda family: family.name)
def test_distributions_keep_the_promise(family, dtype):
    rng = np.random.default_rng(4)
    for shape, ends in [((12, 2), [1]), ((12, 30), [7, 20]), ((3, 200), [50, 100, 199])]:
        compute = partial(computed, ends=ends)
        assert worst_of_terms(family, rng, dtype, shape, compute) <= PROMISED_ULP


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 99), min_size=1, max_size=9))
def test_any_tree_and_any_size_of_logits(seed, order):
    rng = np.random.default_rng(seed)
    n = 2 * len(order) + 3
    ends = np.sort(rng.choice(np.arange(1, n), len(order), replace=False)).tolist()
    size = 10.0 ** rng.integers(-2, 200, (3, 1))
    a = size * rng.integers(1, 4, (3, n)) + rng.standard_normal((3, n))
    a[rng.random((3, n)) < 0.2] = -np.inf
    a[:, 0] = size[:, 0]
    index = rng.integers(0, n, 3)
    losses, gradient = computed(a, ends, order, index=index)
    wanted, expected = tiling.softmax_cross_entropy(a, kernel=in_numpy.fill_in, index=index)
    np.testing.assert_allclose(losses, wanted, rtol=2e-15)
    np.testing.assert_allclose(gradient, expected, rtol=2e-15, atol=1e-300)


def test_far_from_zero_two_parts_on_either_side_of_a_centre():
    for top in (12287.5, 12288.5, 20480.0, 1e6, 3e9):
        a = np.array([[top, top - 2.0, top - 1.0, -top]])
        losses, gradient = computed(a, [1, 2], index=np.array([1]))
        with mpmath.workdps(40):
            e = [mpmath.exp(mpmath.mpf(x) - mpmath.mpf(top)) for x in a[0]]
            exact = mpmath.log(sum(e)) + 2
            assert losses[0] == pytest.approx(float(exact), rel=1e-15)
            assert gradient[0, 2] == pytest.approx(float(e[2] / sum(e)), rel=1e-15)


def test_a_part_or_a_row_that_is_masked():
    a = np.array([[-np.inf, -np.inf, 1.0, 2.0], [-np.inf] * 4, [1.0, -np.inf, -np.inf, -np.inf]])
    losses, gradient = computed(a, [2], index=np.array([3, 0, 2]))
    wanted = tiling.softmax_cross_entropy(a, kernel=in_numpy.fill_in, index=np.array([3, 0, 2]))
    np.testing.assert_allclose(losses, wanted[0], rtol=1e-15)
    np.testing.assert_allclose(gradient, wanted[1], rtol=1e-15)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_shows_in_the_loss(wrong):
    a = np.zeros((2, 4))
    a[1, 3] = wrong
    losses, _ = computed(a, [1, 2], index=np.zeros(2, np.intp))
    assert np.isfinite(losses[0])
    assert np.isnan(losses[1])


def test_a_large_scale_loses_no_digits():
    rng = np.random.default_rng(5)
    a = (30 * rng.standard_normal((5, 40))).astype(np.float32)
    index = rng.integers(0, 40, 5)
    for scale in (2.0**60, 2.0**-60):
        _, gradient = computed(a, [10, 30], index=index, scale=scale)
        _, wanted = computed(a.astype(np.float64), [10, 30], index=index, scale=scale)
        np.testing.assert_allclose(gradient, wanted, rtol=4e-7, atol=2.0**-126)
