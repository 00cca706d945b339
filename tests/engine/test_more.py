"""The rest of NumPy's functions: NumPy's own, in long doubles, is the oracle.

CASES is the one list of cases; a function that is registered without one fails a test.
"""

import math
import operator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import finite_differences as fd
import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.engine import more
from tinygrad_sm.engine.primitive import NUMPY, TABLE
from tinygrad_sm.engine.threads.large import LARGE


def real(*shape, start=0):
    """Distinct numbers in ±[0.3, 1.9], of both signs."""
    n = math.prod(shape)
    k = np.arange(start, start + n)
    return (np.where(k % 2, -1, 1) * (0.3 + 1.6 * ((k * 0.6180339887) % 1))).reshape(shape)


def positive(*shape, start=0):
    return np.abs(real(*shape, start=start))


def small(*shape):
    return real(*shape) / 2


@dataclass
class Case:
    """A call of NumPy's function `name`: the arrays first, or as the one list that it takes."""

    name: str
    arrays: tuple
    args: tuple = ()
    params: dict[str, Any] = field(default_factory=dict)
    listed: bool = False
    first: tuple = ()  # what comes before the arrays

    def __str__(self):
        shapes = ",".join(str(np.shape(a)).replace(" ", "") for a in self.arrays)
        rest = ",".join(map(repr, (*self.first, *self.args))) + "".join(
            f",{k}={v!r}" for k, v in self.params.items()
        )
        return f"{self.name}{shapes}{rest}".replace(" ", "")

    def run(self, function, arrays):
        given = (list(arrays),) if self.listed else arrays
        return function(*self.first, *given, *self.args, **self.params)

    def numpy(self, arrays):
        return self.run(numpys(self.name), arrays)


def numpys(name):
    return np.linalg.norm if name == "norm" else getattr(np, name)


def case(name, *arrays, args=(), listed=False, first=(), **params):
    return Case(name, arrays, args, params, listed, first)


SHAPES = [(), (3,), (2, 3), (0,)]
PAIRS = [((), ()), ((3,), (2, 1)), ((2, 3), ())]
AXES = [
    {}, {"axis": 0}, {"axis": -1, "keepdims": True}, {"axis": (0, 2)}, {"keepdims": True},
    {"axis": (2, 0, 1)},
]  # fmt: skip
EVERYWHERE = ["sin", "cos", "arctan", "sinh", "cosh", "arcsinh", "expm1", "exp2", "square",
              "reciprocal", "deg2rad", "rad2deg"]  # fmt: skip
SEVERAL = ["vstack", "hstack", "dstack", "column_stack"]

CASES = [
    *(case(name, real(*s)) for name in EVERYWHERE for s in SHAPES),
    *(case(name, small(*s)) for name in ("tan", "arcsin", "arccos", "arctanh") for s in SHAPES),
    *(case(name, positive(*s)) for name in ("log2", "log10") for s in SHAPES),
    *(case("arccosh", 1 + positive(*s)) for s in SHAPES),
    *(case(name, real(*a), real(*b, start=40))
      for name in ("logaddexp", "hypot", "arctan2") for a, b in PAIRS),
    *(case("diff", real(3, 4), **params) for params in ({}, {"axis": 0}, {"n": 0}, {"n": 3})),
    *(case("clip", real(2, 3), **bounds) for bounds in (
        {"a_min": -0.5, "a_max": 0.6}, {"a_min": 0, "a_max": None}, {"a_min": None, "a_max": 0.1},
    )),
    case("clip", real(2, 3), real(3, start=7) - 1, 1.1 + positive(2, 1)),
    case("clip", real(2, 3), args=(-0.5, 0.6)),
    case("nan_to_num", real(3)),
    *(case(name, real(2, 3, 2), **axes)
      for name in ("min", "prod", "var", "std", "norm") for axes in AXES
      if (name, axes) != ("norm", {"axis": (2, 0, 1)})),
    *(case("prod", x) for x in (real(7), real(1), real(), real(0), real(0, 2))),
    *(case("prod", real(3, 0), axis=axis) for axis in (0, 1)),
    *(case(name, real(2, 5), axis=1, ddof=d) for name in ("var", "std") for d in (1, 0.5)),
    *(case("norm", real(5), ord=p) for p in (None, 1, 2, 3, 2.5, -1, np.inf, -np.inf)),
    *(case("norm", real(2, 3), ord=p) for p in (None, "fro", 1, -1, np.inf, -np.inf)),
    *(case("norm", real(2, 3, 4), ord=p, axis=(2, 0), keepdims=True) for p in ("fro", 1, -np.inf)),
    case("norm", real(2, 3), args=(1, 0)),
    *(case("cumsum", real(*s), **axis) for s in ((4,), (2, 3)) for axis in ({}, {"axis": 0})),
    case("cumsum", real(2, 3, 2), axis=-2),
    *(case("flip", real(2, 3, 2), axis=axis) for axis in (None, 0, (-1, 0))),
    *(case(name, real(3, 2)) for name in ("flipud", "fliplr", "ravel", "copy", "triu", "tril")),
    *(case("rot90", real(2, 3, 2), k=k, axes=(2, 0)) for k in (-1, 0, 1, 2, 5)),
    case("rot90", real(2, 3)),
    *(case("roll", real(3, 4), args=args) for args in ((1,), (-2, 0), ((1, 2), (0, 1)))),
    *(case("repeat", real(3, 2), args=args) for args in ((2,), (0, 0), (3, 1), ([1, 0, 2], 0))),
    *(case("tile", real(2, 1), args=(reps,)) for reps in (2, (3, 2), (2, 1, 2), 0)),
    *(case("take", real(3, 4), args=args) for args in ((5,), ([0, 0, -1], 1), ([[1], [2]], 0))),
    *(case("diagonal", real(3, 4), args=(k,)) for k in (0, 1, -2, 5)),
    case("diagonal", real(2, 3, 4), offset=1, axis1=-1, axis2=0),
    *(case("squeeze", real(1, 3, 1), **axis) for axis in ({}, {"axis": 0}, {"axis": (0, 2)})),
    case("swapaxes", real(2, 3, 4), args=(0, -1)),
    case("moveaxis", real(2, 3, 4), args=(0, -1)),
    case("moveaxis", real(2, 3, 4), args=([2, 0], [0, 1])),
    *(case(f"atleast_{n}d", real(*s)) for n in (1, 2, 3) for s in ((), (3,), (2, 3), (2, 1, 3, 1))),
    *(case(f"atleast_{n}d", real(), real(3)) for n in (1, 2, 3)),
    *(case("sort", real(3, 4), axis=axis) for axis in (-1, 0, None)),
    *(case(name, real(2, 3), real(2, 3, start=9), listed=True) for name in SEVERAL),
    *(case(name, real(3), real(3, start=9), listed=True) for name in SEVERAL),
    *(case("hstack", real(*s), real(2, start=9), listed=True) for s in ((), (3,))),
    case("column_stack", real(3), real(3, 2, start=9), listed=True),
    case("concatenate", real(2, 3), real(2, start=9), listed=True, axis=None),
    *(case("append", real(2, 3), real(1, 3, start=9), axis=axis) for axis in (0, None)),
    *(case("split", real(4, 3), args=args) for args in ((2,), ([1, 3],), (3, 1), ([3, 1, 9],))),
    *(case("array_split", real(5, 3), args=(2,), axis=axis) for axis in (0, -1)),
    case("vsplit", real(4, 3), args=(2,)),
    *(case("hsplit", real(*s), args=(2,)) for s in ((4,), (3, 4))),
    case("dsplit", real(1, 2, 4), args=([1],)),
    *(case(name, real(2, 3, 4), k=k) for name in ("triu", "tril") for k in (-1, 2)),
    case("tril", real(3)),
    *(case("diag", real(*s), k=k) for s in ((3,), (3, 4)) for k in (0, 2, -1)),
    *(case("trace", real(3, 4), args=(k,)) for k in (0, 1, -2)),
    case("trace", real(2, 3, 4), axis1=2, axis2=0),
    *(case(name, real(*a), real(*b, start=40)) for name, pairs in {
        "dot": [((), (3,)), ((2, 3), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)),
                ((2, 3), (3, 4)), ((2, 2, 3), (3, 4)), ((2, 3), (2, 3, 4)), ((3,), (2, 3, 1)),
                ((0, 3), (3, 2)), ((2, 0), (0, 2))],
        "inner": [((), (3,)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 3), (4, 3)),
                  ((2, 1, 3), (2, 3))],
        "outer": [((), ()), ((3,), (2,)), ((2, 1), (2, 2)), ((0,), (2,))],
    }.items() for a, b in pairs),
    *(case("tensordot", real(*a), real(*b, start=40), **axes) for a, b, axes in [
        ((2, 3, 4), (3, 4, 2), {}), ((2, 3), (3, 2), {"axes": 1}), ((2,), (3,), {"axes": 0}),
        ((2, 3, 4), (4, 2), {"axes": ([0, 2], [1, 0])}), ((2, 3), (2, 3), {"axes": (-1, -1)}),
        ((2, 3), (3, 2), {"axes": ((0, 1), (1, 0))}), ((2, 0), (0, 3), {"axes": 1}),
    ]),
    *(case("einsum", *(real(*s, start=20 * i) for i, s in enumerate(shapes)), first=(subscripts,))
      for subscripts, *shapes in [
        ("ij->ji", (2, 3)), ("ij->", (2, 3)), ("ij->i", (2, 3)), ("ii->", (3, 3)), ("ii", (3, 3)),
        ("ii->i", (3, 3)), ("iij->ij", (3, 3, 2)), ("iii->", (2, 2, 2)), ("ba", (2, 3)),
        ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("i,i", (3,), (3,)),
        ("i,j->ij", (2,), (3,)), ("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)), (",i->i", (), (3,)),
        ("...ij,...jk->...ik", (2, 2, 3), (2, 3, 2)), ("...ij,...jk", (2, 1, 2, 3), (2, 3, 2)),
        ("b...,b...->b...", (2, 3), (2, 3)), ("i...->...", (2, 3)), ("...,...", (3,), ()),
        ("ij,ij->j", (2, 3), (2, 1)), ("i,i->", (3,), (1,)), ("i,i->", (1,), (3,)),
        ("bi , ij -> bj", (2, 3), (3, 2)), ("ij,kl->", (2, 3), (1, 2)), ("ij->j", (0, 3)),
      ]),
]  # fmt: skip

ALIASES = {
    np.amin: "min", np.radians: "deg2rad", np.degrees: "rad2deg", np.fabs: "abs",
    np.positive: "copy",
}  # fmt: skip
by_case = pytest.mark.parametrize("case", CASES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])


def test_every_function_has_a_case():
    names = {c.name for c in CASES}
    assert names == {*more.__all__, "concatenate"}
    own = [getattr(more, name) for name in more.__all__] + [more._concatenate]
    known = {numpys(name) for name in names} | ALIASES.keys()
    assert known == {f for f, operation in NUMPY.items() if operation in own} | {np.fabs}
    assert all(operation.__doc__ for operation in own[:-1])


@pytest.mark.parametrize("alias", ALIASES, ids=lambda f: f.__name__)
def test_aliases_are_the_same_operation(alias):
    assert NUMPY[alias] is getattr(tg, ALIASES[alias])


def parts(y):
    return list(y) if isinstance(y, (list, tuple)) else [y]


def weights(y):
    return [real(*np.shape(part), start=100 + i) for i, part in enumerate(parts(y))]


def weighted(y, g):
    return sum((np.sum(w * part) for w, part in zip(g, parts(y), strict=True)), 0.0)


def close(found, expected, dtype):
    atol = 100 * float(np.finfo(dtype).eps) * np.max(np.abs(expected), initial=1.0) + fd.NOISE
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@by_case
@by_dtype
def test_value_and_gradient(case, dtype):
    tensors = [tg.Tensor(a, dtype=dtype) for a in case.arrays]
    longs = [t.numpy().astype(fd.LONG) for t in tensors]
    y, expected = case.numpy(tensors), case.numpy(longs)
    assert type(y) is (type(expected) if isinstance(expected, (list, tuple)) else tg.Tensor)
    for part, right in zip(parts(y), parts(expected), strict=True):
        assert (part.shape, part.dtype) == (np.shape(right), dtype)
        close(part.numpy(), right, dtype)
    g = weights(y)
    total = sum(((part * w.astype(dtype)).sum() for part, w in zip(parts(y), g, strict=True)), 0.0)
    rounded = [w.astype(dtype) for w in g]
    for i, found in enumerate(tg.grad(total, tensors, allow_unused=True)):
        right = fd.gradient(lambda *xs: weighted(case.numpy(xs), rounded), longs, i)
        assert (found.shape, found.dtype) == (tensors[i].shape, dtype)
        close(found, right, dtype)


@by_case
def test_second_derivatives(case):
    tensors = [tg.Tensor(a) for a in case.arrays]
    g = weights(case.numpy(case.arrays))
    total = sum(
        ((part * w).sum() for part, w in zip(parts(case.numpy(tensors)), g, strict=True)), 0.0
    )
    gradients = tg.grad(total, tensors, create_graph=True, allow_unused=True)
    u, v = ([real(*t.shape, start=s + i) for i, t in enumerate(tensors)] for s in (200, 300))
    slope = sum(((d * w).sum() for d, w in zip(gradients, u, strict=True)), tg.Tensor(0.0))
    seconds = (
        tg.grad(slope, tensors, allow_unused=True) if slope.requires_grad else [0.0] * len(tensors)
    )
    found = sum(float(np.sum(d * w)) for d, w in zip(seconds, v, strict=True))
    longs = [t.numpy().astype(fd.LONG) for t in tensors]
    expected = fd.second(lambda *xs: weighted(case.numpy(xs), g), longs, u, v)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)


@by_case
def test_plain_arrays_give_what_numpy_gives(case):
    function = more._concatenate if case.name == "concatenate" else getattr(tg, case.name)
    found, expected = case.run(function, case.arrays), case.numpy(case.arrays)
    assert len(parts(found)) == len(parts(expected))
    for part, right in zip(parts(found), parts(expected), strict=True):
        assert not isinstance(part, tg.Tensor)
        np.testing.assert_allclose(part, right, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
@pytest.mark.parametrize("name", more.__all__)
def test_the_dtype_is_kept(name, dtype):
    case = next(c for c in CASES if c.name == name and all(np.size(a) for a in c.arrays))
    tensors = [tg.Tensor(a, dtype=dtype) for a in case.arrays]
    y = parts(case.run(getattr(tg, name), tensors))
    assert {part.dtype for part in y} == {np.dtype(dtype)}
    for g, t in zip(tg.grad(sum(part.sum() for part in y), tensors), tensors, strict=True):
        assert (g.shape, g.dtype) == (t.shape, dtype)


@by_case
def test_fusing_changes_nothing(case):
    def gradients():
        tensors = [tg.Tensor(a) for a in case.arrays]
        y = case.numpy(tensors)
        total = sum(((x * w).sum() for x, w in zip(parts(y), weights(y), strict=True)), 0.0)
        total.backward()
        return [t.grad for t in tensors]

    expected = gradients()
    with tg.fusing():
        found = gradients()
    for g, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(g, right, rtol=1e-13, atol=1e-14)


# Methods ------------------------------------------------------------------------------------------

METHODS = {
    "dot": (real(3, 2),), "flatten": (), "ravel": (), "squeeze": (), "swapaxes": (0, 1),
    "repeat": (2, 0), "take": ([1, 1], 1), "trace": (1,), "diagonal": (1,), "copy": (),
    "clip": (-0.5, 0.6), "cumsum": (1,), "sum": (1,), "mean": (0,), "max": (1,), "min": (1,),
    "prod": (0,), "var": (1,), "std": (1,), "argmax": (1,), "argmin": (0,), "argsort": (),
    "tolist": (),
}  # fmt: skip
USUAL = ["sum", "mean", "max", "min", "prod", "var", "std", "cumsum"]


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_those_of_an_array(name):
    x = real(2, 3)
    found = getattr(tg.Tensor(x), name)(*METHODS[name])
    expected = getattr(x, name)(*METHODS[name])
    if isinstance(found, tg.Tensor):
        assert tg.gradcheck(lambda t: getattr(t, name)(*METHODS[name]), x)
        found = found.numpy()
    else:
        assert type(found) is type(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("name", USUAL)
def test_what_is_usual_may_be_said(name):
    t = tg.Tensor(real(2, 3))
    usual = {"axis": 0, "dtype": None, "out": None}
    if name in ("max", "min"):
        del usual["dtype"]
    expected = getattr(t, name)(axis=0).numpy()
    np.testing.assert_array_equal(getattr(t, name)(**usual).numpy(), expected)
    np.testing.assert_array_equal(getattr(np, name)(t, **usual).numpy(), expected)
    for wrong in ({"out": np.zeros(3)}, {"dtype": np.float32}, {"where": np.ones(3, bool)}):
        with pytest.raises(TypeError, match=next(iter(wrong))) as caught:
            getattr(t, name)(axis=0, **wrong)
        assert isinstance(caught.value, tg.TinygradError)


def test_the_textbooks_own_spelling():
    x, w = real(4, 3), tg.Tensor(real(3, 2), name="W")
    for y in (np.dot(x, w), x.dot(w.numpy()) + 0 * w[0, 0], tg.Tensor(x).dot(w)):
        np.testing.assert_array_equal(y.numpy(), x @ w.numpy())
    assert np.dot(x, w).op == "matmul"
    a = tg.Tensor(real(4, 2))
    a = a - np.max(a, axis=-1, keepdims=True)
    y = np.exp(a) / np.sum(np.exp(a), axis=-1, keepdims=True)
    loss = -np.sum(np.log(np.clip(y, 1e-7, None)[np.arange(4), [0, 1, 1, 0]])) / len(y)
    assert tg.fuse(tg.mean(-np.log(y)[np.arange(4), [0, 1, 1, 0]])).rewrites
    assert loss.requires_grad


@pytest.mark.parametrize("row", [r for r in TABLE.values() if r.analytic and r.arity == 1])
def test_what_is_said_to_be_analytic_takes_complex_numbers(row):
    """gradcheck steps into the complex plane by these."""
    takes = {"reshape": {"shape": -1}, "broadcast_to": {"shape": (2, 2)}, "astype": None,
             "getitem": {"index": 0}, "scatter": {"index": (0, 1), "shape": (2, 3)},
             "roll": {"shift": 1}, "repeat": {"repeats": 2}, "tile": {"reps": 2},
             "take": {"indices": [0]}}.get(row.name, {})  # fmt: skip
    if takes is None:
        return  # the one that may not
    x = np.array([[0.25, 0.5], [0.75, 0.125]])
    if row.name == "scatter":
        x = x[0, 0]
    h = 1e-30
    found = row.forward(x + 1j * h, **takes).imag / h
    slope = fd.along(
        lambda a: np.sum(row.forward(a, **takes)), [x.astype(fd.LONG)], [np.ones(x.shape)]
    )
    np.testing.assert_allclose(np.sum(found), slope, rtol=1e-10, atol=1e-12)


def test_astype_copies_unless_it_need_not():
    t = tg.Tensor([1.0])
    assert t.astype(np.float64, copy=False) is t
    assert t.astype(np.float64) is not t
    assert t.astype("float32", copy=False).dtype == np.float32


T = tg.Tensor(real(3, 3))
LEFT_OUT = {
    "fft.fft": (T,), "linalg.inv": (T,), "linalg.solve": (T, T), "linalg.det": (T,),
    "linalg.svd": (T,), "linalg.eigh": (T,), "linalg.cholesky": (T,), "remainder": (T, 2),
    "fmod": (T, T), "fmax": (T, T), "fmin": (T, T), "kron": (T, T), "cross": (T, T),
    "logaddexp2": (T, T), "sinc": (T,), "cbrt": (T,), "float_power": (T, 2), "vdot": (T, T),
    "convolve": (T[0], T[0]), "rollaxis": (T, 0), "average": (T,), "ptp": (T,),
    "cumprod": (T,), "gradient": (T,), "median": (T,), "percentile": (T, 5), "unique": (T,),
    "partition": (T, 1), "insert": (T, 0, 1), "delete": (T, 0), "block": ([[T]],),
    "meshgrid": (T,), "pad": (T, 1), "select": ([T > 0], [T]), "linspace": (T, T), "nansum": (T,),
    "conjugate": (T,), "real": (T,), "interp": (T, T, T),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_refuses_by_name(name):
    with pytest.raises(tg.TinygradError, match=rf"^np\.{name} .*def_primitive"):
        operator.attrgetter(name)(np)(*LEFT_OUT[name])


@pytest.mark.parametrize(
    "call",
    [
        lambda: tg.take_along_axis(T, 0),
        lambda: np.take_along_axis(T, 1.5, 0),
        lambda: np.split(tg.Tensor(2.0), 2),
        lambda: np.dsplit(T, 3),
        lambda: np.triu(tg.Tensor(2.0)),
        lambda: np.tensordot(T, tg.Tensor(2.0), (0, 0)),
        lambda: np.diff(tg.Tensor(2.0)),
    ],
)
def test_whatever_does_not_fit_is_an_error_of_ours(call):
    with pytest.raises(tg.TinygradError, match=r"axes$|dimensions$|integer array$"):
        call()


def test_hypot_and_arctan2_at_their_edges():
    for x, y, of_x, of_y in [(0, 0, 0, 0), (3e200, 4e200, 0.6, 0.8), (3e-200, 4e-200, 0.6, 0.8)]:
        slopes = gradient(np.hypot, x, y)
        np.testing.assert_allclose(slopes, [of_x, of_y], rtol=1e-15)
    big, small = gradient(np.arctan2, np.array([3e200, 3e-200]), np.array([4e200, 4e-200]))
    np.testing.assert_allclose(big, [4 / 25e200, 4 / 25e-200], rtol=1e-15)
    np.testing.assert_allclose(small, [-3 / 25e200, -3 / 25e-200], rtol=1e-15)


# Special points -----------------------------------------------------------------------------------


def gradient(f, *arrays):
    tensors = [tg.Tensor(a) for a in arrays]
    y = f(*tensors)
    found = tg.grad(y, tensors, np.ones(y.shape))
    return found[0] if len(arrays) == 1 else found


def test_the_norm_and_the_deviation_have_slope_zero_at_zero():
    for p in (None, 1, 2, 3, 1.5, np.inf):
        found = gradient(partial(np.linalg.norm, ord=p), np.zeros(3))
        np.testing.assert_array_equal(found, np.zeros(3), err_msg=str(p))
    np.testing.assert_array_equal(gradient(np.std, np.full(4, 0.3)), np.zeros(4))
    rows = np.array([[3.0, 4.0], [0.0, 0.0]])
    found = gradient(lambda x: np.linalg.norm(x, axis=1), rows)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]])
    x = tg.Tensor(np.zeros(2))
    (g,) = tg.grad(np.linalg.norm(x), [x], create_graph=True)
    np.testing.assert_array_equal(tg.grad(g.sum(), x), [0, 0])


def test_nan_is_not_hidden_by_a_slope_of_zero():
    x = np.array([np.nan, 1.0])
    for f in (np.std, np.linalg.norm, np.min, np.prod, lambda x: np.clip(x, 0, 1)):
        with np.errstate(invalid="ignore"):
            assert np.isnan(f(tg.Tensor(x)).numpy()).any()


def test_a_product_with_zeros():
    np.testing.assert_array_equal(gradient(np.prod, np.array([2.0, 0.0, 3.0])), [0, 6, 0])
    np.testing.assert_array_equal(gradient(np.prod, np.array([0.0, 0.0, 3.0])), [0, 0, 0])
    h = tg.hessian(np.prod, np.array([0.0, 0.0, 3.0]))
    np.testing.assert_array_equal(h, [[0, 3, 0], [3, 0, 0], [0, 0, 0]])
    big = np.array([1e200, 1e-200, 1e200, 1e-200])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(gradient(np.prod, big) * big, 1)


def test_clip_passes_the_gradient_on_at_its_bounds():
    torch = pytest.importorskip("torch")
    x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    t = torch.tensor(x, requires_grad=True)
    torch.clamp(t, 0, 1).sum().backward()
    found = gradient(lambda x: np.clip(x, 0, 1), x)
    np.testing.assert_array_equal(found, t.grad)
    np.testing.assert_array_equal(found, [0, 1, 1, 1, 0])
    dx, low, high = gradient(np.clip, x, np.zeros(5), np.ones(5))
    np.testing.assert_array_equal(dx + low + high, np.ones(5))


def test_least_elements_share_the_gradient():
    x = np.array([[1.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(
        gradient(lambda x: np.min(x, axis=1), x), [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]
    )


def test_logaddexp_at_infinities():
    x = np.array([-np.inf, -np.inf, 0.0, np.inf, np.inf, 1000.0])
    y = np.array([-np.inf, 0.0, -np.inf, np.inf, 0.0, 1000.0])
    dx, dy = gradient(np.logaddexp, x, y)
    np.testing.assert_array_equal(dx, [0.5, 0, 1, 0.5, 1, 0.5])
    np.testing.assert_array_equal(dx + dy, np.ones(6))
    a = tg.Tensor([1000.0, -np.inf])
    (g,) = tg.grad(np.logaddexp(a, a.numpy()).sum(), [a], create_graph=True)
    np.testing.assert_array_equal(tg.grad(g.sum(), a), [0.25, 0])


def test_nan_to_num_has_slope_zero_where_it_changes_something():
    x = np.array([np.nan, np.inf, 2.0])
    np.testing.assert_array_equal(gradient(np.nan_to_num, x), [0, 0, 1])
    t = tg.Tensor(x)
    np.testing.assert_array_equal(np.nan_to_num(t, nan=5.0, posinf=7.0).numpy(), [5, 7, 2])
    with pytest.raises(TypeError, match="copy"):
        np.nan_to_num(t, copy=False)


def test_small_differences_keep_their_digits():
    x = np.array([1e-12, -1e-20])
    np.testing.assert_array_equal(np.expm1(tg.Tensor(x)).numpy(), np.expm1(x))
    near = np.array([1 - 1e-12])
    for f, right in [
        (np.arcsin, 1 / math.sqrt((1 - near[0]) * (1 + near[0]))),
        (np.arctanh, 1 / ((1 - near[0]) * (1 + near[0]))),
    ]:
        np.testing.assert_allclose(gradient(f, near), right, rtol=1e-14)
    assert np.log2(tg.Tensor(8.0)).item() == 3


def test_counts_do_not_overflow_half_precision():
    x = tg.Tensor(np.full(100_000, 0.5), dtype=np.float16)
    assert np.var(x, ddof=1).item() == 0
    y = tg.Tensor(np.where(np.arange(70_000) % 2, 1, -1), dtype=np.float16)
    assert np.std(y, ddof=1).item() == 1


def test_integers_are_not_squared_in_their_own_type():
    x = np.uint8([200, 100])
    np.testing.assert_allclose(tg.norm(x), math.hypot(200, 100))
    np.testing.assert_allclose(tg.norm(x, ord=3), (200.0**3 + 100.0**3) ** (1 / 3))
    assert tg.var(x) == tg.std(x) ** 2 == 2500


def test_dtypes_may_be_mixed():
    x, y = tg.Tensor(real(3, 3), dtype=np.float32), real(3, 3)
    for f in (np.dot, np.inner, np.outer, np.logaddexp, partial(np.einsum, "ij,jk->"),
              lambda x, y: np.clip(x, y, y + 0.5), partial(np.tensordot, axes=1)):  # fmt: skip
        out = f(x, y)
        assert out.dtype == np.float64
        assert tg.grad(out.sum(), x).dtype == np.float32


def test_large_arrays_are_computed_as_small_ones(monkeypatch):
    x = np.where(real(800, 700) > 1.7, np.nan, real(800, 700))
    assert x.size > LARGE
    clean = np.nan_to_num(x)
    for f, values in [
        (np.nan_to_num, x), (partial(np.clip, a_min=-0.5, a_max=0.5), clean),
        (partial(np.prod, axis=1), clean), (partial(np.min, axis=1), clean),
        (np.linalg.norm, clean), (partial(np.logaddexp, 0.0), clean), (np.sin, clean),
    ]:  # fmt: skip
        found, slope = one = [], []
        for limit in (LARGE, 2 * x.size):
            monkeypatch.setattr("tinygrad_sm.engine.calling.LARGE", limit)
            t = tg.Tensor(values)
            found.append(f(t).numpy())
            slope.append(gradient(f, values))
        assert all(type(a) is np.ndarray for parts in one for a in parts)
        np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
        np.testing.assert_allclose(slope[0], slope[1], rtol=1e-12, atol=1e-300)


def test_equal_elements_are_sorted_in_order():
    np.testing.assert_array_equal(
        gradient(lambda x: np.sort(x) * np.array([1.0, 2, 3]), np.array([5.0, 1.0, 5.0])), [2, 1, 3]
    )


def test_einsum_by_lists_of_axes():
    x, y = real(2, 3), real(3, 4, start=9)
    for call in (
        lambda x: np.einsum(x, [0, 1], y, [1, 2]),
        lambda x: np.einsum(x, [0, 1], y, [1, 2], [2, 0]),
        lambda x: np.einsum(x, [1, 26], y, [26, 0]),
        lambda x: np.einsum(x, [Ellipsis, 1], y, [1, 2], [Ellipsis, 2]),
        lambda x: np.einsum("ij,jk->ik", x, y, optimize=True),
    ):
        np.testing.assert_allclose(call(tg.Tensor(x)).numpy(), call(x))
        assert tg.gradcheck(call, x, order=2)


WRONG = {
    "tensordot": lambda t: np.tensordot(t, t, axes=([0], [1])),
    "tensordot of two numbers": lambda t: np.tensordot(t, t, axes=([0, 1], [1])),
    "dot": lambda t: np.dot(t, t),
    "squeeze": lambda t: t.squeeze(0),
    "moveaxis": lambda t: np.moveaxis(t, 5, 0),
    "swapaxes": lambda t: t.swapaxes(0, 2),
    "split": lambda t: np.split(t, 2, axis=1),
    "norm": lambda t: np.linalg.norm(t, ord="nuc"),
    "norm of 0": lambda t: np.linalg.norm(t[0], ord=0),
    "norm of an axis it lacks": lambda t: np.linalg.norm(t, axis=2),
    "einsum": lambda t: np.einsum("ij,jk->ik", t, t),
    "einsum of three axes": lambda t: np.einsum("ijk->i", t),
    "einsum of two": lambda t: np.einsum("ij,ij->i", t),
    "repeat": lambda t: t.repeat(-1),
    "roll": lambda t: np.roll(t, 1, axis=4),
    "take": lambda t: t.take([7], 1),
    "vstack": lambda t: np.vstack([t, t.T]),
    "vstack of nothing": lambda t: tg.vstack([]),
    "var": lambda t: t.var(axis=3),
    "clip": lambda t: t.clip([1, 2], 3),
    "tile by a Tensor": lambda t: np.tile(t, t[0]),
    "take at a Tensor": lambda t: tg.take(t, t),
    "a parameter it lacks": lambda t: np.var(t, mean=1),
    "order": lambda t: np.ravel(t, order="F"),
    "diag": lambda t: np.diag(t[0], k=0.5),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_sentence(name):
    with pytest.raises(tg.TinygradError) as caught:
        WRONG[name](tg.Tensor(real(2, 3)))
    assert "\n" not in str(caught.value)
