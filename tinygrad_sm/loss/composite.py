"""Softmax-cross-entropy built from primitives: the specification of the fused node.

The three forms are the same function on paper. They differ in which numbers they survive:

    naive       e = exp(a)      p = e / Σe      L = −Σ y log p
    shifted     e = exp(a − m)  p = e / Σe      L = −Σ y log p          m = max a
    logsumexp   e = exp(a − m)  lse = m + log Σe    L = Σ y (lse − a)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_sm import primitives as p
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.softmax import row_maximum
from tinygrad_sm.loss.task import Task, task_of
from tinygrad_sm.tensor import Tensor, group

FORMS = ("naive", "shifted", "logsumexp")


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
        form: "naive" (the textbook's; overflows and underflows), "shifted" or "logsumexp".
        logits, target, weight, ignore_index, reduction, label_smoothing, temperature, axis: as in
            `cross_entropy`.

    Returns:
        As `cross_entropy`. The nodes are named e, s, p, L (and z = a/T, d = a − m, lse), and
        belong to the groups "softmax" (or "log-sum-exp") and "cross-entropy".

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit.
    """
    if form not in FORMS:
        raise InvalidValueError(f"form must be one of {', '.join(map(repr, FORMS))}; got {form!r}")
    plain = not isinstance(logits, Tensor)
    a = Tensor(logits, requires_grad=False) if plain else logits
    task = task_of(
        a,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        temperature=temperature,
        axis=axis,
    )
    check_finite(a.numpy(), task.axis)
    z = a.astype(np.float32) if a.dtype == np.float16 else a
    if temperature != 1:
        z = _named("z", z / temperature)
    if form == "logsumexp":
        negative_log_p = _from_logsumexp(z, task)
    else:
        negative_log_p = _from_softmax(z, task, shift=form == "shifted")
    with group("cross-entropy"):
        loss = _reduced(negative_log_p, task)
        if loss.dtype != a.dtype:
            loss = loss.astype(a.dtype)
        loss.name = "L"
    return loss.numpy() if plain and not loss.requires_grad else loss


def check_finite(logits: np.ndarray, axis: int) -> None:
    """Raise InvalidValueError, naming the row, if a logit is NaN or +inf; −inf masks a class."""
    top = np.max(logits, axis=axis, initial=-np.inf)  # NaN if there is one
    wrong = ~(top < np.inf)
    if wrong.any():
        row = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"row {row[0] if len(row) == 1 else row} of the logits" if row else "the logits"
        raise InvalidValueError(
            f"logits must be finite, or -inf to mask a class; {where} hold NaN or +inf"
        )


def _named(name: str, t: Tensor) -> Tensor:
    t.name = name
    return t


def _shifted(z: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """The maximum as a constant (the loss does not depend on the shift), and z minus it."""
    m = Tensor(row_maximum(z.numpy(), task.axis), name="m", requires_grad=False)
    return m, _named("d", z - m)


def _from_softmax(z: Tensor, task: Task, shift: bool) -> Tensor:
    """−log p by way of the probabilities."""
    with group("softmax"):
        if shift:
            _, z = _shifted(z, task)
        e = _named("e", p.exp(z))
        s = _named("s", e.sum(axis=task.axis, keepdims=True))
        probabilities = _named("p", e / s)
    with group("cross-entropy"):
        return _weighed(probabilities.log(), task, sign=-1)


def _from_logsumexp(z: Tensor, task: Task) -> Tensor:
    """−log p = lse − z, without forming a probability."""
    with group("log-sum-exp"):
        m, d = _shifted(z, task)
        e = _named("e", p.exp(d))
        s = _named("s", e.sum(axis=task.axis, keepdims=True))
        lse = _named("lse", m + s.log())
    with group("cross-entropy"):
        return _weighed(lse - z, task, sign=1)


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
