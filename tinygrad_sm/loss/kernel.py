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

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidValueError
from . import pool
from .exponentials import Doubles, Floats, Scratch, exponentials, row_sums

Indices: TypeAlias = NDArray[np.intp]
PerRow: TypeAlias = Doubles | float  # (r,), or one number for all rows

TILE_BYTES = 1 << 18  # of logits: with as much of exponentials, a fraction of any L2 cache
WIDE_BYTES = 1 << 20  # a longer row is cut into segments of TILE_BYTES
SERIAL_ELEMENTS = 1 << 15  # below, waking a thread costs more than it saves
NARROW_CLASSES = 64  # float32 rows this short are computed in float64: it costs next to nothing
SAFE_QUOTIENT = 1e-280  # where exp(a_t)/S is above, exp(a_t) is normal and R/exp(a_t) finite


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
    losses = np.empty(rows, logits.dtype)
    job = _Job(logits, losses, gradient, temperature, scale)
    job.set_target(index, coefficient, smooth, active, soft)
    if threads is None:
        threads = pool.default_threads() if logits.size >= SERIAL_ELEMENTS else 1
    with np.errstate(all="ignore"):  # overflow and underflow are part of the plan
        if classes * logits.itemsize > WIDE_BYTES:
            _run_wide(job, threads)
        else:
            _run_tiles(job, threads)
    return losses, gradient


# --- what a call is about, and one block of it -----------------------------------------------


@dataclass(slots=True)
class _Target:
    """The effective target q of r rows, one class of each set apart."""

    index: Indices  # (r,) the class t
    at_index: PerRow  # q_t
    total: PerRow  # s = sum(q)
    dense: NDArray[Any] | None  # (r, n) or (1, n): q_j for j != t; None for zeros
    active: PerRow  # multiplies `dense`


@dataclass(slots=True)
class _Block:
    """Some rows of a call, with views of where their results go."""

    logits: Floats
    target: _Target
    factor: PerRow  # scale/T
    losses: Floats
    gradient: Floats | None

    @property
    def weight(self) -> PerRow:
        """What multiplies p in the gradient, s*scale/T."""
        return self.factor * self.target.total


class _Job:
    """One call of the kernel."""

    def __init__(
        self,
        logits: Floats,
        losses: Floats,
        gradient: Floats | None,
        temperature: float,
        scale: float | Floats,
    ) -> None:
        self.logits, self.losses, self.gradient = logits, losses, gradient
        self.temperature = float(temperature)
        self.factor = _per_row(scale) / self.temperature
        self.scratch = Scratch()

    def set_target(
        self,
        index: Indices | None,
        coefficient: Floats | None,
        smooth: Floats | None,
        active: NDArray[np.bool_] | None,
        soft: NDArray[Any] | None,
    ) -> None:
        if (index is None) == (soft is None):
            raise InvalidValueError("give either class indices or a dense target")
        self.index, self.soft = index, soft
        self.coefficient = 1.0 if coefficient is None else _per_row(coefficient)
        self.active = 1.0 if active is None else _per_row(active)
        self.smooth = None if smooth is None else smooth[None, :].astype(np.float64)

    def block(self, rows: slice) -> _Block:
        gradient = None if self.gradient is None else self.gradient[rows]
        return _Block(
            self.logits[rows],
            self._target(rows),
            _part(self.factor, rows),
            self.losses[rows],
            gradient,
        )

    def _target(self, rows: slice) -> _Target:
        if self.soft is not None:
            return _dense_target(self.soft[rows], self.scratch)
        assert self.index is not None
        index = self.index[rows]
        weight = _part(self.coefficient, rows)
        if self.smooth is None:
            return _Target(index, weight, weight, None, 1.0)
        active = _part(self.active, rows)
        at_index = weight + active * self.smooth[0, index]
        total = weight + active * float(self.smooth.sum())
        return _Target(index, at_index, total, self.smooth, active)


def _dense_target(q: NDArray[Any], scratch: Scratch) -> _Target:
    """Set the largest q_t apart; a one-hot row is then treated as its index would be."""
    index = q.argmax(axis=1)
    at_index = q[np.arange(len(q)), index].astype(np.float64)
    return _Target(index, at_index, row_sums(q, scratch), q, 1.0)


def _per_row(values: Any) -> PerRow:
    array = np.asarray(values, np.float64)
    return array if array.ndim else float(array)


def _part(values: PerRow, rows: slice | Indices) -> PerRow:
    return values if isinstance(values, float) else values[rows]


def _chosen(block: _Block, rows: Indices) -> _Block:
    """A copy of some of the block's rows; its results are the caller's to put back."""
    target = block.target
    dense = target.dense
    if dense is not None and len(dense) == len(block.logits):
        dense = dense[rows]
    logits = block.logits[rows]
    return _Block(
        logits,
        _Target(
            target.index[rows],
            _part(target.at_index, rows),
            _part(target.total, rows),
            dense,
            _part(target.active, rows),
        ),
        _part(block.factor, rows),
        block.losses[rows],
        None if block.gradient is None else np.empty_like(logits),
    )


# --- tiles: blocks of whole rows -------------------------------------------------------------


def _run_tiles(job: _Job, threads: int) -> None:
    rows, classes = job.logits.shape
    tile_rows = max(1, TILE_BYTES // (classes * job.logits.itemsize))

    def task(number: int) -> None:
        first = number * tile_rows
        _tile(job, slice(first, min(first + tile_rows, rows)))

    pool.run(task, -(-rows // tile_rows), threads)


def _tile(job: _Job, rows: slice) -> None:
    """Do a block without a shift, and again with one those of its rows that need it."""
    block = job.block(rows)
    narrow = block.logits.shape[1] <= NARROW_CLASSES
    work = job.scratch.take(
        "work", block.logits.shape, np.float64 if narrow else block.logits.dtype
    )
    sums = _sums(job, block, None, work)
    unsafe = np.flatnonzero(~_is_safe(sums.total, block, work.dtype))
    if not unsafe.size:
        _finish(job, block, sums, work)
        return
    again = _chosen(block, unsafe)  # before the gradient overwrites logits that it may share
    if unsafe.size < len(block.logits):
        _finish(job, block, sums, work)
    maxima = _row_maxima(again.logits, rows.start + unsafe)
    work = job.scratch.take("work", again.logits.shape, np.float64)
    _finish(job, again, _sums(job, again, maxima / job.temperature, work), work)
    block.losses[unsafe] = again.losses
    if block.gradient is not None:
        block.gradient[unsafe] = again.gradient


def _row_maxima(a: Floats, numbers: Indices) -> Doubles:
    """The rows' maxima, (r,), 0 where every class is masked; `numbers` name the rows in errors."""
    maxima: Doubles = np.maximum.reduce(a, axis=1).astype(np.float64)
    wrong = ~(maxima < np.inf)  # NaN too
    if wrong.any():
        raise NonFiniteRow(int(numbers[wrong.argmax()]))
    maxima[np.isneginf(maxima)] = 0.0
    return maxima


# --- exponentials and their sums -------------------------------------------------------------


@dataclass(slots=True)
class _Sums:
    """What the exponentials of r rows add up to, exp(shift) taken out."""

    at_index: Doubles  # (r,) exp(a_t)
    rest: Doubles  # (r,) the sum of the others
    total: Doubles  # (r,) both
    shift: PerRow
    logit: Doubles  # (r,) a_t/T


def _sums(job: _Job, block: _Block, shift: Doubles | None, work: Floats) -> _Sums:
    """Fill `work` with exponentials, 0 at the class t, and add them up."""
    exponentials(block.logits, shift, job.temperature, work, job.scratch)
    each = np.arange(len(work))
    index = block.target.index
    at_index = work[each, index].astype(np.float64)
    work[each, index] = 0.0
    rest = row_sums(work, job.scratch)
    logit = block.logits[each, index].astype(np.float64) / job.temperature
    return _complete(at_index, rest, shift, logit)


def _complete(at_index: Doubles, rest: Doubles, shift: Doubles | None, logit: Doubles) -> _Sums:
    if shift is None:
        return _Sums(at_index, rest, rest + at_index, 0.0, logit)
    rest = np.where(rest + at_index == 0.0, 1.0, rest)  # every class masked: p = 0/1
    return _Sums(at_index, rest, rest + at_index, shift, logit)


def _is_safe(total: Doubles, block: _Block, work: np.dtype[Any]) -> NDArray[np.bool_]:
    """Rows whose unshifted exponentials, of sum `total`, lose nothing that a result could show.

    The gradient's terms are weight*e/S.  With S >= |weight| a denormal e makes a denormal term;
    S and weight/S must be normal numbers themselves, or the terms all be denormal.
    """
    limits = np.finfo(work)
    weight = np.abs(block.weight)
    floor = np.maximum(weight, 0.5)
    if work != block.logits.dtype:
        floor = np.minimum(floor, 1e-20)  # float64 has that much room around float32's range
    ceiling = np.where(weight == 0.0, limits.max, weight / limits.tiny)
    safe: NDArray[np.bool_] = (total >= floor) & (total <= np.minimum(ceiling, limits.max / 4))
    return safe


# --- from the sums to the results ------------------------------------------------------------


def _finish(job: _Job, block: _Block, sums: _Sums, work: Floats) -> None:
    """Write the block's losses and, from the exponentials in `work`, its gradient."""
    target = block.target
    right = _right_losses(sums)
    if target.dense is None:
        block.losses[...] = _times(target.at_index, right)
    else:
        maxima = np.maximum.reduce(block.logits, axis=1).astype(np.float64) / job.temperature
        gaps = _weighted_gaps(job, block.logits, target, maxima, target.index)
        block.losses[...] = _dense_losses(target, sums, right, maxima, gaps)
    if block.gradient is not None:
        rate = block.weight / sums.total
        _scale(job, block, rate, work, block.gradient)
        each = np.arange(len(work))
        block.gradient[each, target.index] = _at_index(block, rate, sums)


def _right_losses(sums: _Sums) -> Doubles:
    """lse(a/T) - a_t/T, (r,): log1p(R/exp(a_t)), or by differences where exp(a_t) vanishes."""
    losses: Doubles = np.log1p(sums.rest / sums.at_index)
    vanished = ~(sums.at_index > SAFE_QUOTIENT * sums.total)
    if vanished.any():
        apart = (sums.shift - sums.logit) + np.log(sums.total)
        losses = np.where(vanished, apart, losses)
    return losses


def _times(weight: PerRow, losses: Doubles) -> Doubles:
    """weight * losses, where 0 * inf is 0: what has no weight costs nothing."""
    if isinstance(weight, float) and weight:
        return losses if weight == 1.0 else weight * losses
    return np.where(np.equal(weight, 0.0), 0.0, weight * losses)


def _weighted_gaps(
    job: _Job, a: Floats, target: _Target, maxima: Doubles, index: Indices | None
) -> Doubles:
    """sum_{j != t} q_j (max - a_j/T), (r,), q the dense part of the target: terms >= 0 only."""
    assert target.dense is not None
    gaps = job.scratch.take("gaps", a.shape, np.float64)
    np.divide(a, job.temperature, out=gaps, dtype=np.float64)
    np.subtract(maxima[:, None], gaps, out=gaps)
    if index is not None:
        gaps[np.arange(len(gaps)), index] = 0.0
    weighted = row_sums(np.multiply(gaps, target.dense, out=gaps), job.scratch)
    if np.isnan(weighted).any():  # 0 * inf, at masked classes without a target
        np.copyto(gaps, 0.0, where=np.equal(target.dense, 0))
        weighted = row_sums(gaps, job.scratch)
    return _times(target.active, weighted)


def _dense_losses(
    target: _Target, sums: _Sums, right: Doubles, maxima: Doubles, gaps: Doubles
) -> Doubles:
    """q_t (lse - a_t) + sum_{j != t} q_j ((lse - max) + (max - a_j)): terms >= 0 only."""
    others = np.subtract(target.total, target.at_index)
    apart = np.maximum(np.log(sums.total) + (sums.shift - maxima), 0.0)
    log_sum = np.where(sums.logit == maxima, right, apart)
    losses: Doubles = _times(target.at_index, right) + _times(others, log_sum) + gaps
    return losses


def _scale(job: _Job, block: _Block, rate: Doubles, exps: Floats, out: Floats) -> None:
    """out = rate*exps - factor*q, the gradient but for the class t."""
    np.multiply(exps, rate.astype(exps.dtype)[:, None], out=out, casting="same_kind")
    dense = block.target.dense
    if dense is None:
        return
    factor = np.multiply(block.factor, block.target.active)
    if factor.ndim:
        factor = factor[:, None]
    pull = job.scratch.take("gaps", out.shape, out.dtype)
    np.multiply(dense, factor.astype(out.dtype), out=pull, casting="same_kind")
    np.subtract(out, pull, out=out)


def _at_index(block: _Block, rate: Doubles, sums: _Sums) -> Doubles:
    """The gradient at t, as minus the sum of the others, (r,): a row's gradient adds up to 0."""
    target = block.target
    pull = -rate * sums.rest
    if target.dense is not None:
        pull += block.factor * np.subtract(target.total, target.at_index)
    return pull


# --- wide rows: one row in segments ----------------------------------------------------------


def _run_wide(job: _Job, threads: int) -> None:
    """Rows side by side if there are enough for all threads, else the segments of each row."""
    rows = len(job.logits)
    if rows >= threads:
        pool.run(lambda row: _wide_row(job, row, 1), rows, threads)
    else:
        for row in range(rows):
            _wide_row(job, row, threads)


def _wide_row(job: _Job, row: int, threads: int) -> None:
    """Three rounds over a row's segments: maximum; exponentials and sums; gradient."""
    block = job.block(slice(row, row + 1))
    a, target, gradient = block.logits, block.target, block.gradient
    width = TILE_BYTES // a.itemsize
    segments = [slice(at, at + width) for at in range(0, a.shape[1], width)]
    t = int(target.index[0])
    logit = a[:, t].astype(np.float64) / job.temperature
    maxima, rests, gaps = (np.zeros(len(segments)) for _ in range(3))

    def find_maximum(number: int) -> None:
        maxima[number] = np.maximum.reduce(a[0, segments[number]])

    pool.run(find_maximum, len(segments), threads)
    maximum = _row_maxima(maxima[None, :], np.array([row])) / job.temperature
    shift, dtype = _wide_shift(block, maximum)

    def exponentiate(number: int) -> None:
        part = segments[number]
        segment = a[:, part]
        inside = part.start <= t < part.stop
        if target.dense is not None:
            index = target.index - part.start if inside else None
            gap = _weighted_gaps(job, segment, _columns(target, part), maximum, index)
            gaps[number] = gap[0]
        work = job.scratch.take("work", segment.shape, dtype)
        exponentials(segment, shift, job.temperature, work, job.scratch)
        if inside:
            work[0, t - part.start] = 0.0
        rests[number] = row_sums(work, job.scratch)[0]
        if gradient is not None:
            gradient[:, part] = work

    pool.run(exponentiate, len(segments), threads)
    at_index = np.exp(logit - (0.0 if shift is None else shift))
    sums = _complete(at_index, row_sums(rests[None, :], job.scratch), shift, logit)
    right = _right_losses(sums)
    if target.dense is None:
        block.losses[...] = _times(target.at_index, right)
    else:
        gap = row_sums(gaps[None, :], job.scratch)
        block.losses[...] = _dense_losses(target, sums, right, maximum, gap)
    if gradient is None:
        return
    rate = block.weight / sums.total

    def scale(number: int) -> None:
        part = segments[number]
        segment = replace(block, target=_columns(target, part))
        _scale(job, segment, rate, gradient[:, part], gradient[:, part])

    pool.run(scale, len(segments), threads)
    gradient[:, t] = _at_index(block, rate, sums)


def _columns(target: _Target, part: slice) -> _Target:
    return target if target.dense is None else replace(target, dense=target.dense[:, part])


def _wide_shift(block: _Block, maximum: Doubles) -> tuple[Doubles | None, Any]:
    """The shift that a wide row needs, and the dtype of its exponentials.

    The sum S lies between exp(max) and n*exp(max): where both ends are safe no shift is needed.
    """
    dtype = block.logits.dtype
    lowest = np.exp(maximum)
    highest = lowest * block.logits.shape[1]
    if (_is_safe(lowest, block, dtype) & _is_safe(highest, block, dtype))[0]:
        return None, dtype
    return maximum, np.dtype(np.float64)
