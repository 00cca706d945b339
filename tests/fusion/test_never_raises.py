"""`fuse` takes every graph that backward takes: any primitive, shape, dtype and parameter."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_sm as tg
from tinygrad_sm.engine import later as later_module
from tinygrad_sm.engine.primitive import TABLE

NAMES = list(TABLE)  # as they are before other tests add primitives that do what they must not
SHAPES = [
    (),
    (1,),
    (3,),
    (0,),
    (2, 3),
    (3, 3),
    (1, 3),
    (3, 1),
    (0, 3),
    (2, 0),
    (2, 1, 3),
    (2, 3, 4),
]
DTYPES = [np.float16, np.float32, np.float64, np.longdouble]
PARAMETERS = {
    "axis": [None, 0, -1, 1, (), (0,), (0, 1), (1, -1), (0, 1, 2)],
    "keepdims": [False, True],
    "index": [
        0, -1, np.int64(0), (0, 0), slice(None), slice(0, 1), None, Ellipsis, (Ellipsis, None),
        (slice(None), 0), (Ellipsis, 0), [0], [0, 0], np.array([0, 0]), np.array([], np.intp),
        ([0], [0]), (range(2), [1, 0]), (slice(None), [0, 0]), ([0, 0], None, 0), True, range(1),
        (range(3), [0, 2, 1]), (range(2), [0, 2]), ([[0], [1]], [[0, 1]]), slice(None, None, -1),
        np.array([True, False]), (0, [True, False, True]),
    ],
    "shape": [(), (-1,), (1, -1), (3, 2), (3, 3), (1, 3), (2, 3), (2, 2, 3)],
    "axes": [None, (1, 0), (0, 1), (-1, 0, 1), [1, 0], np.array([1, 0]), [2, 0, 1]],
    "dtype": DTYPES,
    "subscripts": ["ij->", "ij,jk->ik", "ii", "...->...", "i,i"], "shift": [1, (1, 2)], "n": [2, 3],
    "offset": [0, 1], "axis1": [0, -1], "axis2": [1, 0], "repeats": [2, [1, 0, 2]], "k": [1, 2],
    "reps": [2, (2, 1)], "indices": [0, [0, 0]], "nan": [0.0], "posinf": [None], "neginf": [1.0],
}  # fmt: skip
CONSTANTS = [
    0, 1, -1.0, 2.5, 1e-320, 1e300, -np.inf, np.nan, np.float32(2), True, np.eye(3), np.eye(3) == 1,
    np.ones((1, 3)), np.arange(3), np.array([[0, 2, 1]]), np.array([0, 2]), [[0.0, 1.0, 0.0]],
]  # fmt: skip
REFUSALS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


def swept(make):
    """The result and its graph, or None where the engine refuses the call or its backward."""
    with np.errstate(all="ignore"):
        try:
            output = make()
            if not isinstance(output, tg.Tensor) or not output.requires_grad:
                return None
            output.backward(np.ones(output.shape))
        except REFUSALS:
            return None
    return output


def assert_fuses(output):
    """The result is told of, swept, and has the same numbers, where these are finite."""
    nodes = tg.graph(output).nodes
    finite = all(np.isfinite(n.value).all() for n in nodes)
    with np.errstate(all="ignore"):
        try:
            result = tg.fuse(output)
            with tg.fusing():
                output.backward(np.ones(output.shape))
        except tg.TinygradError as error:
            assert not finite and "must be finite" in str(error), str(error)  # noqa: PT017, PT018
            return None
    assert str(result)
    assert (result.output.shape, result.output.dtype) == (output.shape, output.dtype)
    if finite:
        eps = max(float(np.finfo(n.dtype).eps) for n in nodes if n.tensor is not None)
        scale = max(float(np.abs(n.value).max(initial=1)) for n in nodes)
        np.testing.assert_allclose(
            result.output.numpy(), output.numpy(), rtol=1e3 * eps, atol=1e2 * eps * scale
        )
    return result


def calls_of(primitive):
    """Ways of calling one primitive, each as arguments and parameters; some it will refuse."""
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = tg.Tensor(rng.random(shape) + 0.5)
        others = [tg.Tensor(rng.random(shape) + 0.5), np.zeros(shape, int)]
        for values in product(*(PARAMETERS.get(name, []) for name in primitive.parameters)):
            params = dict(zip(primitive.parameters, values, strict=True))
            for other in others if primitive.arity != 1 else [x]:
                yield [x, *[other] * ((primitive.arity or 3) - 1)], params


@pytest.mark.parametrize("name", NAMES)
def test_every_primitive_with_all_its_parameters(name, monkeypatch):
    monkeypatch.setattr(later_module, "WORTH_WAITING", 0)
    primitive = TABLE[name]
    for args, params in calls_of(primitive):
        output = swept(lambda: primitive(*args, **params))  # noqa: B023
        if output is None:
            continue
        assert_fuses(output)
        assert_fuses(-output.exp().log() * 2)
        with tg.fusing():
            later = primitive(*args, **params) * 1.0
            later.backward(np.ones(output.shape))
        np.testing.assert_array_equal(later.numpy(), output.numpy())


@st.composite
def graphs(draw):
    """What some random operations on a few leaves make, as a function."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from(SHAPES))
    dtypes = st.sampled_from(DTYPES)
    pool = [tg.Tensor(rng.normal(size=shape), dtype=draw(dtypes)) for _ in range(2)]
    pool.append(tg.Tensor(rng.normal(size=shape[::-1])))
    names = st.sampled_from([*NAMES, "exp", "log", "sum", "div", "neg", "getitem", "log_softmax"])

    def any_of():
        return pool[draw(st.integers(-min(3, len(pool)), -1))]

    def a_primitive():
        primitive = TABLE[draw(names)]
        params = {name: draw(st.sampled_from(PARAMETERS[name])) for name in primitive.parameters}
        count = draw(st.integers(1, 3)) if primitive.arity is None else primitive.arity
        others = [draw(st.sampled_from([any_of(), draw(st.sampled_from(CONSTANTS))]))
                  for _ in range(count - 1)]  # fmt: skip
        args = [any_of(), *others]
        return primitive(*args[:: draw(st.sampled_from([1, -1]))], **params)

    def a_softmax():
        e = any_of().exp()
        p = e / e.sum(draw(st.sampled_from([0, -1, *PARAMETERS["axis"]])), True)
        return draw(st.sampled_from([p, p.log(), p.log() * 2, p * p.log()]))

    def a_loss():
        z = any_of()
        axis = draw(st.integers(-z.ndim, z.ndim - 1))
        rows = np.sum(np.ones_like(z.numpy()), axis=axis).shape
        target = draw(st.sampled_from([np.zeros(rows, int), np.ones(z.shape), -np.ones(z.shape)]))
        return tg.cross_entropy(
            z, target, axis=axis, reduction=draw(st.sampled_from(["mean", "sum", "none"])),
            label_smoothing=draw(st.sampled_from([0.0, 0.5])),
            temperature=draw(st.sampled_from([1.0, 1e-3])),
        )  # fmt: skip

    makers = st.sampled_from([a_primitive] * 4 + [a_softmax, a_softmax, a_loss])
    with np.errstate(all="ignore"):
        for _ in range(draw(st.integers(1, 9))):
            try:
                made = draw(makers)()
            except REFUSALS:
                continue
            if isinstance(made, tg.Tensor) and made.requires_grad:
                pool.append(made)
    if draw(st.booleans()):
        return swept(lambda: sum(x.sum() for x in pool))
    return swept(lambda: pool[-1])


def naive(a, row=(0, 1, 0, 0)):
    e = a.exp()
    return -(np.array(row) * (e / e.sum()).log()).sum()


@pytest.mark.parametrize(
    "f",
    [
        lambda a: np.exp(-np.negative(tg.log_softmax(a[None])[[0], [1]])),
        lambda a: tg.sigmoid(-tg.cross_entropy(a, 1)) * tg.cross_entropy(a, 1),
        lambda a: naive(a) * 1e300 * 1e300,
        lambda a: naive(a) / 1e300 / 1e300,
        lambda a: naive(a) * 5e-324,
        lambda a: naive(a) / 0.0,
        lambda a: naive(a * 1e-200 * 1e-200),
        lambda a: naive(a * 1e-200 * 1e200),
        lambda a: naive(a * np.longdouble(2)),
        lambda a: naive(a.astype(np.longdouble) / np.longdouble(3)),
        lambda a: naive(a, (0, np.nan, 0, 0)),
        lambda a: naive(a, (0, 1e308, 0, 0)) * 10,
    ],
)
def test_losses_that_are_strange(f):
    assert_fuses(swept(lambda: f(tg.Tensor([1.0, 2.0, 0.5, -1.0]))))


def test_what_the_probability_of_a_class_is_worth():
    a = tg.Tensor([[1.0, 2.0]])
    fused = tg.fuse(np.exp(-np.negative(tg.log_softmax(a)[[0], [1]]))).output
    np.testing.assert_allclose(fused.numpy(), 0.7310585786300049, rtol=1e-15)
    np.testing.assert_allclose(tg.grad(fused.sum(), a)[0, 1], 0.19661193324148185, rtol=1e-14)


def test_primitives_with_parameters_of_any_kind(table_as_it_was):
    own = tg.def_primitive(
        "times a sum",
        lambda x, by, axis=None, temperature="hot": x * sum(by["all"]),
        lambda g, y, x, by, axis=None, temperature="hot": g * sum(by["all"]),
    )
    for by, axis in [([1, 2], "none"), ((np.ones(4),), ("x", "y")), ({3}, [0]), (np.arange(3), 7)]:
        a = tg.Tensor([1.0, 2.0, 0.5, -1.0])
        z = own(a / a.exp().sum() * 2, by={"all": by}, axis=axis)
        assert assert_fuses(swept(lambda z=z: naive(z) + z.sum())).rewrites


@given(graphs())
def test_no_graph_is_too_strange(output):
    if output is not None:
        assert_fuses(output)
