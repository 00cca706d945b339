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

CHUNK = 128  # columns added in one chain
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


def row_sums(values: NDArray[Any]) -> Doubles:
    """Sums along rows, (r,) float64, at full vector width and with short chains of additions.

    Chunks are added by einsum, whose inner loop is the fastest row sum NumPy has but sequential;
    the sums of chunks are added likewise (float64), or in float64 (float32).  Chains this short
    keep the error below one ULP, even of equal terms, whose rounding errors all point one way.
    """
    while (width := values.shape[1]) > CHUNK:
        count = width // CHUNK
        chunks = values[:, : count * CHUNK].reshape(len(values), count, CHUNK)
        sums = np.empty((len(values), -(-width // CHUNK)), values.dtype)
        np.einsum("ijk->ij", chunks, out=sums[:, :count])
        if width % CHUNK:
            np.einsum("ij->i", values[:, count * CHUNK :], out=sums[:, -1])
        values = sums if values.dtype == np.float64 else sums.astype(np.float64)
    sums = np.einsum("ij->i", values)
    return sums if sums.dtype == np.float64 else sums.astype(np.float64)


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
