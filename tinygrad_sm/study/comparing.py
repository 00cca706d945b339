"""Composite against fused: both gradients of one loss side by side, and why they agree or differ.

What rounding may do to the composite is estimated to first order: an element of its gradient is
the sum of the terms −y and +p·Σy, and each term is a few roundings away from the exact one, plus
|a − m| units where a shift was rounded before exp magnified it. Differences within that are
agreement; anything larger has a cause, which is looked for in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple, Unpack

import numpy as np

from tinygrad_sm.arrays.kinds import kind_of
from tinygrad_sm.engine.intake import rectangular
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import Graph, Node, graph
from tinygrad_sm.errors import InvalidTypeError
from tinygrad_sm.loss.composite import composite_cross_entropy
from tinygrad_sm.loss.fused import cross_entropy
from tinygrad_sm.loss.options import LossOptions, Task, refuse_non_finite, takes, task_of
from tinygrad_sm.loss.probabilities import row_maximum
from tinygrad_sm.study.comparison import Comparison, Contributions, Cost
from tinygrad_sm.study.diagnose import Breakdown, first_breakdown, first_index, label, underflowed
from tinygrad_sm.study.exactness import held_against_exact
from tinygrad_sm.study.kept import kept_for_backward
from tinygrad_sm.study.ulp import ULP_SIZES, ulp_distance, ulp_text

_MANY_ULPS = 1000  # from here on the number asks for a word
_UNIT = 1e-3  # how far the sum of a distribution may be from 1, printed with 3 digits
_ROUNDINGS = 16  # of each term in the composite, each at most half a unit


@takes(LossOptions)
def compare(
    logits: Any,
    target: Any,
    *,
    form: str = "naive",
    dtype: Any = None,
    seconds: float = 0.0,
    exact: bool = False,
    **options: Unpack[LossOptions],
) -> Comparison:
    """Hold the composite softmax-cross-entropy against the fused node on the same logits.

    Args:
        logits: numbers, an array or a Tensor with at least one axis; finite, or −inf for a mask.
        target: a distribution of the logits' shape, or class indices; as in `cross_entropy`.
        form: of the composite: "naive", "shifted" or "logsumexp".
        dtype: convert the logits to this floating-point type first.
        seconds: how long to measure the time that each side takes; 0 for not at all.
        exact: hold both gradients against 50 digits, and find the node at which the composite lost
            some. For at most 20 000 logits, of which no right class is masked; needs mpmath.

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit.
    """
    a = Tensor(logits, dtype=dtype, name="a")
    kind = kind_of(a.data)
    if kind is not None:
        raise InvalidTypeError(
            "compare: logits must be numbers of NumPy's, whose last bits are compared; got "
            f"{kind.name}"
        )
    target = target.numpy() if isinstance(target, Tensor) else rectangular(target, "target")
    if a.dtype.itemsize not in ULP_SIZES:
        raise InvalidTypeError(
            f"compare: logits must be float16, float32 or float64; got {a.dtype}: give a dtype"
        )
    task = task_of(compare, a.shape, a.dtype, target, **options)
    refuse_non_finite(a.numpy(), task.axis)
    sides: list[Callable[[], Tensor]] = [
        lambda: composite_cross_entropy(a, target, form=form, **options),
        lambda: cross_entropy(a, target, **options),
    ]
    with np.errstate(all="ignore"):  # what breaks is reported, not warned about
        composite, fused = (
            _swept(a, side(), times)
            for side, times in zip(sides, _times(a, sides, seconds), strict=True)
        )
        notes = tuple(_likely_mistakes(a.numpy(), target, task.axis))
        found = _judged(a.numpy(), task, form, composite, fused, notes)
        if not exact:
            return found
        return replace(found, exact=held_against_exact(found, task, target, options))


class _Swept(NamedTuple):
    """One side: its loss, the gradient at the logits, the record of both, what they took."""

    loss: np.ndarray
    grad: np.ndarray
    trace: BackwardTrace
    cost: Cost


def _swept(a: Tensor, loss: Tensor, times: list[float]) -> _Swept:
    kept = sum(array.bytes for of_node in kept_for_backward(graph(loss)) for array in of_node)
    trace = loss.backward(np.ones(loss.shape), trace=True)
    assert trace is not None
    grad: np.ndarray = a.grad
    a.zero_grad()
    cost = Cost(kept, float(np.median(times)) if times else None, len(times))
    return _Swept(loss.numpy(), grad, trace, cost)


def _times(a: Tensor, sides: list[Callable[[], Tensor]], seconds: float) -> list[list[float]]:
    """How long forward and backward take, in turns, so that both meet the same machine."""
    times: list[list[float]] = [[] for _ in sides]
    end = perf_counter() + seconds
    while seconds and (not times[0] or perf_counter() < end):
        for side, found in zip(sides, times, strict=True):
            start = perf_counter()
            loss = side()
            loss.backward(np.ones(loss.shape))
            found.append(perf_counter() - start)
            a.zero_grad()
    return times


def _likely_mistakes(logits: np.ndarray, target: np.ndarray, axis: int) -> Iterator[str]:
    """What the numbers look like, if not like logits and their target."""
    probabilities = _are_distributions(logits, axis)
    soft = target.shape == logits.shape
    if soft and probabilities and not _are_distributions(target, axis):
        yield (
            "logits and target look swapped: the rows of the logits are distributions, those of "
            "the target are not"
        )
        return
    if probabilities:
        yield (
            "the logits look like probabilities, each row sums to 1: then softmax is applied "
            "twice; give what was before softmax"
        )
    if not soft:
        return
    if target.min(initial=0) < 0:
        at = first_index(target == target.min())
        yield f"the target has negative elements, e.g. {target[at]:.6g} at {at}"
    off = np.abs(target.sum(axis=axis, dtype=np.float64) - 1) * np.any(target, axis=axis)
    if off.max(initial=0) > _UNIT:  # a row of zeros does not count, on purpose
        row = first_index(off == off.max())
        where = f"row {row[0] if len(row) == 1 else row} of the target" if row else "the target"
        total = float(np.moveaxis(target, axis, -1)[row].sum(dtype=np.float64))
        yield f"{where} is no distribution: it sums to {total:.6g}"


def _are_distributions(x: np.ndarray, axis: int) -> bool:
    """Whether all rows are between 0 and 1 and sum to 1, as far as 3 digits tell."""
    if x.size == 0 or x.shape[axis] < 2 or not (x.min() >= 0 and x.max() <= 1):
        return False
    return bool((np.abs(x.sum(axis=axis, dtype=np.float64) - 1) <= _UNIT).all())


def _judged(
    logits: np.ndarray,
    task: Task,
    form: str,
    composite: _Swept,
    fused: _Swept,
    notes: tuple[str, ...],
) -> Comparison:
    y = np.asarray(task.dense(logits.dtype))
    e, s = (_named(composite.trace.graph, name) for name in "es")
    p = (e.value / s.value).astype(logits.dtype, copy=False)
    row_sums = y.sum(axis=task.axis, keepdims=True)
    scale = 1.0 / (task.divisor * task.temperature)
    textbook = ((p - y) * scale).astype(logits.dtype)
    rounding = _rounding(logits, task, form)
    terms = (np.abs(y) + np.abs(row_sums) * p).astype(np.float64) * scale
    difference = np.abs(composite.grad.astype(np.float64) - fused.grad)
    ulps = ulp_distance(composite.grad, fused.grad)
    max_abs, max_ulp = (float(off.max(initial=0.0)) for off in (difference, ulps))
    same_grad = bool((difference <= terms * rounding).all())
    same_loss = _losses_agree(composite, fused, _loss_terms(logits, y, p, task) * rounding, task)
    breakdown = first_breakdown(composite.trace)
    if agree := same_grad and same_loss:
        reason = _reason_for_agreement(ulps, terms, fused.grad)
    else:
        reason = _reason_for_difference(breakdown, composite.trace, same_loss)
    return Comparison(
        form=form,
        reduction=task.reduction,
        axis=task.axis,
        composite_loss=composite.loss if composite.loss.ndim else float(composite.loss),
        fused_loss=fused.loss if fused.loss.ndim else float(fused.loss),
        logits=logits,
        target=y,
        probabilities=p,
        composite_grad=composite.grad,
        fused_grad=fused.grad,
        textbook_grad=textbook,
        contributions=_contributions(composite, task, form, terms * rounding),
        max_abs_error=max_abs,
        max_ulp_error=max_ulp,
        agree=agree,
        verdict=_verdict(agree, same_grad, max_abs, max_ulp),
        reason=reason + _about_the_textbook(task, row_sums, textbook, fused.grad),
        notes=notes,
        composite_cost=composite.cost,
        fused_cost=fused.cost,
        breakdown=breakdown,
        composite_trace=composite.trace,
        fused_trace=fused.trace,
    )


def _named(record: Graph, name: str) -> Node:
    return next(node for node in record.nodes if node.name == name)


def _contributions(side: _Swept, task: Task, form: str, allowed: np.ndarray) -> Contributions:
    """The contributions at e = exp(a), times e (its local rule), on to the logits."""
    nodes = side.trace.graph.nodes
    e = _named(side.trace.graph, "e")

    def arrived(node: Node, consumer: str) -> np.ndarray:
        edges = side.trace.contributions(node.tensor)
        return next(
            edge.value for edge in edges if consumer in (edge.consumer.name, edge.consumer.op)
        )

    if form == "logsumexp":  # the numerator's logarithm is the logit itself, in lse − a
        z = nodes[nodes[e.inputs[0]].inputs[0]]  # e = exp(z − m)
        numerator = arrived(z, "sub")
    else:
        numerator = arrived(e, "p") * e.value
    numerator, denominator = (
        (term / task.temperature).astype(side.grad.dtype)
        for term in (numerator, arrived(e, "sum") * e.value)
    )
    both = numerator.astype(np.float64) + denominator
    add_up = bool((np.abs(both - side.grad) <= allowed).all())
    return Contributions(numerator, denominator, add_up)


def _rounding(logits: np.ndarray, task: Task, form: str) -> Any:
    """How far each term of the composite's gradient may be off, relative to its size."""
    epsilon = float(np.finfo(logits.dtype).eps)
    if logits.dtype == np.float16:  # computed in float32, rounded to float16
        epsilon += float(np.finfo(np.float32).eps)
    units = _ROUNDINGS + math.log2(task.classes)
    if form == "naive" and task.temperature == 1:  # exp is taken of the logits as they are
        return epsilon * units
    z = logits.astype(np.float64) / task.temperature
    shift = 0.0 if form == "naive" else row_maximum(z, task.axis)
    distance = np.nan_to_num(np.abs(z - shift), posinf=0.0)
    # p = e/s: the error of s is that of its largest terms, which are near the maximum
    of_total = distance.max(initial=0.0) if form == "naive" else 0.0
    return epsilon * (units + distance + of_total)


def _loss_terms(logits: np.ndarray, y: np.ndarray, p: np.ndarray, task: Task) -> np.ndarray:
    """The sizes of the loss's terms y·(lse − z), whose rounding is that of log p and of z."""
    z = logits.astype(np.float64) / task.temperature
    log_p = np.maximum(-np.log(np.maximum(p, np.finfo(np.float64).tiny)), 1.0)
    size = np.abs(y) * (log_p + np.where(np.isfinite(z), np.abs(z), 0.0))
    return np.where(y == 0, 0.0, size)


def _losses_agree(composite: _Swept, fused: _Swept, allowed: np.ndarray, task: Task) -> bool:
    """Whether the losses differ by no more than is allowed of their terms, or are both +inf."""
    of_rows = allowed.sum(axis=task.axis)
    of_loss = of_rows if task.reduction == "none" else of_rows.sum() / task.divisor
    difference = np.abs(composite.loss.astype(np.float64) - fused.loss)
    return bool(((difference <= of_loss) | (composite.loss == fused.loss)).all())


def _verdict(agree: bool, same_grad: bool, max_abs: float, max_ulp: float) -> str:
    if max_ulp == 0 and agree:
        return "agree: the two gradients are the same to the last bit"
    measure = f"{max_abs:.3g} ({ulp_text(max_ulp)} ULP)"
    if agree:
        said = f"agree: the gradients differ by at most {measure}, which is rounding"
        return said + (" where −y and +p·Σy cancel" if max_ulp > _MANY_ULPS else "")
    if same_grad:
        return "differ: the losses, by more than rounding explains; the gradients agree"
    if math.isnan(max_abs):
        return "differ: one of the gradients is not a number"
    return f"differ: by up to {measure}, more than rounding explains"


def _reason_for_agreement(ulps: np.ndarray, terms: np.ndarray, fused_grad: np.ndarray) -> str:
    paths = "both are Σy·p − y, on two paths through the chain rule"
    if not ulps.any():
        return f"{paths}; every rounding came out alike"
    at = first_index(ulps == ulps.max())
    text = (
        f"{paths}; the composite rounds each of exp, sum, div, log and their vjps, "
        "the fused node only a few times"
    )
    size = abs(float(fused_grad[at]))
    if size and terms[at] > 16 * size:
        text += (
            f". Where they differ most the terms −y and +p·Σy cancel to {size / terms[at]:.1g} of "
            "their size, so that one rounding of a term is many units of the sum"
        )
        if ulps[at] > 1 / np.finfo(fused_grad.dtype).eps:
            text += ": no digit of it is left in the composite"
    return text


def _reason_for_difference(
    breakdown: Breakdown | None, trace: BackwardTrace, same_loss: bool
) -> str:
    node = underflowed(trace.graph)
    if breakdown is not None:
        text = f"the composite broke in the {breakdown}"
        broke_at_0 = breakdown.phase == "forward" and breakdown.node.op in ("log", "div")
        if broke_at_0 and node is not None and node.id < breakdown.node.id:
            text += f"; the 0 is an underflow at {label(node)}: too small for {node.dtype}"
        return text
    if node is not None:
        return (
            f"the composite underflowed at {label(node)}: a number too small for "
            f"{node.dtype} became 0, and its share of the gradient went with it"
        )
    what = "gradients" if same_loss else "losses"
    return (
        f"the {what} differ by more than the rounding of each operation; digits were lost in the "
        "composite, where a small number was rounded beside a large one or to a denormal"
    )


def _about_the_textbook(
    task: Task, row_sums: np.ndarray, textbook: np.ndarray, fused_grad: np.ndarray
) -> str:
    """Say what the textbook's p − y would have got wrong here, if anything."""
    if task.soft is None or np.allclose(row_sums, 1, rtol=1e-6, atol=0):
        return ""
    worst = row_sums.flat[np.argmax(np.abs(row_sums - 1))]
    off = float(np.abs(textbook - fused_grad).max(initial=0.0))
    return (
        f". Σy is {worst:.6g} and not 1, so the gradient is Σy·p − y; the "
        f"textbook's p − y would be off by up to {off:.3g}"
    )
