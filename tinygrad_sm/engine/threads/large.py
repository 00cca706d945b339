"""Large operations dealt out to the pool of threads, piece by piece.

What is elementwise, or reduces along the last axis, is dealt out: its forward and vjps, a user's
too, get some rows of large arrays at a time.

A piece of the result is made of the same piece of the arguments: some rows of each, which any
thread may take. The pieces follow from the shapes alone and no sum is split, so results are the
same bits for any number of threads. A piece fits into a processor's cache, and what a function
makes on its way to the result is never there as a whole.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.rules import sum_to
from tinygrad_sm.engine.threads import pool

LARGE = 2**19
"""Elements from which on a call is worth dealing out."""
PIECE = 2**17
"""Elements of a piece, about: enough that handing it out costs nothing to speak of."""


def in_pieces(
    function: Callable[..., Any], args: Sequence[Any], out: np.ndarray | None = None
) -> Any:
    """Return ``function(*args)``, each row of which is made of the same row of the arguments.

    Rows are the parts of the first axis longer than 1; what is repeated along it is given whole.
    With `out` the result is put there. Else the function is tried on no rows, and run on the whole
    if that does not give no rows of a result, or a mere view. So it is where arrays are small, or
    lie in memory in another order than their shape says (as ever in NumPy, what is contiguous is
    fastest, and it is safest: NumPy 2.4 writes float32 negatives between strided arrays into wrong
    places).
    """
    arrays = [x for x in args if isinstance(x, np.ndarray)]
    shape = np.broadcast_shapes(*[x.shape for x in arrays])
    size = math.prod(shape)
    if size < LARGE or not all(map(_in_order, arrays if out is None else [*arrays, out])):
        return function(*args) if out is None else _put(function, args, out)
    axis = next(i for i, n in enumerate(shape) if n > 1)
    length, before = shape[axis], (slice(None),) * axis
    cut = [isinstance(x, np.ndarray) and x.ndim == len(shape) and x.shape[axis] > 1 for x in args]

    def rows(part: slice) -> list[Any]:
        return [x[(*before, part)] if c else x for x, c in zip(args, cut, strict=True)]

    if out is None:
        try:
            none = function(*rows(slice(0, 0)))
        except Exception:
            return function(*args)
        if type(none) is not np.ndarray or none.base is not None or none.shape[axis:][:1] != (0,):
            return function(*args)
        out = np.empty((*none.shape[:axis], length, *none.shape[axis + 1 :]), none.dtype)
    into = out
    step = max(1, length * PIECE // size)

    def work(i: int) -> None:
        part = slice(i * step, (i + 1) * step)
        _put(function, rows(part), into[(*before, part)])

    pool.run(work, -(-length // step), pool.default_threads())
    return out


def add_in_place(total: np.ndarray, x: np.ndarray) -> None:
    """Add to a large array an array of its shape and dtype."""
    in_pieces(np.add, [total, x], out=total)


def copied(x: np.ndarray) -> np.ndarray:
    """Return a copy of an array."""
    if x.size < LARGE:
        return x.copy()
    found: np.ndarray = in_pieces(lambda piece: piece, [x], out=np.empty(x.shape, x.dtype))
    return found


def _put(function: Callable[..., Any], args: Sequence[Any], out: np.ndarray) -> np.ndarray:
    """Put ``function(*args)`` into an array."""
    if isinstance(function, np.ufunc):
        function(*args, out=out)
    else:
        out[...] = function(*args)
    return out


def _in_order(x: np.ndarray) -> bool:
    """Whether the axes lie in memory in the order of the shape, as those of the result will."""
    steps = [step for step, n in zip(x.strides, x.shape, strict=True) if n > 1 and step]
    return all(step > 0 for step in steps) and sorted(steps, reverse=True) == steps


# Primitives ---------------------------------------------------------------------------------------

_dealt_out: dict[Primitive, Primitive] = {}


def dealt_out(primitive: Primitive) -> Primitive:
    """Return the same primitive, run in pieces where each row is made of the same rows."""
    if primitive.kind not in ("elementwise", "reduction"):
        return primitive
    found = _dealt_out.get(primitive)
    if found is None:
        found = _dealt_out[primitive] = copy.copy(primitive)
        found.forward = partial(_forward_in_pieces, primitive)
        repeats = primitive.kind == "reduction" and primitive.linear  # its vjp: nothing to compute
        if primitive.arity is not None and not repeats:
            found._vjps = tuple(
                [vjp and partial(_vjp_in_pieces, primitive, i) for i, vjp in enumerate(found._vjps)]
            )
    return found


def _forward_in_pieces(primitive: Primitive, *args: Any, **params: Any) -> Any:
    forward = partial(primitive.forward, **params) if params else primitive.forward
    return in_pieces(forward, args) if _by_rows(primitive, args[0], params) else forward(*args)


def _vjp_in_pieces(
    primitive: Primitive, i: int, g: Any, out: Any, *args: Any, **params: Any
) -> Any:
    """What the vjp of argument `i` gives; summed at once, if each row of that is one number."""
    vjp: Any = primitive._vjps[i]
    if type(g) is not np.ndarray or not _by_rows(primitive, args[0], params, g):
        return vjp(g, out, *args, **params)
    each = (*out.shape[:-1], 1)
    one_a_row = np.shape(args[i]) == each != out.shape and args[i].size > 1

    def contribution(g: Any, out: Any, *args: Any) -> Any:
        c = vjp(g, out, *args, **params)
        return sum_to(c, args[i]) if one_a_row and np.shape(c) == out.shape else c

    return in_pieces(contribution, (g, out, *args))


def _by_rows(primitive: Primitive, x: Any, params: dict[str, Any], g: Any = None) -> bool:
    """Whether rows can be computed one by one: all, or if it reduces, those of several elements."""
    if primitive.kind == "elementwise":
        return True
    axis, last = params.get("axis", primitive.parameters.get("axis")), x.ndim - 1
    along = axis in (-1, last, (-1,), (last,)) and x.size > x.shape[-1]
    return along and (g is None or g.ndim == x.ndim)
