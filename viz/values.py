"""Arrays as text: small ones in full, large ones as min, mean and max."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from viz.scene import Grid

_MOST_ELEMENTS = 12
_MOST_COLUMNS = 6


def number(x: Any) -> str:
    """Four significant digits, with a true minus sign; −0 is shown as 0."""
    x = float(x)
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    return f"{x + 0.0:.4g}".replace("-", "−")


def grid(x: np.ndarray) -> Grid:
    """The elements in rows if there are few, else one row with min, mean and max."""
    if x.size == 0:
        return (("no elements",),)
    if in_full(x):
        rows = x.reshape(1, -1) if x.ndim < 2 else x.reshape(-1, x.shape[-1])
        return tuple(tuple(number(v) for v in row) for row in rows)
    finite = x[np.isfinite(x)].astype(np.float64)
    if finite.size == 0:
        return (("no finite element",),)
    with np.errstate(over="ignore"):  # a mean that overflows is shown as it is
        figures = {"min": finite.min(), "mean": finite.mean(), "max": finite.max()}
    return (tuple(f"{name} {number(v)}" for name, v in figures.items()),)


def in_full(x: np.ndarray) -> bool:
    """Whether an array is small enough to show each element."""
    return x.size <= _MOST_ELEMENTS and (x.ndim == 0 or x.shape[-1] <= _MOST_COLUMNS)


def alarm(x: np.ndarray) -> str:
    """How many elements are NaN or infinite, or nothing if none is."""
    counts = {
        "NaN": np.count_nonzero(np.isnan(x)),
        "∞": np.count_nonzero(np.isposinf(x)),
        "−∞": np.count_nonzero(np.isneginf(x)),
    }
    found = [f"{n} × {what}" for what, n in counts.items() if n]
    return f"{', '.join(found)} of {x.size}" if found else ""


def shape_and_dtype(shape: tuple[int, ...], dtype: str) -> str:
    """E.g. ``"(2, 3) float64"``; a single number is a ``"scalar"``."""
    return f"{shape if shape else 'scalar'} {dtype}"
