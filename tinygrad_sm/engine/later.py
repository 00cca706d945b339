"""Operations that wait until their values are read: inside `fusing`, often forever.

A large result whose shape is known without computing it becomes a `Deferred`. Reading values
computes them and what they are made of; what fusion replaces is not read, and so never computed.

What that is worth, in parts of the composite's time for loss and gradient (float64, log p picked):
1024 × 1000 logits take 0.3 with it and 0.6 without, 128 × 1000 0.35 and 0.6; smaller ones gain
nothing, and do not wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tinygrad_sm.arrays.kinds import kind_among
from tinygrad_sm.engine.arguments import settled
from tinygrad_sm.engine.calling import our_own
from tinygrad_sm.engine.gradients import before_sweep
from tinygrad_sm.engine.memory import is_lent
from tinygrad_sm.engine.node import Operation, made
from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.threads.large import LARGE, dealt_out
from tinygrad_sm.errors import TinygradError

WORTH_WAITING = 10_000
"""Elements of an argument; what has fewer is computed sooner than it is put off."""


class Deferred(Tensor):
    """A Tensor whose array is computed when it is first read, by what has been recorded of it."""

    __slots__ = ("_found", "_like", "stand_in")

    _like: np.ndarray  # of the same shape and dtype, at no cost
    _found: np.ndarray | None  # the values, once they are there
    stand_in: Tensor | None  # whose values these are, if not found as they were recorded
    shape = property(lambda self: self._like.shape)
    dtype = property(lambda self: self._like.dtype)
    ndim = property(lambda self: self._like.ndim)
    size = property(lambda self: self._like.size)

    @property
    def waits(self) -> bool:
        """Whether nobody has read the values yet."""
        return self._found is None

    @property
    def _now(self) -> Any:
        """What a reader gets: the values of what backward would sweep instead, if there is one."""
        replace = before_sweep.get()
        if self.waits and replace is not None:
            with suppress(TinygradError):  # as of NaN among the logits: then as it was recorded
                replace(self)
        return self._array

    @property
    def _array(self) -> Any:
        for t in _in_order(self):
            primitive = t._operation.primitive
            assert primitive is not None
            t.settle(np.asarray(primitive.forward(*t._values, **t._operation.params)))
        return self._found

    @_array.setter
    def _array(self, like: np.ndarray) -> None:
        self._like, self._found, self.stand_in = like, None, None

    def settle(self, values: np.ndarray, stand_in: Tensor | None = None) -> None:
        """End the waiting: these are the values, of another Tensor if one is given."""
        self._like = self._found = values
        self.stand_in = stand_in


def _in_order(t: Deferred) -> Iterator[Deferred]:
    """Yield what has to be computed for `t`, each after its operands; nothing recurses."""
    pending = [t]
    while pending:
        at = pending[-1]
        first = [x for x in at._operands if isinstance(x, Deferred) and x.waits]
        if at.waits and first:
            pending += first
            continue
        pending.pop()
        if at.waits:
            yield at


def put_off(
    primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any], groups: tuple[str, ...]
) -> Tensor | None:
    """Return an operation that waits; None if it is to be run at once."""
    for x in args:
        if isinstance(x, Tensor) and (
            x.waits if isinstance(x, Deferred) else x._array.size >= WORTH_WAITING
        ):
            break
    else:
        return None
    tensors = [x for x in args if isinstance(x, Tensor)]
    if kind_among(x._array for x in tensors if not isinstance(x, Deferred)) is not None:
        return None
    if any(map(is_lent, tensors)) or not any(x.requires_grad for x in tensors):
        return None
    try:
        operands = settled(primitive, args, our_own) if len(tensors) < len(args) else args
        likes = [
            x._like if isinstance(x, Deferred) else x._array if isinstance(x, Tensor) else x
            for x in operands
        ]
        like = _like(primitive, likes, params)
    except (ValueError, TypeError, IndexError, OverflowError):  # running it says what is wrong
        return None
    if like is None:
        return None
    if any(np.size(x) >= LARGE for x in likes):
        primitive = dealt_out(primitive)
    operation = Operation(primitive, params, operands[2:], None, groups)
    second = operands[1] if len(operands) > 1 else None
    t: Deferred = made(Deferred, like, operation, operands[0], second, True)
    return t


def _like(primitive: Primitive, likes: list[Any], params: dict[str, Any]) -> np.ndarray | None:
    """An array of the result's shape and dtype, if there is a cheap one."""
    forward = primitive.forward
    if isinstance(forward, np.ufunc) and forward.signature is None:  # element by element
        shape, dtype = np.broadcast(*likes).shape, np.result_type(*likes)
        return np.ndarray(shape, dtype, np.zeros((), dtype), strides=(0,) * len(shape))
    if primitive.kind == "reduction" and likes[0].size:
        (x,) = likes
        axis = params.get("axis", primitive.parameters["axis"])
        axes = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
        one = slice(0, 1) if params.get("keepdims") else 0
        return np.asarray(x[tuple(one if i in axes else slice(None) for i in range(x.ndim))])
    if primitive.kind in ("view", "move") and primitive.arity is not None:  # a join would copy
        return np.asarray(forward(*likes, **params))
    return None
