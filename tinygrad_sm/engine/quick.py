"""The usual ways through `call` and the sweep's `pull`, in fewer steps; all else goes their way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_sm.engine.calling import call
from tinygrad_sm.engine.intake import misfit
from tinygrad_sm.engine.node import NO_PARAMS, Node, Operation, _new, _next_id, now
from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.sweep import Edge, fitted, pull
from tinygrad_sm.engine.threads.large import LARGE
from tinygrad_sm.errors import TinygradError

if TYPE_CHECKING:
    from tinygrad_sm.engine.tensor import Tensor

_ndarray = np.ndarray


_ALONE: Any = object()


def operated(
    primitive: Primitive, x: Any, y: Any = _ALONE, params: dict[str, Any] = NO_PARAMS
) -> Tensor:
    """Do what `call` does for one operand or two; most nodes are made here."""
    if y is None:  # given, but no operand: `call` says so
        return call(primitive, (x, y), params)
    if y is _ALONE:
        y = None
    on, groups, known, defer, _ = now.get()
    if not on or defer is not None:
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
            y = b = y.copy()  # as `settled` does
    elif kind is not float and kind is not int and y is not None:
        usual = False
    if not wanted or not usual:
        return call(primitive, (x,) if y is None else (x, y), params)
    try:
        if params:
            out = primitive.forward(*((a,) if y is None else (a, b)), **params)
        else:
            out = primitive.forward(a) if y is None else primitive.forward(a, b)
    except TinygradError:  # already says what is wrong
        raise
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise misfit(primitive.name, [a] if y is None else [a, b], error) from error
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


def pulled(node: Any, g: Any) -> Iterable[Edge]:
    """Return what `pull` yields; where a node has one or two operands, by a shorter way."""
    operation, x, y = node._operation, node._first, node._second
    if operation.more or operation.values is not None or type(g) is not _ndarray:
        return pull(node, g)
    if x is None:
        return ()
    primitive, params = operation.primitive, operation.params
    a, b, wanted = x, y, []
    if isinstance(x, Node):
        a = x._array
        if x.requires_grad:
            wanted.append((0, x))
    if y is not None and isinstance(y, Node):
        b = y._array
        if y.requires_grad:
            wanted.append((1, y))
    values = (g, node._array, a) if y is None else (g, node._array, a, b)
    vjps = primitive._vjps if primitive.arity else primitive.vjps(len(values) - 2)
    edges = []
    for i, operand in wanted:
        vjp = vjps[i]
        if vjp is None:
            continue
        c = vjp(*values, **params) if params else vjp(*values)
        like = operand._array
        if type(c) is not _ndarray or c.shape != like.shape or c.dtype is not like.dtype:
            if c is None:
                continue
            c = fitted(c, node, i, operand, like=g)
        edges.append((i, operand, c))
    return edges
