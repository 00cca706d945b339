"""Softmax and cross-entropy in one visit to the logits: the row losses and their gradient.

Plain arrays in, plain arrays out; nothing of the graph is known here.  For a row of logits a with
effective target q, s = sum(q) and temperature T:

    loss      sum_j q_j (lse(a/T) - a_j/T)
    gradient  scale/T * (s*p - q),   p = softmax(a/T)

What keeps the digits (after Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and
softmax functions", IMA Journal of Numerical Analysis, 2021):

- One class t of the row is set apart, the right one.  With R = sum_{k != t} exp(a_k) and
  S = R + exp(a_t), the loss is log1p(R / exp(a_t)) and the gradient at t is -R/S: nothing cancels
  however sure the prediction is.
- exp(a) is taken without a shift first.  The row's sum tells whether that was safe; where it was
  not, the row is done again, shifted by its maximum without the shift's rounding error.

Rows are taken in tiles that stay in the second-level cache.  Tiles and the order of every sum
depend on shapes alone: the results are the same bits for any number of threads.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidValueError
from . import pool
from .exponentials import Doubles, Floats, Scratch, exponentials, row_sums

Indices: TypeAlias = NDArray[np.intp]
Rows: TypeAlias = slice | Indices  # which rows of a call

TILE_BYTES = 1 << 18  # of logits: with as much of exponentials, a fraction of any L2 cache
WIDE_BYTES = 1 << 20  # a longer row is cut into segments of TILE_BYTES
ALL = slice(None)
TILE_BYTES = 1 << 21  # of logits: two such buffers stay in a last-level cache, calls stay few
TILES = 4  # at least so many, where a tile is then still worth a thread
SERIAL_ELEMENTS = 1 << 15  # fewer elements are not worth waking a thread for
WIDE_BYTES = 1 << 22  # a longer row is cut into segments
SEGMENT_BYTES = 1 << 19
NARROW_CLASSES = 64  # float32 rows this short are computed in float64, at next to no cost
LARGEST_RATIO = 1e280  # with R/exp(a_t) below it, exp(a_t) is a normal number
BUFFER_ELEMENTS = 512  # of a ufunc: a longer inner loop is not buffered to broadcast a column


class NonFiniteRow(InvalidValueError):
    """A row of logits holds NaN or +inf, so that no probability exists; `row` is its number."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} of the logits holds NaN or +inf")
        self.row = row


def softmax_cross_entropy(
    logits: Floats,
    *,
    index: Indices | None = None,
    coefficient: Floats | None = None,
    smooth: Floats | None = None,
    active: NDArray[np.bool_] | None = None,
    soft: NDArray[Any] | None = None,
    temperature: float = 1.0,
    scale: float | Floats = 1.0,
    want_grad: bool = True,
    out: Floats | None = None,
    threads: int | None = None,
) -> tuple[Floats, Floats | None]:
    """Return the losses (rows,) and the gradient (rows, classes), or None if it is not wanted.

    logits       (rows, classes), float32 or float64, any strides; rows may be 0, classes may not.
                 -inf masks a class: p = 0.
    index        (rows,) the right classes, each 0 <= t < classes (the caller has checked).
    coefficient  (rows,) weight of the row's right class; 0 for a row that is ignored; None: ones.
    smooth       (classes,) target added to every active row; None: zeros.
    active       (rows,) False where `smooth` is not added; None: all True.
    soft         (rows, classes) the dense target, instead of the four arguments above.
    temperature  T > 0.
    scale        scalar or (rows,): multiplies the gradient, not the losses.
    out          (rows, classes) of the logits' dtype: receives the gradient; may be `logits`.
    threads      how many threads may work; None: see `pool.default_threads`.

    Results have the logits' dtype.  A masked right class (-inf where q > 0) has loss +inf and a
    finite gradient.  Where every class of a row is masked p is 0: the loss is +inf (0 without a
    target), the gradient -scale/T * q.

    Raises NonFiniteRow when a row holds NaN or +inf; `out` is then undefined.
    """
    rows, classes = logits.shape
    gradient = None
    if want_grad:
        gradient = np.empty((rows, classes), logits.dtype) if out is None else out
    if threads is None:
        threads = pool.default_threads() if logits.size >= SERIAL_ELEMENTS else 1
    with np.errstate(all="ignore"):  # overflow and underflow are part of the plan
        if logits.size >= SERIAL_ELEMENTS:
            np.setbufsize(BUFFER_ELEMENTS)  # until errstate restores it
        call = _Call(logits, gradient, temperature, scale)
        if soft is not None:
            call.aim_at_dense(soft)
        elif index is not None:
            call.aim_at_classes(index, coefficient, smooth, active)
        else:
            raise InvalidValueError("give either class indices or a dense target")
        if classes * logits.itemsize > WIDE_BYTES:
            _run_wide(call, threads)
        else:
            _run_tiles(call, threads)
        if gradient is not None:
            gradient[call.each, call.index] = _gradient_at_index(call)
        return _losses(call).astype(logits.dtype, copy=False), gradient


class _Call:
    """What is known of every row, (rows,) float64 each; tiles fill it in, in any order.

    One class t of each row is set apart: the right one, or of a dense target its largest.
    """

    index: Indices  # t
    at_index: Doubles  # q_t
    total: Doubles  # s = sum(q)
    weight: Doubles  # what multiplies p in the gradient: s*scale/T
    logit: Doubles  # a_t/T
    peak: Doubles  # exp(a_t/T - shift)
    rest: Doubles  # the sum of the other exponentials
    shift: Doubles  # taken from a/T before exp
    dense: NDArray[Any] | None = None  # (rows, n) or (1, n): q_j for j != t; None: zeros
    active: Doubles | None = None  # (rows,) multiplies `dense`; None: ones
    maxima: Doubles  # max(a)/T, filled in where the target is dense
    gaps: Doubles  # sum_{j != t} q_j (max(a) - a_j)/T, likewise
    soft = False  # `dense` is the whole target, and t has to be found in it

    def __init__(
        self, logits: Floats, gradient: Floats | None, temperature: float, scale: float | Floats
    ) -> None:
        rows = len(logits)
        self.logits, self.gradient, self.temperature = logits, gradient, float(temperature)
        self.factor = np.full(rows, scale, np.float64) / self.temperature
        self.each = np.arange(rows)
        self.rest = np.empty(rows)
        self.shift = np.zeros(rows)
        self.scratch = Scratch()

    def aim_at_classes(
        self,
        index: Indices,
        coefficient: Floats | None,
        smooth: Floats | None,
        active: NDArray[np.bool_] | None,
    ) -> None:
        """Take classes as the target, with or without the same `smooth` for every row."""
        rows = len(self.logits)
        weight = np.ones(rows) if coefficient is None else coefficient.astype(np.float64)
        self.index, self.at_index, self.total = index, weight, weight
        if smooth is not None:
            self._make_room_for_dense(smooth[None, :])
            values = smooth.astype(np.float64)
            self.active = np.ones(rows) if active is None else active.astype(np.float64)
            self.at_index = weight + self.active * values[index]
            self.total = weight + self.active * values.sum()
        self.weight = self.factor * self.total
        self.logit = self.logits[self.each, index].astype(np.float64)
        if self.temperature != 1.0:
            self.logit /= self.temperature
        self.peak = np.exp(self.logit)

    def aim_at_dense(self, target: NDArray[Any]) -> None:
        """Take a distribution for each row as the target; `set_apart` will look into it."""
        rows = len(self.logits)
        self.soft = True
        self._make_room_for_dense(target)
        self.index = np.empty(rows, np.intp)
        self.at_index, self.total, self.weight = np.empty(rows), np.empty(rows), np.empty(rows)
        self.logit, self.peak = np.empty(rows), np.empty(rows)

    def _make_room_for_dense(self, target: NDArray[Any]) -> None:
        self.dense = target if target.dtype.kind == "f" else target.astype(self.logits.dtype)
        self.maxima, self.gaps = np.empty(len(self.logits)), np.empty(len(self.logits))

    def set_apart(self, rows: slice) -> None:
        """Set the largest q_t of a dense target apart: a one-hot row becomes that of an index."""
        assert self.dense is not None
        q, each = self.dense[rows], self.each[: rows.stop - rows.start]
        index = self.index[rows] = q.argmax(axis=1)
        self.at_index[rows] = q[each, index]
        self.total[rows] = row_sums(q)
        self.weight[rows] = self.factor[rows] * self.total[rows]
        self.logit[rows] = self.logits[rows][each, index] / self.temperature
        self.peak[rows] = np.exp(self.logit[rows])

    def dense_part(self, rows: Rows, columns: slice = ALL) -> NDArray[Any] | None:
        """The dense target of some rows, to be multiplied by `active`."""
        if self.dense is None:
            return None
        return self.dense[rows, columns] if self.soft else self.dense[:, columns]


# --- tiles: whole rows -----------------------------------------------------------------------


def _run_tiles(call: _Call, threads: int) -> None:
    rows, classes = call.logits.shape
    elements = min(TILE_BYTES // call.logits.itemsize, max(SERIAL_ELEMENTS, -(-rows * classes // TILES)))
    tile_rows = max(1, elements // classes)

    def task(number: int) -> None:
        first = number * tile_rows
        _tile(call, slice(first, min(first + tile_rows, rows)))

    pool.run(task, -(-rows // tile_rows), threads)


def _tile(call: _Call, rows: slice) -> None:
    """Do some rows without a shift, and again with one those that need it."""
    a = call.logits[rows]
    if call.soft:
        call.set_apart(rows)
    if call.dense is not None:
        _measure_gaps(call, rows, a)
    narrow = a.shape[1] <= NARROW_CLASSES
    work = call.scratch.take("work", a.shape, np.float64 if narrow else a.dtype)
    exponentials(a, None, call.temperature, work, call.scratch)
    work[call.each[: len(a)], call.index[rows]] = 0.0
    call.rest[rows] = row_sums(work)
    total = call.rest[rows] + call.peak[rows]
    safe = _is_safe(total, call.weight[rows], work.dtype, narrow=work.dtype != a.dtype)
    if safe.all():
        _write_gradient(call, rows, total, work)
        return
    unsafe = np.flatnonzero(~safe)
    again = a[unsafe]  # a copy, before the gradient overwrites logits that may be the same array
    if len(again) < len(a):
        _write_gradient(call, rows, total, work)
    _shifted_rows(call, rows.start + unsafe, again)


def _shifted_rows(call: _Call, rows: Indices, a: Floats) -> None:
    """Do rows whose exponentials need a shift; `a` holds their logits."""
    shift = _row_maxima(a, rows) / call.temperature
    work = call.scratch.take("work", a.shape, np.float64)
    exponentials(a, shift, call.temperature, work, call.scratch)
    each = call.each[: len(a)]
    peak = work[each, call.index[rows]]
    work[each, call.index[rows]] = 0.0
    rest = row_sums(work)
    rest[rest + peak == 0.0] = 1.0  # every class is masked: p = 0/1
    call.shift[rows], call.peak[rows], call.rest[rows] = shift, peak, rest
    _write_gradient(call, rows, rest + peak, work)


def _is_safe(
    total: Doubles, weight: Doubles, dtype: np.dtype[Any], *, narrow: bool
) -> NDArray[np.bool_]:
    """Which rows' unshifted exponentials, of sum `total`, lose nothing that a result could show.

    The gradient's terms are weight*e/S.  With S >= |weight| a denormal e makes a denormal term;
    S and weight/S must be normal numbers, too.  `narrow` says that results have less range than
    the exponentials: it leaves room on both sides.
    """
    limits = np.finfo(dtype)
    if narrow:
        return (total >= 1e-20) & (total <= limits.max / 4)
    rate = np.abs(weight / total)
    safe: NDArray[np.bool_] = (total >= 0.5) & (total <= limits.max / 4) & (rate <= 1.0)
    return safe & ((rate >= limits.tiny) | (weight == 0.0))


def _row_maxima(a: Floats, numbers: Indices) -> Doubles:
    """The rows' maxima, (r,), 0 where every class is masked; `numbers` name the rows in errors."""
    maxima: Doubles = np.maximum.reduce(a, axis=1).astype(np.float64)
    wrong = ~(maxima < np.inf)  # NaN too
    if wrong.any():
        raise NonFiniteRow(int(numbers[wrong.argmax()]))
    maxima[np.isneginf(maxima)] = 0.0
    return maxima


def _measure_gaps(call: _Call, rows: slice, a: Floats) -> None:
    """Fill in the maxima and the gaps of some rows."""
    maxima = np.maximum.reduce(a, axis=1).astype(np.float64)
    maxima[np.isneginf(maxima)] = 0.0  # every class is masked
    call.maxima[rows] = maxima / call.temperature
    index = call.each[: len(a)], call.index[rows]
    call.gaps[rows] = _gaps(call, a, maxima, call.dense_part(rows), index)


def _gaps(
    call: _Call, a: Floats, maxima: Doubles, dense: NDArray[Any] | None, index: Any
) -> Doubles:
    """sum_{j != t} q_j (max(a) - a_j)/T, (r,): every term is >= 0, so that none cancels."""
    assert dense is not None
    gaps = call.scratch.take("gaps", a.shape, a.dtype)
    np.subtract(maxima.astype(a.dtype)[:, None], a, out=gaps)
    if index is not None:
        gaps[index] = 0.0
    np.multiply(gaps, dense, out=gaps, casting="same_kind")
    sums = row_sums(gaps)
    if np.isnan(sums).any():  # 0 * inf, at masked classes without a target
        np.copyto(gaps, 0.0, where=np.equal(dense, 0))
        sums = row_sums(gaps)
    return sums / call.temperature


# --- from the sums to the results ------------------------------------------------------------


def _write_gradient(call: _Call, rows: Rows, total: Doubles, work: Floats) -> None:
    """Turn the exponentials in `work` into the gradient of some rows, but for the class t."""
    if call.gradient is None:
        return
    whole = isinstance(rows, slice)
    out = call.gradient[rows] if whole else np.empty(work.shape, call.gradient.dtype)
    _scale(call, rows, call.weight[rows] / total, work, call.dense_part(rows), out)
    if not whole:
        call.gradient[rows] = out


def _scale(
    call: _Call,
    rows: Rows,
    rate: Doubles,
    work: Floats,
    dense: NDArray[Any] | None,
    out: Floats,
) -> None:
    """out = rate*exp - factor*q."""
    np.multiply(work, rate.astype(work.dtype)[:, None], out=out, casting="same_kind")
    if dense is None:
        return
    factor = call.factor[rows] if call.active is None else call.factor[rows] * call.active[rows]
    pull = call.scratch.take("gaps", out.shape, out.dtype)
    np.multiply(dense, factor.astype(out.dtype)[:, None], out=pull, casting="same_kind")
    np.subtract(out, pull, out=out)


def _gradient_at_index(call: _Call) -> Doubles:
    """The gradient at t, (rows,), as minus the sum of the others: a row's gradient adds up to 0."""
    pulled = -call.weight * (call.rest / (call.rest + call.peak))
    if call.dense is not None:
        pulled += call.factor * (call.total - call.at_index)
    return pulled


def _losses(call: _Call) -> Doubles:
    """The losses (rows,).

    q_t (lse - a_t) + sum_{j != t} q_j ((lse - max) + (max - a_j)) has no negative term.
    """
    right = _right_losses(call)
    losses = _times(call.at_index, right)
    if call.dense is None:
        return losses
    apart = np.log(call.rest + call.peak) + (call.shift - call.maxima)
    apart = np.where(call.logit == call.maxima, right, np.maximum(apart, 0.0))
    gaps = call.gaps if call.active is None else _times(call.active, call.gaps)
    return losses + _times(call.total - call.at_index, apart) + gaps


def _right_losses(call: _Call) -> Doubles:
    """lse(a/T) - a_t/T, (rows,): log1p(R/exp(a_t)), or by differences where exp(a_t) vanishes."""
    ratio = call.rest / call.peak
    losses: Doubles = np.log1p(ratio)
    small = ratio < LARGEST_RATIO
    if not small.all():
        apart = (call.shift - call.logit) + np.log(call.rest + call.peak)
        losses = np.where(small, losses, apart)
    return losses


def _times(weight: Doubles, losses: Doubles) -> Doubles:
    """weight * losses, where 0 * inf is 0: what has no weight costs nothing."""
    return np.multiply(weight, losses, out=np.zeros(len(losses)), where=weight != 0.0)


# --- wide rows: each in segments -------------------------------------------------------------


def _run_wide(call: _Call, threads: int) -> None:
    """Rows side by side if there are enough for all threads, else the segments of each row."""
    rows = len(call.logits)
    if rows >= threads:
        pool.run(lambda row: _wide_row(call, row, 1), rows, threads)
    else:
        for row in range(rows):
            _wide_row(call, row, threads)


def _wide_row(call: _Call, row: int, threads: int) -> None:
    """Three rounds over a row's segments: maximum, exponentials and their sum, gradient."""
    rows = slice(row, row + 1)
    a = call.logits[rows]
    gradient = None if call.gradient is None else call.gradient[rows]
    if call.soft:
        call.set_apart(rows)
    width = SEGMENT_BYTES // a.itemsize
    parts = [slice(at, at + width) for at in range(0, a.shape[1], width)]
    peaks = np.empty((1, len(parts)))

    def find_maximum(number: int) -> None:
        peaks[0, number] = np.maximum.reduce(a[0, parts[number]])

    pool.run(find_maximum, len(parts), threads)
    maximum = _row_maxima(peaks, np.array([row]))
    shift, dtype = _wide_shift(call, rows, maximum / call.temperature)
    rests, gaps = np.empty((1, len(parts))), np.empty((1, len(parts)))
    right = int(call.index[row])

    def exponentiate(number: int) -> None:
        part = parts[number]
        segment = a[:, part]
        inside = (0, right - part.start) if part.start <= right < part.stop else None
        if call.dense is not None:
            dense = call.dense_part(rows, part)
            gaps[0, number] = _gaps(call, segment, maximum, dense, inside)[0]
        work = call.scratch.take("work", segment.shape, dtype)
        exponentials(segment, shift, call.temperature, work, call.scratch)
        if inside is not None:
            work[inside] = 0.0
        rests[0, number] = row_sums(work)[0]
        if gradient is not None:
            gradient[:, part] = work

    pool.run(exponentiate, len(parts), threads)
    call.rest[rows] = row_sums(rests)
    if call.dense is not None:
        call.maxima[rows], call.gaps[rows] = maximum / call.temperature, row_sums(gaps)
    if shift is not None:
        call.shift[rows], call.peak[rows] = shift, np.exp(call.logit[rows] - shift)
        if call.rest[row] + call.peak[row] == 0.0:
            call.rest[row] = 1.0  # every class is masked: p = 0/1
    if gradient is None:
        return
    rate = call.weight[rows] / (call.rest[rows] + call.peak[rows])

    def scale(number: int) -> None:
        segment = gradient[:, parts[number]]
        _scale(call, rows, rate, segment, call.dense_part(rows, parts[number]), segment)

    pool.run(scale, len(parts), threads)


def _wide_shift(call: _Call, rows: slice, maximum: Doubles) -> tuple[Doubles | None, Any]:
    """The shift that a wide row needs, and the dtype of its exponentials.

    Their sum lies between exp(max) and n*exp(max): where both ends are safe, so is the row.
    """
    dtype = call.logits.dtype
    ends = np.exp(maximum) * np.array([1.0, call.logits.shape[1]])
    if _is_safe(ends, call.weight[rows], dtype, narrow=False).all():
        return None, dtype
    return maximum, np.dtype(np.float64)
