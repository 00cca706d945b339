"""JAX's arrays in a Tensor, eager, compiled and sharded; the oracle is `jax.grad`."""

import subprocess
import sys

import numpy as np
import pytest

import tinygrad_sm as tg

jax = pytest.importorskip("jax", reason="needs the extra jax")
jnp = jax.numpy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5)).astype(np.float32)
LABELS = np.array([2, 0, 3, 3, 1, 4])
ONE_HOT = np.eye(5, dtype=np.float32)[LABELS]
FORMS = ("naive", "shifted", "logsumexp", "fused")
OPTIONS = [
    {}, {"weight": np.arange(1, 6.0)}, {"reduction": "sum"}, {"temperature": 2.0},
    {"ignore_index": 3, "label_smoothing": 0.1},
]  # fmt: skip


def loss_of(form, a, target, **options):
    if form == "fused":
        return tg.cross_entropy(a, target, **options)
    return tg.composite_cross_entropy(a, target, form=form, **options)


def with_gradient(form, logits, target, **options):
    a = tg.Tensor(logits)
    loss = loss_of(form, a, target, **options)
    loss.backward()
    return loss.data, a.grad


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("traced", ["eager", "logits", "both"])
def test_options_give_what_numpy_gives(form, options, traced):
    wanted = with_gradient("fused", LOGITS, LABELS, **options)
    x, t = jnp.asarray(LOGITS), jnp.asarray(LABELS)
    if traced == "eager":
        found = with_gradient(form, x, t, **options)
    elif traced == "logits":
        found = jax.jit(lambda x: with_gradient(form, x, LABELS, **options))(x)
    else:
        found = jax.jit(lambda x, t: with_gradient(form, x, t, **options))(x, t)
    assert isinstance(found[1], jax.Array)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_inside_jit_it_is_the_gradient_of_jax(form):
    def loss(x):
        return -(ONE_HOT * jax.nn.log_softmax(x)).sum(1).mean()

    found = jax.jit(lambda x: with_gradient(form, x, jnp.asarray(ONE_HOT))[1])(LOGITS)
    np.testing.assert_allclose(found, jax.grad(loss)(LOGITS), rtol=1e-5, atol=1e-7)


def test_a_network_with_parameters():
    weights = RNG.normal(size=(5, 4)).astype(np.float32)

    def ours(w, b):
        w, b = tg.Tensor(w), tg.Tensor(b)
        loss = tg.cross_entropy(tg.tanh(LOGITS @ w + b) * 3, LABELS % 4)
        return tg.grad(loss, [w, b])

    def theirs(w, b):
        logp = jax.nn.log_softmax(jnp.tanh(LOGITS @ w + b) * 3)
        return -logp[jnp.arange(6), LABELS % 4].mean()

    b = np.zeros(4, np.float32)
    found = jax.jit(ours)(weights, b)
    for a, wanted in zip(found, jax.grad(theirs, (0, 1))(weights, b), strict=True):
        np.testing.assert_allclose(a, wanted, rtol=2e-5, atol=1e-6)


def test_digits_that_a_difference_would_lose():
    x, t = np.float32([[60, 0, 0], [0, 60, 1]]), np.array([0, 1])
    loss = jax.jit(lambda x, t: tg.cross_entropy(x, t, reduction="none"))(x, t)
    gradient = jax.jit(lambda x: with_gradient("fused", x, t, reduction="sum")[1])(x)
    rest = np.array([2 * np.exp(-60.0), np.exp(-60.0) + np.exp(-59.0)])
    np.testing.assert_allclose(loss, rest, rtol=1e-6)
    np.testing.assert_allclose(gradient[np.arange(2), t], -rest, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_soft_targets_are_differentiated_too(axis):
    y = RNG.dirichlet(np.ones(5), 6).astype(np.float32) * 2

    def gradients(x, y):
        a, q = tg.Tensor(x), tg.Tensor(y)
        tg.cross_entropy(a, q, axis=axis, temperature=0.5).backward()
        return a.grad, q.grad

    def theirs(x, y):
        return -(y * jax.nn.log_softmax(x / 0.5, axis)).sum(axis).mean()

    for found, wanted in zip(
        jax.jit(gradients)(LOGITS, y), jax.grad(theirs, (0, 1))(LOGITS, y), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_masked_classes_get_no_gradient():
    x = LOGITS.copy()
    x[:, 0], x[2, 4] = -np.inf, -np.inf
    t = np.array([2, 1, 3, 3, 1, 4])
    for options in ({}, {"label_smoothing": 0.0, "weight": np.ones(5)}):
        found = jax.jit(lambda x, o=options: with_gradient("fused", x, t, **o))(x)
        for ours, wanted in zip(found, with_gradient("fused", x, t, **options), strict=True):
            np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-7)


def test_large_arrays():
    x = RNG.normal(size=(1024, 600)).astype(np.float32)
    found = jax.jit(lambda x: with_gradient("naive", x, np.arange(1024) % 600)[1])(x)
    wanted = with_gradient("fused", x, np.arange(1024) % 600)[1]
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-9)


UNARY = [
    "exp", "log", "sqrt", "tanh", "sigmoid", "relu", "sin", "cos", "log1p", "abs", "square",
    "arctan", "expm1", "cumsum", "sort", "flip", "ravel", "var", "prod", "max", "min", "std",
]  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_operations_run_by_jax(name):
    data = np.abs(LOGITS) + np.float32(0.1)
    function = getattr(tg, name)

    def gradient(x):
        t = tg.Tensor(x)
        (function(t) * 1.5).sum().backward()
        return t.grad

    found = jax.jit(gradient)(data) if name != "sort" else gradient(jnp.asarray(data))
    np.testing.assert_allclose(found, gradient(data), rtol=1e-4, atol=1e-5)


def test_indexing_and_joining():
    def gradient(x):
        t = tg.Tensor(x)
        both = tg.concatenate([t[:, 1:3], t[[0, 0, 2, 3, 4, 5]][:, :1]], axis=1)
        (tg.where(both > 0, both, 0.1 * both) ** 2).sum().backward()
        return t.grad

    np.testing.assert_allclose(jax.jit(gradient)(LOGITS), gradient(LOGITS), rtol=1e-6)


def test_second_derivatives():
    found = tg.hessian(lambda a: tg.cross_entropy(a, 1), jnp.asarray(LOGITS[0]))
    wanted = jax.hessian(lambda a: -jax.nn.log_softmax(a)[1])(LOGITS[0])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_a_label_out_of_range():
    with pytest.raises(tg.TinygradError, match="from 0 to 4"):
        tg.cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS + 1))
    found = jax.jit(lambda x, t: tg.cross_entropy(x, t, reduction="none"))(LOGITS, LABELS + 1)
    assert np.isnan(found).tolist() == [False] * 5 + [True]


def test_dtypes():
    assert tg.Tensor(jnp.arange(3)).dtype == np.float32  # JAX's own
    assert tg.Tensor(jnp.ones(3, jnp.float16)).dtype == np.float16
    with pytest.raises(TypeError, match="bfloat16"):
        tg.Tensor(jnp.ones(3, jnp.bfloat16))


def test_it_shows_what_it_holds():
    a = tg.Tensor(jnp.asarray([2.0, 1.0, 0.1]), name="a")
    assert "2." in repr(a)
    seen = []
    jax.jit(lambda x: seen.append(repr(tg.Tensor(x))) or x)(a.data)
    assert "float32" in seen[0]


SHARDED = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, numpy as np, tinygrad_sm as tg
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("rows", "classes"))
both, rows = NamedSharding(mesh, P("rows", "classes")), NamedSharding(mesh, P("rows"))
x = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
t = np.arange(8) % 12
def step(x, t):
    a = tg.Tensor(x)
    loss = tg.cross_entropy(a, t)
    loss.backward()
    return loss.data, a.grad
sharded = jax.jit(step, in_shardings=(both, rows), out_shardings=(None, both))
compiled = sharded.lower(x, t).compile()
text = compiled.as_text()
words = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
sent = [w for w in words if f" {w}(" in text or f" {w}-start(" in text]
_, found = compiled(jax.device_put(x, both), jax.device_put(t, rows))
a = tg.Tensor(x); tg.cross_entropy(a, t).backward()
close = np.abs(np.asarray(found) - a.grad).max() < 1e-6
print(sent, found.sharding.is_equivalent_to(both, 2), close)
"""


def test_a_sharded_gradient_needs_sums_alone():
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True)
    assert done.stdout.strip() == "['all-reduce'] True True", done.stderr[-2000:]
