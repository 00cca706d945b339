"""Inside `fusing` large operations wait: nobody can tell, but for the time that it takes."""

import contextlib
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_random_graphs import graphs

import tinygrad_sm as tg
from tinygrad_sm.engine import later
from tinygrad_sm.engine.later import Deferred
from tinygrad_sm.engine.primitive import TABLE
from tinygrad_sm.engine.threads.large import LARGE, dealt_out
from tinygrad_sm.errors import GradientWarning, InvalidTypeError, InvalidValueError
from tinygrad_sm.loss import fused
from tinygrad_sm.loss.kernels.calling import run_kernel

RNG = np.random.default_rng(5)
N, C = 3, 4
ROWS, T = np.arange(N), np.array([3, 0, 1])


@pytest.fixture(autouse=True)
def everything_is_large():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(later, "WORTH_WAITING", 0)
        yield


def waits(t):
    return isinstance(t, Deferred) and t.waits


def naive(a):
    e = a.exp()
    p = e / e.sum(axis=1, keepdims=True)
    return p, -p.log()[ROWS, T].mean()


OPERATIONS = {
    "exp": lambda a: a.exp(),
    "with a number": lambda a: 2 * a - 1,
    "with a wider array": lambda a: a + np.ones((2, N, 1)),
    "with integers": lambda a: a * np.arange(C),
    "power": lambda a: a.exp() ** 2,
    "np.maximum": lambda a: np.maximum(a, 0.5),
    "sum": lambda a: a.sum(),
    "sum, keepdims": lambda a: a.sum(axis=-1, keepdims=True),
    "mean of two axes": lambda a: np.mean(a, axis=(0, 1)),
    "max": lambda a: a.max(axis=0),
    "reshape": lambda a: a.reshape(C, -1),
    "transpose": lambda a: a.T,
    "broadcast_to": lambda a: tg.broadcast_to(a, (2, N, C)),
    "getitem": lambda a: a[ROWS, T],
    "getitem, a mask": lambda a: a[np.eye(N, C) == 1],
    "getitem, a view": lambda a: a[:, None, 1:],
    "take_along_axis": lambda a: np.take_along_axis(a, T[:, None], axis=1),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("name", OPERATIONS)
def test_shape_and_dtype_are_known_before_the_values(name, dtype):
    a = tg.Tensor(RNG.normal(size=(N, C)), dtype=dtype)
    expected = OPERATIONS[name](a)
    with tg.fusing():
        found = OPERATIONS[name](a)
    facts = [(t.shape, t.dtype, t.ndim, t.size, t.op) for t in (found, expected)]
    assert waits(found)
    assert facts[0] == facts[1]
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert not waits(found)
    facts = [(t.shape, t.dtype, t.ndim, t.size, t.op) for t in (found, expected)]
    assert facts[0] == facts[1]
    assert type(found.data) is type(expected.data)


def test_what_was_replaced_is_never_computed_unless_it_is_read():
    a = tg.Tensor(RNG.normal(size=(N, C)))
    expected = tg.grad(naive(a)[1], a)
    with tg.fusing():
        p, loss = naive(a)
        assert waits(p)
        assert waits(loss)
        loss.backward()
    assert waits(p)
    assert not waits(loss)
    np.testing.assert_allclose(a.grad, expected, rtol=1e-12)
    np.testing.assert_allclose(p.numpy(), tg.softmax(a).numpy(), rtol=1e-12)


def test_after_backward_the_loss_is_the_accurate_one():
    a = tg.Tensor([[1000.0, 0.0, 0.0, 0.0]] * N)
    with tg.fusing():
        _, loss = naive(a)
        loss.backward()
    exact = tg.cross_entropy(a, T)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-14)
    np.testing.assert_allclose(a.grad, tg.grad(exact, a))


def test_a_loss_that_is_read_first_is_the_fused_one_too_and_computed_once(monkeypatch):
    a, runs = tg.Tensor([[1000.0, 0.0, 0.0, 0.0]] * N), []
    monkeypatch.setattr(
        fused, "run_kernel", lambda *given, **more: runs.append(1) or run_kernel(*given, **more)
    )
    exact = tg.cross_entropy(a, T)
    expected = tg.grad(exact, a)
    runs.clear()
    with tg.fusing():
        p, loss = naive(a)
        assert loss.item() == exact.item()
        assert waits(p)
        loss.backward()
    assert len(runs) == 1
    np.testing.assert_array_equal(a.grad, expected)


def test_what_reads_a_loss_is_every_way_to_its_values():
    for read in (
        float, repr, np.asarray, bool, lambda t: t.data, lambda t: t.numpy(), lambda t: t.tolist(),
        lambda t: t.detach().item(), lambda t: t > 0, lambda t: f"{t:.3f}", lambda t: t.item(),
    ):  # fmt: skip
        a = tg.Tensor([[1000.0, 0.0, 0.0, 0.0]] * N)
        with tg.fusing(), warnings.catch_warnings():
            warnings.simplefilter("ignore", GradientWarning)
            _, loss = naive(a)
            with contextlib.suppress(InvalidTypeError):  # np.asarray
                read(loss)
            assert np.isfinite(loss.item()), read


def test_a_waiting_part_is_read_as_what_it_is_rewritten_to():
    a = tg.Tensor([[1000.0, 0.0, 0.0, 0.0]] * N)
    with tg.fusing():
        p, _ = naive(a)
        np.testing.assert_array_equal(p.numpy(), tg.softmax(a).numpy())
        assert waits(p._operands[0])


def test_a_reader_gets_nan_where_backward_refuses():
    a = tg.Tensor([[np.nan, 0.0, 0.0, 0.0]] * N)
    with tg.fusing():
        _, loss = naive(a)
        assert np.isnan(loss.item())
        with pytest.raises(InvalidValueError, match="NaN"):
            loss.backward()


def test_small_arrays_do_not_wait(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(later, "WORTH_WAITING", N * C + 1)
    a = tg.Tensor(RNG.normal(size=(N, C)))
    with tg.fusing():
        assert type(a.exp()) is tg.Tensor


def test_only_what_is_recorded_inside_waits():
    a, b = tg.Tensor(np.ones(3)), tg.Tensor(np.ones(3), requires_grad=False)
    with tg.fusing():
        assert not waits(b.exp())
        with tg.no_grad():
            assert not waits(a.exp())
        assert waits(a.exp())
        with tg.group("inner"):
            c = a.exp()
        assert (waits(c), c._operation.groups) == (True, ("inner",))
    assert not waits(a.exp())
    with tg.no_grad(), tg.fusing():
        assert not waits(a.exp())


@pytest.mark.parametrize(
    "bad",
    [
        lambda a: a + np.ones(7),
        lambda a: a[9],
        lambda a: a.sum(axis=5),
        lambda a: a.reshape(5, 5),
        lambda a: a + np.array(["x"]),
        lambda a: a * 1j,
        lambda a: np.take_along_axis(a, np.array([[9]]), axis=1),
    ],
)
def test_what_is_wrong_is_said_at_once_and_in_the_same_words(bad):
    a = tg.Tensor(RNG.normal(size=(N, C)))
    with pytest.raises(tg.TinygradError) as expected:
        bad(a)
    with tg.fusing(), pytest.raises(type(expected.value)) as found:
        bad(a)
    assert str(found.value) == str(expected.value)


def test_the_values_are_those_of_the_time_of_the_call():
    a, factor = tg.Tensor(np.ones(3)), np.full(3, 2.0)
    with tg.fusing():
        y = a.exp() * factor
        factor[:] = 0
        a.data[:] = 5.0
        z = a.exp()
    np.testing.assert_allclose(y.numpy(), 2 * np.e)
    np.testing.assert_allclose(z.numpy(), np.exp(5.0))
    with tg.fusing(), pytest.raises(tg.TinygradError, match="was changed after the forward"):
        y.sum().backward()


def test_a_long_chain_is_computed_without_recursion():
    a = tg.Tensor(np.ones(2))
    with tg.fusing():
        y = a
        for _ in range(20_000):
            y = y + a * 0.5
    assert waits(y)
    np.testing.assert_allclose(y.numpy(), 10_001.0)


def test_a_graph_that_is_not_fused_is_swept_as_ever():
    a = tg.Tensor(RNG.normal(size=(N, C)), name="a")
    with tg.fusing():
        y = (a.tanh() * a).sum()
        trace = y.backward(trace=True)
    assert [step.node.op for step in trace.steps] == ["sum", "mul", "tanh", "leaf"]
    np.testing.assert_allclose(a.grad, tg.grad((a.tanh() * a).sum(), a))


def test_second_derivatives():
    a = RNG.normal(size=(N, C))
    expected = tg.hessian(lambda x: naive(x)[1], a)
    with tg.fusing():
        np.testing.assert_allclose(
            tg.hessian(lambda x: naive(x)[1], a), expected, rtol=1e-9, atol=1e-12
        )
        x = tg.Tensor(a)
        naive(x)[1].backward(create_graph=True)
        (x.grad * np.arange(C)).sum().backward()
    np.testing.assert_allclose(
        x.grad.numpy() - tg.grad(naive(x)[1], x),
        np.einsum("ijkl,j->kl", expected, np.arange(C)),
        rtol=1e-9,
        atol=1e-12,
    )


def test_a_tensor_that_waits_is_a_tensor():
    a = tg.Tensor(np.ones(3))
    with tg.fusing():
        y = a.exp().named("y")
    assert repr(y) == repr(a.exp().named("y"))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        y.nothing  # noqa: B018
    assert [n.op for n in tg.graph(y).nodes] == ["leaf", "exp"]


@given(st.data())
def test_random_graphs_that_wait_agree_with_those_that_do_not(data):
    with tg.fusing():
        output, leaves = data.draw(graphs())
        seed = np.linspace(0.5, 1.5, output.size).reshape(output.shape)
        output.backward(seed)
        found, value = [leaf.grad for leaf in leaves], output.numpy().copy()
    for leaf, grad in zip(leaves, found, strict=True):
        expected = tg.grad(output, leaf, seed, allow_unused=True)
        grad = np.zeros(leaf.shape) if grad is None else grad
        np.testing.assert_allclose(grad, expected, rtol=1e-7, atol=1e-9)
    again = output._operation.primitive.forward(*output._values, **output._operation.params)
    np.testing.assert_allclose(value, again, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("other", [True, 2, 0.5, np.float32(2.0), np.float64(2.0)])
def test_numbers_of_every_kind_may_wait(other):
    x = tg.Tensor(np.ones(20_000, np.float32))
    plain = x * other
    with tg.fusing():
        waiting = x * other
        assert waiting.dtype == plain.dtype
        assert np.array_equal(waiting.numpy(), plain.numpy())


def test_what_waits_is_dealt_out_to_threads_as_ever():
    a = tg.Tensor(RNG.normal(size=(LARGE // 512, 512)).astype(np.float32))
    expected = tg.grad(np.exp(a), a, np.ones(a.shape))
    with tg.fusing():
        y = np.exp(a)
    assert waits(y)
    assert y._operation.primitive is dealt_out(TABLE["exp"])
    np.testing.assert_array_equal(tg.grad(y, a, np.ones(a.shape)), expected)
