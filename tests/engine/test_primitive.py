"""NumPy's functions on Tensors: they differentiate, or refuse in one sentence."""

import operator

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.engine import more, rules
from tinygrad_sm.engine.primitive import NUMPY, Primitive

X = np.array([[0.5, 1.5, 2.5], [3.0, 0.25, 1.0]])

SUPPORTED = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "negative": np.negative,
    "abs": np.abs,
    "absolute": np.absolute,
    "sum": np.sum,
    "sum of an axis": lambda t: np.sum(t, axis=-1, keepdims=True),
    "sum of two axes": lambda t: np.sum(t, (0, 1)),
    "mean": lambda t: np.mean(t, axis=0),
    "max": lambda t: np.max(t, axis=1),
    "amax": np.amax,
    "add": lambda t: np.add(t, X),
    "subtract": lambda t: np.subtract(X, t),
    "multiply": lambda t: np.multiply(t, t),
    "divide": lambda t: np.divide(X, t),
    "power": lambda t: np.power(t, 2.5),
    "maximum": lambda t: np.maximum(t, 1.1),
    "minimum": lambda t: np.minimum(1.1, t),
    "where": lambda t: np.where(t > 1.2, t, -t * t),
    "matmul": lambda t: np.matmul(t, X.T),
    "matmul from the left": lambda t: np.matmul(X.T, t),
    "concatenate": lambda t: np.concatenate([t, X, t], axis=1),
    "stack": lambda t: np.stack([t, X]),
    "expand_dims": lambda t: np.expand_dims(t, 1),
    "reshape": lambda t: np.reshape(t, (3, 2)),
    "transpose": np.transpose,
    "broadcast_to": lambda t: np.broadcast_to(t, (2, 2, 3)),
    "take_along_axis": lambda t: np.take_along_axis(t, np.array([[0], [2]]), axis=1),
    "array + Tensor": lambda t: X + t,
    "array - Tensor": lambda t: X - t,
    "array * Tensor": lambda t: X * t,
    "array / Tensor": lambda t: X / t,
    "array ** Tensor": lambda t: X**t,
    "array @ Tensor": lambda t: X.T @ t,
    "scalar + Tensor": lambda t: np.float64(2) + t,
    "scalar - Tensor": lambda t: np.float64(2) - t,
    "scalar * Tensor": lambda t: np.float64(2) * t,
    "scalar / Tensor": lambda t: np.float64(2) / t,
    "scalar ** Tensor": lambda t: np.float64(2) ** t,
    "integer scalar * Tensor": lambda t: np.int32(2) * t,
    "0-d array - Tensor": lambda t: np.array(2.0) - t,
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_numpy_functions_differentiate(name):
    f = SUPPORTED[name]
    y = f(tg.Tensor(X))
    assert isinstance(y, tg.Tensor)
    assert y.requires_grad
    np.testing.assert_array_equal(y.numpy(), f(X))
    assert tg.gradcheck(f, X)


def test_every_registered_numpy_function_is_known_here():
    rows = {op.name for op in NUMPY.values() if isinstance(op, Primitive)}
    assert rows <= set(dir(tg)) | {"concatenate"}


COMPARING = {
    "less": lambda t: np.less(t, 1),
    "equal": lambda t: np.equal(X, t),
    "isnan": np.isnan,
    "isfinite": np.isfinite,
    "argmax": lambda t: np.argmax(t, axis=1),
    "argsort": np.argsort,
    "shape": np.shape,
    "ndim": np.ndim,
    "allclose": lambda t: np.allclose(t, X),
    "array_equal": lambda t: np.array_equal(t, X),
    "zeros_like": np.zeros_like,
    "count_nonzero": np.count_nonzero,
    "result_type": lambda t: np.result_type(t, np.float32),
}


@pytest.mark.parametrize("name", COMPARING)
def test_what_has_no_gradient_gives_what_numpy_gives(name):
    found, expected = COMPARING[name](tg.Tensor(X)), COMPARING[name](X)
    assert type(found) is type(expected)
    np.testing.assert_equal(found, expected)


OUT = np.zeros((2, 3))
REFUSED = {
    "sinc": np.sinc,
    "fmod": lambda t: np.fmod(t, t),
    "cumprod": np.cumprod,
    "median": np.median,
    "nansum": np.nansum,
    "pad": lambda t: np.pad(t, 1),
    "linalg.solve": lambda t: np.linalg.solve(t, X[0]),
    "fft": np.fft.fft,
    "dot with out": lambda t: np.dot(t, X.T, out=np.zeros((2, 2))),
    "clip with out": lambda t: np.clip(t, 0, 1, out=OUT),
    "nan_to_num in place": lambda t: np.nan_to_num(t, copy=False),
    "full_like a Tensor": lambda t: np.full_like(t, t[0, 0]),
    "full of a Tensor": lambda t: np.full(3, t[0, 0]),
    "add.reduce": np.add.reduce,
    "add.accumulate": np.add.accumulate,
    "add.outer": lambda t: np.add.outer(t, t),
    "add.at": lambda t: np.add.at(OUT, (0, 0), t),
    "out": lambda t: np.exp(t, out=OUT),
    "out is a Tensor": lambda t: np.exp(X, out=t),
    "comparison into a Tensor": lambda t: np.less(X, 1, out=t),
    "reduction into a Tensor": lambda t: np.any(X, axis=0, out=t[0]),
    "where": lambda t: np.exp(t, where=X > 1),
    "where is a Tensor": lambda t: np.less(X, 1, where=t),
    "dtype": lambda t: np.exp(t, dtype=np.float32),
    "sum with dtype": lambda t: np.sum(t, dtype=np.float32),
    "sum with positional dtype": lambda t: np.sum(t, 0, np.float32),
    "sum with where": lambda t: np.sum(t, where=X > 1),
    "sum with initial": lambda t: np.sum(t, initial=3),
    "max with out": lambda t: np.max(t, 0, np.zeros(3)),
    "concatenate with out": lambda t: np.concatenate([t, t], out=np.zeros((4, 3))),
    "concatenate with dtype": lambda t: np.concatenate([t, t], dtype=np.float32),
    "stack with dtype": lambda t: np.stack([t, t], dtype=np.float32),
    "reshape in another order": lambda t: np.reshape(t, (3, 2), order="F"),
    "take_along_axis flat": lambda t: np.take_along_axis(t, np.array([0]), axis=None),
    "where of one argument": np.where,
    "array += Tensor": lambda t: operator.iadd(OUT, t),
    "array[...] = Tensor": lambda t: operator.setitem(OUT, ..., t),
    "asarray": np.asarray,
    "asarray with dtype": lambda t: np.asarray(t, dtype=np.float32),
    "array": np.array,
    "array of Tensors": lambda t: np.array([t, t]),
    "array of 0-d Tensors": lambda t: np.array([t[0, 0], t[0, 1]]),
    "asanyarray": np.asanyarray,
    "sum of a list": lambda t: np.sum([t, t]),
    "__array__": lambda t: t.__array__(),
    "linspace": lambda t: np.linspace(t[0, 0], 1, 3),
    "save": lambda t: np.save("never-written.npy", t),
    "floor_divide": lambda t: X // t,
    "remainder": lambda t: X % t,
    "an operator it lacks": lambda t: t // 2,
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_a_type_error_and_changes_nothing(name):
    t = tg.Tensor(X)
    with pytest.raises(TypeError) as caught:
        REFUSED[name](t)
    if name != "an operator it lacks":
        assert isinstance(caught.value, tg.TinygradError)
    np.testing.assert_array_equal(OUT, 0)
    np.testing.assert_array_equal(t.numpy(), X)
    assert "\n" not in str(caught.value)


def scipy_like(x):
    return x


def test_the_sentence_names_the_function_and_the_way_out():
    t = tg.Tensor(X)
    with pytest.raises(TypeError, match=r"^np\.cumprod does .* tg\.def_primitive.* t\.numpy\(\)"):
        np.cumprod(t)
    for call, name in [
        (lambda: np.linalg.inv(t), "np.linalg.inv"),
        (lambda: np.fft.fft(t), "np.fft.fft"),
        (lambda: np.fmod(t, t), "np.fmod"),
        (lambda: np.median(t), r"np.median .*\(such as mean\)"),
        (lambda: np.logaddexp2(t, t), r"np.logaddexp2 .*\(such as logaddexp\)"),
    ]:
        with pytest.raises(TypeError, match=f"^{name}"):
            call()
    with pytest.raises(TypeError, match=r"^scipy_like"):
        np.frompyfunc(scipy_like, 1, 1)(t)
    with pytest.raises(TypeError, match=r"^np\.add\.reduce does not differentiate"):
        np.add.reduce(tg.Tensor(X))
    with pytest.raises(TypeError, match=r"^np\.exp cannot put a Tensor into a plain .*x = x \+ t"):
        np.exp(tg.Tensor(X), out=OUT)


def test_a_constant_tensor_turns_into_an_array():
    c = tg.Tensor(X, requires_grad=False)
    np.testing.assert_array_equal(np.asarray(c), X)
    assert np.asarray(c, dtype=np.float32).dtype == np.float32


# def_primitive ------------------------------------------------------------------------------------


def test_a_primitive_takes_over_a_numpy_function():
    square = tg.def_primitive(
        "square_of_the_test", lambda x: x * x, lambda g, y, x: 2 * g * x, numpy=[np.cbrt]
    )
    try:
        x = tg.Tensor([1.0, 2.0])
        np.testing.assert_array_equal(tg.grad(np.cbrt(x).sum(), x), [2, 4])
        assert repr(square) == "<primitive square_of_the_test>"
    finally:
        del NUMPY[np.cbrt]


def test_a_primitive_with_parameters_and_a_constant_argument():
    scaled = tg.def_primitive(
        "scaled_of_the_test",
        lambda x, mask, factor=2.0: x * mask * factor,
        lambda g, y, x, mask, factor=2.0: g * mask * factor,
        None,
    )
    x, mask = tg.Tensor([1.0, 2.0]), np.array([True, False])
    np.testing.assert_array_equal(tg.grad(scaled(x, mask, factor=3.0).sum(), x), [3, 0])
    np.testing.assert_array_equal(tg.grad(scaled(x, mask, 5.0).sum(), x), [5, 0])
    np.testing.assert_array_equal(tg.grad(scaled(x, mask).sum(), x), [2, 0])


def test_what_a_primitive_is_follows_from_its_forward_unless_it_is_said():
    hyperbolic = tg.def_primitive("sinh_of_the_test", np.sinh, lambda g, y, x: g * np.cosh(x))
    assert (hyperbolic.kind, hyperbolic.notation) == ("elementwise", "sinh_of_the_test")
    assert (hyperbolic.linear, hyperbolic.analytic) == (False, False)
    own = tg.def_primitive("own_of_the_test", lambda x, axis=-1: x, lambda g, y, x, axis=-1: g)
    assert (own.kind, own.arguments, own.parameters) == (None, ("x",), {"axis": -1})
    assert tg.matmul.kind is None  # np.matmul is a ufunc, but not element by element
    assert tg.reshape.analytic
    assert tg.add.linear
    assert tg.add.analytic


@np.errstate(invalid="ignore")  # roots and logarithms of the negative
def test_every_primitive_of_the_table_is_what_it_says():
    x = np.array([[0.5, -1.25, 3.0], [2.0, 0.25, -0.75]])
    examples = {
        "where": (x > 0, x, -x), "reshape": (x, (3, 2)), "broadcast_to": (x, (4, 2, 3)),
        "astype": (x, "float32"), "getitem": (x, (0,)), "take_along_axis": (x, x.argsort(), 1),
        "scatter": (x, np.array([1, 1]), (4, 3)), "roll": (x, 1), "repeat": (x, 2), "tile": (x, 2),
        "take": (x, [1, 1], 1),
    }  # fmt: skip
    for name in [*rules.__all__, *more.__all__]:
        op = getattr(tg, name)
        if not isinstance(op, Primitive):
            continue
        args = examples.get(name, (x,) * (op.arity or 1))
        if op.kind is None and not op.linear:
            continue
        out = op(*args)
        if op.kind == "elementwise":
            assert out.shape == x.shape
            flat = [a.reshape(-1) if np.shape(a) == x.shape else a for a in args]
            np.testing.assert_array_equal(op(*flat), out.reshape(-1))
        if op.kind == "reduction":
            assert op(x, axis=1).shape == (2,)
            assert op(x, axis=(1,), keepdims=True).shape == (2, 1)
        if op.kind in ("view", "move"):
            assert set(out.reshape(-1)) <= set(x.reshape(-1))
        if op.linear:
            scaled = [2.0 * a if a is x else a for a in args]
            np.testing.assert_array_equal(op(*scaled), 2.0 * out)


def test_whoever_defines_primitive_answers_its_calls():
    class Symbol:
        def __primitive__(self, primitive, args, params):
            return f"{primitive.name}({len(args)} arguments, {params})"

    assert tg.sum(Symbol(), axis=1) == "sum(1 arguments, {'axis': 1})"
    assert tg.add(1, Symbol()) == "add(2 arguments, {})"
