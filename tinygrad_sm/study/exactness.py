"""How far two gradients are from the exact one, and at which node the composite lost its digits.

Exact is what the same graph gives on mpmath's numbers. They have 50 digits, and as many more as the
logits are apart, since in those p and 1 may agree. The graphs on floats and on exact numbers have
the same nodes in the same order, so each value and each cotangent has an exact one to be held
against; from the gradient the trail leads back along the edges as long as what it comes from is as
far off.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_sm.arrays.elements import precise
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import LEAF, Node
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.composite import composite_cross_entropy
from tinygrad_sm.loss.fused import cross_entropy
from tinygrad_sm.loss.options import LossOptions, Task
from tinygrad_sm.study.diagnose import label
from tinygrad_sm.study.ulp import ulp_text, ulps_off

if TYPE_CHECKING:
    from tinygrad_sm.study.comparison import Comparison

_DIGITS = 50
_MOST_NUMBERS = 20_000
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
    found: Comparison, task: Task, target: Any, options: LossOptions
) -> Exactness:
    """Hold both gradients of a comparison against the exact one.

    Args:
        found: from 1 to 20 000 logits; finite, or −inf for a mask of classes without a target.
        task: what the target and the options mean.
        target: as it was given.
        options: of the loss.

    Raises:
        InvalidTypeError: mpmath is missing.
        InvalidValueError: the logits are not of that kind.
    """
    logits = found.logits
    if not 0 < logits.size <= _MOST_NUMBERS:
        raise InvalidValueError(
            f"compare: exact is for 1 to {_MOST_NUMBERS} logits; got {logits.size}"
        )
    masked = np.isneginf(logits)
    if (masked & (found.target != 0)).any() or masked.all():
        raise InvalidValueError(
            "compare: exact is for finite losses; a class that is masked by -inf has a target, or "
            "all are masked"
        )
    apart = float(np.ptp(logits[~masked].astype(np.float64))) / task.temperature
    digits = _DIGITS + int(apart / math.log(10))
    a = Tensor(precise(logits, digits))
    loss = cross_entropy(a, target, **options)
    loss.backward(np.ones(loss.shape))
    ours, fused = (ulps_off(grad, a.grad) for grad in (found.composite_grad, found.fused_grad))
    rounded = np.array(a.grad.tolist(), np.float64).astype(logits.dtype)
    at, _ = found.shown()
    row, right = (found.rows(x)[at] for x in (logits, found.target))
    computed = row.astype(np.promote_types(row.dtype, np.float32))  # as the loss does
    right = right.astype(computed.dtype)  # one that is wider would end in a cast, which is no step
    if task.index is not None and task.smooth is None and task.coefficient is None:
        right = task.index.ravel()[at]

    def swept(row: Any) -> BackwardTrace:
        loss = composite_cross_entropy(
            Tensor(row, name="a"), right, form=found.form, temperature=task.temperature
        )
        trace = loss.backward(trace=True)
        assert trace is not None
        return trace

    trail = _Trail(swept(computed), swept(precise(row, digits)))
    return Exactness(digits, rounded, ours, fused, trail.errors(), trail.lost())


class _Trail:
    """A sweep on floats, and the same sweep on exact numbers: by node id, what is off.

    Attributes:
        values, cotangents: how far these are off.
        arrived: the consumers of a node, and what their contributions to its cotangent are off by.
    """

    def __init__(self, found: BackwardTrace, exact: BackwardTrace) -> None:
        self.nodes = found.graph.nodes
        assert [node.op for node in self.nodes] == [node.op for node in exact.graph.nodes]
        pairs = zip(self.nodes, exact.graph.nodes, strict=True)
        self.values = [_largest(node.value, twin.value) for node, twin in pairs]
        self.cotangents: dict[int, float] = {}
        self.arrived: dict[int, list[tuple[Node, float]]] = defaultdict(list)
        for step, twin in zip(found.steps, exact.steps, strict=True):
            self.cotangents[step.node.id] = _largest(step.cotangent, twin.cotangent)
            for edge, true_edge in zip(step.passed_on, twin.passed_on, strict=True):
                operand = step.node.inputs[edge.argument]
                error = _largest(edge.value, true_edge.value)
                self.arrived[operand].append((step.node, error))

    def errors(self) -> tuple[NodeError, ...]:
        return tuple(
            NodeError(node, self.values[node.id], self.cotangents.get(node.id))
            for node in self.nodes
            if node.inputs or node.op == LEAF
        )

    def lost(self) -> str:
        """Follow the error of the gradient back to where it comes from, and say it."""
        node = next(node for node in self.nodes if node.name == "a")
        worst = self.cotangents.get(node.id, 0.0)
        if worst <= _FEW:
            return f"no digits were lost: each node rounds, and the gradient is {_off(worst)}"
        bar = worst / _SHARE
        while self.cotangents[node.id] >= bar and self.arrived[node.id]:
            arrived = self.arrived[node.id]
            largest = max(error for _, error in arrived)
            if largest < bar:
                return (
                    f"backward, at {label(node)}: {len(arrived)} contributions, each "
                    f"{_off(largest)}, cancel to a sum that is {_off(self.cotangents[node.id])}"
                )
            node = next(consumer for consumer, error in arrived if error >= bar)
        bad = self._first_off((node.id, *node.inputs), bar)
        if bad is None:
            return f"backward, in the vjp of {label(node)}: what it passes on is {_off(largest)}"
        while earlier := self._first_off(bad.inputs, bar):
            bad = earlier
        before = max((self.values[i] for i in bad.inputs), default=0.0)
        return (
            f"forward, at {label(bad)}: its arguments are {_off(before)}, "
            f"its value is {_off(self.values[bad.id])}"
        )

    def _first_off(self, ids: Iterable[int], bar: float) -> Node | None:
        """The first of these nodes whose value is that far off."""
        return next((self.nodes[i] for i in ids if self.values[i] >= bar), None)


def _largest(found: Any, exact: Any) -> float:
    return float(ulps_off(np.asarray(found), exact).max(initial=0.0))


def _off(ulps: float) -> str:
    if not math.isfinite(ulps):
        return "no finite number"
    if ulps < 1:
        return "exact" if ulps == 0 else "off by less than 1 ULP"
    return f"off by {ulp_text(ulps)} ULP"
