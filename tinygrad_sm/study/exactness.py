"""How far two gradients are from the exact one, and at which node the composite lost its digits.

Exact is what the same graph gives on mpmath's numbers. They have 50 digits, and as many more as the
logits are apart, since in those p and 1 may agree. The graphs on floats and on exact numbers have
the same nodes in the same order, so each value and each cotangent has an exact one to be held
against; from the gradient the trail leads back along the edges as long as what it comes from is as
far off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_sm.arrays.elements import precise
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import LEAF, Node
from tinygrad_sm.study.diagnose import label
from tinygrad_sm.study.ulp import ulp_text, ulps_off

DIGITS = 50
MOST_NUMBERS = 20_000
_FEW = 16  # units in the last place: rounding, and no loss of digits
_SHARE = 8  # what a value is off by is where a result's error comes from if it is 1/8 of that


@dataclass(frozen=True, slots=True)
class NodeError:
    """One node of the composite, in the row that the tables show.

    Attributes:
        node: which one.
        value: how far its value is off, in units in the last place; the largest of its elements.
        cotangent: the same of ∂L/∂node; None if none arrived.
    """

    node: Node
    value: float
    cotangent: float | None


@dataclass(frozen=True, slots=True)
class Exactness:
    """Both gradients against the exact one.

    Attributes:
        digits: of the exact numbers.
        gradient: the exact gradient, rounded to the logits' dtype; of the logits' shape.
        composite_ulps, fused_ulps: how far each component is from the exact one, in units in the
            last place; inf for NaN. Of the logits' shape.
        nodes: the composite's nodes, and what each is off by.
        lost: where the composite lost its digits, in a sentence.
    """

    digits: int
    gradient: np.ndarray
    composite_ulps: np.ndarray
    fused_ulps: np.ndarray
    nodes: tuple[NodeError, ...]
    lost: str


def held_against_exact(
    logits: np.ndarray,
    gradients: tuple[np.ndarray, np.ndarray],
    loss: Callable[[Tensor], Tensor],
    composite: Callable[[Tensor], Tensor],
    row: np.ndarray,
    temperature: float,
) -> Exactness:
    """Hold two gradients of the same logits against the exact one.

    Args:
        logits: floats, from 1 to 20 000 of them; finite, or −inf for a mask.
        gradients: the composite's and the fused node's.
        loss: of logits, for the exact gradient.
        composite: the loss of a single row in the form whose nodes are looked at.
        row: logits of that row.
        temperature: by which the logits are divided.

    Raises:
        InvalidTypeError: mpmath is missing.
    """
    apart = float(np.ptp(logits[np.isfinite(logits)].astype(np.float64))) / temperature
    digits = DIGITS + int(apart / math.log(10))
    a = Tensor(precise(logits, digits))
    total = loss(a)
    total.backward(np.ones(total.shape))
    ours, fused = (ulps_off(found, a.grad) for found in gradients)
    rounded = np.array(a.grad.tolist(), np.float64).astype(logits.dtype)
    computed = row.astype(np.promote_types(row.dtype, np.float32))  # as the loss does
    trail = _Trail(_swept(composite, computed), _swept(composite, precise(row, digits)))
    return Exactness(digits, rounded, ours, fused, trail.errors(), trail.lost())


def _swept(loss: Callable[[Tensor], Tensor], logits: Any) -> BackwardTrace:
    trace = loss(Tensor(logits, name="a")).backward(trace=True)
    assert trace is not None
    return trace


class _Trail:
    """A sweep on floats, and the same sweep on exact numbers: node by node, what is off."""

    def __init__(self, found: BackwardTrace, exact: BackwardTrace) -> None:
        self.found = found
        self.exact = exact
        self.nodes = found.graph.nodes
        assert [node.op for node in self.nodes] == [node.op for node in exact.graph.nodes]

    def value(self, node: Node) -> float:
        return _largest(node.value, self.exact.graph.nodes[node.id].value)

    def cotangent(self, node: Node) -> float | None:
        twin = self.exact.graph.nodes[node.id]
        known = node.tensor is not None and self.found.cotangent(node.tensor) is not None
        if not known:
            return None
        return _largest(self.found.cotangent(node.tensor), self.exact.cotangent(twin.tensor))

    def arrived(self, node: Node) -> list[tuple[Node, float]]:
        """The consumers of a node, and what their contributions to its cotangent are off by."""
        twin = self.exact.graph.nodes[node.id]
        pairs = zip(
            self.found.contributions(node.tensor),
            self.exact.contributions(twin.tensor),
            strict=True,
        )
        return [(found.consumer, _largest(found.value, exact.value)) for found, exact in pairs]

    def errors(self) -> tuple[NodeError, ...]:
        return tuple(
            NodeError(node, self.value(node), self.cotangent(node))
            for node in self.nodes
            if node.inputs or node.op == LEAF
        )

    def lost(self) -> str:
        """Follow the error of the gradient back to where it comes from, and say it."""
        node = next(node for node in self.nodes if node.name == "a")
        worst = self.cotangent(node) or 0.0
        if worst <= _FEW:
            return f"no digits were lost: each node rounds, and the gradient is {_off(worst)}"
        bar = worst / _SHARE
        while True:
            arrived = self.arrived(node)
            largest = max(error for _, error in arrived)
            if largest < bar:
                total = self.cotangent(node) or 0.0
                return (
                    f"backward, at {label(node)}: {len(arrived)} contributions, each "
                    f"{_off(largest)}, cancel to a sum that is {_off(total)}"
                )
            consumer = next(one for one, error in arrived if error >= bar)
            inner = self.cotangent(consumer)
            if inner is None or inner < bar or consumer.id == self.found.graph.output:
                break
            node = consumer
        used = [consumer, *(self.nodes[i] for i in consumer.inputs)]
        bad = next((x for x in used if self.value(x) >= bar), None)
        if bad is None:
            return (
                f"backward, in the vjp of {label(consumer)}: what it passes on is {_off(largest)}"
            )
        return self._forward(bad, bar)

    def _forward(self, node: Node, bar: float) -> str:
        """Go on to the first node whose value is that far off."""
        while True:
            inputs = [self.nodes[i] for i in node.inputs]
            bad = next((x for x in inputs if self.value(x) >= bar), None)
            if bad is None:
                before = max((self.value(x) for x in inputs), default=0.0)
                return (
                    f"forward, at {label(node)}: its arguments are {_off(before)}, "
                    f"its value is {_off(self.value(node))}"
                )
            node = bad


def _largest(found: Any, exact: Any) -> float:
    return float(ulps_off(np.asarray(found), exact).max(initial=0.0))


def _off(ulps: float) -> str:
    if not math.isfinite(ulps):
        return "no finite number"
    if ulps < 1:
        return "exact" if ulps == 0 else "off by less than 1 ULP"
    return f"off by {ulp_text(ulps)} ULP"
