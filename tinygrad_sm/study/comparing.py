"""Composite against fused: both gradients of one loss side by side, and why they agree or differ.

What rounding may do to the composite is estimated to first order: an element of its gradient is
the sum of the terms −y and +p·Σy, and each term is a few roundings away from the exact one, plus
|a − m| units where a shift was rounded before exp magnified it. Differences within that are
agreement; anything larger has a cause, which is looked for in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.engine.intake import rectangular
from tinygrad_sm.engine.sweep import BackwardTrace
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import graph, kept_for_backward
from tinygrad_sm.errors import InvalidTypeError
from tinygrad_sm.loss.composite import check_finite, composite_cross_entropy
from tinygrad_sm.loss.fused import cross_entropy
from tinygrad_sm.loss.options import Task, task_of
from tinygrad_sm.loss.probabilities import row_maximum, softmax
from tinygrad_sm.study.comparison import Comparison, Contributions, Cost, ulp_text
from tinygrad_sm.study.diagnose import Breakdown, first_breakdown, label, underflowed
from tinygrad_sm.study.ulp import ULP_SIZES, ulp_distance

_MANY_ULPS = 1000  # from here on the number asks for a word
_UNIT = 1e-3  # how far the sum of a distribution may be from 1, printed with 3 digits
_ROUNDINGS = 16  # of each term in the composite, each at most half a unit


def compare(
    logits: Any,
    target: Any,
    *,
    form: str = "naive",
    dtype: Any = None,
    seconds: float = 0.0,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    axis: int = -1,
) -> Comparison:
    """Hold the composite softmax-cross-entropy against the fused node on the same logits.

    Args:
        logits: numbers, an array or a Tensor with at least one axis; finite, or −inf for a mask.
        target: a distribution of the logits' shape, or class indices; as in `cross_entropy`.
        form: of the composite: "naive", "shifted" or "logsumexp".
        dtype: convert the logits to this floating-point type first.
        seconds: how long to measure the time that each side takes; 0 for not at all.
        weight, ignore_index, reduction, label_smoothing, temperature, axis: as in `cross_entropy`.

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit.
    """
    options: dict[str, Any] = {
        "weight": weight,
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
        "temperature": temperature,
        "axis": axis,
    }
    a = Tensor(logits, dtype=dtype, name="a")
    target = target.numpy() if isinstance(target, Tensor) else rectangular(target, "target")
    if a.dtype.itemsize not in ULP_SIZES:
        raise InvalidTypeError(
            f"compare: logits must be float16, float32 or float64; got {a.dtype}: give a dtype"
        )
    task = task_of(a.shape, a.dtype, target, **options)
    check_finite(a.numpy(), task.axis)
    with np.errstate(all="ignore"):  # what breaks is reported, not warned about
        sides: tuple[Callable[[], Tensor], ...] = (
            lambda: composite_cross_entropy(a, target, form=form, **options),
            lambda: cross_entropy(a, target, **options),
        )
        composite, fused = (_swept(a, side()) for side in sides)
        costs = _timed(a, sides, (composite.bytes, fused.bytes), seconds)
        notes = tuple(_likely_mistakes(a.numpy(), target, task.axis))
        return _judged(a.numpy(), task, form, composite, fused, costs, notes)


class _Swept(NamedTuple):
    """One side: its loss, the gradient at the logits, the record of both, what backward needed."""

    loss: np.ndarray
    grad: np.ndarray
    trace: BackwardTrace
    bytes: int


def _swept(a: Tensor, loss: Tensor) -> _Swept:
    kept = sum(array.bytes for of_node in kept_for_backward(graph(loss)) for array in of_node)
    trace = loss.backward(np.ones(loss.shape), trace=True)
    assert trace is not None
    grad: np.ndarray = a.grad
    a.zero_grad()
    return _Swept(loss.numpy(), grad, trace, kept)


def _timed(
    a: Tensor,
    sides: tuple[Callable[[], Tensor], ...],
    kept: tuple[int, int],
    seconds: float,
) -> list[Cost]:
    """The medians of forward and backward, in turns, so that both meet the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    end = perf_counter() + seconds
    while seconds and (not times[0] or perf_counter() < end):
        for side, found in zip(sides, times, strict=True):
            start = perf_counter()
            loss = side()
            loss.backward(np.ones(loss.shape))
            found.append(perf_counter() - start)
            a.zero_grad()
    return [
        Cost(size, float(np.median(found)) if found else None, len(found))
        for size, found in zip(kept, times, strict=True)
    ]


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
        at = tuple(map(int, np.unravel_index(int(np.argmin(target)), target.shape)))
        yield f"the target has negative elements, e.g. {target[at]:.6g} at {at}"
    off = np.abs(target.sum(axis=axis, dtype=np.float64) - 1) * np.any(target, axis=axis)
    if off.max(initial=0) > _UNIT:  # a row of zeros does not count, on purpose
        row = tuple(map(int, np.unravel_index(int(np.argmax(off)), off.shape)))
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
    costs: list[Cost],
    notes: tuple[str, ...],
) -> Comparison:
    y = np.asarray(task.dense(logits.dtype))
    p = softmax(logits / task.temperature, axis=task.axis)
    s = y.sum(axis=task.axis, keepdims=True)
    scale = 1.0 / (task.divisor * task.temperature)
    textbook = ((p - y) * scale).astype(logits.dtype)
    difference = np.abs(composite.grad.astype(np.float64) - fused.grad.astype(np.float64))
    ulps = ulp_distance(composite.grad, fused.grad)
    max_abs = float(difference.max(initial=0.0))
    max_ulp = float(ulps.max(initial=0.0))
    terms = (np.abs(y) + np.abs(s) * p).astype(np.float64) * scale
    allowed = terms * _rounding(logits, task, form)
    numerator, denominator = _terms(composite.trace, task, form, logits.dtype)
    both = numerator.astype(np.float64) + denominator.astype(np.float64)
    add_up = bool((np.abs(both - composite.grad) <= allowed).all())
    same_loss = _losses_agree(composite.loss, fused.loss, logits, y, p, task, form)
    same_grad = bool((difference <= allowed).all())
    agree = same_grad and same_loss
    breakdown = first_breakdown(composite.trace)
    reason = (
        _reason_for_agreement(max_ulp, ulps, terms, fused.grad)
        if agree
        else _reason_for_difference(breakdown, composite.trace, same_loss)
    )
    return Comparison(
        logits=logits,
        target=y,
        probabilities=p,
        form=form,
        reduction=task.reduction,
        axis=task.axis,
        composite_loss=_number_or_array(composite.loss),
        fused_loss=_number_or_array(fused.loss),
        composite_grad=composite.grad,
        fused_grad=fused.grad,
        textbook_grad=textbook,
        max_abs_error=max_abs,
        max_ulp_error=max_ulp,
        agree=agree,
        verdict=_verdict(agree, same_grad, max_abs, max_ulp),
        reason=reason + _about_the_textbook(task, s, textbook, fused.grad),
        notes=notes,
        contributions=Contributions(numerator, denominator, add_up),
        composite_cost=costs[0],
        fused_cost=costs[1],
        breakdown=breakdown,
        composite_trace=composite.trace,
        fused_trace=fused.trace,
    )


def _terms(
    trace: BackwardTrace, task: Task, form: str, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The contributions at e = exp(a), times e (its local rule), on to the logits."""
    nodes = trace.graph.nodes
    node = next(n for n in nodes if n.name == "e")
    assert node.tensor is not None
    at_e = {edge.consumer.op: edge.value for edge in trace.contributions(node.tensor)}
    denominator = at_e["sum"] * node.value
    if form == "logsumexp":  # the numerator's logarithm is the logit itself, in lse − a
        z = nodes[node.inputs[0]].inputs[0]  # e = exp(z − m)
        tensor = nodes[z].tensor
        assert tensor is not None
        numerator = next(
            edge.value for edge in trace.contributions(tensor) if edge.consumer.name != "d"
        )
    else:
        numerator = at_e["div"] * node.value
    return (
        (numerator / task.temperature).astype(dtype),
        (denominator / task.temperature).astype(dtype),
    )


def _rounding(logits: np.ndarray, task: Task, form: str) -> Any:
    """How many relative units each term of the composite's gradient may be off, times epsilon."""
    work = np.float32 if logits.dtype == np.float16 else logits.dtype
    epsilon = float(np.finfo(work).eps) + (float(np.finfo(np.float16).eps) if work != logits.dtype
                                           else 0.0)  # fmt: skip
    units: Any = _ROUNDINGS + math.log2(task.classes)
    if form != "naive" or task.temperature != 1:
        z = logits.astype(np.float64) / task.temperature
        distance = np.abs(z) if form == "naive" else np.abs(z - row_maximum(z, task.axis))
        # p = e/s: the error of s is that of its largest terms, which are near the maximum
        units = units + np.where(np.isfinite(distance), distance, 0.0)
        if form == "naive":
            units = units + np.max(np.where(np.isfinite(z), np.abs(z), 0), initial=0.0)
    return epsilon * units


def _losses_agree(
    composite: np.ndarray,
    fused: np.ndarray,
    logits: np.ndarray,
    y: np.ndarray,
    p: np.ndarray,
    task: Task,
    form: str,
) -> bool:
    """Whether the losses differ by no more than the rounding of log p, or are both +inf."""
    z = logits.astype(np.float64) / task.temperature
    log_p = np.maximum(-np.log(np.maximum(p, np.finfo(np.float64).tiny)), 1.0)
    size = np.where(y == 0, 0.0, np.abs(y) * (log_p + np.where(np.isfinite(z), np.abs(z), 0.0)))
    per_row = (size * _rounding(logits, task, form)).sum(axis=task.axis)
    allowed = per_row if task.reduction == "none" else per_row.sum() / task.divisor
    with np.errstate(invalid="ignore"):
        difference = np.abs(composite.astype(np.float64) - fused.astype(np.float64))
    return bool(((difference <= allowed) | (composite == fused)).all())


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


def _reason_for_agreement(
    max_ulp: float, ulps: np.ndarray, terms: np.ndarray, fused_grad: np.ndarray
) -> str:
    paths = "both are Σy·p − y, on two paths through the chain rule"
    if max_ulp == 0:
        return f"{paths}; every rounding came out alike"
    at = np.unravel_index(int(np.argmax(ulps)), ulps.shape)
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
    task: Task, s: np.ndarray, textbook: np.ndarray, fused_grad: np.ndarray
) -> str:
    """Say what the textbook's p − y would have got wrong here, if anything."""
    if task.soft is None or np.allclose(s, 1, rtol=1e-6, atol=0):
        return ""
    row = np.unravel_index(int(np.argmax(np.abs(s - 1))), s.shape)
    off = float(np.abs(textbook - fused_grad).max(initial=0.0))
    return (
        f". Σy is {float(s[row]):.6g} and not 1, so the gradient is Σy·p − y; the "
        f"textbook's p − y would be off by up to {off:.3g}"
    )


def _number_or_array(loss: np.ndarray) -> Any:
    return loss if loss.ndim else float(loss)
