"""Dask's arrays: chunked, lazy, larger than a machine. Nothing is computed before `dask.compute`.

The fused node runs the engine's own kernel on chunks of whole rows, one thread each: the gradient
has the bits of the eager node, for any number of workers. Where classes are cut, each chunk tells
six numbers of each of its rows, and they are all that travels: see `loss.kernels.parts`.
"""

from __future__ import annotations

import math
from functools import partial
from operator import itemgetter
from typing import Any

import dask as _dask
import dask.array as _da
import numpy as np

from tinygrad_sm.arrays.kinds import Kind, along
from tinygrad_sm.engine import rules, shapes
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, LabelError
from tinygrad_sm.loss.fused import logits_cotangent, target_vjp
from tinygrad_sm.loss.kernels import parts
from tinygrad_sm.loss.kernels.choosing import kernel_for
from tinygrad_sm.loss.kernels.rows import Block, NonFiniteRow, softmax_cross_entropy
from tinygrad_sm.loss.options import Task, non_finite, without_axis

dask: Any = _dask  # whose functions have no types
da: Any = _da

# Operations that keep their chunks ----------------------------------------------------------------


def _numbers(length: int, chunks: Any, axis: int, ndim: int) -> Any:
    """0, 1, 2, … along an axis, in these chunks."""
    numbers = da.arange(length, chunks=(chunks,), dtype=np.intp)
    return along(numbers, axis, ndim)


def _take_along_axis(x: Any, indices: Any, axis: int = -1) -> Any:
    """One element along the axis, found by comparing, since chunks cannot be indexed by arrays."""
    axis %= x.ndim
    if indices.shape[axis] != 1:
        raise InvalidValueError("of a Dask array only one element can be taken along an axis")
    hit = _numbers(x.shape[axis], x.chunks[axis], axis, x.ndim) == indices
    return da.where(hit, x, 0).sum(axis=axis, keepdims=True, dtype=x.dtype)


def _scatter(g: Any, index: Any, shape: Any, distinct: bool = False) -> Any:
    """Undo `_take_along_axis`: the only index into a Dask array that is differentiated."""
    axis = next(
        (i for i, part in enumerate(index) if getattr(part, "ndim", 0) == len(shape)
         and part.shape[i] == 1 != shape[i]), None,
    )  # fmt: skip
    if axis is None:
        raise InvalidTypeError(
            "a Dask array that is indexed has no gradient here: mask or slice NumPy"
        )
    hit = _numbers(shape[axis], -1, axis, len(shape)) == index[axis]
    return da.where(hit, g, 0).astype(g.dtype)


def _sum_vjp(g: Any, y: Any, x: Any, axis: rules.Axis = None, keepdims: bool = False) -> Any:
    kept = rules._kept(g, x, axis, keepdims)
    if isinstance(kept, Tensor):
        return shapes.broadcast_to(kept, shape=x.shape)
    kept = da.asarray(kept).reshape((1,) * (x.ndim - kept.ndim) + kept.shape)
    chunks = [c if n == m else (1,) for c, n, m in zip(x.chunks, x.shape, kept.shape, strict=True)]
    return da.broadcast_to(kept.rechunk(chunks), x.shape, chunks=x.chunks)


def _checked(labels: Any, classes: int, ignore_index: int, block_info: Any = None) -> Any:
    """A chunk of labels as it is; raise LabelError for the first that is out of range."""
    wrong = ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
    if wrong.any():
        here = np.argwhere(wrong)[0]
        start = [first for first, _ in block_info[0]["array-location"]] if block_info else 0
        at = tuple(int(i) for i in here + start)
        raise LabelError(
            f"target must be class indices from 0 to {classes - 1} (or ignore_index "
            f"{ignore_index}); got {labels[tuple(here)]} at {at}"
        )
    return labels


# The fused node -----------------------------------------------------------------------------------


class Chunk:
    """What a task knows of its chunk of logits, whose classes are the last axis.

    Attributes:
        logits: (rows, classes of the chunk).
        asked: the options of the loss, as the kernel takes them, of these rows.
        start: the first class.
    """

    def __init__(
        self, a: Any, lazy: Any, names: Any, held: Any, shape: Any, class_axis: int,
        block_info: Any, **asked: Any,
    ) -> None:  # fmt: skip
        """What there is for each row comes in chunks (`lazy`), or as a whole (`held`)."""
        *self._rows, classes = [slice(*ends) for ends in block_info[0]["array-location"]]
        self._shape, self._class_axis = shape, class_axis
        self.start = classes.start
        self.logits = np.ascontiguousarray(a.reshape(-1, a.shape[-1]))
        self.asked = asked
        for name, x in zip(names, [*lazy, *[x[tuple(self._rows)] for x in held]], strict=True):
            asked[name] = x.reshape(self.logits.shape if name == "soft" else -1)

    def non_finite(self, row: int) -> InvalidValueError:
        """The error for a row of the chunk that holds NaN or +inf, with its number in all rows."""
        rows = without_axis(self._shape, self._class_axis)
        numbers = np.arange(math.prod(rows)).reshape(rows)[tuple(self._rows)]
        return non_finite(int(numbers.reshape(-1)[row]), self._shape, self._class_axis)

    def part(self) -> Block:
        """The chunk as a part of rows."""
        return parts.part_of(self.logits, self.start, **self.asked)


def _whole(a: Any, *lazy: Any, block_info: Any = None, **given: Any) -> tuple[Any, Any]:
    """Losses and gradient of a chunk of whole rows, in the bits of the eager node."""
    chunk = Chunk(a, lazy, block_info=block_info, **given)
    kernel = kernel_for(math.prod(given["shape"]), a.dtype)
    try:
        losses, gradient = softmax_cross_entropy(
            chunk.logits, kernel=kernel, threads=1, **chunk.asked
        )
    except NonFiniteRow as error:
        raise chunk.non_finite(error.row) from None
    assert gradient is not None
    return losses.reshape(*a.shape[:-1], 1), gradient.reshape(a.shape)


def _told(a: Any, *lazy: Any, block_info: Any = None, **given: Any) -> Any:
    """The six numbers of each row of a chunk of parts of rows."""
    chunk = Chunk(a, lazy, block_info=block_info, **given)
    told = parts.tell(chunk.part(), chunk.start)
    wrong = ~(told[:, parts.TOP] < np.inf)
    if wrong.any():
        raise chunk.non_finite(int(wrong.argmax()))
    return told.reshape(*a.shape[:-1], parts.NUMBERS)


def _merged(told: Any, temperature: float, axis: Any = None, keepdims: bool = True) -> Any:
    """The six numbers of each row of several chunks, which stand side by side."""
    each = told.reshape(-1, told.shape[-1] // parts.NUMBERS, parts.NUMBERS)
    return parts.merge(each, temperature).reshape(*told.shape[:-1], parts.NUMBERS)


def _losses(told: Any, temperature: float) -> Any:
    losses = parts.losses_of(told.reshape(-1, parts.NUMBERS), temperature)
    return losses.reshape(*told.shape[:-1], 1)


def _gradient(a: Any, told: Any, *lazy: Any, block_info: Any = None, **given: Any) -> Any:
    """The gradient of a chunk of parts of rows."""
    chunk = Chunk(a, lazy, block_info=block_info, **given)
    block = chunk.part()
    block.gradient = np.empty_like(block.logits)
    parts.fill_in(block, chunk.start, told.reshape(-1, parts.NUMBERS))
    return block.gradient.reshape(a.shape).astype(a.dtype, copy=False)


def _moved(x: Any, axis: int, to: int) -> Any:
    """An axis in another place; no task where it is there already."""
    x = da.asarray(x)
    return x if axis % x.ndim == to % x.ndim else da.moveaxis(x, axis, to)


def _computed(logits: Any, target: Any, task: Task) -> tuple[Any, Any]:
    """The losses of all rows, (…, 1), and the gradient, lazily; scaled by the divisor, if known.

    Of whole rows one task a chunk finds both, and one each hands them out. Where classes are cut,
    one tells of its rows, these numbers go together in a tree, and one finds the gradient. Reading
    is a part of the first.
    """
    a = _moved(logits, task.axis, -1)
    given = {"coefficient": task.coefficient, "active": task.active, "index": task.index}
    if task.index is None:
        given = {"soft": _moved(target, task.axis, -1)}
    known = {name: x for name, x in given.items() if isinstance(x, np.ndarray)}
    lazy = {name: x for name, x in given.items() if isinstance(x, da.Array)}
    rows = (*a.chunks[:-1], -1)
    chunked = [
        x.rechunk(a.chunks) if x.ndim == a.ndim else x[..., None].rechunk(rows)
        for x in lazy.values()
    ]
    about = {
        "names": (*lazy, *known),
        "held": [dask.delayed(x, pure=True) for x in known.values()],
        "shape": task.shape,
        "class_axis": task.axis,
        "smooth": task.smooth,
        "temperature": task.temperature,
        "scale": 1.0 / task.divisor if isinstance(task.divisor, float) else 1.0,
    }
    none = np.empty((0,) * a.ndim)
    one = (*a.chunks[:-1], (1,))
    if a.numblocks[-1] == 1:
        both = da.map_blocks(_whole, a, *chunked, **about, chunks=one, meta=none.astype(object))
        losses = both.map_blocks(itemgetter(0), token="losses", meta=none)
        gradient = both.map_blocks(itemgetter(1), token="gradient", chunks=a.chunks, meta=a._meta)
    else:
        six = (parts.NUMBERS,) * a.numblocks[-1]
        told = da.map_blocks(
            _told, a, *chunked, **about, token="told", chunks=(*rows[:-1], six), meta=none
        )
        merge = partial(_merged, temperature=task.temperature)
        told = da.reduction(
            told, lambda x, axis, keepdims: x, merge, combine=merge, axis=a.ndim - 1, keepdims=True,
            output_size=parts.NUMBERS, split_every=16, dtype=np.float64, meta=none,
        )  # fmt: skip
        losses = told.map_blocks(_losses, task.temperature, chunks=one, meta=none)
        gradient = da.map_blocks(
            _gradient, a, told, *chunked, **about, token="gradient", chunks=a.chunks, meta=a._meta
        )
    return losses, _moved(gradient, -1, task.axis)


def _fused(logits: Any, target: Any, task: Task, saved: Any) -> Any:
    losses, saved.gradient = _computed(logits, target, task)
    if task.reduction == "none":
        return losses[..., 0].astype(logits.dtype)
    return (losses.sum(dtype=np.longdouble, split_every=256) / task.divisor).astype(logits.dtype)


def _fused_vjp(g: Any, loss: Any, logits: Any, target: Any, task: Task, saved: Any) -> Any:
    if isinstance(g, Tensor):
        return logits_cotangent(g, logits, target, task)
    gradient = saved.gradient
    if gradient is None:
        _, gradient = _computed(logits, target, task)
    if task.reduction == "none":
        g = shapes.expand_dims(g, task.axis)
    elif not isinstance(task.divisor, float):
        g = g / task.divisor
    elif type(g) is np.ndarray and g == 1.0:  # as nearly always
        return gradient
    return (gradient * g).astype(logits.dtype)


# The kind -----------------------------------------------------------------------------------------


class OfDask(Kind):
    """Lazy arrays in chunks."""

    name = "Dask arrays"
    forwards = {  # noqa: RUF012
        "broadcast_to": lambda x, shape: da.broadcast_to(da.asarray(x), shape),
        "reshape": lambda x, shape: da.asarray(x).reshape(shape),
        "sum": lambda x, axis=None, keepdims=False: da.sum(
            x, axis=axis, keepdims=keepdims, dtype=x.dtype
        ),
        "scatter": _scatter,
        "sigmoid": lambda x: 1 / (1 + da.exp(-x)),
        "take_along_axis": _take_along_axis,
        "SoftmaxWithLoss": _fused,
    }
    vjps = {"sum": (_sum_vjp,), "SoftmaxWithLoss": (_fused_vjp, target_vjp)}  # noqa: RUF012

    def covers(self, cls: type) -> bool:
        """Arrays, and none of Dask's other collections."""
        return issubclass(cls, da.Array)

    def leaf(self, data: Any, dtype: Any = None) -> Any:
        """Numbers as they are, whole ones as float64; shapes must be known."""
        if any(math.isnan(n) for n in data.shape):
            raise InvalidValueError(
                "data must have a known shape; the chunks of this Dask array have unknown sizes: "
                "call its compute_chunk_sizes() first"
            )
        return super().leaf(data, dtype)

    def ones(self, like: Any) -> Any:
        """A single 1 is known at once, so that the loss sees that it need not multiply by it."""
        return super().ones(like) if like.ndim else np.array(1.0, like.dtype)

    def is_computed(self, array: Any) -> bool:
        """Never: looking at a value would compute all that it is made of."""
        return False

    def plain(self, array: Any) -> np.ndarray:
        """The values, computed now."""
        return np.asarray(array.compute())

    def one_hot(self, index: Any, like: Any, axis: int) -> Any:
        """Labels compared with the classes, in the chunks of the logits."""
        hit = _numbers(like.shape[axis], like.chunks[axis], axis, like.ndim) == index
        return hit.astype(like.dtype)

    def labels(self, given: Any, classes: int, ignore_index: int) -> tuple[Any, Any]:
        """Class indices, which are checked when they are computed, and which rows count."""
        found = given.map_blocks(_checked, classes, ignore_index, dtype=given.dtype)
        active = found != ignore_index
        return da.where(active, found, 0), active

    def pick(self, per_class: np.ndarray, index: Any) -> Any:
        """One number per class, at class indices."""
        return index.map_blocks(lambda i: per_class[i], dtype=per_class.dtype)


KIND = OfDask()
