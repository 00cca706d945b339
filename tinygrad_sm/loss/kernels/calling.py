"""From a task and logits of any shape and dtype to the kernel's rows, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_sm.loss.kernels.choosing import kernel_for
from tinygrad_sm.loss.kernels.rows import NonFiniteRow, softmax_cross_entropy
from tinygrad_sm.loss.options import FEW, Task, non_finite, warn

ONES = np.ones(FEW)
INFINITE = {np.dtype(np.float16): 65520.0, np.dtype(np.float32): 2.0**128 - 2.0**103}
"""What is rounded to inf."""


def run_on_rows(
    logits: np.ndarray,
    target: Any,
    task: Task,
    scale: Any,
    want_grad: bool,
    out: np.ndarray | None = None,
    chunk: slice = slice(None),
) -> tuple[np.ndarray, Any]:
    """Run the kernel on logits (rows, classes), which are those of a chunk of the task's rows.

    The task's size chooses the kernel, so that a row's bits do not depend on its chunk.
    """
    asked: dict[str, Any]
    if task.index is None:
        asked = {"soft": _as_rows(target, task.axis)[chunk]}
    else:
        asked = {"index": task.index.reshape(-1)[chunk]}
        if task.coefficient is not None:
            asked["coefficient"] = task.coefficient.reshape(-1)[chunk]
            asked["active"] = None if task.active is None else task.active.reshape(-1)[chunk]
            asked["smooth"] = task.smooth
    try:
        return softmax_cross_entropy(
            logits,
            kernel=kernel_for(math.prod(task.shape), logits.dtype),
            temperature=task.temperature,
            scale=scale,
            want_grad=want_grad,
            out=out,
            **asked,
        )
    except NonFiniteRow as error:
        raise non_finite((chunk.start or 0) + error.row, task.shape, task.axis) from None


def run_kernel(
    logits: np.ndarray,
    target: Any,
    task: Task,
    scale: Any,
    want_grad: bool = True,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, Any]:
    """Return the row losses and, if wanted, the gradient in the logits' shape and dtype.

    `out` receives the gradient; without a copy on the way if its rows can be seen as such.
    """
    if out is None and want_grad:  # of the logits' own shape, since a view would be copied later
        out = np.empty(logits.shape, logits.dtype)
    into = None if out is None else _as_rows(out, task.axis)
    losses, gradient = run_on_rows(
        _as_rows(logits, task.axis), target, task, scale, want_grad, into
    )
    if out is not None and not np.may_share_memory(into, out):
        out[...] = _as_before(gradient, task)
    return losses, out


def _as_rows(x: np.ndarray, axis: int) -> np.ndarray:
    """The array as (rows, classes): a view if the class axis is the last."""
    if x.ndim == 2 and axis == 1:
        return x
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def _as_before(rows: np.ndarray, task: Task) -> np.ndarray:
    """Undo `_as_rows`."""
    if len(task.shape) == 2 and task.axis == 1:
        return rows
    return np.moveaxis(rows.reshape(*task.rows, task.classes), -1, task.axis)


def reduced(losses: np.ndarray, task: Task, dtype: Any) -> np.ndarray:
    """The loss in the shape that `reduction` asks for; warns if that is infinite."""
    infinite = INFINITE.get(dtype, math.inf)
    if task.reduction == "none":
        if not np.maximum.reduce(losses, initial=0.0) < infinite:
            _warn_of_infinity()
        with np.errstate(over="ignore"):
            return losses.reshape(task.rows).astype(dtype, copy=False)
    total: Any
    if losses.size == 1:
        total = losses.item()
    elif losses.size <= FEW and dtype == np.float32:  # the quickest sum has digits enough
        total = losses.dot(ONES[: losses.size])
    else:  # in extended precision the sum costs no digits of its own
        total = np.add.reduce(losses, dtype=np.longdouble)
    mean = total / task.divisor
    if dtype == np.float64:
        mean = float(mean)  # inf where it is beyond it
    if abs(mean) >= infinite:
        mean = math.copysign(math.inf, mean)
        _warn_of_infinity()
    return np.array(mean, dtype)


def _warn_of_infinity() -> None:
    warn(
        "the loss is inf, since a right class is masked (logit -inf; the gradient is finite) or "
        "its value is beyond the largest number of the logits' dtype"
    )
