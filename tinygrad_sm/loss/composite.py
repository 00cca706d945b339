"""Softmax-cross-entropy built from primitives: the specification of the fused node.

The three forms are the same function on paper. They differ in which numbers they survive:

    naive       e = exp(a)      p = e / Σe      L = −Σ y log p
    shifted     e = exp(a − m)  p = e / Σe      L = −Σ y log p          m = max a
    logsumexp   e = exp(a − m)  lse = m + log Σe    L = Σ y (lse − a)

A class masked by the logit −inf has p = 0 and an infinite −log p, and 0·∞ is NaN: where a mask is
and no target, a `where` leaves the product out. There is none in the graph without a mask.
"""

from __future__ import annotations

from typing import Any, Unpack, overload

import numpy as np

from tinygrad_sm.arrays.kinds import may_hold
from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine import shapes
from tinygrad_sm.engine.memory import current, floats
from tinygrad_sm.engine.scopes import group
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidValueError, shown
from tinygrad_sm.loss.options import (
    LossOptions,
    Task,
    as_given,
    as_tensor,
    mask_of,
    takes,
    task_of,
)
from tinygrad_sm.loss.probabilities import row_maximum, unless_masked

FORMS = ("naive", "shifted", "logsumexp")


@overload
def composite_cross_entropy(
    logits: Tensor, target: Any, *, form: str = ..., **options: Unpack[LossOptions]
) -> Tensor: ...
@overload
def composite_cross_entropy(
    logits: Any, target: Any, *, form: str = ..., **options: Unpack[LossOptions]
) -> np.ndarray: ...
@takes(LossOptions)
def composite_cross_entropy(
    logits: Any, target: Any, *, form: str = "naive", **options: Unpack[LossOptions]
) -> Any:
    """Softmax-cross-entropy from `exp`, `sum`, `div` and `log`, one node per operation.

    Args:
        form: "naive" (as on paper; overflows and underflows), "shifted" or "logsumexp".

    The other arguments are those of `cross_entropy`.

    Returns:
        As `cross_entropy`. The nodes are named e, s, p, L (and z = a/T, d = a − m, lse), and
        belong to the groups "softmax" (or "log-sum-exp") and "cross-entropy".

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit.
    """
    if not isinstance(form, str) or form not in FORMS:
        raise InvalidValueError(
            f"form must be one of {', '.join(map(repr, FORMS))}; got {shown(form)}"
        )
    a = as_tensor(logits)
    task = task_of(composite_cross_entropy, a.shape, a.dtype, target, **options)
    mask = mask_of(current(a), task.axis)
    z = a.astype(np.float32) if a.dtype == np.float16 else a
    if task.temperature != 1:
        z = (z / task.temperature).named("z")
    if form == "logsumexp":
        losses = _from_logsumexp(z, task, mask)
    else:
        losses = _from_softmax(z, task, mask, shift=form == "shifted")
    with group("cross-entropy"):
        loss = _reduced(losses, task)
        if loss.dtype != a.dtype:
            loss = loss.astype(a.dtype)
        loss.name = "L"
    return as_given(loss, logits)


def _shifted(z: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """The maximum as a constant (the loss does not depend on the shift), and z minus it."""
    m = Tensor(row_maximum(current(z), task.axis), name="m", requires_grad=False)
    return m, (z - m).named("d")


def _total(e: Tensor, task: Task, mask: np.ndarray | None) -> Tensor:
    """Σe, and 1 instead of 0 where every class of a row is masked, so that p = 0/1 = 0 there."""
    s = e.sum(axis=task.axis, keepdims=True)
    if mask is not None:
        empty = mask.all(axis=task.axis, keepdims=True)
        s = p.where(empty, 1.0, s) if may_hold(empty) else s
    return s.named("s")


def _from_softmax(z: Tensor, task: Task, mask: np.ndarray | None, shift: bool) -> Tensor:
    """−Σ q log p of each row, by way of the probabilities."""
    with group("softmax"):
        if shift:
            _, z = _shifted(z, task)
        e = z.exp().named("e")
        probabilities = (e / _total(e, task, mask)).named("p")
    with group("cross-entropy"):
        if mask is not None:
            q = task.dense(np.float64, like=current(z))
            probabilities = unless_masked(probabilities, 1.0, mask, q)
        return -_weighed(probabilities.log(), task)


def _from_logsumexp(z: Tensor, task: Task, mask: np.ndarray | None) -> Tensor:
    """Σ q (lse − z) of each row, without forming a probability."""
    with group("log-sum-exp"):
        m, d = _shifted(z, task)
        s = _total(d.exp().named("e"), task, mask)
        lse = (m + s.log()).named("lse")
    with group("cross-entropy"):
        terms = lse - z
        if mask is not None:
            terms = unless_masked(terms, 0.0, mask, task.dense(np.float64, like=current(z)))
        return _weighed(terms, task)


def _weighed(terms: Tensor, task: Task) -> Tensor:
    """Σ_j q_j · term_j of each row; where one class has all the weight, its term is picked."""
    if task.index is not None and task.smooth is None:
        picked: Tensor = shapes.take_along_axis(terms, task.by_class(task.index), axis=task.axis)
        losses = picked.reshape(task.index.shape)
        if task.coefficient is None:
            return losses
        weights = floats(task.coefficient, terms.dtype, like=current(terms))
        return Tensor(weights, name="w", requires_grad=False) * losses
    q = task.dense(terms.dtype, like=current(terms))
    if not isinstance(q, Tensor):
        q = Tensor(q, name="y", requires_grad=False)
    total: Tensor = (q * terms).sum(axis=task.axis)
    return total


def _reduced(losses: Tensor, task: Task) -> Tensor:
    if task.reduction == "none":
        return losses
    total = losses.sum() if losses.ndim else losses
    one = isinstance(task.divisor, float) and task.divisor == 1.0
    return total if one else total / task.divisor
