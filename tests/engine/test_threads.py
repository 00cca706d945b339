"""Large calls dealt out to threads: the same bits, the same errors, nobody else's array touched."""

import threading
import warnings
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import tinygrad_sm as tg
from tinygrad_sm.engine import calling, memory
from tinygrad_sm.engine.threads import large, pool
from tinygrad_sm.engine.threads.large import in_pieces

THREADS = [1, 2, 5]


@pytest.fixture(autouse=True)
def few_are_large():
    """Let arrays of a few elements count as large, in pieces of still fewer."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (large, calling, memory):
            patch.setattr(module, "LARGE", 6)
        patch.setattr(large, "PIECE", 4)
        yield
    tg.set_threads(None)


def same(found, expected):
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    assert found.strides == expected.strides


# Calls --------------------------------------------------------------------------------------------

UNARY = [np.exp, np.log, np.log1p, np.sqrt, np.tanh, np.negative, np.absolute, np.isfinite]
BINARY = [np.add, np.subtract, np.multiply, np.true_divide, np.power, np.maximum, np.greater]
DTYPES = st.sampled_from([np.float16, np.float32, np.float64, np.longdouble])
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "backwards": lambda x: x[::-1].copy()[::-1] if x.ndim else x,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
}


def numbers(shape, dtype):
    return (np.linspace(0.1, 2, int(np.prod(shape))) ** 2).reshape(shape).astype(dtype)


@given(
    mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=9, min_side=0),
    st.tuples(DTYPES, DTYPES),
    st.tuples(st.sampled_from(sorted(LAYOUTS)), st.sampled_from(sorted(LAYOUTS))),
    st.sampled_from(BINARY),
    st.sampled_from(THREADS),
)
def test_pairs_give_the_bits_and_the_layout_of_numpy(shapes, dtypes, layouts, ufunc, threads):
    tg.set_threads(threads)
    x, y = (
        LAYOUTS[layout](numbers(shape, dtype))
        for shape, dtype, layout in zip(shapes.input_shapes, dtypes, layouts, strict=True)
    )
    for function in (ufunc, lambda *pieces: ufunc(*pieces)):  # the first puts its results itself
        same(np.asarray(in_pieces(function, [x, y])), np.asarray(ufunc(x, y)))
        same(np.asarray(in_pieces(function, [x, 2])), np.asarray(ufunc(x, 2)))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("ufunc", UNARY)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(23,), (1, 23), (2, 11), (23, 1), (5, 1, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_single_arguments(threads, ufunc, layout, shape, dtype):
    tg.set_threads(threads)
    x = LAYOUTS[layout](numbers(shape, dtype))
    same(in_pieces(ufunc, [x]), ufunc(x))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 1000), (100, 7), (1, 5000), (4, 5, 300), (500,), (2, 0, 3)])
@pytest.mark.parametrize("axis", [-1, (-1,), 0, None])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("row", [tg.sum, tg.max, tg.prod])
def test_reductions_give_the_bits_of_numpy(monkeypatch, threads, dtype, shape, axis, keepdims, row):
    tg.set_threads(threads)
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    if 0 in shape and row is tg.max:
        return

    def run():
        t = tg.Tensor(x)
        y = row(t, axis=axis, keepdims=keepdims)
        y.backward(np.ones(y.shape))
        return [y.numpy(), t.grad]

    found, expected = run(), unshared_run(monkeypatch, run)
    np.testing.assert_array_equal(found[0], row(x, axis=axis, keepdims=keepdims))
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(f, e)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 1000), (100, 7), (4, 5, 300)])
@pytest.mark.parametrize("repeated", [False, True])
def test_products_are_added_up_as_numpy_would(threads, dtype, shape, repeated):
    """What goes to a denominator that is one for a row is summed piece by piece."""
    tg.set_threads(threads)
    rng = np.random.default_rng(0)
    q, g = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    if repeated:
        g = np.broadcast_to(g[..., :1], shape)
    d = tg.Tensor(np.full((*shape[:-1], 1), 2, dtype))
    ((2 * q) / d).backward(g)
    same(d.grad, -tg.sum(g * q, axis=-1, keepdims=True) / 2)


OWN = {
    "of a row": lambda x: x - x.max(axis=-1, keepdims=True),
    "beside another array": lambda x: x * (numbers((6, 7), np.float64) > 1),
    "of a mask": lambda x: np.concatenate([x[numbers((6, 7), np.float64) > 1]] * 50)[: x.size],
    "a view": lambda x: x.T,
    "itself": lambda x: x,
    "a number": lambda x: float(x.size),
}


@pytest.mark.parametrize("name", OWN)
def test_a_function_that_has_no_rows_is_run_on_the_whole(name):
    x = numbers((6, 7), np.float64)
    np.testing.assert_array_equal(in_pieces(OWN[name], [x]), OWN[name](x))


def test_what_is_repeated_along_the_rows_is_given_whole():
    x, y = numbers((4, 5), np.float64), numbers((5,), np.float64)
    seen = []
    in_pieces(lambda x, y, z: seen.append((x.shape, y.shape)) or x * y * z, [x, y, 2.0])
    assert {s[1] for s in seen} == {(5,)}
    assert {s[0] for s in seen} <= {(0, 5), (1, 5), (2, 5)}
    with pytest.raises(ValueError, match="broadcast"):
        in_pieces(np.add, [x, numbers((5, 3), np.float64)])


def test_the_result_is_put_where_it_is_wanted():
    x = numbers((4, 5), np.float64)
    for into in (np.empty_like(x), np.empty_like(x.T).T, np.empty((4, 10))[:, ::2]):
        for function in (np.exp, lambda x: np.exp(x)):
            into[...] = 0
            assert in_pieces(function, [x], out=into) is into
            np.testing.assert_array_equal(into, np.exp(x))


# Errors and warnings ------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("at", [0, -1])
def test_the_callers_error_state_holds_in_every_thread(threads, at):
    tg.set_threads(threads)
    x = np.zeros(40)
    x[at] = 1000.0
    t = tg.Tensor(x)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        tg.exp(t)
    with pytest.warns(RuntimeWarning, match="overflow"):
        tg.exp(t)
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("error")
        assert np.isinf(tg.exp(t).numpy()[at])


def test_an_error_in_a_helper_reaches_the_caller(monkeypatch):
    """The calling thread waits with its piece until a helper has taken the one that fails."""
    failed = threading.Event()
    home = threading.get_ident()

    def run(task, count, threads):
        def in_turn(number):
            if threading.get_ident() == home:
                failed.wait(10)
                return
            try:
                task(number)
            finally:
                failed.set()

        original(in_turn, count, threads)

    original = pool.run
    monkeypatch.setattr(pool, "run", run)
    tg.set_threads(2)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        in_pieces(np.exp, [np.full(40, 1000.0)])


# The engine ---------------------------------------------------------------------------------------


def unshared_run(monkeypatch, run):
    with monkeypatch.context() as patch:
        for module in (large, calling, memory):
            patch.setattr(module, "LARGE", 10**9)
        return run()


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("form", ["naive", "shifted", "logsumexp"])
@pytest.mark.parametrize("shape", [(7, 11), (2, 50), (1, 60)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_composite_has_the_same_bits(monkeypatch, threads, form, shape, dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype(dtype)
    target = rng.integers(shape[1], size=shape[0])

    def run():
        a = tg.Tensor(logits)
        loss = tg.composite_cross_entropy(a, target, form=form)
        loss.backward()
        made = [n.tensor for n in tg.graph(loss).nodes if n.tensor is not None]
        assert all(type(t._array) is type(t.numpy()) is np.ndarray for t in made)
        return [array for t in made for array in (t.numpy(), t.grad) if array is not None]

    tg.set_threads(threads)
    found = run()
    for f, e in zip(found, unshared_run(monkeypatch, run), strict=True):
        assert type(f) is np.ndarray
        np.testing.assert_array_equal(f, e)


def test_primitives_of_others_are_given_plain_arrays():
    seen = []

    def forward(x):
        seen.append(type(x))
        return np.exp(x)

    def vjp(g, y, x):
        seen.extend(map(type, (g, y, x)))
        return g * y

    op = tg.def_primitive("sees_what_it_is_given", forward, vjp)
    op(tg.Tensor(np.ones(50))).backward(np.ones(50))
    assert set(seen) == {np.ndarray}


def test_plain_arrays_are_handed_out():
    x = tg.Tensor(np.ones((5, 6)), name="x")
    y = tg.relu(x.T.reshape(6, 5)[1:] * 2)
    trace = y.backward(np.ones((5, 5)), trace=True)
    held = [x.grad, y.grad, y.data, x.numpy(), *(c.value for c in trace.contributions(x))]
    assert all(type(array) is np.ndarray for array in held)
    assert type(tg.grad(y, x, np.ones((5, 5)))) is np.ndarray
    second = tg.grad((tg.exp(x) * x).sum(), x, create_graph=True)
    assert type(second.numpy()) is np.ndarray


# Adding up in place -------------------------------------------------------------------------------

CONSUMERS = {
    "square": lambda x: (x * x).sum(),
    "sum of itself": lambda x: (x + x + x).sum(),
    "diamond": lambda x: ((y := x * 2) * x + y * y + y).sum(),
    "views": lambda x: (x.reshape(6, 5).T * x + x.T.reshape(5, 6)).sum(),
    "parts": lambda x: x[:, 1:].sum() + (x[:, :-1] * 3).sum() + x.sum(axis=0).max(),
    "many": lambda x: sum((x * k for k in range(1, 5)), x).sum(),
    "rows": lambda x: ((e := tg.exp(x)) / e.sum(axis=1, keepdims=True) * e).sum(),
    "gradient handed on": lambda x: ((y := x * 1) + (z := y + y) + z + y).sum(),
}


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("name", CONSUMERS)
def test_every_gradient_is_what_it_was_without(monkeypatch, name, trace):
    """Of every Tensor, twice over, with what the first pass gave still as it was given."""

    def run():
        x = tg.Tensor(numbers((5, 6), np.float64), name="x")
        y = CONSUMERS[name](x)
        record = y.backward(trace=trace)
        made = [n.tensor for n in tg.graph(y).nodes if n.tensor is not None]
        first = [t._grad for t in made]
        copies = [np.array(g) for g in first]
        contributions = [c.value.copy() for t in made if trace for c in record.contributions(t)]
        y.backward()
        if trace:
            kept = [c.value for t in made for c in record.contributions(t)]
            for now, then in zip(kept, contributions, strict=True):
                np.testing.assert_array_equal(now, then)
            for t in made[:-1]:
                parts = [c.value for c in record.contributions(t)]
                if t.requires_grad:
                    np.testing.assert_allclose(np.sum(parts, axis=0), record.cotangent(t))
        for now, then in zip(first, copies, strict=True):
            np.testing.assert_array_equal(now, then)
        return [*copies, *(t.grad for t in made)]

    for f, e in zip(run(), unshared_run(monkeypatch, run), strict=True):
        np.testing.assert_array_equal(f, e)


BESIDE = [(), (1,), (11,), (1, 1), (1, 11), (7, 1), (7, 11), (1, 1, 1)]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("shape", [(7, 11), (1, 7, 11), (3, 7, 11), (1, 1, 11)])
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("row", [tg.add, tg.sub, tg.mul, tg.div, tg.maximum, tg.hypot, tg.pow])
def test_what_is_repeated_gets_the_sum(monkeypatch, threads, shape, beside, row):
    """Also where the rule itself sums, as that of `div` does."""
    tg.set_threads(threads)
    monkeypatch.setattr(large, "PIECE", 25)
    rng = np.random.default_rng(0)
    x, y = rng.random(shape) + 1, rng.random(beside) + 1
    g = rng.normal(size=np.broadcast_shapes(shape, beside))

    def run():
        pairs = [(tg.Tensor(x), tg.Tensor(y)) for _ in range(2)]
        row(*pairs[0]).backward(g)
        row(*pairs[1][::-1]).backward(g)
        return [t.grad for pair in pairs for t in pair]

    for f, e in zip(run(), unshared_run(monkeypatch, run), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-13)


KEEPERS = {
    "the array": lambda c: c,
    "a view": lambda c: c[:],
    "its transpose": lambda c: c.T,
    "a buffer": memoryview,
}


@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("first", [True, False])
def test_what_a_vjp_keeps_is_not_added_to(keeper, first):
    kept = []

    def vjp(g, y, x):
        c = 2 * g
        kept.append((KEEPERS[keeper](c), c.copy()))
        return c

    op = tg.def_primitive(f"keeps_{keeper}_{first}", lambda x: 2 * x, vjp)
    x = tg.Tensor(np.ones((5, 6)))
    y = op(x) + x * 3 if first else x * 3 + op(x)
    (y + x).sum().backward()
    np.testing.assert_array_equal(x.grad, np.full((5, 6), 6.0))
    for array, copy in kept:
        np.testing.assert_array_equal(np.asarray(array).reshape(-1), copy.reshape(-1))


@pytest.mark.parametrize("give", ["cotangent", "output", "argument", "read-only", "repeated"])
def test_what_a_vjp_borrows_is_not_added_to(give):
    constant = np.full((5, 6), 2.0)
    constant.setflags(write=False)
    answer = {
        "cotangent": lambda g, y, x: g, "output": lambda g, y, x: y,
        "argument": lambda g, y, x: x, "read-only": lambda g, y, x: constant,
        "repeated": lambda g, y, x: np.broadcast_to(np.full((5, 1), 2.0), (5, 6)),
    }[give]  # fmt: skip
    op = tg.def_primitive(f"gives_{give}_to_add_to", lambda x: x + 1, answer)
    x = tg.Tensor(numbers((5, 6), np.float64))
    y = op(x)
    (x * 3 + x * x + y).sum().backward()
    expected = {"cotangent": 1.0, "output": x.numpy() + 1, "argument": x.numpy()}.get(give, 2.0)
    np.testing.assert_allclose(x.grad, 3 + 2 * x.numpy() + expected)
    np.testing.assert_array_equal(x.numpy(), numbers((5, 6), np.float64))
    np.testing.assert_array_equal(y.numpy(), numbers((5, 6), np.float64) + 1)
    np.testing.assert_array_equal(y.grad, np.ones((5, 6)))
    assert (constant == 2).all()


def test_the_seed_is_not_added_to():
    x = tg.Tensor(np.ones(30))
    seed = np.ones(30)
    y = x + 0
    tg.grad(y + y * 2, [y, x], seed)
    np.testing.assert_array_equal(seed, 1)
    z = tg.Tensor(np.ones(30))
    z.backward(seed)
    z.backward(seed)
    np.testing.assert_array_equal(seed, 1)
    np.testing.assert_array_equal(z.grad, 2)


def test_a_large_sum_needs_no_array_besides(monkeypatch):
    """The cotangent of a Tensor with two consumers is the array that the first of them made."""
    totals = []
    monkeypatch.setattr(memory, "add_in_place", lambda t, c: totals.append(t) or np.add(t, c, t))
    x = tg.Tensor(np.ones((5, 6)))
    e = tg.exp(x)
    (e / e.sum(axis=1, keepdims=True)).backward(np.ones((5, 6)))
    assert len(totals) == 1
    assert totals[0] is e._grad


@pytest.mark.parametrize("threads", [1, 3])
def test_copies_are_copies(threads):
    tg.set_threads(threads)
    try:
        x = np.random.default_rng(0).random((3, large.LARGE // 2))
        for each in (x, x.T, x[:, ::2], x[:1, :5], np.array(1.0)):
            copy = large.copied(each)
            assert np.array_equal(copy, each)
            assert not np.shares_memory(copy, each)
    finally:
        tg.set_threads(None)


def test_all_that_may_change_of_a_leaf_changes_under_one_lock(monkeypatch):
    t = tg.Tensor([1.0])
    changes = [lambda: t.data, lambda: setattr(t, "data", [2.0]), lambda: setattr(t, "grad", [1.0]),
               lambda: t.grad, t.zero_grad, t.backward]  # fmt: skip
    for change in changes:
        lock = MagicMock()
        monkeypatch.setattr(memory, "changing", lock)
        change()
        assert lock.__enter__.called
