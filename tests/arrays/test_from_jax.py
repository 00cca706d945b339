"""JAX functions as graphs of ours; the oracle of values and gradients is JAX itself."""

import json
import sys

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.cli.entry import run

jax = pytest.importorskip("jax", reason="needs the extra jax")
jnp, lax, nn = jax.numpy, jax.lax, jax.nn

N, C = 6, 5
RNG = np.random.default_rng(0)
A = RNG.normal(size=(N, C)).astype(np.float32)
T = np.array([2, 0, 3, 3, 1, 4])
Y = np.eye(C, dtype=np.float32)[T]
SOFT = RNG.dirichlet(np.ones(C), N).astype(np.float32)
W = np.float32([1, 1, 0, 1, 1, 1])


def log_p_by_hand(a):
    d = a - a.max(-1, keepdims=True)
    return d - jnp.log(jnp.exp(d).sum(-1, keepdims=True))


def with_integer_labels(a):
    """As optax writes it."""
    label = jnp.take_along_axis(a, jnp.expand_dims(T, -1), -1).take(0, axis=-1)
    return nn.logsumexp(a, axis=-1) - label


SPELLINGS = {
    "textbook": lambda a: -(Y * jnp.log(jnp.exp(a) / jnp.exp(a).sum(1, keepdims=True))).sum() / N,
    "log of softmax": lambda a: -(Y * jnp.log(nn.softmax(a))).sum(1).mean(),
    "einsum": lambda a: -jnp.einsum("ij,ij->", Y, nn.log_softmax(a)) / N,
    "einsum, row by row": lambda a: -jnp.einsum("ij,ij->i", Y, nn.log_softmax(a)).mean(),
    "one_hot": lambda a: -(nn.one_hot(T, C) * nn.log_softmax(a)).sum(-1).mean(),
    "optax, labels": lambda a: with_integer_labels(a).mean(),
    "optax, distributions": lambda a: -(SOFT * nn.log_softmax(a)).sum(-1).mean(),
    "optax, smoothed": lambda a: -((0.9 * Y + 0.1 / C) * nn.log_softmax(a)).sum(-1).mean(),
    "optax, rows that count": lambda a: (with_integer_labels(a) * W).sum() / W.sum(),
    "flax, where": lambda a: -jnp.where(np.ones((N, 1)), SOFT * nn.log_softmax(a), 0).sum() / N,
    "logsumexp less the logit": lambda a: (
        nn.logsumexp(a, axis=1) - a[jnp.arange(N), T]
    ).mean(),
    "picked": lambda a: -nn.log_softmax(a)[jnp.arange(N), T].mean(),
    "take_along_axis": lambda a: -jnp.take_along_axis(nn.log_softmax(a), T[:, None], 1).mean(),
    "vmap": lambda a: jax.vmap(lambda row, t: -nn.log_softmax(row)[t])(a, T).mean(),
    "by hand": lambda a: -jnp.mean(jnp.sum(Y * log_p_by_hand(a), -1)),
    "scan": lambda a: lax.scan(lambda s, x: (s - nn.log_softmax(x[0])[x[1]], 0), 0.0, (a, T))[0],
}  # fmt: skip


def ops(output):
    return [node.op for node in tg.graph(output).nodes]


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_of_the_loss_is_found(name):
    f, a = SPELLINGS[name], tg.Tensor(A)
    loss = tg.from_jax(f, a)
    loss.backward()
    np.testing.assert_allclose(loss.item(), f(A), rtol=1e-6)
    np.testing.assert_allclose(a.grad, jax.grad(f)(A), rtol=2e-5, atol=1e-7)
    assert "SoftmaxWithLoss" in ops(tg.fuse(loss).output)


def test_where_a_spelling_dies_is_told():
    with np.errstate(all="ignore"):
        loss = tg.from_jax(SPELLINGS["textbook"], A + 710)
    assert tg.first_breakdown(loss).node.op == "exp"
    assert np.isfinite(tg.fuse(loss).output.item())


def loop(x):
    return lax.fori_loop(0, 3, lambda i, c: c * jnp.sin(c), x)


FUNCTIONS = {
    "a network": lambda x: jnp.tanh(x @ A.T) @ A[:, :2],
    "batched products": lambda x: jnp.einsum(
        "ij,ikl->jkl", x, jnp.ones((N, 2, 3)) * A[:, :2, None]
    ),
    "relu": lambda x: nn.relu(x.at[0, 0].set(0.0)),
    "silu": lambda x: nn.silu(x),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "clip": lambda x: jnp.clip(x, -0.5, 0.5) * x,
    "pad": lambda x: jnp.pad(x, ((1, 0), (0, 2)), constant_values=3.0) ** 3,
    "cumsum": lambda x: jnp.cumsum(x, 1) * lax.cumsum(x, 0, reverse=True),
    "sort": lambda x: jnp.sort(x, 1) * np.arange(C),
    "top": lambda x: lax.top_k(x, 2)[0],
    "reductions": lambda x: x.max(0) * x.min(0) + jnp.prod(x, 0) + x.std(0),
    "roots": lambda x: jnp.sqrt(jnp.abs(x)) + lax.rsqrt(x * x + 1) + (x + 9) ** 2.5,
    "moved": lambda x: jnp.flip(jnp.roll(x, 1, 0), 1)[::2, 1:].T,
    "picked twice": lambda x: x[np.array([0, 0, 1])] * 2,
    "filled": lambda x: jnp.take(x, np.array([0, 9]), axis=1, mode="fill", fill_value=2.0),
    "dynamic": lambda x: lax.dynamic_slice(x, (jnp.argmax(x[:, 0]) * 0 + 1, 1), (2, 2)),
    "branch": lambda x: lax.cond(x.sum() > -100, jnp.exp, jnp.sin, x),
    "loop": loop,
    "a jitted part": jax.jit(lambda x: jnp.where(x > 0, x, 0.1 * x)),
    "float16 within": lambda x: x.astype(jnp.float16).astype(jnp.float32) * 2,
    "joined": lambda x: jnp.concatenate([x, jnp.stack([x[0], x[1]])]).reshape(-1)[3:],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_those_of_jax(name):
    weights = {}

    def scalar(x):
        out = FUNCTIONS[name](x)
        weights.setdefault(0, RNG.normal(size=out.shape).astype(np.float32))
        return (out * weights[0]).sum()

    wanted, gradient = jax.value_and_grad(scalar)(A)
    a = tg.Tensor(A)
    found = tg.from_jax(scalar, a)
    found.backward()
    np.testing.assert_allclose(found.item(), wanted, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(a.grad, gradient, rtol=2e-4, atol=2e-5)


def test_a_loop_whose_end_depends_on_the_numbers_is_followed():
    def doubled(x):
        return lax.while_loop(lambda c: c.sum() < 100, lambda c: c * 2, x).sum()

    a = tg.Tensor(np.float32([1, 2]))
    tg.from_jax(doubled, a).backward()  # jax.grad refuses this one
    np.testing.assert_array_equal(a.grad, [64, 64])


def test_an_operation_that_is_not_known_keeps_its_name_and_its_gradient():
    found = tg.from_jax(lambda x: lax.erf(x).sum(), A)
    assert "erf" in ops(found)
    with pytest.raises(tg.TinygradError, match="erf has no second derivative"):
        found.backward(create_graph=True)


def test_a_derivative_of_the_users_own_is_kept():
    @jax.custom_vjp
    def straight_through(x):
        return jnp.round(x)

    straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (2 * g,))
    a = tg.Tensor(A)
    found = tg.from_jax(lambda x: straight_through(x).sum(), a)
    found.backward()
    assert "straight_through" in ops(found)
    np.testing.assert_array_equal(a.grad, np.full_like(A, 2))


def test_arguments_are_named_and_may_be_trees():
    def loss(params, x):
        return nn.log_softmax(x @ params["w"] + params["b"])[0, 0]

    found = tg.from_jax(loss, {"w": A.T, "b": np.zeros(N)}, np.ones((2, C), int))
    names = [node.name for node in tg.graph(found).nodes if node.op == "leaf"]
    assert sorted(names) == ["params['b']", "params['w']"]
    assert {node.dtype for node in tg.graph(found).nodes} == {"float32"}
    assert "log_softmax" in {g for node in tg.graph(found).nodes for g in node.groups}


@pytest.mark.parametrize(
    ("f", "args", "said"),
    [
        (lambda x: (x, x), (A,), "must return one array of floats"),
        (lambda x: x > 0, (A,), "must return one array of floats; it returns bool"),
        (lambda x: jnp.ones(()), (A,), "must depend on an argument"),
        (lambda x: x, (np.ones(2, complex),), "real numbers"),
        (lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), (A,), "bfloat16"),
        (3, (A,), "f must be a function"),
        (lambda x: x, ("logits",), "real numbers"),
    ],
)
def test_bad_input(f, args, said):
    with pytest.raises(tg.TinygradError, match=said):
        tg.from_jax(f, *args)


def test_what_the_function_raises_is_its_own():
    with pytest.raises(KeyError):
        tg.from_jax(lambda x: {}["w"], A)


def test_without_jax_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(TypeError, match=r"pip install 'tinygrad_sm\[jax\]'"):
        tg.from_jax(lambda x: x, A)


MODEL = """
import jax, jax.numpy as jnp
def loss(logits=jnp.array([[2.0, 1.0, 0.1], [0.5, 2.5, 0.3]]), labels=jnp.array([0, 1])):
    return -jnp.log(jax.nn.softmax(logits))[jnp.arange(2), labels].mean()
def nothing():
    return jnp.ones(3)
"""


def test_the_command_takes_a_jax_function(tmp_path, capsys):
    (tmp_path / "model.py").write_text(MODEL)
    assert run(["fuse", f"{tmp_path}/model.py:loss", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "SoftmaxWithLoss" in [node["op"] for node in found["after"]["nodes"]]


def test_the_command_says_what_a_jax_function_needs(tmp_path, capsys):
    (tmp_path / "model.py").write_text(MODEL)
    assert run(["fuse", f"{tmp_path}/model.py:nothing"]) == 2
    assert "arguments with defaults" in capsys.readouterr().err
