"""A call of a primitive on Tensors, as users make it; the engine's `record` does the rest.

Plain arguments are made fit to compute with and our own. Where a leaf's data was given away, what
it holds now is noted with the operation. Where arrays are large, threads share the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_among
from tinygrad_sm.engine.arguments import misfit, settled
from tinygrad_sm.engine.memory import unexposed
from tinygrad_sm.engine.node import NO_PARAMS, Operation, Recorded, _new, _next_id, now, record
from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.threads.large import LARGE, copied, dealt_out
from tinygrad_sm.errors import TinygradError

if TYPE_CHECKING:
    from tinygrad_sm.engine.tensor import Tensor

_ndarray = np.ndarray
_ALONE: Any = object()


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
    kind: type[Any] = Recorded
    for x in args:
        if isinstance(x, Recorded):
            kind = x._kind
            wanted = wanted or x.requires_grad
            array = x._array
            large = large or array.size >= LARGE
            foreign = foreign or type(array) is not _ndarray
            lent = lent or (x._notes is not None and x._notes.lent is not None)
        elif type(x) is not float and type(x) is not int and not _is_settled(primitive, x):
            unsettled = True
            foreign = foreign or type(x) is not _ndarray or x.dtype.kind == "O"
    if unsettled:
        args = settled(primitive, args, our_own if wanted and here.on else None)
    values = tuple([unexposed(x) if isinstance(x, Recorded) else x for x in args]) if lent else None
    of_kind = kind_among(map(_bare, args)) if foreign else None
    if of_kind is not None:
        primitive = of_kind.row(primitive)
    elif large:
        primitive = dealt_out(primitive)
    try:
        made: Tensor = record(kind, primitive, args, params, values)
        return made
    except TinygradError:  # already says what is wrong
        raise
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise misfit(primitive.name, list(map(_bare, args)), error) from error


def _bare(x: Any) -> Any:
    return x._array if isinstance(x, Recorded) else x


def _is_settled(primitive: Primitive, x: Any) -> bool:
    """Whether a plain argument is fit to compute with as it is, and nobody can change it."""
    if type(x) is not _ndarray or x.base is not None or x.flags.writeable:
        return False
    kind = x.dtype.kind
    return kind == "f" or (kind in "iu" and primitive.integers)


def our_own(array: np.ndarray) -> np.ndarray:
    """Return an array that nobody can change before backward: a copy, if it or its base can be."""
    return copied(array) if array.flags.writeable or array.base is not None else array


def operated(
    primitive: Primitive, x: Any, y: Any = _ALONE, params: dict[str, Any] = NO_PARAMS
) -> Tensor:
    """Do what `call` does for one operand or two; most nodes are made here."""
    if y is None:  # given, but no operand: `call` says so
        return call(primitive, (x, y), params)
    if y is _ALONE:
        y = None
    on, groups, known, defer, _ = now.get()
    if defer is not None:
        put_off: Tensor | None = defer(primitive, (x,) if y is None else (x, y), params, groups)
        if put_off is not None:
            return put_off
    if not on:
        return call(primitive, (x,) if y is None else (x, y), params)
    a, b = x._array, y
    wanted, kind = x.requires_grad, type(y)
    usual = type(a) is _ndarray and a.size < LARGE and (x._notes is None or x._notes.lent is None)
    if kind is type(x):
        b = y._array
        wanted = wanted or y.requires_grad
        usual = usual and type(b) is _ndarray and (y._notes is None or y._notes.lent is None)
    elif kind is _ndarray:
        usual = usual and y.dtype.kind == "f"
        if wanted and usual and (y.flags.writeable or y.base is not None):
            y = b = y.copy()  # as `our_own` does
    elif kind is not float and kind is not int and y is not None:
        usual = False
    if not wanted or not usual:
        return call(primitive, (x,) if y is None else (x, y), params)
    try:
        if params:
            out = primitive.forward(*((a,) if y is None else (a, b)), **params)
        else:
            out = primitive.forward(a) if y is None else primitive.forward(a, b)
    except (ValueError, TypeError, IndexError, OverflowError):  # `call` says it in a sentence
        return call(primitive, (x,) if y is None else (x, y), params)
    if type(out) is not _ndarray:
        out = np.asarray(out)
    operation = None if params else known.get(primitive)
    if operation is None:
        operation = Operation(primitive, params, (), None, groups)
        if not params:
            known[primitive] = operation
    node: Tensor = _new(x._kind)  # as `made` does, without a call
    node._id = _next_id()
    node._array = out
    node._operation = operation
    node._first = x
    node._second = y
    node.requires_grad = True
    node.name = node._grad = node._notes = None
    return node
