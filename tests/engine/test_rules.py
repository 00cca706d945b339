"""Every row of the table against finite differences of an independent NumPy formula.

CASES is the one list of cases; a new primitive without one fails `test_every_primitive_has_a_case`.
"""

import operator
from dataclasses import dataclass, field
from typing import Any

import finite_differences as fd
import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine import shapes
from tinygrad_sm.engine.primitive import TABLE

# Inputs: fixed, generic numbers, no ties, away from kinks -----------------------------------------


def real(*shape, start=0):
    """Distinct numbers in ±[0.3, 1.9], of both signs."""
    n = int(np.prod(shape))
    k = np.arange(start, start + n)
    return (np.where(k % 2, -1, 1) * (0.3 + 1.6 * ((k * 0.6180339887) % 1))).reshape(shape)


def positive(*shape, start=0):
    return np.abs(real(*shape, start=start))


@dataclass
class Case:
    op: str
    arrays: tuple
    params: dict[str, Any] = field(default_factory=dict)
    constant: tuple[int, ...] = ()  # positions of the arguments that are not differentiated

    def __str__(self):
        shapes = ",".join(str(np.shape(a)).replace(" ", "") for a in self.arrays)
        params = ",".join(f"{k}={' '.join(repr(v).split())}" for k, v in self.params.items())
        return f"{self.op}{shapes}{params}"


SHAPES = [(), (1,), (3,), (2, 3), (0,), (2, 0, 3)]
BROADCASTS = [
    ((), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (1, 3)), ((2, 3), ()),
    ((), (2, 3)), ((1,), (3,)), ((4, 1, 3), (2, 1)), ((0, 3), (3,)), ((0, 1), (1, 3)), ((1, 1), ()),
]  # fmt: skip
AXES = [
    {}, {"axis": 0}, {"axis": -1}, {"axis": 1, "keepdims": True}, {"axis": (0, 2)},
    {"axis": (-1, 0), "keepdims": True}, {"keepdims": True}, {"axis": ()}, {"axis": (0, 1, 2)},
]  # fmt: skip

MASK = np.array([True, False, True])
INDICES = [
    0, -1, slice(None), slice(None, None, -1), slice(0, 0), (0, 1), (slice(None), 1), Ellipsis,
    None, (None, 0, Ellipsis), True, np.int64(1), np.array(1), np.array([0, 0, 1]), [1, 0, 1], [],
    (np.array([0, 1, 1]), np.array([2, 0, 2])), (np.array([[0], [1]]), [0, 2]),
    (slice(None), MASK), np.ones((2, 3), bool), np.zeros((2, 3), bool), (0, MASK),
    (slice(None), np.array([-1, -1, 0])), (np.array([1]), slice(1, None)),
]  # fmt: skip

CASES = [
    *(
        Case(op, (real(*a), positive(*b, start=40)))
        for op in ("add", "sub", "mul", "div", "maximum", "minimum")
        for a, b in BROADCASTS
    ),
    *(Case("pow", (positive(*a), real(*b, start=7))) for a, b in BROADCASTS),
    *(Case("pow", (real(3), n), constant=(1,)) for n in (0, 1, 2, 3, -1, -2, 2.0, 1.0)),
    Case("pow", (positive(3), 0.5), constant=(1,)),
    Case("pow", (2, real(3)), constant=(0,)),
    *(
        Case(op, (real(*shape),))
        for op in ("neg", "exp", "tanh", "sigmoid", "relu", "abs")
        for shape in SHAPES
    ),
    *(
        Case(op, (positive(*shape),))
        for op in ("log", "log1p", "sqrt")
        for shape in SHAPES
    ),
    *(Case(op, (real(2, 3, 2),), dict(axes)) for op in ("sum", "mean", "max") for axes in AXES),
    *(Case(op, (real(),), axes) for op in ("sum", "mean", "max") for axes in ({}, {"axis": ()})),
    Case("sum", (real(0, 3),)),
    *(Case(op, (real(0, 3),), {"axis": 1}) for op in ("sum", "mean", "max")),
    Case("sum", (real(0, 3),), {"axis": 0}),
    Case("reshape", (real(2, 3),), {"shape": (3, 2)}),
    Case("reshape", (real(2, 3),), {"shape": -1}),
    Case("reshape", (real(1),), {"shape": ()}),
    Case("reshape", (real(0, 3),), {"shape": (3, 0, 2)}),
    *(
        Case("transpose", (real(2, 3, 4),), {"axes": axes})
        for axes in (None, (0, 1, 2), (2, 0, 1), (-1, 0, -2))
    ),
    Case("transpose", (real(),), {"axes": ()}),
    Case("broadcast_to", (real(),), {"shape": (2, 3)}),
    Case("broadcast_to", (real(2, 1),), {"shape": (4, 2, 3)}),
    Case("broadcast_to", (real(1, 3),), {"shape": (0, 3)}),
    Case("broadcast_to", (real(2),), {"shape": (2,)}),
    Case("astype", (real(3),), {"dtype": np.float64}),
    Case("concatenate", (real(3),)),
    Case("concatenate", (real(2, 3), real(4, 3, start=9), real(0, 3))),
    Case("concatenate", (real(2, 3), real(2, 1, start=9)), {"axis": -1}),
    *(Case("getitem", (real(2, 3),), {"index": index}) for index in INDICES),
    Case("getitem", (real(),), {"index": ()}),
    Case("getitem", (real(0, 3),), {"index": np.zeros((0, 3), bool)}),
    Case("scatter", (real(2),), {"index": np.array([1, 1]), "shape": (3,)}),
    Case("scatter", (real(2),), {"index": slice(0, 2), "shape": (3,)}),
    Case("scatter", (real(),), {"index": (0, 1), "shape": (2, 3)}),
    Case("take_along_axis", (real(2, 3), np.array([[2], [0]])), constant=(1,)),
    Case("take_along_axis", (real(2, 3), np.array([[1, 1, 0]])), {"axis": 0}, (1,)),
    Case("take_along_axis", (real(2, 3), np.array([[0, 0], [-1, 2]])), {"axis": -1}, (1,)),
    Case("take_along_axis", (real(1, 3), np.array([[0], [2], [0]])), constant=(1,)),
    Case("take_along_axis", (real(4), np.array([3, 3, 0])), constant=(1,)),
    Case("take_along_axis", (real(3, 2, 2), np.zeros((3, 1, 2), int)), {"axis": 1}, (1,)),
    Case("take_along_axis", (real(0, 3), np.zeros((0, 1), int)), constant=(1,)),
    *(
        Case("matmul", (real(*a), real(*b, start=5)))
        for a, b in [
            ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((1, 1), (1, 1)),
            ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3,)),
            ((3,), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 3)),
            ((0,), (0,)), ((0,), (0, 2)), ((2, 0), (0,)),
        ]
    ),
    *(
        Case("where", (c, real(*a), real(*b, start=9)), constant=(0,))
        for c, a, b in [
            (MASK, (3,), (3,)), (MASK, (), (3,)), (MASK, (2, 1), (3,)), (True, (3,), ()),
            (np.ones((2, 1), bool), (3,), (2, 3)), (np.zeros((0, 3), bool), (3,), (1,)),
        ]
    ),
]  # fmt: skip


def _scattered(x, index, shape):
    z = np.zeros(shape, x.dtype)
    np.add.at(z, index, x)
    return z


# The same functions, written without the table
FORMULAS = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "pow": lambda x, n: x**n,
    "exp": np.exp,
    "log": np.log,
    "log1p": lambda x: np.log(1 + x),
    "sqrt": lambda x: x**0.5,
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: x * (x > 0),
    "abs": lambda x: x * np.sign(x),
    "maximum": lambda x, y: x * (x > y) + y * (x <= y),
    "minimum": lambda x, y: x * (x < y) + y * (x >= y),
    "where": np.where,
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "reshape": np.reshape,
    "transpose": np.transpose,
    "broadcast_to": np.broadcast_to,
    "astype": lambda x, dtype: x,
    "concatenate": lambda *xs, axis=0: np.concatenate(xs, axis=axis),
    "getitem": lambda x, index: x[index],
    "scatter": _scattered,
    "take_along_axis": lambda x, i, axis=-1: np.take_along_axis(x, i, axis),
    "matmul": operator.matmul,
}


def rows_of_the_package():
    """The primitives that rules.py and shapes.py define, in the table's order."""
    return {
        name for name, row in TABLE.items() if row in [*vars(p).values(), *vars(shapes).values()]
    }


def test_every_primitive_has_a_case():
    assert {case.op for case in CASES} == rows_of_the_package()
    assert set(FORMULAS) == rows_of_the_package()


# Running a case -----------------------------------------------------------------------------------


def differentiated(case):
    return [i for i in range(len(case.arrays)) if i not in case.constant]


def called(case, arguments):
    """The case's operation as a user calls it."""
    if case.op == "concatenate":
        return tg.concatenate(arguments, **case.params)
    return TABLE[case.op](*arguments, **case.params)


def formula(case, arrays):
    return FORMULAS[case.op](*arrays, **case.params)


def tensors_of(case, dtype):
    return [
        a if i in case.constant else tg.Tensor(a, dtype=dtype, name=f"x{i}")
        for i, a in enumerate(case.arrays)
    ]


def long_arrays(case, tensors):
    """The arguments as the oracle takes them: the rounded values, in its long format."""
    return [
        x.numpy().astype(fd.LONG) if isinstance(x, tg.Tensor) else np.asarray(x) for x in tensors
    ]


def cotangent_for(shape, dtype):
    return np.asarray(real(*shape, start=100), dtype)


def close(found, expected, dtype, oracle=0.0):
    scale = np.max(np.abs(expected), initial=1.0)
    assert np.shape(found) == np.shape(expected)
    atol = (50 * float(np.finfo(dtype).eps) + oracle) * scale
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


by_case = pytest.mark.parametrize("case", CASES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])


@by_case
@by_dtype
def test_value_and_gradient(case, dtype):
    tensors = tensors_of(case, dtype)
    out = called(case, tensors)
    if case.op == "astype":
        assert out.dtype == np.float64
    else:
        assert out.dtype == dtype
    longs = long_arrays(case, tensors)
    close(out.numpy(), formula(case, longs), dtype)

    g = cotangent_for(out.shape, out.dtype)
    out.backward(g)
    for i in differentiated(case):
        expected = fd.gradient(lambda *xs: np.sum(g * formula(case, xs)), longs, i)
        assert type(tensors[i].grad) is np.ndarray
        assert tensors[i].grad.dtype == dtype
        close(tensors[i].grad, expected, dtype, oracle=fd.NOISE)


@by_case
def test_second_derivatives(case):
    """The gradient, dotted with u and differentiated along v, in float64."""
    tensors = tensors_of(case, np.float64)
    inputs = [tensors[i] for i in differentiated(case)]
    out = called(case, tensors)
    g = cotangent_for(out.shape, np.float64)
    gradients = tg.grad(out, inputs, g, create_graph=True, allow_unused=True)
    u, v = ([None] * len(tensors) for _ in range(2))
    for i in differentiated(case):
        u[i] = real(*np.shape(case.arrays[i]), start=200 + i)
        v[i] = real(*np.shape(case.arrays[i]), start=300 + i)
    slope = sum(
        ((d * u[i]).sum() for i, d in zip(differentiated(case), gradients, strict=True)),
        tg.Tensor(0.0),
    )
    found = sum(
        float(np.sum(d * v[i]))
        for i, d in zip(
            differentiated(case), tg.grad(slope, inputs, allow_unused=True), strict=True
        )
    )
    longs = long_arrays(case, tensors)
    expected = fd.second(lambda *xs: np.sum(g * formula(case, xs)), longs, u, v)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)


@by_case
def test_plain_arrays_give_a_plain_array(case):
    arrays = [np.asarray(a) for a in case.arrays]
    out = called(case, arrays)
    assert not isinstance(out, tg.Tensor)
    np.testing.assert_array_equal(out, called(case, tensors_of(case, np.float64)).numpy())


@by_case
def test_gradcheck_agrees(case):
    inputs = [
        np.asarray(a) if i in case.constant else np.asarray(a, float)
        for i, a in enumerate(case.arrays)
    ]
    if case.constant and np.asarray(case.arrays[case.constant[0]]).dtype.kind == "f":
        pytest.skip("gradcheck takes every float as an input")
    assert tg.gradcheck(lambda *xs: called(case, xs), inputs, order=2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("op", sorted(rows_of_the_package() - {"astype"}))
def test_every_primitive_keeps_the_dtype(op, dtype):
    case = next(c for c in CASES if c.op == op and all(np.size(a) for a in c.arrays))
    tensors = tensors_of(case, dtype)
    out = called(case, tensors)
    out.backward(np.ones(out.shape))
    assert out.dtype == dtype
    for i in differentiated(case):
        assert tensors[i].grad.dtype == dtype
        assert tensors[i].grad.shape == tensors[i].shape


@pytest.mark.parametrize("op", sorted(rows_of_the_package()))
def test_no_primitive_changes_its_arguments(op):
    for case in (c for c in CASES if c.op == op):
        arrays = [np.array(a) for a in case.arrays]
        for a in arrays:
            a.setflags(write=False)
        called(case, arrays)
        vjps = TABLE[op].vjps(len(arrays))
        out = np.asarray(TABLE[op].forward(*arrays, **case.params))
        g = np.ones(out.shape)
        for a in (out, g):
            a.setflags(write=False)
        for i in differentiated(case):
            vjps[i](g, out, *arrays, **case.params)


# Kinks, ties and edges, where the value is a decision ---------------------------------------------


def test_relu_and_abs_have_slope_zero_at_zero():
    x = tg.Tensor([0.0, -0.0, 1.0, -1.0])
    np.testing.assert_array_equal(tg.grad(tg.relu(x).sum(), x), [0, 0, 1, 0])
    np.testing.assert_array_equal(tg.grad(tg.abs(x).sum(), x), [0, 0, 1, -1])


@pytest.mark.parametrize("op", [tg.maximum, tg.minimum])
def test_a_tie_of_two_is_halved(op):
    x, y = tg.Tensor([1.0, 2.0]), tg.Tensor([1.0, 3.0])
    dx, dy = tg.grad(op(x, y).sum(), [x, y])
    assert dx[0] == dy[0] == 0.5
    np.testing.assert_array_equal(dx + dy, [1, 1])


def test_elements_that_tie_for_the_maximum_share_its_cotangent():
    x = tg.Tensor([[3.0, 3.0, 1.0], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(
        tg.grad(x.max(axis=1).sum(), x), [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]
    )


def test_maximum_of_one_tensor_with_itself_passes_everything_on():
    x = tg.Tensor([1.0, 2.0])
    np.testing.assert_array_equal(tg.grad(tg.maximum(x, x).sum(), x), [1, 1])


def test_powers_at_zero():
    x = tg.Tensor([0.0, 2.0])
    for n, expected in [(0, [0, 0]), (1, [1, 1]), (2, [0, 4]), (3.0, [0, 12])]:
        np.testing.assert_array_equal(tg.grad((x**n).sum(), x), expected)
    n = tg.Tensor([2.0, 1.0])
    dx, dn = tg.grad((np.array([0.0, 3.0]) ** n).sum() + (x**n).sum(), [x, n])
    np.testing.assert_allclose(dn, [0, 3 * np.log(3) + 2 * np.log(2)])
    np.testing.assert_array_equal(dx, [0, 1])


def test_sigmoid_and_tanh_are_finite_far_out():
    x = tg.Tensor([-1000.0, -50.0, 50.0, 1000.0])
    with np.errstate(all="raise", under="ignore"):
        s, t = tg.sigmoid(x), tg.tanh(x)
        ds, dt = tg.grad(s.sum(), x), tg.grad(t.sum(), x)
    np.testing.assert_allclose(s.numpy(), [0, np.exp(-50.0), 1, 1])
    assert np.isfinite(ds).all()
    assert ds[1] == pytest.approx(np.exp(-50.0))
    assert np.isfinite(dt).all()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda x: tg.expand_dims(x, 0), (1, 2, 3)),
        (lambda x: tg.expand_dims(x, -1), (2, 3, 1)),
        (lambda x: np.expand_dims(x, 1), (2, 1, 3)),
        (lambda x: tg.stack([x, x * 2]), (2, 2, 3)),
        (lambda x: np.stack([x, x * 2], axis=-1), (2, 3, 2)),
        (lambda x: tg.stack([1.0, x[0, 0]]), (2,)),
    ],
)
def test_functions_made_of_primitives(make, shape):
    assert make(tg.Tensor(real(2, 3))).shape == shape
    assert tg.gradcheck(make, real(2, 3), order=2)


def test_a_primitive_of_three_lines():
    softplus = tg.def_primitive(
        "softplus_of_the_test",
        lambda x: np.logaddexp(x, 0),
        lambda g, y, x: g * tg.sigmoid(x),
    )
    assert tg.gradcheck(softplus, real(2, 3), order=2)
    assert tg.gradcheck(softplus, real(4).astype(np.float32), order=2)
    assert tg.graph(softplus(tg.Tensor([1.0]))).nodes[-1].op == "softplus_of_the_test"
    assert isinstance(softplus(np.ones(3)), np.ndarray)


# The edges of the domains -------------------------------------------------------------------------

EDGES = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 3.0, 1e300, -1e300, 1e-310, np.inf, -np.inf, np.nan]
)


def first_derivatives(f, *arrays):
    tensors = [tg.Tensor(x) for x in arrays]
    out = f(*tensors)
    return out.numpy(), *tg.grad(out, tensors, np.ones(out.shape))


@np.errstate(all="ignore")
@pytest.mark.parametrize(
    "name",
    ["exp", "log", "log1p", "sqrt", "tanh", "sigmoid", "relu", "abs", "sin", "cos", "sinh", "cosh",
     "expm1", "exp2", "log2", "log10", "square", "reciprocal", "arcsin", "arccos", "arctan"],
)  # fmt: skip
def test_at_the_edges_of_its_domain_a_function_does_as_pytorch_does(name):
    torch = pytest.importorskip("torch")
    x = torch.tensor(EDGES, requires_grad=True)
    y = getattr(torch, name)(x)
    y.sum().backward()
    out, grad = first_derivatives(getattr(tg, name), EDGES)
    np.testing.assert_allclose(out, y.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-12)


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", ["maximum", "minimum", "pow", "div", "mul"])
def test_at_the_edges_two_arguments_do_as_pytorch_does(name):
    torch = pytest.importorskip("torch")
    a, b = (g.ravel() for g in np.meshgrid(EDGES, EDGES))
    if name == "pow":  # here NumPy's own value is another: NaN, for the limit inf
        keep = ~(np.isneginf(a) & (b == 0.5))
        a, b = a[keep], b[keep]
    x, y = (torch.tensor(v, requires_grad=True) for v in (a, b))
    z = getattr(torch, name)(x, y)
    z.sum().backward()
    out, of_x, of_y = first_derivatives(getattr(tg, name), a, b)
    np.testing.assert_allclose(out, z.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(of_x, x.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(of_y, y.grad.numpy(), rtol=1e-12)


@np.errstate(all="ignore")
def test_values_at_the_edges_that_need_no_peer():
    n = tg.Tensor([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(tg.grad((0.0**n).sum(), n), [-np.inf, 0, 0])
    for f in (tg.max, tg.min):  # of no largest element there is no gradient
        x = tg.Tensor([[1.0, np.nan, 3.0], [2.0, 2.0, 2.0]])
        found = tg.grad(f(x, axis=1), x, np.ones(2))
        np.testing.assert_array_equal(found, [[np.nan] * 3, [1 / 3] * 3])
        x = tg.Tensor([np.inf, 1.0, -np.inf, np.inf, -np.inf])
        assert np.isfinite(tg.grad(f(x), x)).all()


# float16 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda t: t.mean(), 1e-5),
        (lambda t: t.mean(axis=0), 1e-5),
        (lambda t: t.max(), 1e-5),
        (lambda t: t.min(), 1e-5),
        (lambda t: (t - 1).var(), 0.0),
        (lambda t: t[:3001].mean(), 1 / 3001),
    ],
)
def test_a_count_need_not_fit_into_float16(f, slope, create_graph):
    t = tg.Tensor(np.ones(100_000, np.float16))
    g = tg.grad(f(t), t, create_graph=create_graph)
    assert g.dtype == np.float16
    assert (g.numpy() if create_graph else g)[0] == np.float16(slope)


def test_sums_of_many_float16_do_not_stand_still():
    ones = np.ones((5000, 2), np.float16)  # 2048 + 1 is 2048 in float16
    np.testing.assert_array_equal(tg.sum(tg.Tensor(ones), axis=0).numpy(), [5000, 5000])
    bias = tg.Tensor(np.zeros(2, np.float16))
    np.testing.assert_array_equal(tg.grad(bias + ones, bias, ones), [5000, 5000])
    w = tg.Tensor(np.ones(3, np.float16))
    picked = w[np.zeros(5000, int)]
    np.testing.assert_array_equal(tg.grad(picked, w, ones[:, 0]), [5000, 0, 0])
    assert tg.grad(picked, w, ones[:, 0]).dtype == np.float16


@pytest.mark.parametrize("index", [np.s_[::-1], np.s_[:, ::-1], np.s_[::-2, ::-3], np.s_[5, ::-1]])
@pytest.mark.parametrize("function", [tg.sum, tg.mean, tg.exp, tg.tanh, tg.logsumexp])
def test_backwards_in_memory_gives_the_same_bits(index, function):
    x = np.random.default_rng(0).normal(size=(37, 1001))
    expected = function(tg.Tensor(np.ascontiguousarray(x[index])))
    assert np.array_equal(function(tg.Tensor(x)[index]).numpy(), expected.numpy())
