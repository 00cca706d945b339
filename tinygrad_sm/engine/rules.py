"""The table of primitives: each forward function with its vector-Jacobian products beside it.

A row reads ``name = def_primitive(name, forward, vjp of argument 0, vjp of argument 1, …)``. A vjp
is called as ``vjp(g, out, *arguments, **parameters)``: ``g`` is the cotangent of the output, the
other letters are the textbook's. The vjps are written with these same operations; that is what
makes second derivatives work. Where an argument was broadcast, the sweep sums its cotangent down.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tinygrad_sm.engine.intake import may_repeat
from tinygrad_sm.engine.primitive import NUMPY, def_primitive
from tinygrad_sm.engine.threads.large import row_products
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import AnyArray, Choice, Unary

Axis = int | tuple[int, ...] | None

SMALL = 4096  # elements

# np.sum and np.max are these with a layer of Python on top
_add_up: Callable[..., Any] = np.add.reduce
_largest: Callable[..., Any] = np.maximum.reduce

# Arithmetic ---------------------------------------------------------------------------------------

add = def_primitive(
    "add", np.add, lambda g, z, x, y: g, lambda g, z, x, y: g, linear=True, notation="{} + {}"
)
sub = def_primitive(
    "sub", np.subtract, lambda g, z, x, y: g, lambda g, z, x, y: -g, linear=True, notation="{} − {}"
)
mul = def_primitive(
    "mul", np.multiply, lambda g, z, x, y: g * y, lambda g, z, x, y: g * x,
    analytic=True, notation="{} · {}",
)  # fmt: skip
div = def_primitive(  # (f/d)' as two edges: 1/d to the numerator, -f/d² = -q/d to the denominator
    "div",
    np.true_divide,
    lambda g, q, f, d: g / d,
    lambda g, q, f, d: -sum_of_products(g, q, d) / d,  # summed first: d is often one for many
    analytic=True,
    notation="{} / {}",
)
neg = def_primitive("neg", np.negative, lambda g, y, x: -g, linear=True, notation="−{}")
pow = def_primitive(
    "pow",
    np.power,
    lambda g, z, x, n: g * n * x ** (n - (n != 0)),  # n = 0 has slope 0, also at x = 0
    # z log x; 0ⁿ log 0 is -inf for n < 0, and has the limit 0 else
    lambda g, z, x, n: g * z * log(where((x == 0) & (n >= 0), 1, x)),
    analytic=True,
    notation="{}^{}",
)

# Exponentials and friends -------------------------------------------------------------------------

exp = def_primitive("exp", np.exp, lambda g, y, x: g * y, analytic=True)
log: Unary = def_primitive("log", np.log, lambda g, y, x: g / x, analytic=True)
log1p = def_primitive("log1p", np.log1p, lambda g, y, x: g / (1 + x), analytic=True)
sqrt = def_primitive("sqrt", np.sqrt, lambda g, y, x: g / (2 * y), analytic=True, notation="√")
tanh = def_primitive("tanh", np.tanh, lambda g, y, x: g * (1 - y * y), analytic=True)


def _sigmoid(x: Any) -> Any:
    """The logistic function 1 / (1 + exp(-x)), from the side on which exp cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.where(np.asarray(x) >= 0, 1 / (1 + e), e / (1 + e))


sigmoid: Unary = def_primitive(  # 1 − y is σ(−x), which keeps its digits where y rounds to 1
    "sigmoid", _sigmoid, lambda g, y, x: g * y * sigmoid(-x), kind="elementwise"
)


def _relu(x: Any) -> Any:
    """The positive part max(x, 0); its slope at 0 is taken as 0."""
    return np.maximum(x, 0)


relu = def_primitive("relu", _relu, lambda g, y, x: where(x <= 0, 0, g), kind="elementwise")
abs = def_primitive(
    "abs", np.absolute, lambda g, y, x: where(x > 0, g, where(x < 0, -g, 0)), notation="|{}|"
)
maximum = def_primitive(  # at a tie each argument gets half, beside a NaN both get all
    "maximum",
    np.maximum,
    lambda g, z, x, y: where(x < y, 0, where(x == y, g / 2, g)),
    lambda g, z, x, y: where(y < x, 0, where(x == y, g / 2, g)),
)
minimum = def_primitive(
    "minimum",
    np.minimum,
    lambda g, z, x, y: where(x > y, 0, where(x == y, g / 2, g)),
    lambda g, z, x, y: where(y > x, 0, where(x == y, g / 2, g)),
)


def _where(condition: Any, x: Any, y: Any) -> Any:
    """Elements of x where the condition holds, else of y; the condition is not differentiated."""
    return np.where(condition, x, y)


where: Choice = def_primitive(
    "where",
    _where,
    None,
    lambda g, z, condition, x, y: where(condition, g, 0),
    lambda g, z, condition, x, y: where(condition, 0, g),
    numpy=np.where,
    kind="elementwise",
    analytic=True,
)

# Reductions ---------------------------------------------------------------------------------------


def _sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum of the elements along `axis` (an int, a tuple, or None for all)."""
    if getattr(x, "dtype", None) == np.float16:  # whose own running sum would not pass 2048
        return _add_up(x, axis=axis, keepdims=keepdims, dtype=np.float32).astype(np.float16)
    return _add_up(x, axis=axis, keepdims=keepdims)


def _mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean along `axis` (an int, a tuple, or None for all)."""
    return np.mean(x, axis=axis, keepdims=keepdims)


def _max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Largest element along `axis`; elements that tie for it share its cotangent evenly."""
    return _largest(x, axis=axis, keepdims=keepdims)


def _kept(y: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """Give a reduction's result (or its cotangent) back the axes of x that were reduced."""
    if keepdims or y.ndim == x.ndim:
        return y
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    reduced = {i % x.ndim for i in axes}
    return reshape(y, shape=tuple([1 if i in reduced else n for i, n in enumerate(x.shape)]))


def sum_to(x: Any, like: Any) -> Any:
    """Undo broadcasting: sum x over the axes along which an array like `like` was repeated."""
    shape = np.shape(like)
    if x.shape == shape:
        return x
    extra = x.ndim - len(shape)
    repeated = [extra + i for i, n in enumerate(shape) if n != x.shape[extra + i]]
    if not extra:
        return sum(x, axis=tuple(repeated), keepdims=True)
    return reshape(sum(x, axis=(*range(extra), *repeated)), shape=shape)


def sum_of_products(x: Any, y: Any, like: Any) -> Any:
    """``sum_to(x * y, like)``; of large arrays, without the whole of the product."""
    sums = row_products(x, y, like)
    return sum_to(x * y, like) if sums is None else sums


def _shared_out(g: Any, count: Any) -> Any:
    """g / count; float16 itself holds no count from 65520 on, and from 2048 on not each."""
    if g.dtype != np.float16:
        return g / count
    return astype(g / np.asarray(count, np.float64), g.dtype)


def _max_vjp(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    top = _kept(y, x, axis, keepdims)
    largest = x == top
    ties = np.maximum(_add_up(largest, axis=axis, keepdims=True), 1)
    others = np.where(top != top, np.nan, 0).astype(x.dtype)  # a NaN is no element's doing
    return where(largest, _shared_out(_kept(g, x, axis, keepdims), ties), others)


def _sum_vjp(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    return broadcast_to(_kept(g, x, axis, keepdims), shape=x.shape)


def _mean_vjp(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    return _sum_vjp(_shared_out(g, x.size / y.size if y.size else 1), y, x, axis, keepdims)


sum = def_primitive(
    "sum", _sum, _sum_vjp, numpy=np.sum, kind="reduction", linear=True, notation="Σ"
)
mean = def_primitive("mean", _mean, _mean_vjp, numpy=np.mean, kind="reduction", linear=True)
max = def_primitive("max", _max, _max_vjp, numpy=(np.max, np.amax), kind="reduction")

# Shape and type -----------------------------------------------------------------------------------


def _reshape(x: Any, shape: int | tuple[int, ...]) -> Any:
    """The same elements in another shape; one dimension may be -1."""
    return np.asarray(x).reshape(shape)


def _transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """The axes reversed, or in the order that `axes` gives."""
    return np.transpose(x, axes)


def _transpose_vjp(g: Any, y: Any, x: Any, axes: Sequence[int] | None = None) -> Any:
    if axes is None:
        return transpose(g)
    back = np.argsort([a % x.ndim for a in axes])
    return transpose(g, tuple(int(i) for i in back))


def _broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """The elements repeated along new or 1-sized axes until the shape is `shape`."""
    if math.prod(shape) > SMALL:
        return np.broadcast_to(x, shape)
    x = np.asarray(x)
    out = np.empty(shape, x.dtype)  # for few elements a copy costs less than a view
    out[...] = x
    return out


def _astype(x: Any, dtype: Any) -> Any:
    """The same values in another floating-point dtype."""
    return np.asarray(x).astype(dtype)


def _reshape_vjp(g: Any, y: Any, x: Any, shape: Any) -> Any:
    return reshape(g, shape=x.shape)


def _astype_vjp(g: Any, y: Any, x: Any, dtype: Any) -> Any:
    return astype(g, x.dtype)


reshape = def_primitive("reshape", _reshape, _reshape_vjp, numpy=np.reshape, kind="view")
transpose = def_primitive(
    "transpose", _transpose, _transpose_vjp, numpy=np.transpose, kind="view", notation="{}ᵀ"
)
broadcast_to = def_primitive(
    "broadcast_to", _broadcast_to, lambda g, y, x, shape: g, numpy=np.broadcast_to, kind="view"
)
astype = def_primitive("astype", _astype, _astype_vjp, kind="elementwise", linear=True)


def _concatenate(*arrays: Any, axis: int = 0) -> Any:
    """The arrays joined along an axis that they have."""
    return np.concatenate(arrays, axis=operator.index(axis))  # np's None would flatten them


def _concatenate_vjp(i: int, g: Any, z: Any, *arrays: Any, axis: int = 0) -> Any:
    start = int(_add_up([x.shape[axis] for x in arrays[:i]], dtype=np.intp))
    index = [slice(None)] * z.ndim
    index[axis] = slice(start, start + arrays[i].shape[axis])
    return getitem(g, index=tuple(index))


_join = def_primitive("concatenate", _concatenate, _concatenate_vjp, variadic=True, kind="move")


@overload
def concatenate(arrays: Sequence[AnyArray], axis: int = 0) -> AnyArray: ...
@overload
def concatenate(arrays: Sequence[Any], axis: int = 0) -> Any: ...
def concatenate(arrays: Any, axis: int = 0) -> Any:
    """Join a sequence of arrays or Tensors along an axis that they have.

    Raises:
        InvalidTypeError: `arrays` is not a sequence.
        InvalidValueError: `arrays` is empty, or the shapes differ elsewhere than along `axis`.
    """
    if not hasattr(arrays, "__len__") or getattr(arrays, "ndim", 1) == 0:
        raise InvalidTypeError(
            f"concatenate: arrays must be a sequence of arrays; got {type(arrays).__name__}"
        )
    if len(arrays) == 0:
        raise InvalidValueError("concatenate: arrays is empty; at least one array is needed")
    return _join(*arrays, axis=axis)


@overload
def expand_dims(x: AnyArray, axis: int) -> AnyArray: ...
@overload
def expand_dims(x: Any, axis: int) -> Any: ...
def expand_dims(x: Any, axis: int) -> Any:
    """Insert an axis of size 1 before position `axis`.

    Raises:
        InvalidValueError: `axis` is not an integer position of the result.
    """
    shape = np.shape(x)
    ndim = len(shape) + 1
    if not isinstance(axis, (int, np.integer)) or not -ndim <= axis < ndim:
        raise InvalidValueError(
            f"expand_dims: axis must be an integer from {-ndim} to {ndim - 1}; got {axis!r}"
        )
    at = axis % ndim
    return reshape(x, (*shape[:at], 1, *shape[at:]))


@overload
def stack(arrays: Sequence[AnyArray], axis: int = 0) -> AnyArray: ...
@overload
def stack(arrays: Sequence[Any], axis: int = 0) -> Any: ...
def stack(arrays: Any, axis: int = 0) -> Any:
    """Join arrays or Tensors of one shape along a new axis."""
    return concatenate([expand_dims(x, axis) for x in arrays], axis=axis)


NUMPY |= {np.concatenate: concatenate, np.expand_dims: expand_dims, np.stack: stack}

# Indexing -----------------------------------------------------------------------------------------


def _getitem(x: Any, index: Any) -> Any:
    """The elements x[index], for every kind of index that NumPy has."""
    y = x[index]
    if isinstance(y, np.ndarray) and not y.flags.c_contiguous and min(y.strides) < 0:
        return y.copy()  # backwards in memory, sums of equal values would have other last bits
    return y


def _scatter(g: Any, index: Any, shape: tuple[int, ...], distinct: bool = False) -> Any:
    """Zeros of `shape` with g added at `index`, repeated positions added up; undoes getitem.

    With `distinct` no position is repeated, which is faster and not checked.
    """
    z = np.zeros(shape, np.float32 if g.dtype == np.float16 else g.dtype)
    if distinct or not may_repeat(index):
        z[index] = g
    else:
        np.add.at(z, index, g)
    return z.astype(g.dtype, copy=False)


def _positions(indices: Any, axis: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """What take_along_axis(x, indices, axis) reads of an x of `shape`, as an index for x[...]."""
    last = len(shape) - 1
    return tuple(
        [
            indices if i == axis else np.arange(n).reshape(-1, *(1,) * (last - i))
            for i, n in enumerate(shape)
        ]
    )


def _take_along_axis(x: Any, indices: Any, axis: int = -1) -> Any:
    """Pick elements along an axis by an array of indices with as many dimensions as x."""
    axis = operator.index(axis)  # np's None would flatten x
    x, indices = np.asarray(x), np.asarray(indices)
    if indices.ndim == x.ndim and indices.dtype.kind in "iu" and -x.ndim <= axis < x.ndim:
        return x[_positions(indices, axis % x.ndim, x.shape)]  # as np's does, but sooner
    return np.take_along_axis(x, indices, axis)


def _take_along_axis_vjp(g: Any, y: Any, x: Any, indices: Any, axis: int = -1) -> Any:
    axis %= y.ndim
    before, after = y.shape[:axis], y.shape[axis + 1 :]
    return scatter(
        g,
        index=_positions(indices, axis, y.shape),
        shape=(*before, x.shape[axis], *after),
        distinct=indices.shape[axis] == 1,
    )


def _getitem_vjp(g: Any, y: Any, x: Any, index: Any) -> Any:
    return scatter(g, index=index, shape=x.shape)


getitem = def_primitive(
    "getitem",
    _getitem,
    _getitem_vjp,
    kind="move",
    notation="{}[{index}]",
)
scatter = def_primitive(
    "scatter",
    _scatter,
    lambda g, y, x, index, shape, distinct=False: getitem(g, index=index),
    linear=True,
)
take_along_axis = def_primitive(
    "take_along_axis",
    _take_along_axis,
    _take_along_axis_vjp,
    None,
    numpy=np.take_along_axis,
    kind="move",
    notation="{}[{}]",
)

# Matrices -----------------------------------------------------------------------------------------


def _swapped(x: Any) -> Any:
    return transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _matmul_vjp_x(g: Any, z: Any, x: Any, y: Any) -> Any:
    if y.ndim == 1:
        return (g if x.ndim == 1 else expand_dims(g, -1)) * y
    if x.ndim == 1:
        return reshape(expand_dims(g, -2) @ _swapped(y), (*z.shape[:-1], x.size))
    return g @ _swapped(y)


def _matmul_vjp_y(g: Any, z: Any, x: Any, y: Any) -> Any:
    if x.ndim == 1:
        if y.ndim == 1:
            return g * x
        return expand_dims(x, -1) * expand_dims(g, -2)
    if y.ndim == 1:
        rows = math.prod(x.shape[:-1])
        return reshape(g, (rows,)) @ reshape(x, (rows, x.shape[-1]))
    return _swapped(x) @ g


matmul = def_primitive(
    "matmul", np.matmul, _matmul_vjp_x, _matmul_vjp_y, analytic=True, notation="{} @ {}"
)

__all__ = [
    "abs", "add", "astype", "broadcast_to", "concatenate", "div", "exp", "expand_dims",
    "getitem", "log", "log1p", "matmul", "max", "maximum", "mean", "minimum", "mul", "neg",
    "pow", "relu", "reshape", "scatter", "sigmoid", "sqrt", "stack", "sub", "sum", "sum_to",
    "take_along_axis", "tanh", "transpose", "where",
]  # fmt: skip
