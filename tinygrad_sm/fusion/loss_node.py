"""The fused loss, made from what the search found out about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.arrays.kinds import as_array, kind_among, kind_of
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError
from tinygrad_sm.loss.fused import loss_node
from tinygrad_sm.loss.linear import linear_loss_node
from tinygrad_sm.loss.options import Task, without_axis

ONE = Fraction(1)


class WeightedTarget(NamedTuple):
    """One target of the loss: the losses are those of the sum of `by` · weights · target."""

    kind: str
    """"index" for class indices of the rows' shape, "dense" for numbers of the logits' shape."""
    weights: int
    """How many arrays with one number per row follow the target."""
    by: Fraction
    """A positive factor."""


def build_loss(args: Sequence[Any], params: Mapping[str, Any]) -> Tensor:
    """Return the fused node of logits and targets.

    Args:
        args: the logits, a Tensor; then for each part its target, which may broadcast to its
            shape, and its weights.
        params: `axis`, `parts`, `reduction` ("none" or "sum") and `temperature`.
    """
    logits, *targets = args
    asked = _Asked(logits.shape, logits.dtype, params)
    return asked.node_of(targets, lambda task: loss_node(logits, task))


def build_linear_loss(args: Sequence[Any], params: Mapping[str, Any]) -> Tensor:
    """Return the fused node of a linear layer and targets.

    Args:
        args: the features, the weight, the bias (0.0 if there is none), then as for `build_loss`.
        params: the same, or the `task` of a loss that was given.
    """
    x, weight, bias, *targets = args
    if "task" in params:
        given: Tensor = linear_loss_node(x, weight, bias, params["task"], target=targets[0])
        return given
    dtype = np.result_type(*(t.dtype for t in (x, weight, bias) if not isinstance(t, float)))
    asked = _Asked((*x.shape[:-1], len(weight)), dtype, params)
    return asked.node_of(targets, lambda task: linear_loss_node(x, weight, bias, task))


class _Asked:
    """The loss that was asked for, of logits whose shape and dtype alone are known."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, params: Mapping[str, Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.axis = params["axis"]
        self.parts: tuple[WeightedTarget, ...] = params["parts"]
        self.reduction: str = params["reduction"]
        self.temperature: Fraction = params["temperature"]
        self.rows = without_axis(shape, self.axis)

    def node_of(self, targets: Sequence[Any], make: Callable[[Task], Tensor]) -> Tensor:
        """Return what `make` makes of the task, once the targets are in it."""
        if len(self.parts) > 1:
            return make(self._task(soft=self._sum(targets)))
        (part,) = self.parts
        target, *weights = targets
        weight = _product(weights, self.rows)
        if part.kind == "index":
            return make(self._task(part.by, index=self._index(target), coefficient=weight))
        soft = self._dense(target)
        plain = kind_of(soft) is None  # else nobody may know its elements yet
        index = _one_hot_index(soft, self.axis) if plain else None
        if index is not None:
            return make(self._task(part.by, index=index, coefficient=weight))
        if plain and _nowhere_positive(soft):
            # (-y)·log p: the fused node keeps its digits for a target that is not negative
            return -self.node_of([-soft, *weights], make)
        if weight is not None:
            soft = soft * np.expand_dims(weight, self.axis).astype(soft.dtype)
        return make(self._task(part.by, soft=soft))

    def _task(self, by: Fraction = ONE, **target: Any) -> Task:
        """The task; a factor of the sum is the divisor of a mean."""
        return Task(
            shape=self.shape,
            axis=self.axis,
            reduction=self.reduction if by == ONE else "mean",
            temperature=float(self.temperature),
            divisor=by.denominator / by.numerator,
            **target,
        )

    def _sum(self, targets: Sequence[Any]) -> np.ndarray:
        """The dense target that all parts are together."""
        if kind_among(targets) is not None:
            raise InvalidTypeError(
                "fuse: a loss with several targets is fused for NumPy's arrays alone; add them up "
                "to one"
            )
        soft = np.zeros(self.shape, self.dtype)
        rest = list(targets)
        for part in self.parts:
            target, *weights = rest[: 1 + part.weights]
            rest = rest[1 + part.weights :]
            weight = _product([float(part.by), *weights], self.rows)
            assert weight is not None
            by_class = np.expand_dims(weight, self.axis)
            if part.kind == "dense":
                soft += by_class * target
                continue
            at = np.expand_dims(self._index(target), self.axis)
            there = np.take_along_axis(soft, at, self.axis)
            np.put_along_axis(soft, at, there + by_class, self.axis)
        return soft

    def _index(self, target: Any) -> Any:
        """One class per row; a negative one counts from the end, as in NumPy's indexing."""
        index = as_array(target)
        if kind_of(index) is None and index.size and index.min() < 0:
            index = np.where(index < 0, index + self.shape[self.axis], index)
        return _broadcast(index, self.rows)

    def _dense(self, target: Any) -> Any:
        """Numbers of the logits' shape."""
        soft = as_array(target)
        if soft.dtype.kind not in "fO":
            soft = soft.astype(self.dtype)
        return _broadcast(soft, self.shape)


def _product(weights: list[Any], rows: tuple[int, ...]) -> Any:
    if not weights:
        return None
    weight: Any = weights[0]
    if kind_of(weight) is None:
        weight = np.asarray(weight, np.float64)
    for other in weights[1:]:
        weight = weight * other
    return _broadcast(weight, rows)


def _broadcast(x: Any, shape: tuple[int, ...]) -> Any:
    return x if x.shape == shape else np.broadcast_to(x, shape)


def _nowhere_positive(soft: np.ndarray) -> bool:
    """Whether a target is negative somewhere and positive nowhere."""
    return bool(soft.size and soft.max() <= 0 and soft.min() < 0)


def _one_hot_index(soft: np.ndarray, axis: int) -> np.ndarray | None:
    """Return the classes of a one-hot target, for which the fused node has a faster way."""
    rows = soft.size // soft.shape[axis]
    if np.count_nonzero(soft) != rows:
        return None
    largest = np.maximum.reduce(soft, axis=axis)  # as many ones as rows, and one in each of them
    return soft.argmax(axis=axis) if (largest == 1).all() else None
