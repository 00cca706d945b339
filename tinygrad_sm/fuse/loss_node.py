"""The fused loss, made from what the search found out about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.loss.softmax_with_loss import loss_node
from tinygrad_sm.loss.task import Task
from tinygrad_sm.tensor import Tensor

ONE = Fraction(1)


class Part(NamedTuple):
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
    logits, *rest = args
    axis, parts = params["axis"], params["parts"]
    if len(parts) == 1:
        target, *weights = rest
        return _of_one_target(logits, target, weights, parts[0], params)
    soft = np.zeros(logits.shape, logits.dtype)
    for part in parts:
        target, *weights = rest[: 1 + part.weights]
        rest = rest[1 + part.weights :]
        _add_target(soft, target, weights, part, axis)
    return _node(logits, params, soft=soft)


def _of_one_target(
    logits: Tensor, target: Any, weights: list[Any], part: Part, params: Mapping[str, Any]
) -> Tensor:
    axis = params["axis"]
    rows = logits.shape[:axis] + logits.shape[axis + 1 :]
    if part.kind == "index":
        index = np.broadcast_to(_from_the_front(np.asarray(target), logits.shape[axis]), rows)
        return _node(logits, params, part.by, index=index, weight=_product(weights, rows))
    soft = _dense(target, logits)
    index_of_ones = _one_hot_index(soft, axis)
    if index_of_ones is not None:
        return _node(logits, params, part.by, index=index_of_ones, weight=_product(weights, rows))
    if soft.size and np.maximum.reduce(soft, axis=None) <= 0:
        # (-y)·log p: the fused node keeps its digits for a target that is not negative
        return -_of_one_target(logits, -soft, weights, part, params)
    weight = _product(weights, rows)
    if weight is not None:
        soft = soft * np.expand_dims(weight, axis).astype(soft.dtype)
    return _node(logits, params, part.by, soft=soft)


def _node(
    logits: Tensor,
    params: Mapping[str, Any],
    by: Fraction = ONE,
    index: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    soft: np.ndarray | None = None,
) -> Tensor:
    task = Task(
        shape=logits.shape,
        axis=params["axis"],
        index=index,
        soft=soft,
        coefficient=weight,
        smooth=None,
        active=None,
        reduction=params["reduction"] if by == 1 else "mean",
        divisor=1.0 if by == 1 else float(1 / by),
        temperature=float(params["temperature"]),
    )
    return loss_node(logits, task)


def _add_target(soft: np.ndarray, target: Any, weights: list[Any], part: Part, axis: int) -> None:
    """Add `by` · weights · target to a dense target."""
    rows = soft.shape[:axis] + soft.shape[axis + 1 :]
    weight = _product([float(part.by), *weights], rows)
    assert weight is not None
    by_class = np.expand_dims(weight, axis)
    if part.kind == "dense":
        soft += by_class * target
        return
    index = np.broadcast_to(_from_the_front(np.asarray(target), soft.shape[axis]), rows)
    at = np.expand_dims(index, axis)
    np.put_along_axis(soft, at, np.take_along_axis(soft, at, axis) + by_class, axis)


def _product(weights: list[Any], rows: tuple[int, ...]) -> np.ndarray | None:
    if not weights:
        return None
    weight = np.asarray(weights[0], np.float64)
    for other in weights[1:]:
        weight = weight * other
    return np.broadcast_to(weight, rows)


def _from_the_front(index: np.ndarray, classes: int) -> np.ndarray:
    """Count a negative class index from the front, as NumPy's indexing does."""
    if index.size and index.min() < 0:
        return np.where(index < 0, index + classes, index)
    return index


def _dense(target: Any, logits: Tensor) -> np.ndarray:
    soft = np.asarray(target)
    if soft.dtype.kind != "f":
        soft = soft.astype(logits.dtype)
    return soft if soft.shape == logits.shape else np.broadcast_to(soft, logits.shape)


def _one_hot_index(soft: np.ndarray, axis: int) -> np.ndarray | None:
    """Return the classes of a one-hot target, for which the fused node has a faster way."""
    rows = soft.size // soft.shape[axis]
    if np.count_nonzero(soft) != rows:
        return None
    largest = np.maximum.reduce(soft, axis=axis)  # as many ones as rows, and one in each of them
    return soft.argmax(axis=axis) if (largest == 1).all() else None
