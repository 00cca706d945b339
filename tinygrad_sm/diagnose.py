"""Where a computation broke: the first node that turned finite numbers into inf or NaN, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_sm.backward import BackwardTrace, Contribution
from tinygrad_sm.graph import Graph, Node

_ELEMENTWISE = frozenset(
    {"add", "sub", "mul", "div", "neg", "pow", "exp", "log", "log1p", "sqrt", "tanh"}
)


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


def first_breakdown(record: Graph | BackwardTrace) -> Breakdown | None:
    """Return the first node whose result is not finite although its arguments are, or None.

    An operation on single elements is judged element by element, so that a mask of −inf among the
    logits hides nothing.

    Args:
        record: a graph, or the trace of a backward sweep, whose vjps are then examined too.
    """
    graph = record.graph if isinstance(record, BackwardTrace) else record
    for node in graph.nodes:
        if node.inputs and not np.isfinite(node.value).all():
            arguments = [graph.nodes[i].value for i in node.inputs]
            broken = _newly_broken(node, arguments)
            if broken.any():
                at = _first(broken)
                return Breakdown(node, "forward", at, _cause(node, arguments, at))
    if isinstance(record, BackwardTrace):
        for step in record.steps:
            for edge in step.passed_on:
                if not np.isfinite(edge.value).all():
                    at = _first(~np.isfinite(edge.value))
                    return Breakdown(step.node, "backward", at, _backward_cause(edge, at))
    return None


def underflowed(graph: Graph) -> Node | None:
    """Return the first `exp` or `div` node with a 0 that on paper is positive, or None."""
    for node in graph.nodes:
        if node.op in ("exp", "div") and (node.value == 0).any():
            first = graph.nodes[node.inputs[0]].value
            vanished = (first > -np.inf) if node.op == "exp" else (first != 0)
            if (np.broadcast_to(vanished, node.shape) & (node.value == 0)).any():
                return node
    return None


def _newly_broken(node: Node, arguments: list[np.ndarray]) -> np.ndarray:
    """Where the result is not finite and what it was made of is."""
    broken: np.ndarray = ~np.isfinite(node.value)
    for x in arguments:
        broken = broken & (np.isfinite(x) if node.op in _ELEMENTWISE else np.isfinite(x).all())
    return broken


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _cause(node: Node, arguments: list[np.ndarray], at: tuple[int, ...]) -> str:
    values = [_at(x, node, at) for x in arguments]
    result = float(node.value[at])
    if node.op == "exp":
        largest = np.finfo(node.dtype).max
        return f"exp overflowed: exp({values[0]:.6g}) is above {largest:.2g}"
    if node.op == "log":
        what = "0" if values[0] == 0 else f"{values[0]:.6g}"
        return f"log({what}) is {result:g}"
    if node.op == "div" and values[1] == 0:
        return f"{values[0]:.6g} was divided by 0"
    if np.isinf(result):
        return f"{node.op} overflowed to {result:g}"
    return f"{node.op} gave {result:g} from finite arguments"


def _at(x: np.ndarray, node: Node, at: tuple[int, ...]) -> float:
    """The element of an argument that stands behind an element of the result, by broadcasting."""
    if x.size == 1:
        return float(x.reshape(-1)[0])
    try:
        return float(np.broadcast_to(x, node.shape)[at])
    except ValueError:  # a reduction or the like: any element would mislead, so the extreme one
        return float(x.reshape(-1)[np.argmax(np.abs(x))])


def _backward_cause(edge: Contribution, at: tuple[int, ...]) -> str:
    value: Any = edge.value[at]
    kind = "NaN (such as 0·inf)" if np.isnan(value) else f"{value:g}"
    return f"the vjp of {edge.consumer.op} for argument {edge.argument} gave {kind}"
