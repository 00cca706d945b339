"""Exponentials and row sums that keep their digits: the loops under the fused kernel.

Functions here take blocks of rows, shape (r, n), float32 or float64, and write into buffers that
the caller owns.  They are called with NumPy's floating-point warnings off.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Doubles: TypeAlias = NDArray[np.float64]

# From rows (r, 1) and columns (r, c) to the terms of a sum that stand there, (r, c).
Terms: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp]], Doubles]

CHUNK = 128  # columns added in one chain
DOTTED = 1024  # columns of one scalar product: BLAS adds them in 16 chains or more
DEEP = -700.0  # exp of less is about to leave the normal numbers
VANISHED = 800.0  # exp(-800) is 0 in float64
UPPER_DIGITS = -1 << 27  # the bits of a float64 that keep 26 of its 53 digits


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
    """Sums along rows, (r,) float64, in short chains of additions at full vector width.

    Enough where the terms have fewer digits than float64, or the sum has no digits to spare.
    """
    width = values.shape[1]
    chunk = -(-width // -(-width // CHUNK))  # as even as can be: a short one is a second visit
    if values.dtype != np.float64:
        values = _chunk_sums(values, chunk).astype(np.float64)
    elif width > CHUNK:
        values = _chunk_sums(values, chunk)
    while values.shape[1] > CHUNK:
        values = _chunk_sums(values, CHUNK)
    sums: Doubles = np.einsum("ij->i", values)
    return sums


def sums_of_others(values: Floats, index: NDArray[np.intp]) -> tuple[Doubles, Doubles]:
    """Sums along rows but for one element each, (r, n) and (r,) -> (r,), and those with it.

    A sum of all minus the one will do, unless the one is more than the rest.
    """
    total = _close_sums(values)
    one = values[np.arange(len(values)), index].astype(np.float64)
    others = total - one
    poor = np.flatnonzero(~(np.abs(one) <= np.abs(others)))
    if poor.size:
        rest = values[poor]
        rest[np.arange(len(poor)), index[poor]] = 0.0
        others[poor] = _close_sums(rest)
        total[poor] = others[poor] + one[poor]
    return others, total


def _close_sums(values: Floats) -> Doubles:
    """`row_sums` of float32 within a unit of 2**-24: chains too short for equal terms to show."""
    if values.dtype == np.float32:
        values = _chunk_sums(values, CHUNK // (4 if values.shape[1] > CHUNK else 8))
    return row_sums(values.astype(np.float64, copy=False))


def row_dots(values: NDArray[Any], weights: NDArray[Any]) -> Doubles:
    """Scalar products of rows, (r, n) and (r, n) or (1, n) -> (r,) float64."""
    even = values.shape[1] // DOTTED * DOTTED
    dots: Doubles = np.vecdot(values[:, even:], weights[:, even:]).astype(np.float64)
    if even:
        parts = [x[:, :even].reshape(len(x), -1, DOTTED) for x in (values, weights)]
        dots += np.vecdot(*parts).sum(axis=1, dtype=np.float64)
    return dots


def careful_row_sums(values: Floats, terms: Terms | None = None) -> Doubles:
    """Sums along rows, (r,), of terms >= 0, to about one ULP of the terms' dtype.

    A long row's sum is a sum of chunks.  Their rounding errors even out unless one chunk is most
    of the sum: that one is then added again exactly.  `terms` gives, for the rows and columns that
    it is called with, the terms in float64; without it they are the values themselves.
    """
    double = values.dtype == np.float64
    width = values.shape[1]
    if width <= CHUNK:
        return _exact_sums(values) if double else row_sums(values.astype(np.float64))
    chunk = min(CHUNK // 2 if double else CHUNK, width // 8)  # of 8, one is seldom most
    sums = _chunk_sums(values, chunk).astype(np.float64, copy=False)
    totals = row_sums(sums)
    # no chunk is half of a sum whose square is four times that of the chunks: seldom more to ask
    peaked = np.flatnonzero(~(4.0 * np.vecdot(sums, sums) < totals * totals))  # both may be inf
    if peaked.size:
        peaked = peaked[2.0 * np.maximum.reduce(sums[peaked], axis=1) > totals[peaked]][:, None]
    if peaked.size:
        first = sums[peaked[:, 0]].argmax(axis=1)[:, None] * chunk
        columns = np.minimum(first, width - chunk) + np.arange(chunk)
        again = values[peaked, columns] if terms is None else terms(peaked, columns)
        again[columns < first] = 0.0  # the last chunk may be shorter than the others
        sums[peaked, first // chunk] = careful_row_sums(again.astype(np.float64))[:, None]
    elif not double:
        return totals
    return _exact_sums(sums) if double else row_sums(sums)


def _chunk_sums(values: NDArray[Any], chunk: int) -> NDArray[Any]:
    """Sums of `chunk` neighbours, (r, n) -> (r, ceil(n/chunk)), by einsum.

    Its loop is the fastest row sum in NumPy but adds one after the other: chains this short keep
    the error near one ULP even of equal terms, whose rounding errors all point one way.
    """
    rows, width = values.shape
    count = width // chunk
    sums = np.empty((rows, -(-width // chunk)), values.dtype)
    chunks = values[:, : count * chunk].reshape(rows, count, chunk)
    np.einsum("ijk->ij", chunks, out=sums[:, :count])
    if width % chunk:
        np.einsum("ij->i", values[:, count * chunk :], out=sums[:, -1])
    return sums


def _exact_sums(values: Floats) -> Doubles:
    """Sums along rows, (r,), of float64 terms >= 0, rounded about once.

    Adding and subtracting a power of two larger than the sum cuts every term at the same bit: the
    upper parts add up without rounding, the lower parts are too small for theirs to matter (Rump,
    Ogita & Oishi, "Accurate floating-point summation", SIAM Journal on Scientific Computing 2008).
    """
    estimate = np.einsum("ij->i", values)
    cut = np.ldexp(2.0, np.frexp(estimate)[1])[:, None]
    upper = values + cut
    upper -= cut
    lower = values - upper
    sums: Doubles = np.einsum("ij->i", upper) + np.einsum("ij->i", lower)
    return sums


def exponentials(
    a: Floats, shift: Doubles | None, temperature: float, out: Floats, scratch: Scratch
) -> None:
    """out = exp((a - shift)/T), shift (r,) or None for 0.

    float32 logits with a shift need a float64 `out`, in which a - shift is exact.  Where float64
    logits do not keep a - shift or the quotient, what was rounded off is given back.
    """
    if shift is None and temperature == 1.0:
        np.exp(a, out=out, dtype=out.dtype)
    elif a.dtype == np.float64 and (shift is not None or not is_power_of_two(temperature)):
        _exp_compensated(a, shift, temperature, out, scratch)
    else:
        x = a if shift is None else np.subtract(a, shift[:, None], out=out, dtype=out.dtype)
        x = np.divide(x, temperature, out=out, dtype=out.dtype)
        if shift is None:
            np.exp(x, out=x)
        else:
            _exp_in_steps(x, scratch)


def is_power_of_two(number: float) -> bool:
    """Whether dividing by a number rounds nothing."""
    return math.frexp(number)[0] == 0.5


def _exp_compensated(
    a: Floats, shift: Doubles | None, temperature: float, out: Floats, scratch: Scratch
) -> None:
    """out = exp((a - m)/T), as exp(d)(1 + delta) with d + delta = (a - m)/T to twice the digits.

    exp would multiply the rounding error of its argument by the argument; delta gives it back.
    Elements so low that exp is 0 are lifted to a floor first, since -inf has no differences.
    """
    d, one, two = (scratch.take(name, a.shape, np.float64) for name in ("d", "one", "two"))
    delta = out
    if shift is None:
        np.maximum(a, -VANISHED * temperature, out=d)
    else:  # TwoDiff
        m = shift[:, None]
        floor = m - np.maximum(VANISHED * temperature, np.abs(m) * 2.0**-50)
        np.maximum(a, floor, out=delta)
        np.subtract(delta, m, out=d)
        np.subtract(d, delta, out=one)  # -m as it was really added
        np.subtract(d, one, out=two)  # a as it was really used
        np.subtract(delta, two, out=delta)
        np.add(one, m, out=one)
        np.subtract(delta, one, out=delta)
    if temperature != 1.0:  # 1/T is c + rest, and half of d's digits times c are exact
        c, rest = _reciprocal(temperature)
        np.bitwise_and(d.view(np.int64), UPPER_DIGITS, out=one.view(np.int64))
        np.subtract(d, one, out=two)
        if shift is not None:
            np.add(two, delta, out=two)
        np.multiply(two, c, out=two)
        np.multiply(d, rest, out=delta)
        np.add(delta, two, out=delta)
        np.multiply(one, c, out=one)
        np.add(one, delta, out=d)
        np.subtract(one, d, out=one)
        np.add(delta, one, out=delta)
    _exp_in_steps(d, scratch)
    np.multiply(delta, d, out=delta)
    np.add(delta, d, out=delta)


@lru_cache(maxsize=16)
def _reciprocal(divisor: float) -> tuple[float, float]:
    """1/T as a number of 26 digits and the rest."""
    upper = float((np.array(1.0 / divisor).view(np.int64) & UPPER_DIGITS).view(np.float64))
    return upper, float(1 / Fraction(divisor) - Fraction(upper))


def _exp_in_steps(x: Floats, scratch: Scratch) -> None:
    """x = exp(x) in place, in float64: in two factors if some would vanish.

    NumPy's exp takes seven times as long where its result is not a normal number.
    """
    if not np.minimum.reduce(x, axis=None) < DEEP:
        np.exp(x, out=x)
        return
    below = np.subtract(x, DEEP, out=scratch.take("below", x.shape, np.float64))
    np.minimum(below, 0.0, out=below)
    np.maximum(below, DEEP, out=below)
    np.maximum(x, DEEP, out=x)
    np.exp(x, out=x)
    np.multiply(x, np.exp(below, out=below), out=x)
