"""What arrays of any kind run, where NumPy's have a quicker way: forwards and vjps by primitive."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_sm.engine.rules import Axis, _kept, maximum, sum, where
from tinygrad_sm.loss.fused import by_operations, logits_cotangent, target_vjp
from tinygrad_sm.loss.options import Task


def _loss(logits: Any, target: Any, task: Task, saved: Any) -> Any:
    return by_operations(logits, target, task)


def _logits_vjp(g: Any, loss: Any, logits: Any, target: Any, task: Task, saved: Any) -> Any:
    return logits_cotangent(g, logits, target, task)


def _extreme(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Elements that tie for the largest, or the smallest, share its cotangent evenly."""
    top = _kept(y, x, axis, keepdims)
    chosen = x == top
    ties = sum(where(chosen, 1.0, 0.0), axis=axis, keepdims=True)
    share = _kept(g, x, axis, keepdims) / maximum(ties, 1.0)
    return where(chosen, share, where(top != top, np.nan, 0.0))  # a NaN is all elements' NaN


FORWARDS = {"SoftmaxWithLoss": _loss}
VJPS = {"SoftmaxWithLoss": (_logits_vjp, target_vjp), "max": (_extreme,), "min": (_extreme,)}
