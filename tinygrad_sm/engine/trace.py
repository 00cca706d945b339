"""The record of one sweep: what every edge contributed, for pictures and for the classroom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.arrays.kinds import kind_of
from tinygrad_sm.engine.memory import current, read_only
from tinygrad_sm.engine.node import Recorded
from tinygrad_sm.engine.sweep import Pulled
from tinygrad_sm.engine.view import Graph, Node, graph
from tinygrad_sm.notebook import Shown

Pull = Callable[[Any, Any], Iterable[Pulled]]


class Contribution(NamedTuple):
    """What one edge added to the cotangent of a Tensor."""

    consumer: Node
    """The node whose vjp gave it."""
    argument: int
    """The position of the Tensor among that node's arguments."""
    value: np.ndarray
    """The contribution, of the Tensor's shape and dtype."""


class Step(NamedTuple):
    """One visit of the sweep: a node, its cotangent, and what it passed on to its arguments."""

    node: Node
    cotangent: np.ndarray
    passed_on: tuple[Contribution, ...]


class BackwardTrace(Shown):
    """The record of one backward sweep.

    Attributes:
        graph: the view of the graph that was swept.
        steps: one `Step` per node that received a cotangent, in the order of the sweep.
    """

    def __init__(self, output: Any) -> None:
        self.graph: Graph = graph(output)
        self.steps: list[Step] = []
        self._received: dict[int, list[Contribution]] = {}
        self._cotangents: dict[int, np.ndarray] = {}

    def contributions(self, tensor: Any) -> list[Contribution]:
        """Return what was added up for a Tensor: (consumer node, argument index, array) each.

        Their sum is the Tensor's cotangent. The list is empty for the output, which was seeded.

        Raises:
            InvalidValueError: the Tensor took no part in the sweep.
        """
        return list(self._received.get(self.graph.node_of(tensor).id, ()))

    def cotangent(self, tensor: Any) -> np.ndarray | None:
        """Return the gradient that the sweep found for a Tensor, or None if none reached it."""
        return self._cotangents.get(self.graph.node_of(tensor).id)

    def __repr__(self) -> str:
        return f"<BackwardTrace of {len(self.steps)} steps>"

    def __str__(self) -> str:
        """One line per step: the node, its gradient's shape, and where it was passed on."""
        lines = []
        for node, cotangent, _ in self.steps:
            name = f"{node.name} ({node.op})" if node.name else node.op
            onward = f" -> {', '.join(map(str, node.inputs))}" if node.inputs else ""
            lines.append(f"{node.id}  {name}  {cotangent.shape}{onward}")
        return "\n".join(lines)

    def recording(self, pull: Pull) -> Pull:
        """Return a function that does what `pull` does, and writes it down."""
        return lambda t, g: self._written_down(t, g, list(pull(t, g)))

    def _written_down(self, t: Any, g: Any, pulled: list[Pulled]) -> list[Pulled]:
        node = self.graph.node_of(t)
        edges = []
        for i, x, value in pulled:
            edge = Contribution(node, i, _kept(value))
            edges.append(edge)
            self._received.setdefault(self.graph.node_of(x).id, []).append(edge)
        self._cotangents[node.id] = kept = _kept(g)
        self.steps.append(Step(node, kept, tuple(edges)))
        return pulled


def _kept(value: Any) -> np.ndarray:
    """A read-only copy: others may hold, change or add to the array itself."""
    value = current(value) if isinstance(value, Recorded) else value
    return read_only(np.array(value) if kind_of(value) is None else value)
