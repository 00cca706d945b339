"""The read-only view of a recorded computation: nodes, edges, groups, stable ids.

Backward's trace, drawing, fusion and the comparison all read this view. Ids count the nodes in
creation order from 0, so the same program gives the same ids in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np

from tinygrad_sm.arrays.kinds import as_array
from tinygrad_sm.engine.memory import check_unchanged, current, is_lent, read_only
from tinygrad_sm.engine.node import Operation, Recorded
from tinygrad_sm.engine.primitive import TABLE, Primitive
from tinygrad_sm.engine.sweep import newest_first
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.notebook import Shown

LEAF = "leaf"
"""The `op` of a Tensor that no operation computed."""
CONSTANT = "constant"
"""The `op` of an array, a number or a Tensor that no gradient is wanted for."""

_name_of = cache(str)  # of a dtype, which NumPy takes long for


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node of a graph.

    Attributes:
        id: position in `Graph.nodes`; inputs have smaller ids than what is made of them.
        op: name of the primitive, or "leaf" or "constant".
        name: the user's name for it, or None.
        shape: length of each axis.
        dtype: type of the elements, e.g. ``"float64"``.
        inputs: ids of the arguments, in their order; one that is used twice stands twice.
        params: the primitive's keyword parameters, e.g. ``{"axis": -1}``, read-only.
        groups: names of the stages that it belongs to, outermost first.
        tensor: the Tensor behind it; None for a plain array or number, and in a copy of the node,
            which is pickled without what computed it.
        weak: whether it was a Python number, which takes the dtype of what stands beside it.
    """

    id: int
    op: str
    name: str | None
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[int, ...]
    params: Mapping[str, Any] = field(repr=False)
    groups: tuple[str, ...] = field(repr=False)
    _value: np.ndarray | None = field(repr=False)  # None: what the Tensor has computed
    tensor: Any = field(repr=False)
    weak: bool = field(default=False, repr=False)

    @property
    def primitive(self) -> Primitive | None:
        """What is known of the operation; None for a leaf or constant."""
        return TABLE[self.op] if self.inputs else None

    @property
    def value(self) -> np.ndarray:
        """The array, read-only."""
        if self._value is not None:
            return self._value
        return read_only(self.tensor._array)

    def __reduce__(self) -> Any:
        facts = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {"params": dict(self.params), "_value": self.value, "tensor": None}
        return _copied, (facts | plain,)


@dataclass(frozen=True, slots=True)
class Edge:
    """An argument of a node: `source` is argument number `argument` of `target` (both ids)."""

    source: int
    target: int
    argument: int


T = TypeVar("T")


class computed_once(Generic[T]):
    """A property that is computed when it is first asked for, and kept.

    functools' own holds a lock meanwhile in Python 3.11: a process forked by another thread then
    would wait for it for ever.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, owner: Any, kind: Any = None) -> T:
        value = owner.__dict__[self.function.__name__] = self.function(owner)
        return value


class Graph(Shown):
    """Everything that an output was computed from, as data.

    Attributes:
        nodes: all nodes, the inputs of each before it; ``nodes[i].id == i``.
        output: id of the node that the view was made from.
    """

    def __init__(self, nodes: tuple[Node, ...], output: int) -> None:
        self.nodes = nodes
        self.output = output

    @computed_once
    def _by_tensor(self) -> dict[int, Node]:
        return {n.tensor._id: n for n in self.nodes if n.tensor is not None}

    @computed_once
    def edges(self) -> tuple[Edge, ...]:
        """One per argument, by target and argument number."""
        return tuple(
            Edge(source, node.id, i) for node in self.nodes for i, source in enumerate(node.inputs)
        )

    def __reduce__(self) -> Any:
        return Graph, (self.nodes, self.output)

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes)} nodes and {len(self.edges)} edges>"

    def __str__(self) -> str:
        """One line per node: id, name, operation with its arguments, shape, dtype."""
        rows = []
        for n in self.nodes:
            arguments = f"({', '.join(map(str, n.inputs))})" if n.inputs else ""
            rows.append((str(n.id), n.name or "", n.op + arguments, f"{n.shape} {n.dtype}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def node_of(self, tensor: Any) -> Node:
        """Return the node of a Tensor.

        Raises:
            InvalidTypeError: not a Tensor.
            InvalidValueError: the Tensor took no part in this graph.
        """
        if not isinstance(tensor, Recorded):
            raise InvalidTypeError(f"tensor must be a Tensor; got {type(tensor).__name__}")
        node = self._by_tensor.get(tensor._id)
        if node is None:
            name = "a Tensor" if tensor.name is None else f"the Tensor {tensor.name!r}"
            raise InvalidValueError(f"{name} of shape {tensor.shape} took no part in this graph")
        return node

    def to_dict(self) -> dict[str, Any]:
        """Return the graph without its values, in types that JSON has."""
        nodes = [{key: _plain(getattr(node, key)) for key in _KEYS} for node in self.nodes]
        return {"output": self.output, "nodes": nodes, "edges": [asdict(e) for e in self.edges]}


_KEYS = ("id", "op", "name", "shape", "dtype", "inputs", "groups")


def _plain(fact: Any) -> Any:
    return list(fact) if isinstance(fact, tuple) else fact


def made_of(tensor: Any) -> tuple[Operation, tuple[Any, ...]]:
    """Return how a Tensor was made, and of which operands: Tensors, arrays and numbers."""
    return tensor._operation, tensor._operands


def recorded(output: Any) -> list[tuple[Any, Operation, tuple[Any, ...]]]:
    """Return what `graph` is made from, in less time: each Tensor, its operation and its operands.

    The operands of each come before it; its values are not looked at.

    Raises:
        ChangedDataError: data was changed in place after it was used.
    """
    tensors = newest_first(output)
    check_unchanged(tensors)
    return [(t, *made_of(t)) for t in reversed(tensors)]


def graph(output: Any) -> Graph:
    """Return the view of all that `output` was computed from.

    Raises:
        InvalidTypeError: `output` is not a Tensor.
    """
    if not isinstance(output, Recorded):
        raise InvalidTypeError(f"graph: output must be a Tensor; got {type(output).__name__}")
    tensors = newest_first(output)[::-1]
    used = {} if output._operands else {output._id: current(output)}
    for t in tensors:  # what operations saw of leaves that may have changed
        if t._operation.values is not None:
            used |= {
                x._id: arg
                for x, arg in zip(t._operands, t._values, strict=True)
                if isinstance(x, Recorded)
            }
    nodes: list[Node] = []
    places: dict[int, int] = {}  # by id(): an array that is used twice is one node, a number two
    for t in tensors:
        inputs = []
        for x in t._operands:
            place = places.get(id(x)) if isinstance(x, (Recorded, np.ndarray)) else None
            if place is None:
                place = places[id(x)] = len(nodes)
                nodes.append(_constant(place, x, t._operation.groups))
            inputs.append(place)
        places[id(t)] = len(nodes)
        nodes.append(_node(len(nodes), t, tuple(inputs), used.get(t._id)))
    return Graph(tuple(nodes), places[id(output)])


def _node(id: int, t: Any, inputs: tuple[int, ...], value: np.ndarray | None) -> Node:
    primitive = t._operation.primitive
    op = primitive.name if primitive else LEAF if t.requires_grad else CONSTANT
    name = None if t.name is None else str(t.name)
    params = MappingProxyType(t._operation.params)  # several Tensors may share the one dictionary
    if primitive is not None:
        value = None  # as it is computed, once, whoever asks
    elif value is None:
        value = read_only(t._array)
    else:
        value = read_only(value, locked=not (is_lent(t) and value is current(t)))
    return Node(
        id, op, name, t.shape, _name_of(t.dtype), inputs, params, t._operation.groups, value, t
    )


def _copied(facts: dict[str, Any]) -> Node:
    """A node that was pickled, read-only as ever."""
    params = MappingProxyType(facts["params"])
    return Node(**facts | {"params": params, "_value": read_only(facts["_value"])})


def _constant(id: int, value: Any, groups: tuple[str, ...]) -> Node:
    array = read_only(as_array(value))
    params: Mapping[str, Any] = MappingProxyType({})
    weak = isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)
    return Node(
        id, CONSTANT, None, array.shape, str(array.dtype), (), params, groups, array, None, weak
    )
