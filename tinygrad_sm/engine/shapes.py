"""The rest of the table: what gives an array another shape or type, picks from it, or joins.

Rows and vjps are written as in `rules`, which builds on these.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tinygrad_sm.engine.intake import may_repeat
from tinygrad_sm.engine.primitive import NUMPY, def_primitive
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import AnyArray

SMALL = 4096  # elements

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
    start = sum(x.shape[axis] for x in arrays[:i])
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
            f"expand_dims: axis must be an integer from {-ndim} to {ndim - 1}; got {shown(axis)}"
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
    index = [np.arange(n).reshape(-1, *(1,) * (len(shape) - 1 - i)) for i, n in enumerate(shape)]
    index[axis] = indices
    return tuple(index)


def _take_along_axis(x: Any, indices: Any, axis: int = -1) -> Any:
    """Pick elements along an axis by an array of indices with as many dimensions as x."""
    axis = operator.index(axis)  # np's None would flatten x
    x, indices = np.asarray(x), np.asarray(indices)
    if indices.ndim == x.ndim and indices.dtype.kind in "iu" and -x.ndim <= axis < x.ndim:
        return x[_positions(indices, axis % x.ndim, x.shape)]  # as np's does, but sooner
    return np.take_along_axis(x, indices, axis)


def _take_along_axis_vjp(g: Any, y: Any, x: Any, indices: Any, axis: int = -1) -> Any:
    axis %= y.ndim
    shape = (*y.shape[:axis], x.shape[axis], *y.shape[axis + 1 :])
    index, distinct = _positions(indices, axis, y.shape), indices.shape[axis] == 1
    return scatter(g, index=index, shape=shape, distinct=distinct)


def _getitem_vjp(g: Any, y: Any, x: Any, index: Any) -> Any:
    return scatter(g, index=index, shape=x.shape)


getitem = def_primitive("getitem", _getitem, _getitem_vjp, kind="move", notation="{}[{index}]")
scatter = def_primitive(
    "scatter",
    _scatter,
    lambda g, y, x, index, shape, distinct=False: getitem(g, index=index),
    linear=True,
)
take_along_axis = def_primitive(
    "take_along_axis", _take_along_axis, _take_along_axis_vjp, None,
    numpy=np.take_along_axis, kind="move", notation="{}[{}]",
)  # fmt: skip

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
    "astype", "broadcast_to", "concatenate", "expand_dims", "getitem", "matmul", "reshape",
    "scatter", "stack", "take_along_axis", "transpose",
]  # fmt: skip
