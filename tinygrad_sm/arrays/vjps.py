"""Rules of the table that have a quicker way for NumPy's arrays, as they are for all others."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_sm.engine.rules import Axis, _kept, maximum, sum, where


def _extreme(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Elements that tie for the largest, or the smallest, share its cotangent evenly."""
    top = _kept(y, x, axis, keepdims)
    chosen = x == top
    ties = sum(where(chosen, 1.0, 0.0), axis=axis, keepdims=True)
    share = _kept(g, x, axis, keepdims) / maximum(ties, 1.0)
    return where(chosen, share, where(top != top, np.nan, 0.0))  # a NaN is all elements' NaN


VJPS = {"max": (_extreme,), "min": (_extreme,)}
