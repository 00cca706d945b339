"""Where a computation broke: the first node that turned finite numbers into inf or NaN, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tinygrad_sm.arrays.kinds import kind_of
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace, Contribution
from tinygrad_sm.engine.view import Graph, Node, graph

Record: TypeAlias = Tensor | Graph | BackwardTrace


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The first place where a computation left the finite numbers.

    Attributes:
        node: the node that broke, or whose vjp did.
        phase: "forward" or "backward".
        index: position of the first element that is not finite.
        cause: one sentence, e.g. ``"exp overflowed: exp(1000) is above 1.8e+308"``.
    """

    node: Node
    phase: str
    index: tuple[int, ...]
    cause: str

    def __str__(self) -> str:
        return f"{self.phase} pass, at {label(self.node)}: {self.cause}"


def label(node: Node) -> str:
    """How a sentence calls a node: by id, name and operation."""
    return f"node {node.id} {node.name!r} ({node.op})" if node.name else f"node {node.id} {node.op}"


def graph_of(record: Record) -> Graph:
    """Return the graph of what may be one, or its Tensor, or a sweep of it."""
    if isinstance(record, BackwardTrace):
        return record.graph
    return record if isinstance(record, Graph) else graph(record)


def first_breakdown(record: Record) -> Breakdown | None:
    """Return the first node whose result is not finite although its arguments are, or None.

    An operation on single elements is judged element by element, so that a mask of −inf among the
    logits hides nothing.

    Args:
        record: a Tensor or its graph, or the trace of a backward sweep, whose vjps are then
            examined too.

    Raises:
        InvalidTypeError: it is none of these.
    """
    nodes = graph_of(record).nodes
    for node in nodes:
        if node.inputs and not _is_finite(node.value):
            arguments = [nodes[i].value for i in node.inputs]
            broken = _newly_broken(node, arguments)
            if broken.any():
                at = first_index(broken)
                return Breakdown(node, "forward", at, _cause(node, arguments, at))
    if isinstance(record, BackwardTrace):
        for step in record.steps:
            for edge in step.passed_on:
                if not _is_finite(edge.value):
                    at = first_index(~np.isfinite(edge.value))
                    return Breakdown(step.node, "backward", at, _backward_cause(edge, at))
    return None


def _is_finite(x: Any) -> bool:
    """Whether all elements are, or nobody can know before they are computed."""
    kind = kind_of(x)
    return (kind is not None and not kind.is_computed(x)) or bool(np.isfinite(x).all())


def first_index(mask: np.ndarray) -> tuple[int, ...]:
    """Return the position of the first True."""
    return tuple(int(i) for i in np.argwhere(mask)[0])


def underflowed(view: Graph) -> Node | None:
    """Return the first elementwise node with a 0 that on paper is none, such as exp(-800)."""
    for node in view.nodes:
        zeros = node.value == 0
        if not (_is_elementwise(node) and zeros.any()):
            continue
        arguments = [np.broadcast_to(view.nodes[i].value, node.shape) for i in node.inputs]
        at_zeros = [x[zeros] for x in arguments]
        by_infinity = _divides(node) and at_zeros[0].any()
        if by_infinity or "underflow" in _flags(node, at_zeros):
            return node
    return None


def _is_elementwise(node: Node) -> bool:
    return node.primitive is not None and node.primitive.kind == "elementwise"


def _divides(node: Node) -> bool:
    return node.primitive is not None and node.primitive.forward is np.true_divide


def _flags(node: Node, arguments: list[Any]) -> set[str]:
    """What the floating-point unit says of the operation on these: "overflow", "divide by zero"."""
    assert node.primitive is not None
    found: set[str] = set()
    with np.errstate(all="call", call=lambda flag, _: found.add(flag)):
        node.primitive.forward(*arguments, **node.params)
    return found


def _newly_broken(node: Node, arguments: list[np.ndarray]) -> np.ndarray:
    """Where the result is not finite and what it was made of is."""
    broken: np.ndarray = ~np.isfinite(node.value)
    for x in arguments:
        broken = broken & (np.isfinite(x) if _is_elementwise(node) else np.isfinite(x).all())
    return broken


def _cause(node: Node, arguments: list[np.ndarray], at: tuple[int, ...]) -> str:
    result = float(node.value[at])
    if not _is_elementwise(node):  # no one element is to blame
        if np.isinf(result):
            return f"{node.op} overflowed to {result:g}"
        return f"{node.op} gave {result:g} from finite arguments"
    values = [np.broadcast_to(x, node.shape)[at] for x in arguments]
    call = f"{node.op}({', '.join(f'{float(v) + 0.0:.6g}' for v in values)})"
    if "overflow" not in _flags(node, values):
        if _divides(node) and values[1] == 0:
            return f"{values[0]:.6g} was divided by 0"
        return f"{call} is {result:g}"
    if len(values) > 1:
        return f"{node.op} overflowed to {result:g}"
    side, limit = ("above", "max") if result > 0 else ("below", "min")
    return f"{node.op} overflowed: {call} is {side} {getattr(np.finfo(node.dtype), limit):.2g}"


def _backward_cause(edge: Contribution, at: tuple[int, ...]) -> str:
    value: Any = edge.value[at]
    kind = "NaN (such as 0·inf)" if np.isnan(value) else f"{value:g}"
    return f"the vjp of {edge.consumer.op} for argument {edge.argument} gave {kind}"
