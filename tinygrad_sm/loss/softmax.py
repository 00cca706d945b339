"""softmax, log_softmax and logsumexp as single nodes, shifted so that no exp overflows.

Where every logit is −inf there is no class left: the probabilities are 0, their logarithms −inf.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_sm import primitives as p
from tinygrad_sm.dispatch import def_primitive


def row_maximum(a: Any, axis: int) -> Any:
    """The largest logit along `axis`, kept; 0 where all are -inf, so that a - m is never NaN."""
    m = np.max(a, axis=axis, keepdims=True)
    return np.where(m == -np.inf, 0, m)


def _sum_of(e: Any, axis: int) -> Any:
    """Σe, and 1 for 0, which it is where all is masked."""
    s = e.sum(axis=axis, keepdims=True)
    return np.where(s == 0, 1, s)


def _softmax(a: Any, axis: int = -1) -> Any:
    """Probabilities exp(a_i) / Σ_k exp(a_k) along `axis`; same shape and dtype as `a`."""
    e = np.exp(a - row_maximum(a, axis))
    return e / _sum_of(e, axis)


def _log_softmax(a: Any, axis: int = -1) -> Any:
    """The logarithm a_i - lse(a) of the softmax along `axis`; same shape and dtype as `a`."""
    d = a - row_maximum(a, axis)
    return d - np.log(_sum_of(np.exp(d), axis))


def _logsumexp(a: Any, axis: int = -1, keepdims: bool = False) -> Any:
    """log Σ_k exp(a_k) along `axis`, which is removed unless `keepdims`."""
    m = row_maximum(a, axis)
    with np.errstate(divide="ignore"):  # log 0 = -inf is the value when every logit is -inf
        lse = m + np.log(np.exp(a - m).sum(axis=axis, keepdims=True))
    return lse if keepdims else np.squeeze(lse, axis)


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
    lambda g, y, a, axis=-1, keepdims=False: (
        (g if keepdims else p.expand_dims(g, axis % a.ndim)) * softmax(a, axis=axis)
    ),
    kind="reduction",
)
