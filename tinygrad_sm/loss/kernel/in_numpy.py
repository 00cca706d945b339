"""Softmax and cross-entropy in one visit to the logits: the row losses and their gradient.

Plain arrays in, plain arrays out; nothing of the graph is known here.  For a row of logits a with
effective target q and temperature T:

    loss      sum_j q_j (lse(a/T) - a_j/T)
    gradient  scale/T * (Σq*p - q),   p = softmax(a/T)

What keeps the digits (after Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and
softmax functions", IMA Journal of Numerical Analysis, 2021):

- One class t of the row is set apart, the right one.  With peak = exp(a_t),
  rest = sum_{k != t} exp(a_k) and total = rest + peak, the loss is log1p(rest/peak) and the
  gradient at t is -rest/total: nothing cancels however sure the prediction is.
- exp(a) is taken without a shift first.  The row's sum tells whether that was safe; where it was
  not, the row is done again, shifted by its maximum without the shift's rounding error.

Rows are taken in tiles, few enough that NumPy's calls cost little and small enough for the cache; a
tile's exponentials stand where its gradient will, if they can.  How a row is computed depends on
the row itself, on shape and dtype, and of a few short rows on the others; never on its tile: the
results are the same bits for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_sm.engine.threads import pool
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.kernel.few import SHORT, few_rows
from tinygrad_sm.loss.kernel.loops import (
    CHUNK,
    Doubles,
    Floats,
    careful_row_sums,
    exponentials,
    is_power_of_two,
    row_sums,
    sums_of_others,
)
from tinygrad_sm.loss.kernel.rows import (
    ALL,
    NORMAL,
    Choice,
    Indices,
    PerRow,
    Rows,
    gaps,
    gradient_at_index,
    losses,
    per_row,
    safe_range,
    scratch,
    some,
    write_scaled,
)

DOUBLE = np.dtype(np.float64)
TILE_BYTES = 1 << 22  # of logits: a few such blocks fit the last-level cache, and calls stay few
BUFFERED_BYTES = 1 << 19  # the same where a tile's exponentials need a buffer of their own
SERIAL_ELEMENTS = 1 << 15  # fewer are not worth waking a thread
WIDE_BYTES = 1 << 22  # a longer row is cut into segments
SEGMENT_BYTES = 1 << 19
NARROW_CLASSES = CHUNK  # float32 rows this short are computed in float64, at little cost
BUFFER_ELEMENTS = 512  # of a ufunc: longer inner loops broadcast a column without copying it


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
) -> tuple[Doubles, Floats | None]:
    """Return the losses (rows,) in float64 and the gradient (rows, classes), None if not wanted.

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

    The gradient has the logits' dtype.  A masked right class (-inf where q > 0) has loss +inf and a
    finite gradient.  Where every class of a row is masked p is 0: the loss is +inf (0 without a
    target), the gradient -scale/T * q.

    Raises NonFiniteRow when a row holds NaN or +inf; `out` is then undefined.
    """
    classes = logits.shape[1]
    gradient = None
    if want_grad:
        gradient = np.empty(logits.shape, logits.dtype) if out is None else out
    if not logits.size:
        return np.zeros(len(logits)), gradient
    few = logits.size < SERIAL_ELEMENTS
    if few:  # NumPy's loops give other last bits where an array does not lie in order
        logits = np.ascontiguousarray(logits)
        soft = None if soft is None else np.ascontiguousarray(soft)
    with np.errstate(all="ignore"):  # overflow and underflow are part of the plan
        if few and classes <= SHORT and temperature == 1.0 and smooth is None:
            found = few_rows(logits, index, coefficient, soft, scale, gradient)
            if found is not None:
                return found, gradient
        if threads is None:
            threads = 1 if few else pool.default_threads()
        if not few:
            np.setbufsize(BUFFER_ELEMENTS)  # until errstate puts it back
        job = Rows(logits, gradient, temperature, scale)
        job.in_place = _holds_exponentials(job, given=out is not None)
        if soft is not None:
            _aim_at_dense(job, soft, threads)
        elif index is not None:
            _aim_at_classes(job, index, coefficient, smooth, active)
        else:
            raise InvalidValueError("give either class indices or a dense target")
        if classes * logits.itemsize > WIDE_BYTES:
            _run_wide(job, threads)
        else:
            _run_tiles(job, threads)
        if gradient is not None:
            gradient[job.each, job.index] = gradient_at_index(job)
        return losses(job), gradient


# --- targets ---------------------------------------------------------------------------------


def _aim_at_classes(
    job: Rows,
    index: Indices,
    coefficient: Floats | None,
    smooth: Floats | None,
    active: NDArray[np.bool_] | None,
) -> None:
    """Take classes as the target, with or without the same `smooth` for every row."""
    at_index: PerRow = 1.0 if coefficient is None else per_row(coefficient)
    if smooth is None:
        job.aim(index, at_index, 0.0)
        return
    values = smooth.astype(np.float64)
    others, largest = values.sum() - values, int(values.argmax())
    others[largest] = np.delete(values, largest).sum()  # the one that the difference may spoil
    counts: PerRow = 1.0 if active is None else per_row(active)
    job.aim(index, at_index + counts * values[index], counts * others[index])
    job.aim_densely(smooth[None, :].astype(job.logits.dtype), counts)


def _aim_at_dense(job: Rows, soft: NDArray[Any], threads: int) -> None:
    """Take a distribution a row as the target; where all are one-hot, their classes."""
    dense = soft if soft.dtype in NORMAL else soft.astype(job.logits.dtype)
    index, at_index = np.zeros(len(dense), np.intp), np.zeros(len(dense))
    if _find_only_classes(job, dense, index, at_index, threads):
        weight: PerRow = 1.0 if np.all(at_index == 1.0) else at_index
        job.aim(index, weight, 0.0)
        return
    job.aim(index, at_index, np.zeros(len(dense)))
    job.aim_densely(dense, 1.0)
    job.weight, job.leading = np.empty(len(dense)), True


def _lead(job: Rows, rows: slice) -> None:
    """Aim some rows of a dense target at their largest logits, when their tile is in the cache."""
    a, q = job.logits[rows], job.dense_at(rows, ALL)
    assert q is not None
    largest = a.argmax(axis=1)
    apart = job.each[: len(a)], largest
    others, mass = sums_of_others(q, largest)
    for known, found in (
        (job.index, largest),
        (job.at_index, q[apart]),
        (job.others, others),
        (job.mass, mass),
        (job.weight, some(job.factor, rows) * mass),
    ):
        known[rows] = found  # type: ignore[index]  # arrays, if the target is dense
    job.logit[rows] = a[apart]
    job.peak[rows] = np.exp(job.logit[rows] / job.temperature)


def _find_only_classes(
    job: Rows, dense: NDArray[Any], index: Indices, values: Doubles, threads: int
) -> bool:
    """Whether no row of a target has two classes; fill in each row's only one and its value.

    `index` and `values` are zeros so far, which is right for a row without a class.
    """
    several = bool(np.count_nonzero(dense[0]) > 1)  # spares most other targets the search

    def task(rows: slice) -> None:
        nonlocal several
        if several:
            return
        for start in range(0, dense.shape[1], SEGMENT_BYTES):
            q = dense[rows, start : start + SEGMENT_BYTES]
            present: NDArray[Any] = scratch.take("present", q.shape, np.bool_)
            np.not_equal(q, 0.0, out=present)
            first = present.argmax(axis=1)
            found = np.flatnonzero(present[job.each[: len(q)], first])
            if np.count_nonzero(present) > len(found) or values[rows][found].any():
                several = True
                return
            index[rows][found] = start + first[found]
            values[rows][found] = q[found, first[found]]

    _over_tiles(task, dense, threads, BUFFERED_BYTES * dense.itemsize)
    return not several


# --- tiles: whole rows -----------------------------------------------------------------------


def _over_tiles(task: Callable[[slice], None], block: Floats, threads: int, limit: int) -> None:
    """Call task with every tile of rows: one row, or at most `limit` bytes of the block."""
    rows = len(block)
    most = max(1, limit // (block.shape[1] * block.itemsize))  # rows
    height = -(-rows // max(threads, -(-rows // most)))

    def numbered(number: int) -> None:
        task(slice(number * height, min((number + 1) * height, rows)))

    pool.run(numbered, -(-rows // height), threads)


def _run_tiles(job: Rows, threads: int) -> None:
    a = job.logits
    dtype = _unshifted_dtype(a, job.temperature)
    buffered = not job.in_place or not is_power_of_two(job.temperature)
    limit = BUFFERED_BYTES if buffered else TILE_BYTES
    _over_tiles(lambda rows: _tile(job, rows, dtype), a, threads, limit)


def _unshifted_dtype(a: Floats, temperature: float) -> np.dtype[Any]:
    """In what exponentials are computed: float32 only where that pays and a/T is exact."""
    exact = is_power_of_two(temperature)
    return a.dtype if exact and a.shape[1] > NARROW_CLASSES else DOUBLE


def _holds_exponentials(job: Rows, given: bool) -> bool:
    """Whether the gradient's memory can hold the exponentials until they are scaled."""
    gradient = job.gradient
    if gradient is None or _unshifted_dtype(job.logits, job.temperature) != gradient.dtype:
        return False
    # logits are needed once more where a row's exponentials turn out to be unsafe
    return not given or (
        gradient.flags.c_contiguous and not np.may_share_memory(gradient, job.logits)
    )


def _tile(job: Rows, rows: slice, dtype: np.dtype[Any]) -> None:
    """Do some rows without a shift, and again with one those whose sums are not safe."""
    a = np.ascontiguousarray(job.logits[rows])
    if job.leading:
        _lead(job, rows)
    if job.dense is not None:
        _measure_gaps(job, rows)
    if _is_hopeless(a, dtype, job.temperature):
        _shift_all(job, job.each[rows], a)
        return
    work: Floats
    if job.in_place and job.gradient is not None:
        work = job.gradient[rows]
    else:
        work = scratch.take("work", a.shape, dtype)
    exponentials(a, None, job.temperature, work, scratch)
    apart = job.each[: len(a)], job.index[rows]
    if dtype == np.float64:
        job.peak[rows] = work[apart]
    work[apart] = 0.0
    rest = job.rest[rows] = _rest(job, a, work, job.index[rows])
    total = rest + job.peak[rows]
    floor, ceiling = safe_range(some(job.weight, rows), dtype, a.dtype)
    unsafe = np.flatnonzero(~((total >= floor) & (total <= ceiling)))  # NaN, too
    if not unsafe.size:
        _write_gradient(job, rows, work)
        return
    again = a[unsafe]  # a copy, before the gradient overwrites logits that may be the same array
    if len(again) < len(a):
        _write_gradient(job, rows, work)
    _shift_all(job, rows.start + unsafe, again)


def _is_hopeless(a: Floats, dtype: np.dtype[Any], temperature: float) -> bool:
    """Whether exp(a/T) overflows in every row, so that trying would be time lost.

    The first row tells, at next to no cost, whether the question is worth asking.
    """
    limit = (math.log(np.finfo(dtype).max) + 1.0) * temperature
    if not np.maximum.reduce(a[0]) > limit:
        return False
    return bool((np.maximum.reduce(a, axis=1) > limit).all())


def _shift_all(job: Rows, rows: Indices, a: Floats) -> None:
    """Do rows with a shift, some at a time, since that takes several buffers; `a`: their logits."""
    height = max(1, SEGMENT_BYTES // (DOUBLE.itemsize * a.shape[1]))
    for first in range(0, len(a), height):
        part = slice(first, first + height)
        _shifted_rows(job, rows[part], a[part])


def _shifted_rows(job: Rows, rows: Indices, a: Floats) -> None:
    """Do rows whose exponentials need a shift; `a` holds their logits."""
    shift = _shift_of(job, rows, _row_maxima(a, rows))
    work = scratch.take("work", a.shape, np.float64)
    exponentials(a, shift, job.temperature, work, scratch)
    apart = job.each[: len(a)], job.index[rows]
    peak = work[apart]
    work[apart] = 0.0
    rest = _rest(job, a, work, job.index[rows])
    rest[rest + peak == 0.0] = 1.0  # every class is masked: p = 0/1
    job.shift[rows], job.peak[rows], job.rest[rows] = shift, peak, rest
    _write_gradient(job, rows, work)


def _rest(job: Rows, a: Floats, exps: Floats, right: Indices) -> Doubles:
    """`rest` of every row of a block: the sums of `exps`, in which the class `right` is 0.

    float32's exp would show in a sum that one class dominates: such classes are done in float64.
    """
    if exps.dtype != a.dtype:
        return row_sums(exps)
    if exps.dtype == np.float64:
        return careful_row_sums(exps)

    def in_double(rows: Indices, columns: Indices) -> Doubles:
        terms = np.exp(a[rows, columns].astype(np.float64) / job.temperature)
        terms[columns == right[rows]] = 0.0
        return terms

    return careful_row_sums(exps, in_double)


def _row_maxima(a: Floats, numbers: Indices) -> Doubles:
    """The rows' maxima, (r,), 0 where every class is masked; `numbers` name the rows in errors."""
    maxima: Doubles = np.maximum.reduce(a, axis=1).astype(np.float64)
    wrong = ~(maxima < np.inf)  # NaN too
    if wrong.any():
        raise NonFiniteRow(int(numbers[wrong.argmax()]))
    maxima[np.isneginf(maxima)] = 0.0
    return maxima


def _shift_of(job: Rows, rows: Choice, maxima: Doubles) -> Doubles:
    """A shift near the maxima, so that total >= |weight| if that can be: see `safe_range`."""
    if np.isinf(maxima / job.temperature).any():
        raise InvalidValueError(
            f"temperature must not be so small that logits / temperature overflows; "
            f"got {job.temperature}"
        )
    room = np.log(np.clip(np.abs(some(job.weight, rows)), 1.0, 1e290))
    shift: Doubles = maxima - room * job.temperature
    return shift


def _measure_gaps(job: Rows, rows: slice) -> None:
    """Fill in the maxima and the gaps of some rows, before their logits may be overwritten."""
    a, dense = np.ascontiguousarray(job.logits[rows]), job.dense_at(rows, ALL)
    assert dense is not None
    apart = job.each[: len(a)], job.index[rows]
    maxima = (a[apart] if job.leading else np.maximum.reduce(a, axis=1)).astype(np.float64)
    maxima[np.isneginf(maxima)] = 0.0  # every class is masked
    job.maxima[rows] = maxima
    if job.leading:
        mass = np.asarray(job.mass)[rows]
        job.gaps[rows] = gaps(job, a, maxima, dense, mass, None)
    else:
        job.gaps[rows] = gaps(job, a, maxima, dense, row_sums(dense), apart)


def _write_gradient(job: Rows, rows: Choice, work: Floats) -> None:
    """Write the gradient of some rows, but for the class t, if one is wanted."""
    if job.gradient is None:
        return
    dense = job.dense_at(rows, ALL)
    if isinstance(rows, slice):
        write_scaled(job, rows, work, dense, job.gradient[rows])
        return
    out = np.empty(work.shape, job.gradient.dtype)
    write_scaled(job, rows, work, dense, out)
    job.gradient[rows] = out


# --- wide rows: each in segments -------------------------------------------------------------


def _run_wide(job: Rows, threads: int) -> None:
    """Rows side by side if there are enough for all threads, else the segments of each row."""
    rows = len(job.logits)
    if rows >= threads:
        pool.run(lambda row: _wide_row(job, row, 1), rows, threads)
    else:
        for row in range(rows):
            _wide_row(job, row, threads)


def _wide_row(job: Rows, row: int, threads: int) -> None:
    """Three rounds over a row's segments: maximum, exponentials and their sum, gradient."""
    rows = slice(row, row + 1)
    a = job.logits[rows]
    if job.leading:
        _lead(job, rows)
    gradient = None if job.gradient is None else job.gradient[rows]
    width = SEGMENT_BYTES // a.itemsize
    parts = [slice(at, at + width) for at in range(0, a.shape[1], width)]
    maxima, rests, weighted = (np.empty((1, len(parts))) for _ in range(3))

    def find_maximum(number: int) -> None:
        maxima[0, number] = np.maximum.reduce(a[0, parts[number]])

    pool.run(find_maximum, len(parts), threads)
    maximum = _row_maxima(maxima, np.array([row]))
    shift, dtype = _wide_shift(job, rows, maximum)

    def exponentiate(number: int) -> None:
        part = parts[number]
        segment, t = np.ascontiguousarray(a[:, part]), int(job.index[row]) - part.start
        apart = (0, t) if 0 <= t < segment.shape[1] else None
        dense = job.dense_at(rows, part)
        if dense is not None:
            weighted[0, number] = gaps(
                job, segment, maximum, dense, row_sums(dense), None if job.leading else apart
            )[0]
        work = scratch.take("work", segment.shape, dtype)
        exponentials(segment, shift, job.temperature, work, scratch)
        if apart is not None:
            if dtype == np.float64:
                job.peak[row] = work[apart]
            work[apart] = 0.0
        rests[0, number] = _rest(job, segment, work, job.index[rows] - part.start)[0]
        if gradient is not None:
            gradient[:, part] = work

    pool.run(exponentiate, len(parts), threads)
    job.rest[rows] = careful_row_sums(rests)
    if job.dense is not None:
        job.maxima[rows], job.gaps[rows] = maximum, row_sums(weighted)
    if shift is not None:
        job.shift[rows] = shift
    if job.rest[row] + job.peak[row] == 0.0:
        job.rest[row] = 1.0  # every class is masked: p = 0/1
    if gradient is None:
        return

    def finish(number: int) -> None:
        segment = gradient[:, parts[number]]
        write_scaled(job, rows, segment, job.dense_at(rows, parts[number]), segment)

    pool.run(finish, len(parts), threads)


def _wide_shift(job: Rows, rows: slice, maximum: Doubles) -> tuple[Doubles | None, np.dtype[Any]]:
    """The shift that a wide row needs, and the dtype of its exponentials.

    Their sum lies between exp(max) and n*exp(max): where both ends are safe, so is the row.
    """
    dtype = _unshifted_dtype(job.logits, job.temperature)
    kept = job.logits.dtype  # the gradient's buffer keeps the exponentials
    floor, ceiling = safe_range(some(job.weight, rows), kept, kept)
    shift = _shift_of(job, rows, maximum)
    least = float(np.exp(maximum[0] / job.temperature))
    if np.all(floor <= least) and np.all(least * job.logits.shape[1] <= ceiling):
        return None, dtype
    return shift, DOUBLE
