"""What a kernel is given, and the tiles and threads that it runs in: plain arrays, no graph.

A kernel is a function `fill_in(block, threads)`, which finds the loss and the gradient of some rows
of logits. With the target q of a row, its mass Σq, a temperature T and factor = scale/T they are

    loss      Σ_j q_j (lse(a/T) − a_j/T)
    gradient  factor (Σq·p − q),    p = softmax(a/T)

What they are depends on the row alone: never on its neighbours, its tile, or the threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinygrad_sm.engine.threads import pool
from tinygrad_sm.errors import InvalidValueError

Floats: TypeAlias = NDArray[Any]
Doubles: TypeAlias = NDArray[Any]  # float64
Indices: TypeAlias = NDArray[np.intp]
PerRow: TypeAlias = Doubles | float  # (r,), or one number for all rows

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

Kernel: TypeAlias = "Callable[[Block, int], None]"

TILE = 1 << 19  # logits of a tile: calls are few then
PART = 1 << 18  # of what needs buffers, or of a part of a wide row: they stay in the cache
ALONE = 1 << 17  # logits that are not worth waking a thread for
BUFFER = 512  # of a ufunc: rows that are longer are multiplied by a number without copies of it


class NonFiniteRow(InvalidValueError):
    """A row of logits holds NaN or +inf, so that no probability exists; `row` is its number."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} of the logits holds NaN or +inf")
        self.row = row


@dataclass(slots=True)
class Block:
    """Some rows of logits, what is asked about them, and where the answer goes.

    Attributes:
        logits: (r, n); −inf masks a class: p = 0.
        losses: (r,), to be written; NaN where a row of logits holds NaN or +inf.
        gradient: (r, n), to be written, or None; it may be `logits`.
        factor: scale/T.
        temperature: T.
        index: (r,) a class of each row, 0 <= index < n, of which the target has `coefficient`.
        coefficient: not negative.
        dense: (r, n), or (1, n) for all rows: what the target has besides, times `active`.
        active: 0 or 1.
        others: (n,) Σ_{k≠j} dense_k, where `dense` is one row for all.
    """

    logits: Floats
    losses: Doubles
    gradient: Floats | None
    factor: PerRow
    temperature: float
    index: Indices
    coefficient: PerRow = 1.0
    dense: NDArray[Any] | None = None
    active: PerRow = 1.0
    others: Doubles | None = None

    def some(self, rows: slice | Indices) -> Block:
        """The same of some rows: views for a slice, copies for numbers."""
        given: Any = {name: getattr(self, name) for name in PER_ROW}
        arrays: Any = {name: x for name, x in given.items() if isinstance(x, np.ndarray)}
        whole = len(self.logits)
        return replace(self, **{name: x[rows] for name, x in arrays.items() if len(x) == whole})

    def pieces(self) -> Iterator[Block]:
        """The same, some rows at a time, so that buffers stay small."""
        rows, few = len(self.logits), max(1, PART // self.logits.shape[1])
        for at in range(0, rows, few):
            yield self.some(slice(at, at + few)) if few < rows else self

    def apart(self, rows: Indices, work: Callable[[Block], None]) -> None:
        """Have some rows done, given by their numbers in order; all of them, without a copy."""
        if len(rows) == len(self.logits):
            work(self)
        elif rows.size:
            some = self.some(rows)
            work(some)
            self.put(rows, some)

    def put(self, rows: Indices, some: Block) -> None:
        """Take over the answers for some rows."""
        self.losses[rows] = some.losses
        if self.gradient is not None:
            self.gradient[rows] = some.gradient


PER_ROW = ("logits", "losses", "gradient", "factor", "index", "coefficient", "dense", "active")


def times(weight: PerRow, values: PerRow) -> PerRow:
    """weight * values, where 0 * inf is 0: what has no weight costs nothing."""
    if isinstance(weight, float):
        if weight == 0.0:
            return 0.0
        return values if weight == 1.0 else values * weight
    return np.multiply(weight, values, out=np.zeros(len(weight)), where=weight != 0.0)


def block_of(
    logits: Floats,
    gradient: Floats | None,
    *,
    index: Indices | None = None,
    coefficient: PerRow | None = None,
    smooth: Doubles | None = None,
    active: NDArray[np.bool_] | None = None,
    soft: NDArray[Any] | None = None,
    temperature: float = 1.0,
    scale: PerRow = 1.0,
) -> Block:
    """What is asked about rows as a Block, whose losses are new.

    logits       (rows, classes), of any float dtype and strides; rows may be 0, classes may not.
                 −inf masks a class: p = 0.
    gradient     (rows, classes) of the logits' dtype: receives the gradient; may be `logits`.
    index        (rows,) the right classes, each 0 <= t < classes (the caller has checked).
    coefficient  (rows,) weight of the row's right class; 0 for a row that is ignored; None: ones.
    smooth       (classes,) target added to every active row; None: zeros.
    active       (rows,) False where `smooth` is not added; None: all True.
    soft         (rows, classes) the dense target, instead of the four arguments above.
    temperature  T > 0.
    scale        scalar or (rows,): multiplies the gradient, not the losses.
    """
    if (index is None) == (soft is None):
        raise InvalidValueError("give either class indices or a dense target")
    factor = _divided(scale, temperature)
    if index is None:
        index, coefficient = np.zeros(len(logits), np.intp), 0.0
    elif coefficient is None:
        coefficient = 1.0
    losses = np.zeros(len(logits))
    block = Block(logits, losses, gradient, factor, temperature, index, coefficient, soft)
    if smooth is not None:
        block.dense = smooth[None, :]
        block.others = sums_of_others(smooth.astype(np.float64))
        block.active = 1.0 if active is None else active.astype(np.float64)
    return block


def softmax_cross_entropy(
    logits: Floats,
    *,
    kernel: Kernel,
    want_grad: bool = True,
    out: Floats | None = None,
    threads: int | None = None,
    **asked: Any,
) -> tuple[Doubles, Floats | None]:
    """Return the losses (rows,) in float64 and the gradient (rows, classes), None if not wanted.

    logits       as for `block_of`, which takes what else is asked: index, temperature, …
    kernel       what computes.
    out          receives the gradient: `block_of` says how.
    threads      how many threads may work; None: see `pool.default_threads`.

    The gradient has the logits' dtype. float16 is computed in float32, longdouble in float64. A
    masked right class (−inf where q > 0) has loss +inf and a finite gradient. Where every class of
    a row is masked p is 0: the loss is +inf (0 without a target), the gradient −scale/T q.

    Raises NonFiniteRow when a row holds NaN or +inf; `out` is then undefined.
    """
    if want_grad and out is None:
        out = np.empty(logits.shape, logits.dtype)
    with np.errstate(all="ignore"):  # overflow and underflow are part of the plan
        block = block_of(logits, out if want_grad else None, **asked)
        losses, gradient = block.losses, block.gradient
        if logits.size:
            _run(kernel, block, threads)
        if math.isnan(losses.dot(losses)):
            raise NonFiniteRow(int(np.isnan(losses).argmax()))
    return losses, gradient


def _divided(scale: PerRow, temperature: float) -> PerRow:
    """scale/T; raises InvalidValueError where that overflows although the scale does not."""
    factor = scale / temperature
    if isinstance(factor, float) and math.isfinite(factor):  # as nearly always
        return factor
    if np.isinf(factor).any() and np.isfinite(scale).all():
        raise InvalidValueError(
            f"temperature must not be so small that the gradient / temperature overflows; "
            f"got {temperature}"
        )
    return factor


def kernel_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What a kernel computes in: float16 in float32, longdouble in float64."""
    return FLOAT32 if dtype.itemsize <= 4 else FLOAT64


def sums_of_others(values: Doubles) -> Doubles:
    """Σ_{k≠j} values_k for every j: a difference, but for the one that this may spoil."""
    others, largest = values.sum() - values, int(values.argmax())
    others[largest] = np.delete(values, largest).sum()
    return others


def _run(kernel: Kernel, block: Block, threads: int | None) -> None:
    """Deal tiles of rows out to the threads; of a few wide rows the parts."""
    rows, classes = block.logits.shape
    size = rows * classes
    if threads is None:
        threads = 1 if size < ALONE else pool.default_threads()
    if classes > BUFFER:
        np.setbufsize(BUFFER)  # until errstate puts it back
    if threads == 1 and size <= PART:
        _fill_in_order(kernel, block, 1)
        return
    most = max(1, TILE // classes)
    height = -(-rows // max(min(threads, rows), -(-rows // most)))  # tiles as even as can be
    count = -(-rows // height)
    shared = threads if classes > PART and count < threads else 1

    def tile(number: int) -> None:
        first = number * height
        _fill_in_order(kernel, block.some(slice(first, first + height)), shared)

    pool.run(tile, count, 1 if shared > 1 else threads)


def _fill_in_order(kernel: Kernel, block: Block, threads: int) -> None:
    """Call the kernel with arrays as it takes them: in C order, logits and target of one dtype."""
    gradient, dtype = block.gradient, kernel_dtype(block.logits.dtype)
    direct = gradient is None or (gradient.flags.c_contiguous and gradient.dtype == dtype)
    block.logits = np.ascontiguousarray(block.logits, dtype)
    if block.dense is not None:
        block.dense = np.ascontiguousarray(block.dense, dtype)
    if not direct:
        block.gradient = scratch.take("gradient", block.logits.shape, dtype)
    _fill_in(kernel, block, threads)
    if gradient is not None and not direct:
        gradient[...] = block.gradient
        block.gradient = gradient


def _fill_in(kernel: Kernel, block: Block, threads: int) -> None:
    """Call the kernel; of a dense target, rows of a single class are what an index says."""
    if block.dense is None or block.others is not None:
        kernel(block, threads)
        return
    q = block.dense
    single = (q[:, 0] == 0.0) | (q[:, -1] == 0.0) | (q.shape[1] == 1)  # so may some soft ones be
    if not single.any():
        kernel(block, threads)
        return
    t = q.argmax(axis=1)
    own = q[np.arange(len(q)), t]
    if not len(q) == np.count_nonzero(q) == np.count_nonzero(own):  # one each, as usual
        single[single] = np.count_nonzero(q[single], axis=1) <= 1
    rows = np.flatnonzero(single)

    def by_index(some: Block) -> None:
        some.index, some.dense = t[rows], None
        ones = (own == 1.0).all()
        some.coefficient = 1.0 if ones else own[rows].astype(np.float64)
        kernel(some, threads)

    block.apart(rows, by_index)
    block.apart(np.flatnonzero(~single), lambda some: kernel(some, threads))


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


scratch = Scratch()
