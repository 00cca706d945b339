"""What the fused kernel knows of each row, and the formulas that turn it into loss and gradient.

One class t of every row is set apart: the right one, or of a distribution the one of the largest
logit.  With the exponentials e_k = exp((a_k - shift)/T), peak = e_t, rest = sum_{k != t} e_k and
total = rest + peak,

    lse(a/T) - a_t/T  =  log1p(rest/peak)    the loss of class t
    p_t - 1           =  -rest/total         its gradient

in which nothing cancels, however sure the prediction is.  q is the effective target, mass its sum.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.kernel.loops import Doubles, Floats, Scratch, row_dots, row_sums

Indices: TypeAlias = NDArray[np.intp]
PerRow: TypeAlias = Doubles | float  # (rows,), or one number for all of them
Choice: TypeAlias = slice | Indices  # which rows of a call

ALL = slice(None)
LARGEST_RATIO = 1e280  # where rest/peak is below, peak is a normal number
# Smallest normal number, and a quarter of the largest, of either dtype.
NORMAL = {
    np.dtype(kind): (float(np.finfo(kind).tiny), float(np.finfo(kind).max) / 4)
    for kind in (np.float32, np.float64)
}
ROOMY = (1e-20, 1e250)  # for results in float32
CENTRED = 1.0 + 2.0**-25  # NumPy's float32 exp errs by -3.5 to 2.5 units of 2**-24: now by +-3

scratch = Scratch()


class Rows:
    """The rows of one call: what is given, and what tiles fill in, in any order."""

    index: Indices  # (rows,) the class t
    at_index: PerRow  # q_t
    others: PerRow  # sum_{j != t} q_j, added up without q_t: mass - q_t would have no digits left
    mass: PerRow  # Σq
    weight: PerRow  # what multiplies p in the gradient: mass*scale/T
    dense: NDArray[Any] | None = None  # (rows, n) or (1, n): q_j for j != t; None: zeros
    active: PerRow = 1.0  # multiplies `dense`
    in_place: bool = False  # the gradient's memory holds the exponentials first
    leading: bool = False  # t is the class of the largest logit, found tile by tile
    logit: Doubles  # (rows,) a_t
    peak: Doubles  # (rows,) e_t
    rest: Doubles  # (rows,) sum_{k != t} e_k
    shift: Doubles  # (rows,)
    maxima: Doubles  # (rows,) max(a), if the target is dense
    gaps: Doubles  # (rows,) sum_{j != t} q_j (max(a) - a_j)/T, if the target is dense

    def __init__(
        self, logits: Floats, gradient: Floats | None, temperature: float, scale: float | Floats
    ) -> None:
        self.logits, self.gradient, self.temperature = logits, gradient, float(temperature)
        self.factor = per_row(scale) / self.temperature
        if np.isinf(self.factor).any() and np.isfinite(scale).all():
            raise InvalidValueError(
                f"temperature must not be so small that the gradient / temperature overflows; "
                f"got {temperature}"
            )
        self.each = np.arange(len(logits))

    def aim(self, index: Indices, at_index: PerRow, others: PerRow) -> None:
        """Set the target of every row, as seen from its class t."""
        self.index, self.at_index, self.others = index, at_index, others
        self.mass = at_index + others
        self.weight = self.factor * self.mass
        self.logit = self.logits[self.each, index].astype(np.float64)
        self.peak = np.exp(self.logit / self.temperature)
        self.rest = np.empty(len(self.logits))
        self.shift = np.zeros(len(self.logits))

    def aim_densely(self, dense: NDArray[Any], active: PerRow) -> None:
        """Set what the target is at the other classes."""
        self.dense, self.active = dense, active
        self.maxima, self.gaps = np.empty(len(self.logits)), np.empty(len(self.logits))

    def dense_at(self, rows: Choice, columns: slice) -> NDArray[Any] | None:
        """The dense target at some rows and columns, still to be multiplied by `active`."""
        if self.dense is None:
            return None
        one_for_all = len(self.dense) == 1
        return np.ascontiguousarray(self.dense[ALL if one_for_all else rows, columns])


def per_row(values: Any) -> PerRow:
    """Values in float64: an array for an array, a number for a number."""
    if isinstance(values, float):
        return values
    array = np.asarray(values, np.float64)
    return array if array.ndim else float(array)


def some(values: PerRow, rows: Choice) -> PerRow:
    """The values of some rows."""
    return values if isinstance(values, float) else values[rows]


def safe_range(
    weight: PerRow, exponentials: np.dtype[Any], results: np.dtype[Any]
) -> tuple[PerRow, PerRow]:
    """Between which bounds of `total` unshifted exponentials lose nothing that a result could show.

    The gradient's terms are weight*e/total.  With total >= |weight| a denormal e makes a denormal
    term; total and weight/total must be normal numbers, too.  float64 has room on both sides around
    float32.
    Every row has bounds of its own, so that none depends on its neighbours.
    """
    if exponentials != results:
        return ROOMY
    tiny, ceiling = NORMAL[exponentials]
    if isinstance(weight, float):
        size = abs(weight)
        return max(0.5, size), min(ceiling, size / tiny) if size else ceiling
    sizes = np.abs(weight)
    ceilings = np.minimum(ceiling, sizes / tiny)
    ceilings[sizes == 0.0] = ceiling
    return np.maximum(0.5, sizes), ceilings


# --- the losses ------------------------------------------------------------------------------


def losses(rows: Rows) -> Doubles:
    """The losses, (rows,).

    With a dense target q_t (lse - a_t) + sum_{j != t} q_j ((lse - max) + (max - a_j)): no term is
    negative, so that none cancels.
    """
    right = _right_losses(rows)
    if rows.leading:  # a_t = max
        return times(rows.mass, right) + rows.gaps
    weighted = times(rows.at_index, right)
    if rows.dense is None:
        return weighted
    largest = np.exp((rows.maxima - rows.shift) / rows.temperature)
    apart = np.log(np.maximum((rows.rest + rows.peak) / largest, 1.0))
    apart = np.where(rows.logit == rows.maxima, right, apart)
    return weighted + times(rows.others, apart) + times(rows.active, rows.gaps)


def _right_losses(rows: Rows) -> Doubles:
    """lse(a/T) - a_t/T, (rows,): log1p(rest/peak), or by differences where the peak vanishes."""
    ratio = rows.rest / rows.peak
    right: Doubles = np.log1p(ratio)
    if not np.maximum.reduce(ratio, initial=0.0) < LARGEST_RATIO:
        apart = (rows.shift - rows.logit) / rows.temperature + np.log(rows.rest + rows.peak)
        right = np.where(ratio < LARGEST_RATIO, right, apart)
    return right


def times(weight: PerRow, values: Doubles) -> Doubles:
    """weight * values, where 0 * inf is 0: what has no weight costs nothing."""
    if isinstance(weight, float):
        return values if weight == 1.0 else values * weight
    return np.multiply(weight, values, out=np.zeros(len(values)), where=weight != 0.0)


def gaps(
    rows: Rows, a: Floats, maxima: Doubles, dense: NDArray[Any], mass: Doubles, apart: Any
) -> Doubles:
    """sum_{j != t} q_j (max(a) - a_j)/T of a block a, (r, n) -> (r,).

    `mass` is sum(q); `apart` is where t stands, None if it is not here or a_t is the maximum.
    mass*max - sum(q a) takes fewer passes, and will do where what is subtracted is at most half of
    the difference.
    """
    dots = row_dots(a, dense)
    sums = mass * maxima - dots
    subtracted = np.abs(dots)
    if apart is not None:
        at_index = np.broadcast_to(dense, a.shape)[apart] * (maxima - a[apart])
        sums -= at_index
        subtracted += at_index
    poor = np.flatnonzero(~(2.0 * subtracted <= sums))  # NaN, too
    if len(poor) == len(a):
        sums = _summed_gaps(a, maxima, dense, apart)
    elif len(poor):
        own = dense if len(dense) == 1 else dense[poor]
        if apart is not None:
            _, columns = apart
            apart = np.arange(len(poor)), columns[poor]
        sums[poor] = _summed_gaps(a[poor], maxima[poor], own, apart)
    return sums / rows.temperature


def _summed_gaps(a: Floats, maxima: Doubles, dense: NDArray[Any], apart: Any) -> Doubles:
    """The same sum term by term, none of which is negative, times T."""
    block = scratch.take("block", a.shape, a.dtype)
    np.subtract(maxima.astype(a.dtype)[:, None], a, out=block)
    if apart is not None:
        block[apart] = 0.0
    np.multiply(block, dense, out=block, casting="same_kind")
    sums = row_sums(block)
    if np.isnan(sums).any():  # 0 * inf, at masked classes without a target
        np.copyto(block, 0.0, where=np.equal(dense, 0.0))
        sums = row_sums(block)
    return sums


# --- the gradient ----------------------------------------------------------------------------


def write_scaled(
    rows: Rows, chosen: Choice, exps: Floats, dense: NDArray[Any] | None, out: Floats
) -> None:
    """out = scale/T * (mass*p - q) from the exponentials of some rows, right except at t."""
    total = rows.rest[chosen] + rows.peak[chosen]
    scaled_last = rows.leading and isinstance(rows.factor, float) and abs(rows.factor) <= 1.0
    if dense is not None and scaled_last:
        _scale(exps, some(rows.mass, chosen) / total, out)  # no buffer for q * scale/T
        np.subtract(out, dense, out=out, casting="same_kind")
        if rows.factor != 1.0:
            np.multiply(out, rows.factor, out=out)
        return
    _scale(exps, some(rows.weight, chosen) / total, out)
    if dense is None:
        return
    factor = np.multiply(some(rows.factor, chosen), some(rows.active, chosen))
    if factor.ndim:
        factor = factor[:, None]
    pull = scratch.take("block", out.shape if factor.ndim else dense.shape, out.dtype)
    np.multiply(dense, factor.astype(out.dtype), out=pull, casting="same_kind")
    np.subtract(out, pull, out=out)


def _scale(exps: Floats, rate: Doubles, out: Floats) -> None:
    """out = rate * exps, row by row."""
    if exps.dtype == np.float32:
        rate = rate * CENTRED
    np.multiply(exps, rate.astype(exps.dtype)[:, None], out=out, casting="same_kind")


def gradient_at_index(rows: Rows) -> Doubles:
    """The gradient at t, (rows,): scale/T * (others - mass*rest/total).

    Where q_t is the smaller part of the mass, mass*p_t - q_t cancels less and is taken.
    """
    rate = rows.weight / (rows.rest + rows.peak)
    pulled: Doubles = -rate * rows.rest
    if rows.dense is None:
        return pulled
    pulled += np.multiply(rows.factor, rows.others)
    direct = rate * rows.peak - np.multiply(rows.factor, rows.at_index)
    return np.where(np.less(rows.at_index, rows.others), direct, pulled)
