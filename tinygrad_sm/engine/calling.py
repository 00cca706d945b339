"""A call of a primitive on Tensors, as users make it; the engine's `record` does the rest.

Plain arguments are made fit to compute with and our own. Where a leaf's data was given away, what
it holds now is noted with the operation. What is elementwise or a reduction is dealt out to several
threads where arrays are large: its forward and vjps, a user's too, then get views of them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_sm.engine.intake import misfit, real_numbers
from tinygrad_sm.engine.memory import unexposed
from tinygrad_sm.engine.node import NO_PARAMS, Node, now, record
from tinygrad_sm.engine.primitive import Primitive, Vjp
from tinygrad_sm.engine.rules import div, sum_to
from tinygrad_sm.engine.sweep import is_repeated
from tinygrad_sm.engine.threads.large import LARGE, Shared, copied, row_products, share, unshared
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
    wanted = lent = unsettled = large = False
    kind: type[Any] = Node
    for x in args:
        if isinstance(x, Node):
            kind = x._kind
            wanted = wanted or x.requires_grad
            large = large or x._array.size >= LARGE
            lent = lent or (x._notes is not None and x._notes.lent is not None)
        elif type(x) is not float and type(x) is not int and not _is_settled(primitive, x):
            unsettled = True
    if unsettled:
        args = settled(primitive, args, wanted and here.on)
    values = tuple([unexposed(x) if isinstance(x, Node) else x for x in args]) if lent else None
    if large and primitive.kind in _DEALT:
        primitive = dealt_out(primitive)
    try:
        made: Tensor = record(kind, primitive, args, params, values)
        return made
    except TinygradError:  # already says what is wrong
        raise
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        arrays = [x._array if isinstance(x, Node) else x for x in args]
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
    """Return the same primitive, whose ufuncs are dealt out to threads where arrays are large."""
    found = _dealt_out.get(primitive)
    if found is None:
        found = _dealt_out[primitive] = copy.copy(primitive)
        forward = primitive.forward
        found.forward = lambda *args, **params: unshared(forward(*map(share, args), **params))
        found._vjps = tuple(
            [
                None if vjp is None else _dealt_vjp(vjp, None if primitive.arity is None else i)
                for i, vjp in enumerate(primitive._vjps)
            ]
        )
        if primitive is div:
            found._vjps = (found._vjps[0], _dealt_vjp(_to_the_denominator, 1))
    return found


def _dealt_vjp(vjp: Vjp, argument: int | None) -> Vjp:
    """The same vjp; of the argument at this position, None for one that any number share."""

    def dealt(*args: Any, **params: Any) -> Any:
        c = vjp(*map(share, args), **params)
        if type(c) is Shared and argument is not None:
            _, _, *operands = args
            if is_repeated(c.shape, np.shape(operands[argument])):
                c = sum_to(c, operands[argument])  # large, too
        return unshared(c)

    return dealt


def _to_the_denominator(g: Any, q: Any, f: Any, d: Any) -> Any:
    """What the rule of `div` says, without the whole of the product g·q."""
    sums = row_products(g, q, d)
    return -(sum_to(g * q, d) if sums is None else sums) / d
