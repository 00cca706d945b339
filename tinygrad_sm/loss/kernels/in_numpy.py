"""The kernel in NumPy: from a row's maximum to Σq·p − q, and how the digits are kept.

For a row of logits a with target q let t be the class of the largest logit, e_k = exp(a_k/T),

    peak = e_t,   rest = Σ_{k≠t} e_k,   total = rest + peak,   mass = Σq,   others = Σ_{j≠t} q_j

Then, with factor = scale/T, no term of the loss is negative, and where p_t is near 1 nothing
cancels in the second form of the gradient at t:

    loss           mass log1p(rest/peak) + Σ_j q_j (a_t − a_j)/T
    gradient at j  factor (mass e_j/total − q_j)
    gradient at t  the same, or factor (others − mass rest/total)

after Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and softmax functions", IMA
Journal of Numerical Analysis, 2021. For 5 ULP exp and Σ must be as good:

- exp(a) is taken without a shift where the maximum says that it is safe: exp would multiply the
  rounding error of a − max by its size. Else float32 is computed in float64; and in float64
  exp(a/T) is 2^n exp(r), of which any power of two can be left out without rounding.
- A sum is made of short chunks, whose sums are added without rounding errors.

Rows are taken in blocks, so that the calls of NumPy cost little; a wide row is cut into parts, so
that all threads can work on it. Other rows have one part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_sm.engine.threads import pool
from tinygrad_sm.loss.kernels import rows as tiling
from tinygrad_sm.loss.kernels.rows import (
    FLOAT64,
    Block,
    Doubles,
    Floats,
    Indices,
    PerRow,
    scratch,
    times,
)

SHORT = 32  # classes up to which float32 is computed in float64, at little cost
CHUNK = 32  # columns added in one chain
NORMAL = {  # the smallest normal number, and a quarter of the largest
    np.dtype(kind): (float(np.finfo(kind).tiny), float(np.finfo(kind).max) / 4)
    for kind in (np.float32, np.float64)
}
MARGIN = 60  # a shifted row's largest exponential is 2^60: none that counts is denormal
CENTRED = 1.0 + 2.0**-25  # NumPy's float32 exp errs by -3.5 to 2.5 units of 2**-24: now by +-3
LN2 = Fraction("0.6931471805599453094172321214581765680755001343602552541206800094933936219696947")


def fill_in(block: Block, threads: int = 1) -> None:
    """Write the losses of a block's rows and, if it is wanted, their gradient."""
    a = block.logits
    simple = block.dense is None and block.temperature == 1.0 and a.shape[1] <= tiling.PART
    work = _by_classes if simple else _with_care
    whole = simple and _free(block, plain_dtype(a)) is not None
    for piece in (block,) if whole else block.pieces():
        work(piece, threads)


def _by_classes(block: Block, threads: int) -> None:
    """Do rows with one right class t each: the loss is log1p(rest/peak), at t −rest/total is left.

    Whether exp needed no shift is seen afterwards; where it did, rows are done again.
    """
    a, gradient = block.logits, block.gradient
    exps = _room(block, plain_dtype(a))
    np.exp(a, out=exps, dtype=exps.dtype)
    right = block.index + np.arange(0, a.size, a.shape[1])
    flat = exps.reshape(-1)
    peak = flat[right]
    if exps.dtype != FLOAT64:
        peak = np.exp(a.reshape(-1)[right], dtype=FLOAT64)
    flat[right] = 0.0
    rest = _sums(a, exps)
    total, ratio = rest + peak, rest / peak
    weight = block.factor * block.coefficient
    lowest, highest = bounds(a.dtype, exps.dtype, weight)
    safe = (total >= lowest) & (total <= highest) & (ratio < 1e280)  # NaN is not
    others = None
    if np.count_nonzero(safe) < len(a):
        unsafe = np.flatnonzero(~safe)
        others = block.some(unsafe)  # before logits are overwritten
    block.losses[...] = times(block.coefficient, np.log1p(ratio))
    if gradient is not None:
        rate = weight / total
        flat[right] = -rest  # scaled with the others: short rows are called often
        _scale(exps, rate, gradient)
        if exps.dtype != FLOAT64:  # to which the correction of NumPy's exp was applied
            gradient.reshape(-1)[right] = -rate * rest
    if others is not None:
        for piece in others.pieces():
            _with_care(piece, threads)
        block.put(unsafe, others)


def _with_care(block: Block, threads: int) -> None:
    """Do rows of any target, setting the class of the largest logit apart, shifted if need be."""
    a, gradient = block.logits, block.gradient
    parts, each = Parts(a.shape[1], threads), np.arange(len(a))
    t = parts.largest(a)
    top = a[each, t].astype(np.float64)
    wrong = ~(top < np.inf)  # NaN, too
    top[top == -np.inf] = 0.0  # every class is masked
    target = target_of(block, parts, t, top)
    mass = target.own + target.others
    weight = block.factor * mass

    lowest, highest = bounds(a.dtype, plain_dtype(a), weight)
    largest = np.exp(top)
    safe = (largest >= lowest) & (largest * a.shape[1] <= highest)
    known = np.count_nonzero(safe) if block.temperature == 1.0 else 0
    if 0 < known < len(a):
        for rows in (np.flatnonzero(safe), np.flatnonzero(~safe)):
            block.apart(rows, lambda some: _with_care(some, threads))
        return

    shift = None if known else Shift(top, weight, block.temperature)
    exps, rest, peak = _exponentials(block, parts, t, shift)
    block.losses[...] = times(mass, np.log1p(rest / peak)) + target.gap
    block.losses[wrong] = np.nan
    if gradient is None:
        return
    rate = weight / (rest + peak)
    parts.each(lambda part: _write(block, part, exps(part), rate))
    gradient[each, block.index] -= times(block.coefficient, block.factor)
    gradient[each, t] = at_the_largest(block.factor, target.own, target.others, rate, peak, rest)


def at_the_largest(
    factor: PerRow, own: PerRow, others: PerRow, rate: Doubles, peak: Doubles, rest: Doubles
) -> Doubles:
    """The gradient at the class that is set apart, in the form that cancels less."""
    mine, theirs = times(own, factor), times(others, factor)
    return np.where(own < others, rate * peak - mine, theirs - rate * rest)


class Parts:
    """The columns of a block: in parts, which all threads share, where rows are wide."""

    def __init__(self, classes: int, threads: int) -> None:
        self.slices = [slice(at, at + tiling.PART) for at in range(0, classes, tiling.PART)]
        self.threads = threads

    def each(self, work: Callable[[slice], Any]) -> list[Any]:
        """What a function returns for each part."""
        if len(self.slices) == 1:  # as nearly always
            return [work(self.slices[0])]
        found: list[Any] = [None] * len(self.slices)

        def one(number: int) -> None:
            found[number] = work(self.slices[number])

        pool.run(one, len(found), self.threads)
        return found

    def sums(self, work: Callable[[slice], Doubles]) -> Doubles:
        """The sums of what a function returns for each part."""
        found = self.each(work)
        return found[0] if len(found) == 1 else exact_sums(np.array(found).T)

    def largest(self, a: Floats) -> Indices:
        """The class of each row's largest logit, or of a NaN."""
        found = self.each(lambda part: a[:, part].argmax(axis=1) + part.start)
        if len(found) == 1:
            return np.asarray(found[0])
        columns, each = np.array(found), np.arange(len(a))
        return columns[a[each, columns].argmax(axis=0), each]

    def apart(self, t: Indices, part: slice) -> tuple[Indices, Indices]:
        """Rows and columns of the classes t that stand in a part."""
        if len(self.slices) == 1:
            return np.arange(len(t)), t
        rows = np.flatnonzero((part.start <= t) & (t < part.stop))
        return rows, t[rows] - part.start


# --- the target, as seen from a class t that is set apart ------------------------------------


@dataclass(slots=True)
class Target:
    """What the target q is at the class t of each row's largest logit, and at the others."""

    own: PerRow  # q_t
    others: PerRow  # Σ_{j≠t} q_j, added up without q_t: mass − q_t would have no digits left
    gap: PerRow  # Σ_j q_j (a_t − a_j)/T


def target_of(block: Block, parts: Parts, t: Indices, top: Doubles) -> Target:
    """What a block's target is at the classes t, whose logits are `top`, and besides."""
    a, q, each = block.logits, block.dense, np.arange(len(t))
    own = np.multiply(block.coefficient, block.index == t)
    found = Target(
        own, block.coefficient - own, times(block.coefficient, top - a[each, block.index])
    )
    if q is not None:
        if block.others is None:
            dense_own = q[each, t].astype(np.float64)
            others = parts.sums(lambda part: _sums_without(q[:, part], *parts.apart(t, part)))
        else:
            dense_own, others = q[0, t].astype(np.float64), block.others[t]
        found.own += block.active * dense_own
        found.others += block.active * others
        gap = parts.sums(lambda part: _gaps(a[:, part], q[:, part], top))
        found.gap += times(block.active, gap)
    found.gap /= block.temperature
    return found


def _gaps(a: Floats, q: Floats, top: Doubles) -> Doubles:
    """Σ_j q_j (top − a_j), (r,): none of the terms is negative."""
    distance = scratch.take("block", a.shape, a.dtype)
    np.subtract(top.astype(a.dtype)[:, None], a, out=distance)
    sums = chunk_sums(distance, q).sum(axis=1, dtype=np.float64)
    if np.isnan(sums).any():  # 0 * inf, at masked classes without a target
        np.copyto(distance, 0.0, where=np.equal(q, 0.0))
        sums = chunk_sums(distance, q).sum(axis=1, dtype=np.float64)
    return sums


def _sums_without(q: Floats, rows: Indices, columns: Indices) -> Doubles:
    """The sums of rows but for one element each, (r,)."""
    others = scratch.take("block", q.shape, q.dtype)
    np.copyto(others, q)
    others[rows, columns] = 0.0
    return exact_sums(chunk_sums(others, chunk=CHUNK if q.dtype == FLOAT64 else CHUNK // 2))


# --- exponentials ----------------------------------------------------------------------------


def plain_dtype(a: Floats) -> np.dtype[Any]:
    """What exponentials that need no shift are computed in."""
    return FLOAT64 if a.shape[1] <= SHORT else a.dtype


def bounds(results: Any, exps: Any, weight: PerRow) -> tuple[PerRow, PerRow]:
    """Between which totals of unshifted exponentials nothing is lost that a result would show.

    The gradient's terms are weight*e/total. With total >= |weight| a denormal e makes a denormal
    term; total and weight/total must be normal numbers, too.
    """
    if exps != results:  # float64 has room on both sides of float32
        return 1e-20, 1e250
    (tiny, largest), size = NORMAL[exps], np.abs(weight)
    if not isinstance(size, np.ndarray):
        return max(size, 0.5) if size < np.inf else 0.5, min(size / tiny or largest, largest)
    lowest = np.where(size < np.inf, np.maximum(size, 0.5), 0.5)  # of inf there are no digits
    return lowest, np.where(size == 0.0, largest, np.minimum(size / tiny, largest))


class Shift:
    """exp(a/T) 2^-k in float64, with k such that the largest of a row is |weight| 2^MARGIN."""

    def __init__(self, top: Doubles, weight: PerRow, temperature: float) -> None:
        self.temperature, (self.step, *self.upper_lower) = temperature, powers(temperature)
        # so far from 0 a difference is exact, where it is not so large that exp vanishes; that of
        # two centres is, too
        grid = 2.0 ** (math.frexp(temperature)[1] + 12)
        self.centre = np.where(np.abs(top) > 1.5 * grid, top - np.fmod(top, grid), 0.0)
        room = np.frexp(np.clip(np.abs(weight), 1e-40, 1e250))[1] + MARGIN
        self.top = top - self.centre
        self.exponent = np.rint(self.top * self.step) - room

    def exponentials(self, a: Floats, out: Doubles) -> None:
        """out = exp(a/T) 2^-k = 2^(n-k) exp(a/T − n log 2)."""
        if a.dtype == np.float32:  # of its differences float64 has digits enough
            shift = self.centre + self.exponent * sum(self.upper_lower)
            np.subtract(a, shift[:, None], out=out, dtype=np.float64)
            np.exp(np.divide(out, self.temperature, out=out), out=out)
            return
        n, product = (scratch.take(name, a.shape, np.float64) for name in ("n", "product"))
        lowest = self.top - 2000.0 * self.temperature
        np.subtract(a, self.centre[:, None], out=out, dtype=np.float64)
        np.maximum(out, lowest[:, None], out=out)  # −inf has no differences
        np.rint(np.multiply(out, self.step, out=n), out=n)
        for part in self.upper_lower:
            np.subtract(out, np.multiply(n, part, out=product), out=out)
        np.exp(np.divide(out, self.temperature, out=out), out=out)
        np.maximum(np.subtract(n, self.exponent[:, None], out=n), -1023.0, out=n)
        bits = product.view(np.int64)
        np.add(n, 1023.0, out=bits, casting="unsafe")
        np.multiply(out, np.left_shift(bits, 52, out=bits).view(np.float64), out=out)


@lru_cache(maxsize=16)
def powers(temperature: float) -> tuple[float, float, float]:
    """1/(T log 2), and T log 2 as a number of 32 bits, whose products are exact, and the rest."""
    period = LN2 * Fraction(temperature)
    mantissa, exponent = math.frexp(float(period))
    upper = math.ldexp(math.floor(mantissa * 2**32), exponent - 32)
    return float(1 / period), upper, float(period - Fraction(upper))


def _free(block: Block, dtype: np.dtype[Any]) -> Floats | None:
    """The gradient's memory, if it can hold exponentials until they are scaled."""
    out = block.gradient
    if out is None or out.dtype != dtype or np.may_share_memory(out, block.logits):
        return None
    return out


def _room(block: Block, dtype: np.dtype[Any], part: slice = slice(None)) -> Floats:
    """Memory for the exponentials of a part."""
    free = _free(block, dtype)
    if free is not None:
        return free[:, part]
    return scratch.take("work", block.logits[:, part].shape, dtype)


def _exponentials(
    block: Block, parts: Parts, t: Indices, shift: Shift | None
) -> tuple[Callable[[slice], Floats], Doubles, Doubles]:
    """Where to find the exponentials of a part, with 0 at t; their sums; and what stands at t."""
    a, gradient = block.logits, block.gradient
    dtype = FLOAT64 if shift else plain_dtype(a)
    peak, kept = np.empty(len(a)), gradient if len(parts.slices) > 1 else None

    def sums(part: slice) -> Doubles:
        piece, exps = a[:, part], _room(block, dtype, part)
        rows, columns = parts.apart(t, part)
        _exp(piece, shift, exps)
        plain = shift is None and dtype != FLOAT64
        peak[rows] = np.exp(piece[rows, columns], dtype=FLOAT64) if plain else exps[rows, columns]
        exps[rows, columns] = 0.0
        found = _sums(piece, exps)
        if kept is not None:
            kept[:, part] = exps
        return found

    rest = parts.sums(sums)
    rest[rest + peak == 0.0] = 1.0  # every class is masked: p = 0/1
    return lambda part: _room(block, dtype) if kept is None else kept[:, part], rest, peak


def _exp(a: Floats, shift: Shift | None, out: Floats) -> None:
    """out = exp(a), or what a shift makes of it."""
    if shift is None:
        np.exp(a, out=out, dtype=out.dtype)
    else:
        shift.exponentials(a, out)


def sums_of(a: Floats, t: Indices, shift: Shift | None) -> Doubles:
    """The sums of the exponentials of rows but for those at t, (r,)."""
    exps = scratch.take("work", a.shape, FLOAT64 if shift else plain_dtype(a))
    _exp(a, shift, exps)
    exps[np.arange(len(a)), t] = 0.0
    return _sums(a, exps)


def fill_part(block: Block, shift: Shift | None, rate: Doubles) -> None:
    """Write factor (Σq·p − q) of a block from its logits, but for what is at the index and at t."""
    exps = _room(block, FLOAT64 if shift else plain_dtype(block.logits))
    _exp(block.logits, shift, exps)
    _write(block, slice(None), exps, rate)


def _scale(exps: Floats, rate: Doubles, out: Floats) -> None:
    """out = rate * exps, row by row."""
    if exps.dtype == np.float32:
        rate = rate * CENTRED
    np.multiply(exps, rate.astype(exps.dtype)[:, None], out=out, casting="same_kind")


def _write(block: Block, part: slice, exps: Floats, rate: Doubles) -> None:
    """factor (Σq·p − q) of a part, but for what is at the index and at t."""
    assert block.gradient is not None
    out = block.gradient[:, part]
    _scale(exps, rate, out)
    if block.dense is not None:
        factor = np.reshape(block.factor * block.active, (-1, 1)).astype(out.dtype)
        q = block.dense[:, part]
        pull = scratch.take("block", np.broadcast_shapes(q.shape, factor.shape), out.dtype)
        np.multiply(q, factor, out=pull)
        if np.isinf(factor).any():
            np.copyto(pull, 0.0, where=np.equal(q, 0.0))
        np.subtract(out, pull, out=out)


# --- sums ------------------------------------------------------------------------------------


def _sums(a: Floats, exps: Floats) -> Doubles:
    """The sums of the exponentials of some logits, row by row."""
    if exps.dtype == np.float32:
        return _sums_in_double(a, exps)
    if a.dtype == np.float32:
        return np.einsum("ij->i", exps)
    return row_sums(exps)


def row_sums(values: Doubles) -> Doubles:
    """The sums of rows in float64, rounded about once."""
    if values.shape[1] <= CHUNK:
        return np.add.reduce(values, axis=1)  # pairwise
    return exact_sums(chunk_sums(values))


def chunk_sums(values: Floats, weights: Floats | None = None, chunk: int = CHUNK) -> Floats:
    """Σ values (or Σ weights·values) of `chunk` neighbours, (r, n) -> (r, ceil(n/chunk)).

    einsum is the fastest sum of rows in NumPy, but adds one after the other: chains this short keep
    the error near one ULP even of equal terms, whose rounding errors all point one way.
    """
    rows, width = values.shape
    whole = width - width % chunk
    sums = np.empty((rows, -(-width // chunk)), values.dtype)
    both = [values] if weights is None else [values, weights]
    chunks = [x[:, :whole].reshape(len(x), -1, chunk) for x in both]
    if whole:
        np.einsum(",".join(["ijk"] * len(both)) + "->ij", *chunks, out=sums[:, : whole // chunk])
    if whole < width:
        tails = [x[:, whole:] for x in both]
        np.einsum(",".join(["ij"] * len(both)) + "->i", *tails, out=sums[:, -1])
    return sums


def exact_sums(values: Floats) -> Doubles:
    """Sums of rows, (r,) float64, rounded about once.

    Adding and subtracting a power of two larger than the sum cuts every term at the same bit: the
    upper parts add up without rounding, the lower parts are too small for theirs to matter (Rump,
    Ogita & Oishi, "Accurate floating-point summation", SIAM Journal on Scientific Computing 2008).
    """
    values = values.astype(np.float64, copy=False)
    if values.shape[1] == 1:
        return values[:, 0]
    cut = np.ldexp(2.0, np.frexp(np.einsum("ij->i", values))[1])[:, None]
    upper = (values + cut) - cut
    sums: Doubles = np.einsum("ij->i", upper) + np.einsum("ij->i", values - upper)
    return sums


def _sums_in_double(a: Floats, exps: Floats) -> Doubles:
    """Sums of float32 exponentials, (r,), whose rounding errors must not show.

    They even out unless a chunk is a large share of the sum: such chunks are done in float64.
    """
    chunk = 2 * CHUNK if a.shape[1] >= 16 * CHUNK else CHUNK
    sums = chunk_sums(exps, chunk=chunk).astype(np.float64)
    totals: Doubles = np.einsum("ij->i", sums)
    large = np.flatnonzero(sums > 0.5 * totals[:, None])
    if large.size:
        rows, chunks = divmod(large, sums.shape[1])
        columns = chunks[:, None] * chunk + np.arange(chunk)
        inside = columns < a.shape[1]
        at = rows[:, None], np.where(inside, columns, 0)
        again = np.exp(a[at], dtype=np.float64)
        again[~inside | (exps[at] == 0.0)] = 0.0
        totals[rows] += again.sum(axis=1) - sums[rows, chunks]
    return totals
