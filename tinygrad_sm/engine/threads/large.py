"""Large NumPy calls dealt out to the pool of threads, a piece each.

`share` marks a large array; what NumPy then computes of it element by element, or adds up along
its last axis, is computed in pieces that any thread may take. The pieces follow from the shapes
alone and no sum is split, so results are the same bits for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_sm.engine.threads import pool

LARGE = 2**19
"""Elements from which on a call is worth dealing out."""
PIECE = 2**18
"""Elements of a piece, about: many enough that handing it out costs nothing to speak of."""

_ROWWISE = (np.add, np.maximum)


class Shared(np.ndarray):
    """A view of a large array, whose ufuncs the pool shares; see `share`."""

    plain: np.ndarray

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Run a ufunc on the arrays behind the views, in pieces if that is possible."""
        plain = [unshared(x) for x in inputs]
        result = None
        if method == "__call__" and not kwargs and ufunc.signature is None and ufunc.nout == 1:
            result = _elementwise(ufunc, plain)
        elif method == "reduce" and len(plain) == 1 and kwargs.keys() <= {"axis", "keepdims"}:
            result = _along_rows(ufunc, plain[0], **kwargs)
        if result is None:
            if "out" in kwargs:
                kwargs["out"] = tuple(unshared(x) for x in kwargs["out"])
            result = getattr(ufunc, method)(*plain, **kwargs)
        return share(result)


def share(x: Any) -> Any:
    """Return a view whose large calls are dealt out, if `x` is a large array; else x itself."""
    if type(x) is not np.ndarray or x.size < LARGE:
        return x
    view = x.view(Shared)
    view.plain = x
    return view


def unshared(x: Any) -> Any:
    """Return the plain array that `share` was given, or a plain view of what was made of it."""
    if type(x) is not Shared:
        return x
    plain: np.ndarray | None = getattr(x, "plain", None)  # not handed on to views of the view
    return x.view(np.ndarray) if plain is None else plain


def copied(x: np.ndarray) -> np.ndarray:
    """Return a copy of an array."""
    if x.size < LARGE or not x.flags.c_contiguous:
        return x.copy()
    out = np.empty(x.shape, x.dtype)
    into, flat = out.reshape(-1), x.reshape(-1)
    _deal(lambda part: np.copyto(into[part], flat[part]), x.size, x.size)
    return out


def add_in_place(total: np.ndarray, x: np.ndarray) -> None:
    """Add to a large array an array of its shape and dtype."""
    if _elementwise(np.add, [total, x], out=total) is None:
        np.add(total, x, out=total)


def row_products(x: Any, y: Any, like: Any) -> np.ndarray | None:
    """Return the sums of x * y along the last axis, kept; the product is never there as a whole.

    None if these two are not dealt out: one is small, or they differ in shape, or have but one
    axis, or lie in memory in another order than their shape says; or if `like` is not of the shape
    that the result would have.
    """
    if type(x) is not Shared or type(y) is not Shared or x.shape != y.shape or x.ndim < 2:
        return None
    if np.shape(like) != (*x.shape[:-1], 1):
        return None
    x, y = unshared(x), unshared(y)
    if not _in_order(x) or not _in_order(y):
        return None
    out = np.empty((*x.shape[:-1], 1), np.result_type(x, y))

    def work(part: slice) -> None:
        np.add.reduce(x[part] * y[part], axis=-1, keepdims=True, out=out[part])

    _deal(work, len(x), x.size)
    return out


def _elementwise(
    ufunc: np.ufunc, inputs: list[Any], out: np.ndarray | None = None
) -> np.ndarray | None:
    """The result of a large call; None if it is not dealt out.

    The pieces are whole in memory: as ever in NumPy, what is contiguous is fastest, and it is
    safest (NumPy 2.4 writes float32 negatives between strided arrays into wrong places).
    """
    arrays = [x for x in inputs if isinstance(x, np.ndarray)]
    shape = np.broadcast(*arrays).shape
    size = math.prod(shape)
    if size < LARGE or not all(type(x) is np.ndarray and _in_order(x) for x in arrays):
        return None
    if out is not None and not out.flags.c_contiguous:
        return None
    if all(x.ndim == 0 or (x.shape == shape and x.flags.c_contiguous) for x in arrays):
        inputs = [x.reshape(-1) if isinstance(x, np.ndarray) and x.ndim else x for x in inputs]
        flat: tuple[int, ...] = (size,)
    else:
        flat = shape
    axis = next(i for i, n in enumerate(flat) if n > 1) - len(flat)
    if out is None:
        dtype = ufunc(*[_part(x, axis, slice(0, 0)) for x in inputs]).dtype
        out = np.empty(shape, dtype)
    into = out.reshape(flat)

    def work(part: slice) -> None:
        ufunc(*[_part(x, axis, part) for x in inputs], out=_part(into, axis, part))

    _deal(work, flat[axis], size)
    return out


def _along_rows(
    ufunc: np.ufunc, x: np.ndarray, axis: Any = 0, keepdims: bool = False
) -> np.ndarray | None:
    """The reduction of a large array along its last axis; None if it is not dealt out."""
    last = (-1, x.ndim - 1)
    if (
        ufunc not in _ROWWISE
        or axis not in (*last, *((i,) for i in last))
        or x.ndim < 2
        or x.dtype.kind != "f"
        or not x.flags.c_contiguous
    ):
        return None
    out = np.empty((*x.shape[:-1], 1), x.dtype)

    def work(part: slice) -> None:
        ufunc.reduce(x[part], axis=-1, keepdims=True, out=out[part])

    _deal(work, len(x), x.size)
    return out if keepdims else out[..., 0]


def _deal(work: Callable[[slice], None], length: int, size: int) -> None:
    """Call `work` with the parts of an axis, on as many threads as are allowed."""
    count = min(length, -(-size // PIECE))
    step = -(-length // max(count, 1))
    pool.run(
        lambda i: work(slice(i * step, (i + 1) * step)),
        -(-length // max(step, 1)),
        pool.default_threads(),
    )


def _part(x: Any, axis: int, part: slice) -> Any:
    """A part of `x` along an axis, counted from the back; all of x where it is repeated."""
    if not isinstance(x, np.ndarray) or x.ndim < -axis or x.shape[axis] == 1:
        return x
    return x[(*(slice(None),) * (x.ndim + axis), part)]


def _in_order(x: np.ndarray) -> bool:
    """Whether the axes lie in memory in the order of the shape, as those of the result will."""
    steps = [step for step, n in zip(x.strides, x.shape, strict=True) if n > 1 and step]
    return all(step > 0 for step in steps) and sorted(steps, reverse=True) == steps
