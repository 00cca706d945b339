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
@pytest.mark.parametrize("axis", [0, 1, -1, (1, 2), (0, -1), None])
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


@pytest.mark.parametrize("axis", [(1, 2), (-1, 0), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_over_several_axes(axis, keepdims):
    a = tg.Tensor(np.random.default_rng(1).normal(size=(2, 3, 2)))
    out = tg.logsumexp(a, axis=axis, keepdims=keepdims)
    e = np.exp(a.numpy())
    assert out.numpy() == pytest.approx(np.log(e.sum(axis=axis, keepdims=keepdims)), rel=1e-14)
    g = np.random.default_rng(2).normal(size=out.shape)
    spread = g if keepdims or axis is None else np.expand_dims(g, axis)
    expected = spread * e / e.sum(axis=axis, keepdims=True)
    assert tg.grad(out, a, g) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "bool"])
def test_integers_become_float64(dtype):
    a = np.array([0, 3, 1]).astype(dtype)
    expected = np.exp(a.astype(float)) / np.exp(a.astype(float)).sum()
    for found, exact in (
        (tg.softmax(a), expected),
        (tg.log_softmax(a), np.log(expected)),
        (tg.logsumexp(a), np.log(np.exp(a.astype(float)).sum())),
    ):
        assert found.dtype == np.float64
        assert found == pytest.approx(exact, rel=1e-14)
    assert tg.cross_entropy(a, 1).dtype == np.float64
    assert tg.cross_entropy(a, 1) == pytest.approx(-np.log(expected[1]))


def test_an_infinite_logit_makes_an_infinite_sum():
    assert tg.logsumexp(np.array([np.inf, 0.0])) == np.inf
    assert tg.logsumexp(np.array([[np.inf, 1e4, np.inf], [0, 0, 0]]))[0] == np.inf
    assert tg.logsumexp(np.array([np.inf, -np.inf])) == np.inf
    assert np.isnan(tg.logsumexp(np.array([np.nan, 0.0])))


def test_no_class_at_all():
    assert tg.softmax(np.zeros((2, 0))).shape == tg.log_softmax(np.zeros((2, 0))).shape == (2, 0)
    assert tg.logsumexp(np.zeros((2, 0))).tolist() == [-np.inf] * 2


def test_many_half_floats_have_a_sum():
    a = tg.Tensor(np.zeros(100_000, np.float16))
    np.testing.assert_allclose(tg.softmax(a).numpy(), np.full(100_000, 1e-5), rtol=5e-3)
    np.testing.assert_allclose(tg.log_softmax(a).numpy(), np.full(100_000, -np.log(1e5)), rtol=1e-3)
    assert tg.logsumexp(a).item() == pytest.approx(np.log(1e5), rel=1e-3)
    np.testing.assert_allclose(tg.grad(tg.logsumexp(a), a), np.full(100_000, 1e-5), rtol=5e-3)


@pytest.mark.parametrize("function", [tg.softmax, tg.log_softmax, tg.logsumexp])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_how_the_logits_lie_in_memory_changes_no_bit(function, axis):
    a = np.random.default_rng(3).normal(size=(37, 41))
    spread = np.empty((74, 82))[::-2, ::-2]
    spread[...] = a
    for same in (np.asfortranarray(a), spread):
        assert np.array_equal(function(same, axis=axis), function(a, axis=axis))
