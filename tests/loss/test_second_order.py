"""Second derivatives: fused = composite = the closed form Σy·(diag(p) − ppᵀ)."""

import finite_differences as fd
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import EVERY_FORM, cases, composite

import tinygrad_sm as tg
from tinygrad_sm.loss.composite import FORMS


def curvature(p):
    return np.diag(p) - np.outer(p, p)


@pytest.mark.parametrize("loss_function", EVERY_FORM)
@pytest.mark.parametrize("y", [[1, 0, 0], [0.2, 0.5, 0.3], [1, 1, 0], [0, 0, 0]])
def test_the_hessian_is_s_times_diag_p_minus_p_p_transposed(loss_function, y):
    a = np.array([2.0, 1.0, 0.1])
    p = np.exp(a) / np.exp(a).sum()
    found = tg.hessian(lambda t: loss_function(t, y), a)
    assert found == pytest.approx(np.sum(y) * curvature(p), rel=1e-13, abs=1e-15)


def second_along(function, case, v):
    """∂/∂a of (gradient · v), which is Hessian times v."""
    logits, target, options, cotangent = case
    a = tg.Tensor(logits)
    loss = function(a, target, **options)
    g = tg.grad(loss, a, cotangent, create_graph=True)
    return tg.grad((g * v).sum(), a)


@settings(max_examples=200)
@given(cases(), st.sampled_from(FORMS), st.integers(0, 2**32 - 1))
def test_hessian_vector_products_of_both_and_the_closed_form(case, form, seed):
    """All options, any cotangent: H v = g·s/T²·(p∘v − p (p·v)), row by row."""
    logits, target, options, cotangent = case
    logits = np.clip(logits, -10, 10).astype(np.float64)
    case = logits, target, options, cotangent
    axis, temperature = options["axis"] % logits.ndim, options["temperature"]
    v = np.random.default_rng(seed).normal(size=logits.shape)
    known = {k: options[k] for k in ("weight", "label_smoothing") if k in options}
    q, counts = oracle.target_rows(target, logits.shape, axis, **known)
    rows = np.moveaxis(logits, axis, -1).reshape(q.shape)
    p = np.exp(oracle.log_softmax(rows, temperature))
    w = np.moveaxis(v, axis, -1).reshape(q.shape)
    divisor = counts.sum() if options["reduction"] == "mean" else 1
    g = np.broadcast_to(cotangent, np.delete(logits.shape, axis)).reshape(-1, 1) / divisor
    exact = g * q.sum(axis=1, keepdims=True) * p * (w - (p * w).sum(axis=1, keepdims=True))
    exact = exact / temperature**2
    size = np.abs(g) * (np.abs(q).sum(axis=1, keepdims=True) + np.abs(q)) * np.abs(w).sum()
    moved = np.moveaxis(logits, axis, -1).shape
    exact, size = (np.moveaxis(x.reshape(moved), -1, axis) for x in (exact, size))
    for function in (tg.cross_entropy, composite(form)):
        found = second_along(function, case, v)
        assert (np.abs(found - exact) <= 1e-12 * size / temperature**2 + 1e-300).all()


def test_finite_differences_of_the_gradient():
    rng = np.random.default_rng(0)
    logits, u, v = rng.normal(size=(3, 2, 4))
    target = np.array([3, 1])
    options = {"label_smoothing": 0.2, "temperature": 2.0, "weight": [1, 2, 3, 4]}
    slope = fd.second(
        lambda a: oracle.loss_and_gradient(a, target, **options)[0],
        [logits], [u.astype(fd.LONG)], [v.astype(fd.LONG)],
    )  # fmt: skip
    for function in (tg.cross_entropy, composite("naive")):
        found = second_along(function, (logits, target, options, 1.0), v)
        assert (found * u).sum() == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_second_derivatives_with_a_mask(loss_function):
    a = np.array([2.0, 1.0, -np.inf])
    p = np.exp(a) / np.exp(a).sum()
    assert tg.hessian(lambda t: loss_function(t, 0), a) == pytest.approx(curvature(p), abs=1e-15)


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_mixed_second_derivatives_of_logits_and_target(loss_function):
    """∂²L/∂a_i∂y_j = p_i − [i = j]."""
    a, y = tg.Tensor([2.0, 1.0, 0.1]), tg.Tensor([0.5, 0.3, 0.4])
    p = np.exp(a.numpy()) / np.exp(a.numpy()).sum()
    g = tg.grad(loss_function(a, y), a, create_graph=True)
    for i in range(3):
        assert tg.grad(g[i], y) == pytest.approx(p[i] - np.eye(3)[i], rel=1e-14)
    h = tg.grad(loss_function(a, y), y, create_graph=True)
    for j in range(3):
        assert tg.grad(h[j], a) == pytest.approx(p - np.eye(3)[j], rel=1e-14)


def test_third_derivatives():
    a = np.array([0.3, -0.2, 0.7])
    p = np.exp(a) / np.exp(a).sum()
    third = []
    for function in (tg.cross_entropy, composite("shifted")):
        t = tg.Tensor(a)
        g = tg.grad(function(t, 1), t, create_graph=True)
        h = tg.grad(g[0], t, create_graph=True)
        third.append(tg.grad(h[0], t))
    exact = p[0] * (1 - 2 * p[0]) * (np.eye(3)[0] - p)  # d/da of p_0 (1 − p_0)
    assert third[0] == pytest.approx(exact, rel=1e-13)
    assert third[1] == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_has_the_second_derivatives_of_what_it_fuses(reduction):
    rng = np.random.default_rng(1)
    x, w, b = (tg.Tensor(rng.normal(size=s)) for s in ((4, 3), (5, 3), (5,)))
    target, options = rng.integers(0, 5, 4), {"label_smoothing": 0.1, "temperature": 2.0}
    g = rng.normal(size=(4,)) if reduction == "none" else None
    found = []
    for loss in (
        tg.linear_cross_entropy(x, w, target, bias=b, reduction=reduction, chunk_rows=3, **options),
        tg.cross_entropy(x @ w.T + b, target, reduction=reduction, **options),
    ):
        first = tg.grad(loss, [x, w, b], g, create_graph=True)
        mixed = sum((t * t).sum() for t in first)
        found.append([*(t.numpy() for t in first), *tg.grad(mixed, [x, w, b])])
    for ours, unfused in zip(*found, strict=True):
        np.testing.assert_allclose(ours, unfused, rtol=1e-11, atol=1e-14)
