"""Loss and gradient of plain arrays in one call, in the caller's own memory if he likes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_sm.engine.tensor import Tensor, _float_array
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.loss.composite import refuse_non_finite
from tinygrad_sm.loss.fused import reduced, run_kernel
from tinygrad_sm.loss.options import Task, task_of


def cross_entropy_with_gradient(
    logits: Any,
    target: Any,
    *,
    out: np.ndarray | None = None,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    axis: int = -1,
) -> tuple[np.ndarray, np.ndarray]:
    """The loss of plain arrays and its gradient Σy·p − y, with no graph: for loops written by hand.

    Args:
        logits: an array; the gradient is taken by it.
        out: an array of the logits' shape and dtype that receives the gradient. It may be `logits`
            itself, which is then overwritten: so nothing of the logits' size is allocated, if the
            classes are the last axis of a C-contiguous float32 or float64 array.
        target, weight, ignore_index, reduction, label_smoothing, temperature, axis: as in
            `cross_entropy`. The target is not differentiated.

    Returns:
        The loss, as `cross_entropy` returns it, and the gradient of its sum: `out`, or a new array
        of the logits' shape and dtype.

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit; `out` is then
            unchanged. (A warning that you turned into an error comes when it is written.)

    Example:
        >>> a = np.array([[2.0, 1.0, 0.1]])
        >>> loss, gradient = cross_entropy_with_gradient(a, [0], out=a)
        >>> gradient is a, gradient.round(3)
        (True, array([[-0.341,  0.242,  0.099]]))
    """
    for name, value in (("logits", logits), ("target", target)):
        if isinstance(value, Tensor):
            raise InvalidTypeError(
                f"{name} must be a plain array, since nothing is recorded; got a Tensor: "
                "use cross_entropy(...).backward(), or t.numpy()"
            )
    a = _float_array(logits, None, copy=False, what="logits")
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
    if out is not None:
        _check_out(out, a, task)
        refuse_non_finite(a, task.axis)  # before `out` is written
    losses, gradient = run_kernel(a, task.soft, task, 1.0 / task.divisor, want_grad=True, out=out)
    assert gradient is not None
    return reduced(losses, task, a.dtype), gradient


def _check_out(out: Any, logits: np.ndarray, task: Task) -> None:
    """Raise before anything is written if `out` cannot receive the gradient."""
    if not isinstance(out, np.ndarray):
        raise InvalidTypeError(f"out must be an array; got {type(out).__name__}")
    if out.shape != logits.shape or out.dtype != logits.dtype:
        raise InvalidValueError(
            f"out must have the logits' shape {logits.shape} and dtype {logits.dtype}; "
            f"got {out.shape} and {out.dtype}"
        )
    if not out.flags.writeable:
        raise InvalidValueError("out must be writeable; this array is read-only")
    same = (out.ctypes.data, out.strides) == (logits.ctypes.data, logits.strides)
    if not same and np.shares_memory(out, logits):
        raise InvalidValueError("out must be the logits' own array or share no memory with it")
    if task.soft is not None and np.shares_memory(out, task.soft):
        raise InvalidValueError("out must not share memory with target")
    reach = out.itemsize  # of the axes so far, from the one with the smallest steps on
    for step, n in sorted((abs(step), n) for step, n in zip(out.strides, out.shape, strict=True)):
        if n > 1 and step < reach:
            raise InvalidValueError("out must not overlap with itself; this view does")
        reach += step * (n - 1)
