"""What a computation remembers: nodes, each a value and how it was made of others.

Nodes are numbered as they are made, so that a node's number is higher than the numbers of all that
it was made of: from high to low is an order in which the chain rule can be applied.
"""

from __future__ import annotations

import itertools
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinygrad_sm.arrays.kinds import as_array
from tinygrad_sm.engine.primitive import Primitive

NO_PARAMS: dict[str, Any] = {}
"""What nodes without parameters have in common; nobody changes it."""

_new = object.__new__
_next_id = itertools.count().__next__


@dataclass(slots=True, eq=False)
class Operation:
    """How a value was made: ``primitive(*operands, **params)``.

    Attributes:
        primitive: the row of the table; None for a leaf, which no operation made.
        params: its keyword parameters. Nodes may have them in common, so nobody changes them.
        more: the operands after the second; a node holds the first two itself.
        values: the arrays that it was run on, if they are not the operands' own; else None.
        groups: the names of the stages that the node belongs to, outermost first.
    """

    primitive: Primitive | None
    params: dict[str, Any]
    more: tuple[Any, ...]
    values: tuple[Any, ...] | None
    groups: tuple[str, ...]


NO_OPERATION = Operation(None, NO_PARAMS, (), None, ())
"""What a node has that no operation made."""


class Recorded:
    """A value of a computation.

    Its operands are nodes, and constants: arrays and numbers that no gradient is wanted for. Nearly
    every operation has one or two, so these have a slot each, which takes half as much memory as a
    tuple of them.
    """

    __slots__ = (
        "__weakref__", "_array", "_first", "_grad", "_id", "_notes", "_operation", "_second",
        "name", "requires_grad",
    )  # fmt: skip

    _kind: ClassVar[type[Recorded]]  # the class of the nodes that are computed from this one

    name: str | None
    requires_grad: bool
    _id: int
    _array: np.ndarray  # not `_data`, which np.ma would read
    _operation: Operation
    _first: Any
    _second: Any
    _grad: Any  # what backward has added up here
    _notes: Any  # room for what other layers remember, beside the mathematics

    def __init_subclass__(cls, kind: type[Recorded] | None = None) -> None:
        cls._kind = kind or cls

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The floating-point type of the elements."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def _operands(self) -> tuple[Any, ...]:
        """What this was made of, in the order of the primitive's arguments."""
        if self._second is not None:
            return (self._first, self._second, *self._operation.more)
        return () if self._first is None else (self._first,)

    @property
    def _values(self) -> tuple[Any, ...]:
        """The arrays and numbers that the operation was run on."""
        if self._operation.values is not None:
            return self._operation.values
        return tuple([x._array if isinstance(x, Recorded) else x for x in self._operands])

    def __primitive__(
        self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]
    ) -> Any:
        """Answer a primitive that was called on this node: compute, and remember."""
        return record(self._kind, primitive, args, params)


class Recording(NamedTuple):
    """How operations are remembered at this point of a program; see `scopes`.

    Attributes:
        on: whether they are.
        groups: the stages that their nodes belong to.
        known: by primitive, the one Operation of all nodes that need no other.
        defer: a function that may answer a call instead, or None.
        outside: the Recording that holds again after this one, or None.
    """

    on: bool
    groups: tuple[str, ...]
    known: dict[Primitive, Operation]
    defer: Any = None
    outside: Any = None


now: ContextVar[Recording] = ContextVar("now", default=Recording(True, (), {}))  # noqa: B039
"""The Recording that holds now."""


def record(
    kind: type[Any],
    primitive: Primitive,
    operands: tuple[Any, ...],
    params: dict[str, Any] = NO_PARAMS,
    values: tuple[Any, ...] | None = None,
) -> Any:
    """Run a primitive, and remember how the result was made if a gradient may be wanted.

    The result is a node of class `kind`. `values` are the arrays to run the primitive on, if they
    are not the operands' own.
    """
    on, groups, known, _, _ = now.get()
    arrays, wanted = [], False
    for x in operands:
        is_node = isinstance(x, Recorded)
        arrays.append(x._array if is_node else x)
        wanted = wanted or (is_node and x.requires_grad)
    out = primitive.forward(*(values or arrays), **params)
    out = out if type(out) is np.ndarray else as_array(out)
    if not (wanted and on):
        return leaf(kind, out)
    plain = not params and values is None and len(operands) <= 2
    operation = known.get(primitive) if plain else None
    if operation is None:
        operation = Operation(primitive, params or NO_PARAMS, operands[2:], values, groups)
        if plain:  # it says nothing of one node alone, so the next ones need no other
            known[primitive] = operation
    first, second = (*operands, None)[:2]
    return made(kind, out, operation, first, second, requires_grad=True)


def leaf(kind: type[Any], array: np.ndarray, requires_grad: bool = False) -> Any:
    """Return a node that has no operands: an input, or a result that no gradient is wanted for."""
    return made(kind, array, NO_OPERATION, requires_grad=requires_grad)


def made(
    kind: type[Any],
    array: np.ndarray,
    operation: Operation,
    first: Any = None,
    second: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Return a new node, newer than all others."""
    node = _new(kind)
    node._id = _next_id()
    node._array = array
    node._operation = operation
    node._first = first
    node._second = second
    node.requires_grad = requires_grad
    node.name = node._grad = node._notes = None
    return node
