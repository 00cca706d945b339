"""Distances between floating-point numbers, counted in units in the last place."""

from __future__ import annotations

from typing import Any

import numpy as np

_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}
ULP_SIZES = tuple(_INTEGERS)
"""Bytes of the floating-point types whose numbers can be counted."""


def ulp_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how many floating-point numbers lie between `a` and `b`, element by element.

    0 means equal bits (but for the sign of zero), 1 neighbours; inf where just one is NaN.

    Args:
        a, b: arrays of one shape and one dtype: float16, float32 or float64.

    Returns:
        A float64 array of that shape; distances beyond 2**53 are rounded.
    """
    x, y = _ordered(a), _ordered(b)
    # the difference of two int64 can exceed int64: near ones exactly, far ones as floats
    near = np.abs(np.where((x < 0) == (y < 0), x - y, 0)).astype(np.float64)
    far = np.abs(x.astype(np.float64)) + np.abs(y.astype(np.float64))
    distance = np.where((x < 0) == (y < 0), near, far)
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    distance = np.where(nan_a != nan_b, np.inf, distance)
    return np.where(nan_a & nan_b, 0.0, distance)


def ulps_off(found: np.ndarray, exact: Any) -> np.ndarray:
    """Return how far floats are from exact numbers, in units in the last place of these.

    Args:
        found: floats; NaN, or an infinity that the exact number is not, is off by inf.
        exact: mpmath's numbers, of the same shape.
    """
    spacing = found.dtype.type

    def off(x: Any, truth: Any) -> float:
        if x == truth:
            return 0.0
        unit = np.spacing(abs(spacing(float(truth))))
        if not (np.isfinite(x) and np.isfinite(unit)):
            return np.inf
        return float(abs(truth - float(x)) / float(unit))

    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.frompyfunc(off, 2, 1)(found, np.asarray(exact)), np.float64)


def _ordered(x: np.ndarray) -> np.ndarray:
    """Integers in the order of the floats, with both zeros at 0."""
    bits = np.ascontiguousarray(x).view(_INTEGERS[x.dtype.itemsize]).reshape(x.shape)
    magnitude = (bits & np.iinfo(bits.dtype).max).astype(np.int64)
    return np.where(bits < 0, -magnitude, magnitude)


def ulp_text(ulps: float) -> str:
    """A number of units in the last place, short."""
    return f"{ulps:.0f}" if ulps < 1e6 else f"{ulps:.2g}"
