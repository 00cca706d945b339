"""A call of a primitive on Tensors, as users make it; the engine's `record` does the rest.

Plain arguments are made fit to compute with and our own. Where a leaf's data was given away, what
it holds now is noted with the operation. What is elementwise or a reduction is dealt out to several
threads where arrays are large: its forward and vjps, a user's too, then get some rows at a time.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_among, kind_of
from tinygrad_sm.engine.intake import misfit, real_numbers
from tinygrad_sm.engine.memory import unexposed
from tinygrad_sm.engine.node import NO_PARAMS, Node, now, record
from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.rules import sum_to
from tinygrad_sm.engine.threads.large import LARGE, copied, in_pieces
from tinygrad_sm.errors import TinygradError

if TYPE_CHECKING:
    from tinygrad_sm.engine.tensor import Tensor

_ndarray = np.ndarray


def call(primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any] = NO_PARAMS) -> Tensor:
    """Run a primitive on Tensors, arrays and numbers, and record it if a gradient may be wanted.

    Raises:
        InvalidTypeError: an argument is not a number, an array of real numbers, or a Tensor.
        InvalidValueError: the primitive does not take these shapes or parameters.
    """
    here = now.get()
    if here.defer is not None:
        put_off: Tensor | None = here.defer(primitive, args, params, here.groups)
        if put_off is not None:
            return put_off
    wanted = lent = unsettled = large = foreign = False
    kind: type[Any] = Node
    for x in args:
        if isinstance(x, Node):
            kind = x._kind
            wanted = wanted or x.requires_grad
            array = x._array
            large = large or array.size >= LARGE
            foreign = foreign or type(array) is not _ndarray
            lent = lent or (x._notes is not None and x._notes.lent is not None)
        elif type(x) is not float and type(x) is not int and not _is_settled(primitive, x):
            unsettled = True
    if unsettled:
        args = settled(primitive, args, wanted and here.on)
    values = tuple([unexposed(x) if isinstance(x, Node) else x for x in args]) if lent else None
    arrays = [x._array if isinstance(x, Node) else x for x in args]
    of_kind = kind_among(arrays) if foreign or unsettled else None
    if of_kind is not None:
        primitive = of_kind.row(primitive)
    elif large and primitive.kind in _DEALT:
        primitive = dealt_out(primitive)
    try:
        made: Tensor = record(kind, primitive, args, params, values)
        return made
    except TinygradError:  # already says what is wrong
        raise
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise misfit(primitive.name, arrays, error) from error


# Plain arguments ----------------------------------------------------------------------------------


def _is_settled(primitive: Primitive, x: Any) -> bool:
    """Whether a plain argument is fit to compute with as it is, and nobody can change it."""
    if type(x) is not _ndarray or x.base is not None or x.flags.writeable:
        return False
    kind = x.dtype.kind
    return kind == "f" or (kind in "iu" and primitive.integers)


def settled(primitive: Primitive, args: tuple[Any, ...], wanted: bool) -> tuple[Any, ...]:
    """Return arguments that are fit to compute with and, where backward may need them, our own."""
    found = list(args)
    for i, x in enumerate(args):
        if isinstance(x, Node) or type(x) in (bool, int, float):
            continue
        array = real_numbers(x, f"{primitive.name}: argument {i + 1}")
        if kind_of(array) is not None:
            found[i] = array
            continue
        kind = array.dtype.kind
        if kind != "f" and not primitive.integers and primitive.vjps(len(args))[i] is not None:
            # integers have no precision of their own to impose
            found[i] = array.astype(np.result_type(*(t.dtype for t in args if isinstance(t, Node))))
        elif wanted and (array.flags.writeable or array.base is not None):
            found[i] = copied(array)  # the owner (of its base) may change it before backward
        elif not isinstance(x, np.generic):
            found[i] = array
    return tuple(found)


# Large operations ---------------------------------------------------------------------------------

_DEALT = ("elementwise", "reduction")
_dealt_out: dict[Primitive, Primitive] = {}


def dealt_out(primitive: Primitive) -> Primitive:
    """Return the same primitive, run in pieces where each row is made of the same rows."""
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
    if isinstance(g, Node) or not _by_rows(primitive, args[0], params, g):
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
