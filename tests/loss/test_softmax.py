"""softmax, log_softmax and logsumexp: values, Jacobians, second derivatives, extremes."""

import finite_differences as fd
import numpy as np
import pytest

import tinygrad_sm as tg

A = np.array([2.0, 1.0, 0.1])
P = np.exp(A) / np.exp(A).sum()


def test_the_jacobian_of_softmax():
    jacobian = tg.jacobian(tg.softmax, A)
    for i in range(3):
        for j in range(3):
            expected = P[i] * (1 - P[i]) if i == j else -P[i] * P[j]
            assert jacobian[i, j] == pytest.approx(expected, rel=1e-14)
    assert jacobian == pytest.approx(np.diag(P) - np.outer(P, P), rel=1e-13)


def test_the_jacobians_of_the_other_two():
    assert tg.jacobian(tg.log_softmax, A) == pytest.approx(np.eye(3) - P, rel=1e-14)
    assert tg.jacobian(tg.logsumexp, A) == pytest.approx(P, rel=1e-14)
    assert tg.hessian(tg.logsumexp, A) == pytest.approx(np.diag(P) - np.outer(P, P), rel=1e-13)


def _long(name, axis):
    def function(a):
        e = np.exp(a)
        s = e.sum(axis=axis, keepdims=True)
        return {"softmax": e / s, "log_softmax": a - np.log(s), "logsumexp": np.log(s)}[name]

    return function


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_first_and_second_derivatives_against_finite_differences(name, axis):
    rng = np.random.default_rng(0)
    a, u, v = rng.normal(size=(3, 2, 3, 2))
    plain = _long(name, axis)
    g = rng.normal(size=plain(a).shape)
    options = {"keepdims": True} if name == "logsumexp" else {}
    t = tg.Tensor(a)
    out = getattr(tg, name)(t, axis=axis, **options)
    assert out.numpy() == pytest.approx(plain(a), rel=1e-14)
    first = tg.grad(out, t, tg.Tensor(g, requires_grad=False), create_graph=True)

    def weighed(x):
        return (plain(x) * g).sum()

    assert first.numpy() == pytest.approx(fd.gradient(weighed, [a], 0), rel=1e-11, abs=1e-12)
    mixed = tg.grad((first * u).sum(), t)
    slope = fd.second(weighed, [a], [u.astype(fd.LONG)], [v.astype(fd.LONG)])
    assert (mixed * v).sum() == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_keepdims():
    a = np.ones((2, 3))
    assert tg.logsumexp(a).shape == (2,)
    assert tg.logsumexp(a, axis=0, keepdims=True).shape == (1, 3)
    t = tg.Tensor(a)
    assert tg.grad(tg.logsumexp(t, axis=0), t, np.ones(3)) == pytest.approx(np.full((2, 3), 0.5))


@pytest.mark.parametrize("scale", [1000.0, -1000.0, 1e300])
def test_large_logits_neither_overflow_nor_warn(scale):
    a = np.array([[1.0, 1.0], [1.0, 0.0]]) * scale
    p = tg.softmax(a)
    assert p[0].tolist() == [0.5, 0.5]
    assert p[1].tolist() == ([1, 0] if scale > 0 else [0, 1])
    assert tg.logsumexp(a)[0] == pytest.approx(scale + np.log(2))
    assert tg.log_softmax(a)[0] == pytest.approx(-np.log([2, 2]))


def test_masks():
    a = tg.Tensor([[2.0, -np.inf, 1.0], [-np.inf] * 3])
    p, log_p, lse = tg.softmax(a), tg.log_softmax(a), tg.logsumexp(a)
    e = np.exp([2.0, -np.inf, 1.0])
    assert p.numpy()[0] == pytest.approx(e / e.sum())
    assert p.numpy()[1].tolist() == [0, 0, 0]  # of no class at all: no probability, and no NaN
    assert (log_p.numpy() == -np.inf).tolist() == [[False, True, False], [True] * 3]
    assert lse.numpy().tolist() == [pytest.approx(np.log(e.sum())), -np.inf]
    assert np.isfinite(tg.grad(p, a, np.ones((2, 3)))).all()
    assert np.isfinite(tg.grad(log_p, a, np.ones((2, 3)))).all()
    assert tg.grad(lse, a, np.ones(2))[0] == pytest.approx(e / e.sum())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_are_kept(dtype):
    a = tg.Tensor(A, dtype=dtype)
    for function in (tg.softmax, tg.log_softmax, tg.logsumexp):
        out = function(a)
        assert out.dtype == dtype
        assert tg.grad(out, a, np.ones(out.shape)).dtype == dtype
