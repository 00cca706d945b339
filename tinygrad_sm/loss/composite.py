"""Softmax-cross-entropy built from primitives: the specification of the fused node.

The three forms are the same function on paper. They differ in which numbers they survive:

    naive       e = exp(a)      p = e / Σe      L = −Σ y log p
    shifted     e = exp(a − m)  p = e / Σe      L = −Σ y log p          m = max a
    logsumexp   e = exp(a − m)  lse = m + log Σe    L = Σ y (lse − a)

A class masked by the logit −inf has p = 0 and an infinite −log p, and 0·∞ is NaN: where a mask is
and no target, a `where` leaves the product out. There is none in the graph without a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine.tensor import Tensor, group
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.options import Task, non_finite, surely_finite, task_of
from tinygrad_sm.loss.probabilities import row_maximum

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import CompositeOptions

FORMS = ("naive", "shifted", "logsumexp")


@overload
def composite_cross_entropy(
    logits: Tensor, target: Any, **options: Unpack[CompositeOptions]
) -> Tensor: ...
@overload
def composite_cross_entropy(
    logits: Any, target: Any, **options: Unpack[CompositeOptions]
) -> np.ndarray: ...
def composite_cross_entropy(
    logits: Any,
    target: Any,
    *,
    form: str = "naive",
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    axis: int = -1,
) -> Any:
    """Softmax-cross-entropy from `exp`, `sum`, `div` and `log`, one node per operation.

    Args:
        form: "naive" (as on paper; overflows and underflows), "shifted" or "logsumexp".
        logits, target, weight, ignore_index, reduction, label_smoothing, temperature, axis: as in
            `cross_entropy`.

    Returns:
        As `cross_entropy`. The nodes are named e, s, p, L (and z = a/T, d = a − m, lse), and
        belong to the groups "softmax" (or "log-sum-exp") and "cross-entropy".

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit.
    """
    if not isinstance(form, str) or form not in FORMS:
        raise InvalidValueError(f"form must be one of {', '.join(map(repr, FORMS))}; got {form!r}")
    plain = not isinstance(logits, Tensor)
    a = Tensor(logits, requires_grad=False) if plain else logits
    task = task_of(
        a.shape,
        a.dtype,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        temperature=temperature,
        axis=axis,
    )
    mask = check_finite(a.numpy(), task.axis)
    z = a.astype(np.float32) if a.dtype == np.float16 else a
    if temperature != 1:
        z = (z / temperature).named("z")
    if form == "logsumexp":
        negative_log_p = _from_logsumexp(z, task, mask)
    else:
        negative_log_p = _from_softmax(z, task, mask, shift=form == "shifted")
    with group("cross-entropy"):
        loss = _reduced(negative_log_p, task)
        if loss.dtype != a.dtype:
            loss = loss.astype(a.dtype)
        loss.name = "L"
    return loss.numpy() if plain and not loss.requires_grad else loss


def check_finite(logits: np.ndarray, axis: int) -> np.ndarray | None:
    """Return which logits are −inf, which masks a class; None if none is.

    Raises:
        InvalidValueError: a logit is NaN or +inf; the row is named.
    """
    if refuse_non_finite(logits, axis):
        return None
    masked = np.isneginf(logits)
    return masked if masked.any() else None


def refuse_non_finite(logits: np.ndarray, axis: int) -> bool:
    """Raise InvalidValueError if a logit is NaN or +inf; return whether none is −inf for sure."""
    if surely_finite(logits):
        return True
    top = np.max(logits, axis=axis, initial=-np.inf)  # NaN if there is one
    wrong = ~(top < np.inf)
    if wrong.any():
        raise non_finite(int(np.argmax(wrong)), logits.shape, axis)
    return False


def _shifted(z: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """The maximum as a constant (the loss does not depend on the shift), and z minus it."""
    m = Tensor(row_maximum(z.numpy(), task.axis), name="m", requires_grad=False)
    return m, (z - m).named("d")


def _without_terms(mask: np.ndarray, task: Task) -> np.ndarray:
    """The masked classes that have no target: their product y log p is 0, whatever log p is."""
    q = task.dense(np.float64)
    without: np.ndarray = mask & ((q.numpy() if isinstance(q, Tensor) else q) == 0)
    return without


def _sum_of(e: Tensor, task: Task, mask: np.ndarray | None) -> Tensor:
    """Σe, and 1 instead of 0 where every class of a row is masked, so that p = 0/1 = 0 there."""
    s = e.sum(axis=task.axis, keepdims=True)
    if mask is not None:
        empty = mask.all(axis=task.axis, keepdims=True)
        s = p.where(empty, 1.0, s) if empty.any() else s
    return s.named("s")


def _from_softmax(z: Tensor, task: Task, mask: np.ndarray | None, shift: bool) -> Tensor:
    """−log p by way of the probabilities."""
    with group("softmax"):
        if shift:
            _, z = _shifted(z, task)
        e = z.exp().named("e")
        s = _sum_of(e, task, mask)
        probabilities = (e / s).named("p")
    with group("cross-entropy"):
        if mask is not None:
            probabilities = p.where(_without_terms(mask, task), 1.0, probabilities)
        return _weighed(probabilities.log(), task, sign=-1)


def _from_logsumexp(z: Tensor, task: Task, mask: np.ndarray | None) -> Tensor:
    """−log p = lse − z, without forming a probability."""
    with group("log-sum-exp"):
        m, d = _shifted(z, task)
        e = d.exp().named("e")
        s = _sum_of(e, task, mask)
        lse = (m + s.log()).named("lse")
    with group("cross-entropy"):
        terms = lse - z
        if mask is not None:
            terms = p.where(_without_terms(mask, task), 0.0, terms)
        return _weighed(terms, task, sign=1)


def _weighed(terms: Tensor, task: Task, sign: int) -> Tensor:
    """The loss of each row from ±log p: the right class picked by index, or Σ_j q_j · term_j."""
    if task.index is not None and task.smooth is None:
        picked: Tensor = p.take_along_axis(terms, task.by_class(task.index), axis=task.axis)
        losses = picked.reshape(task.index.shape)
        if task.coefficient is not None:
            weight = Tensor(task.coefficient.astype(terms.dtype), name="w", requires_grad=False)
            losses = weight * losses
        return -losses if sign < 0 else losses
    q = task.dense(terms.dtype)
    if not isinstance(q, Tensor):
        q = Tensor(q, name="y", requires_grad=False)
    losses = (q * terms).sum(axis=task.axis)
    return -losses if sign < 0 else losses


def _reduced(losses: Tensor, task: Task) -> Tensor:
    if task.reduction == "none":
        return losses
    total = losses.sum() if losses.ndim else losses
    return total if task.divisor == 1 else total / task.divisor
