"""Why a form broke: the first node of its graph that is to blame, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import Graph, Node
from tinygrad_sm.study.diagnose import Record, first_breakdown, first_index, graph_of, underflowed
from tinygrad_sm.study.stability.forms import FLOOR
from tinygrad_sm.study.stability.truth import INF, NAN, Judge


@dataclass(frozen=True, slots=True)
class Cause:
    """The first node that is to blame, and why.

    Attributes:
        node: its id in the form's graph for one row; None if there is no single one.
        name: the user's name for it, or None.
        op: its operation, or None.
        phase: "forward" or "backward".
        text: one sentence.
    """

    node: int | None
    name: str | None
    op: str | None
    phase: str
    text: str

    def __str__(self) -> str:
        if self.node is None:
            return self.text
        name = f"{self.name!r} ({self.op})" if self.name else self.op
        return f"{self.phase} pass, at node {self.node} {name}: {self.text}"


def _at(node: Node, phase: str, text: str) -> Cause:
    return Cause(node.id, node.name, node.op, phase, text)


def cause_of(record: Record, state: int, judge: Judge, target: int) -> Cause:
    """The first explanation that fits, from the plainest to the most roundabout."""
    forward = graph_of(record)
    explanations = chain(
        # infinities that did not reach the result are not to blame for lost digits
        _not_finite(record, target) if state in (INF, NAN) else (),
        _floored(forward, target),
        _cancelled_backward(record, judge),
        _cancelled_forward(forward, judge),
        _rounded_to_one(forward, judge, target),
        _denormal(forward, target),
        _vanished(forward, target),
    )
    text = f"the roundings add up to more than {judge.tolerance:g} of the result"
    return next(explanations, Cause(None, None, None, "backward", text))


def _not_finite(record: Record, target: int) -> Iterator[Cause]:
    broken = first_breakdown(record)
    if broken is not None:
        at = broken.index
        harmless = broken.node.op == "log" and at[-1] != target and len(at) > 1
        aside = f" for class {at[-1]}, which is not even the right one" if harmless else ""
        yield _at(broken.node, broken.phase, broken.cause + aside + _how_nan_came(record))


def _how_nan_came(record: Record) -> str:
    """The step from inf to NaN, which makes every entry useless."""
    for node in graph_of(record).nodes:
        if np.isnan(node.value).any():
            made = {"div": "inf/inf", "sub": "inf − inf", "mul": "0·inf"}.get(node.op, node.op)
            return f"; then {made} = NaN at node {node.id}"
    if isinstance(record, BackwardTrace):
        for step in record.steps:
            if any(np.isnan(edge.value).any() for edge in step.passed_on):
                made = "0/0" if step.node.op == "log" else "0·inf"
                return f"; then {made} = NaN in the vjp of {step.node.op} at node {step.node.id}"
    return ""


def _floored(forward: Graph, target: int) -> Iterator[Cause]:
    """Maximums that put a floor in the place of the right class's probability."""
    for node in forward.nodes:
        if node.op == "maximum":
            given = forward.nodes[node.inputs[0]].value[0, target]
            if given < node.value[0, target]:
                text = f"p is below the floor {FLOOR:g}, which passes no gradient on"
                yield _at(node, "forward", text)


def _cancelled_backward(record: Record, judge: Judge) -> Iterator[Cause]:
    """The Tensors of the sweep at which contributions cancel to little but rounding."""
    if not isinstance(record, BackwardTrace):
        return
    for step in record.steps:
        terms = [edge.value for edge in record.contributions(step.node.tensor)]
        if len(terms) > 1 and (text := _cancelled(terms, step.cotangent, judge)):
            yield _at(step.node, "backward", f"the contributions {text}")


def _cancelled_forward(forward: Graph, judge: Judge) -> Iterator[Cause]:
    """Differences or sums of rounded numbers that cancel to little but rounding."""
    for node in forward.nodes:
        computed = any(forward.nodes[i].inputs for i in node.inputs)  # others hold no rounding
        if node.op in ("add", "sub") and computed:
            a, b = (np.broadcast_to(forward.nodes[i].value, node.shape) for i in node.inputs)
            text = _cancelled([a, -b if node.op == "sub" else b], node.value, judge)
            if text:
                yield _at(node, "forward", text)


def _cancelled(terms: Sequence[np.ndarray], total: np.ndarray, judge: Judge) -> str | None:
    """E.g. "+1 and -1 cancel to 8.9e-13, whose digits are rounding"; None if nothing cancels.

    They do where the rounding of the largest term is more of the total than the tolerance.
    """
    sizes = np.abs(terms)
    rounding = float(np.finfo(judge.dtype).eps) * sizes.max(axis=0).astype(np.float64)
    bad = (sizes.min(axis=0) > 0) & (np.abs(total) * judge.tolerance <= 4 * rounding)
    if not bad.any():
        return None
    at = first_index(bad)
    left = "0" if total[at] == 0 else f"{total[at]:.2g}, whose digits are rounding"
    return f"{' and '.join(f'{term[at]:+.4g}' for term in terms)} cancel to {left}"


def _rounded_to_one(forward: Graph, judge: Judge, target: int) -> Iterator[Cause]:
    """A logarithm of a probability whose distance from 1 was rounded away."""
    for node in forward.nodes:
        if node.op == "log":
            x = forward.nodes[node.inputs[0]]
            gap = abs(1.0 - float(x.value.flat[target if x.value.size > target else 0]))
            if gap * judge.tolerance <= 4 * float(np.finfo(judge.dtype).eps):
                made = forward.nodes[x.inputs[0]] if x.op == "getitem" else x
                yield _at(made, "forward", f"1 − p = {gap:.2g} was rounded with p, before the log")


def _denormal(forward: Graph, target: int) -> Iterator[Cause]:
    """A number of the right class below the normal range, where digits are missing."""
    for node in forward.nodes:
        if node.op in ("exp", "div") and node.value.ndim == 2 and node.shape[1] > target:
            value = float(node.value[0, target])
            if 0 < value < float(np.finfo(node.dtype).tiny):
                text = f"{value:.3g} is denormal in {node.dtype} and has lost digits"
                yield _at(node, "forward", text)


def _vanished(forward: Graph, target: int) -> Iterator[Cause]:
    """A number that became 0: too small for the dtype, or divided by one that had overflowed."""
    node = underflowed(forward)
    if node is not None:
        if all(np.isfinite(forward.nodes[i].value).all() for i in node.inputs):
            yield _at(node, "forward", f"a number too small for {node.dtype} became 0")
        else:
            yield from _not_finite(forward, target)
