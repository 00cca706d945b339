"""softmax, log_softmax and logsumexp as single nodes, shifted so that no exp overflows.

Where every logit is −inf there is no class left: the probabilities are 0, their logarithms −inf.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_of, may_hold
from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine.memory import current
from tinygrad_sm.engine.primitive import def_primitive
from tinygrad_sm.engine.rules import Axis
from tinygrad_sm.engine.tensor import Tensor


def row_maximum(a: Any, axis: Axis) -> Any:
    """The largest logit along `axis`, kept; 0 where it is infinite, so that a - m is never NaN."""
    kind = kind_of(a)
    if kind is not None:
        return kind.shift(a, axis)
    m = np.max(a, axis=axis, keepdims=True, initial=-np.inf)
    return np.where(np.isinf(m), 0, m).astype(a.dtype, copy=False)


def unless_masked(x: Any, other: float, masked: Any, q: Any) -> Any:
    """x, but `other` for masked classes without a target: there q log p is 0, whatever log p is."""
    if masked is None or not may_hold(masked):
        return x
    return p.where(masked & ((current(q) if isinstance(q, Tensor) else q) == 0), other, x)


def _floats(a: Any) -> tuple[np.ndarray, Any]:
    """What to compute with, and the result's dtype: integers are float64, float16 needs float32.

    In C order, so that equal values give equal bits however they lie in memory.
    """
    a = np.asarray(a)
    dtype = np.dtype(np.float64) if a.dtype.kind in "biu" else a.dtype
    return np.asarray(a, np.promote_types(dtype, np.float32), order="C"), dtype


def _sum_of(e: Any, axis: Axis) -> Any:
    """Σe, and 1 for 0, which it is where all is masked."""
    s = e.sum(axis=axis, keepdims=True)
    return np.where(s == 0, 1, s)


def _softmax(a: Any, axis: Axis = -1) -> Any:
    """Probabilities exp(a_i) / Σ_k exp(a_k) along `axis` (an int, a tuple, or None for all)."""
    x, dtype = _floats(a)
    e = np.exp(x - row_maximum(x, axis))
    return (e / _sum_of(e, axis)).astype(dtype, copy=False)


def _log_softmax(a: Any, axis: Axis = -1) -> Any:
    """The logarithm a_i - lse(a) of the softmax along `axis` (an int, a tuple, or None for all)."""
    x, dtype = _floats(a)
    d = x - row_maximum(x, axis)
    return (d - np.log(_sum_of(np.exp(d), axis))).astype(dtype, copy=False)


def _logsumexp(a: Any, axis: Axis = -1, keepdims: bool = False) -> Any:
    """log Σ_k exp(a_k) along `axis` (an int, a tuple, or None), which is removed unless kept."""
    x, dtype = _floats(a)
    m = row_maximum(x, axis)
    with np.errstate(divide="ignore", over="ignore"):  # log 0 = -inf, and inf beside inf, are right
        lse = m + np.log(np.exp(x - m).sum(axis=axis, keepdims=True))
    return (lse if keepdims else np.squeeze(lse, axis)).astype(dtype, copy=False)


softmax = def_primitive(  # J = diag(p) - p pᵀ, applied without being formed
    "softmax", _softmax, lambda g, y, a, axis=-1: y * (g - p.sum(g * y, axis=axis, keepdims=True))
)
log_softmax = def_primitive(
    "log_softmax",
    _log_softmax,
    lambda g, y, a, axis=-1: g - p.exp(y) * p.sum(g, axis=axis, keepdims=True),
)
logsumexp = def_primitive(
    "logsumexp",
    _logsumexp,
    lambda g, y, a, axis=-1, keepdims=False: p._kept(g, a, axis, keepdims) * softmax(a, axis=axis),
    kind="reduction",
)
