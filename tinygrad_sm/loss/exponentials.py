"""Exponentials and row sums that keep their digits: the loops under the fused kernel.

Functions here take blocks of rows, shape (r, n), float32 or float64, and write into buffers that
the caller owns.  They are called with NumPy's floating-point warnings off.
"""

from __future__ import annotations

import threading
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Doubles: TypeAlias = NDArray[np.float64]

FOLDED_WIDTH = 16  # columns left to NumPy's own, sequential, sum
VANISHED = 800.0  # exp(-800) is 0 in float64


class Scratch(threading.local):
    """Buffers that a thread reuses from tile to tile, so that they stay in its cache."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, int], dtype: Any) -> Floats:
        """An uninitialised array; the next `take` of that name overwrites it."""
        size = shape[0] * shape[1] * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, np.uint8)
        taken: Floats = buffer[:size].view(dtype).reshape(shape)
        return taken


def row_sums(values: NDArray[Any], scratch: Scratch) -> Doubles:
    """Sums along rows, (r,) float64, by halving: each step is one elementwise loop.

    This is pairwise summation at full vector width.  The error grows with log2(n) only, and equal
    terms are added without any; the last few columns are added in float64.
    """
    folded = values
    while (width := folded.shape[1]) > FOLDED_WIDTH:
        half = width // 2
        left, right = folded[:, :half], folded[:, half : 2 * half]
        out = left if folded is not values else None
        if out is None:
            out = scratch.take("folded", left.shape, values.dtype)
        last = folded[:, -1]
        folded = np.add(left, right, out=out)
        if width % 2:
            folded[:, 0] += last
    sums: Doubles = np.add.reduce(folded, axis=1, dtype=np.float64)
    return sums


def exponentials(
    a: Floats, shift: Doubles | None, temperature: float, out: Floats, scratch: Scratch
) -> None:
    """out = exp(a/T - shift), shift (r,) or None for 0.

    float32 logits with a shift need a float64 `out`, in which a - shift is exact.  float64 logits
    with a shift have its rounding error compensated.
    """
    if temperature == 1.0 and shift is None:
        np.exp(a, out=out, dtype=out.dtype)
        return
    x = np.divide(a, temperature, out=out, dtype=out.dtype)
    if shift is None:
        np.exp(x, out=x)
    elif a.dtype == np.float64:
        _exp_compensated(x, shift[:, None], scratch)
    else:
        np.exp(np.subtract(x, shift[:, None], out=x), out=x)


def _exp_compensated(x: Floats, m: Doubles, scratch: Scratch) -> None:
    """x = exp(x - m) in place, as exp(d)(1 + delta) with d + delta = x - m exactly (TwoDiff).

    exp would multiply the rounding error of x - m by |x - m|; delta gives it back.  Elements so
    low that exp is 0 are lifted to a floor first, since TwoDiff has no meaning for -inf.
    """
    np.maximum(x, m - np.maximum(VANISHED, np.abs(m) * 2.0**-50), out=x)
    difference = scratch.take("difference", x.shape, np.float64)
    virtual = scratch.take("virtual", x.shape, np.float64)
    parts = scratch.take("parts", x.shape, np.float64)
    np.subtract(x, m, out=difference)
    np.subtract(difference, x, out=virtual)  # -m as it was really added
    np.subtract(difference, virtual, out=parts)  # x as it was really used
    np.subtract(x, parts, out=x)
    np.add(virtual, m, out=virtual)
    np.subtract(x, virtual, out=x)  # delta
    np.exp(difference, out=difference)
    np.multiply(x, difference, out=x)
    np.add(x, difference, out=x)
