"""A linear layer and softmax-cross-entropy as one node that never holds the logits.

A chunk of rows at a time: its logits a = x Wᵀ + b are overwritten by their gradient G, which is
used for all that is wanted and then forgotten:

    ∂L/∂x = G W        ∂L/∂W = Gᵀ x        ∂L/∂b = Σ_rows G

so that the memory needed is O(chunk · classes) instead of O(rows · classes). The idea is that of
Liger Kernel and of Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Unpack, overload

import numpy as np

from tinygrad_sm.arrays.kinds import kind_among
from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine import shapes
from tinygrad_sm.engine.primitive import def_primitive
from tinygrad_sm.engine.scopes import is_recording
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown
from tinygrad_sm.loss.fused import by_operations, logits_cotangent, scales_last, target_cotangent
from tinygrad_sm.loss.kernels.calling import reduced, run_on_rows
from tinygrad_sm.loss.kernels.rows import kernel_dtype
from tinygrad_sm.loss.options import (
    RowOptions,
    Task,
    as_given,
    as_tensor,
    is_integer,
    refuse_others,
    takes,
    task_of,
)

ROWS_FOR_SPEED = 64  # fewer rows at once, and the matrix products read W more than they compute
SHARE_OF_LOGITS = 13  # a chunk holds at most one row in so many: with the rest, below a tenth
PRODUCT_BYTES = 1 << 20  # of a part of Gᵀ x, on its way to ∂L/∂W: it stays in the cache


@dataclass(slots=True)
class _Gradients:
    """Which gradients are wanted, and those that were found but not yet taken by a backward.

    Those found hold for one `cotangent` only; None is any that may be multiplied in afterwards.
    """

    wanted: frozenset[str]
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    cotangent: Any = None


def _chunks(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _run_chunks(
    arrays: tuple[Any, ...], task: Task, scale: Any, wanted: frozenset[str], chunk_rows: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the row losses and the wanted gradients by name, in the shapes of the arrays."""
    *numbers, target = arrays
    dtype = kernel_dtype(np.result_type(*numbers))
    x, weight, bias = (np.asarray(each, dtype) for each in numbers)
    like = {"x": x, "weight": weight, "bias": bias}
    found = {name: np.zeros(like[name].shape, dtype) for name in sorted(wanted)}
    x = x.reshape(-1, x.shape[-1])
    rows, classes = len(x), len(weight)
    losses = np.empty(rows)
    logits = np.empty((min(chunk_rows, rows), classes), dtype)
    for chunk in _chunks(rows, chunk_rows):
        a = np.matmul(x[chunk], weight.T, out=logits[: chunk.stop - chunk.start])
        if bias.ndim:
            a += bias
        own = scale[chunk] if np.ndim(scale) else scale
        losses[chunk], g = run_on_rows(
            a, target, task, own, bool(wanted), out=a if wanted else None, chunk=chunk
        )
        if "x" in wanted:
            np.matmul(g, weight, out=found["x"].reshape(x.shape)[chunk])
        if "weight" in wanted:
            _add_product(found["weight"], g, x[chunk])
        if "bias" in wanted:
            found["bias"] += g.sum(axis=0)
    return losses, found


def _add_product(total: np.ndarray, g: np.ndarray, x: np.ndarray) -> None:
    """Add Gᵀ x in parts: a product as large as W itself would be memory that chunks are to save."""
    height = min(len(total), max(1, PRODUCT_BYTES // max(1, x[:1].nbytes)))
    product = np.empty((height, x.shape[1]), x.dtype)
    for some in _chunks(len(total), height):
        total[some] += np.matmul(g[:, some].T, x, out=product[: some.stop - some.start])


def _forward(
    x: Any, weight: Any, bias: Any, target: Any, task: Task, saved: _Gradients, chunk_rows: int
) -> Any:
    """Softmax-cross-entropy of x Wᵀ + b, as `linear_cross_entropy` describes it."""
    if kind_among((x, weight, bias, target)) is not None:  # by operations, all logits at once
        return by_operations(_logits(x, weight, bias), target, task)
    # one number multiplies all of a mean's gradients; with "none" each row's is known only later
    wanted = frozenset() if task.reduction == "none" else saved.wanted
    arrays = (x, weight, bias, target)
    losses, saved.gradients = _run_chunks(arrays, task, 1.0 / task.divisor, wanted, chunk_rows)
    return reduced(losses, task, np.result_type(x, weight, bias))


def _vjp(name: str) -> Any:
    """The vjp for the argument `name`: take the gradient that is there, or find all anew."""

    def vjp(g: Any, loss: Any, *arrays: Any, task: Task, saved: _Gradients, chunk_rows: int) -> Any:
        if isinstance(g, Tensor) or kind_among((g, *arrays)) is not None:
            return _on_tensors(name, task, g, *arrays)
        # float16 is computed in float32, which has digits for any cotangent
        last = task.reduction != "none" and (g == 1 or g.dtype == np.float16 or scales_last(g))
        if name not in saved.gradients or saved.cotangent is not (None if last else g):
            scale = np.float64(1.0) if last else g.reshape(-1 if g.ndim else ()).astype(np.float64)
            wanted, scale = saved.wanted | {name}, scale / task.divisor
            _, saved.gradients = _run_chunks(arrays, task, scale, wanted, chunk_rows)
            saved.cotangent = None if last else g
        gradient = saved.gradients.pop(name)  # given away: the receiver may change it
        if last and g != 1:
            gradient *= g
        return gradient

    return vjp


def _logits(x: Any, weight: Any, bias: Any) -> Any:
    return p.add(shapes.matmul(x, shapes.transpose(weight)), bias)


def _on_tensors(name: str, task: Task, g: Any, x: Any, weight: Any, bias: Any, target: Any) -> Any:
    """The same gradients by differentiable operations, for second derivatives."""
    at_logits = logits_cotangent(g, _logits(x, weight, bias), target, task)
    if name == "x":
        return shapes.matmul(at_logits, weight)
    by_row = shapes.reshape(at_logits, shape=(-1, task.classes))
    if name == "bias":
        return p.sum(by_row, axis=0)
    return shapes.matmul(shapes.transpose(by_row), shapes.reshape(x, shape=(-1, x.shape[-1])))


def _target_vjp(g: Any, loss: Any, *arrays: Any, task: Task, **_: Any) -> Any:
    *numbers, target = arrays
    return target_cotangent(g, _logits(*numbers), target, task)


linear_softmax_with_loss = def_primitive(
    "LinearSoftmaxWithLoss",
    _forward,
    _vjp("x"),
    _vjp("weight"),
    _vjp("bias"),
    _target_vjp,
    integers=True,
    kind="loss",
)


class LinearOptions(RowOptions, total=False):
    """The options of `linear_cross_entropy`."""

    bias: Any
    class_weight: Any
    chunk_rows: int | None


@overload
def linear_cross_entropy(
    x: Tensor, weight: Any, target: Any, **options: Unpack[LinearOptions]
) -> Tensor: ...
@overload
def linear_cross_entropy(
    x: Any, weight: Tensor, target: Any, **options: Unpack[LinearOptions]
) -> Tensor: ...
@overload
def linear_cross_entropy(
    x: Any, weight: Any, target: Any, **options: Unpack[LinearOptions]
) -> np.ndarray: ...
@takes(RowOptions)
def linear_cross_entropy(
    x: Any,
    weight: Any,
    target: Any,
    *,
    bias: Any = None,
    class_weight: Any = None,
    chunk_rows: int | None = None,
    **options: Unpack[RowOptions],
) -> Any:
    """Softmax-cross-entropy of the logits x Wᵀ + b, without ever holding all of them.

    The same function as ``cross_entropy(x @ weight.T + bias, target, ...)``. The gradients of x,
    weight and bias are computed in the forward pass, a chunk of rows at a time.

    Args:
        x: the features, of shape (..., D).
        weight: one row per class, of shape (V, D).
        target: class indices of shape (...), or a distribution of shape (..., V).
        bias: of shape (V,), or None.
        class_weight: what `cross_entropy` calls `weight`: one number per class, shape (V,).
        chunk_rows: how many rows of logits to hold at once; None chooses by the shapes, so that
            a chunk is a small share of the logits and still large enough for matrix products.

    The other options are those of `cross_entropy`.

    Returns:
        A Tensor of shape () or, with "none", (...); for plain arrays a plain array.

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit.
    """
    refuse_others(linear_cross_entropy, options.keys() - RowOptions.__optional_keys__)
    given = (x, weight, bias, target)
    x, weight = as_tensor(x), as_tensor(weight)
    bias = None if bias is None else as_tensor(bias)
    _check_shapes(x, weight, bias)
    shape = (*x.shape[:-1], len(weight))
    dtype = np.result_type(*(t.dtype for t in (x, weight, bias) if t is not None))
    task = task_of(linear_cross_entropy, shape, dtype, target, weight=class_weight, **options)
    bias = 0.0 if bias is None else bias
    return as_given(
        linear_loss_node(x, weight, bias, task, chunk_rows=chunk_rows).named("L"), *given
    )


def linear_loss_node(
    x: Any,
    weight: Any,
    bias: Any,
    task: Task,
    *,
    target: Any = None,
    chunk_rows: int | None = None,
) -> Any:
    """Return the fused node of a linear layer and a task that was checked against its logits.

    `bias` is 0.0 where there is none; `target` stands for the task's own, if it is given.
    """
    named = {"x": x, "weight": weight, "bias": bias}
    wanted = {n for n, t in named.items() if isinstance(t, Tensor) and t.requires_grad}
    return linear_softmax_with_loss(
        x,
        weight,
        bias,
        task.target if target is None else target,
        task=task,
        saved=_Gradients(frozenset(wanted) if is_recording() else frozenset()),
        chunk_rows=_checked_chunk(chunk_rows, task.shape),
    )


def _check_shapes(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise InvalidValueError(
            "x must have shape (..., D) and weight (classes, D) with the same D; "
            f"got {x.shape} and {weight.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InvalidValueError(
            f"bias must have shape {weight.shape[:1]}, one number per class; got {bias.shape}"
        )


def _checked_chunk(chunk_rows: Any, shape: tuple[int, ...]) -> int:
    if chunk_rows is None:
        rows = int(np.prod(shape[:-1], dtype=np.intp))
        return max(ROWS_FOR_SPEED, -(-rows // SHARE_OF_LOGITS))
    if not is_integer(chunk_rows):
        raise InvalidTypeError(f"chunk_rows must be an integer; got {shown(chunk_rows)}")
    if chunk_rows < 1:
        raise InvalidValueError(f"chunk_rows must be at least 1; got {shown(chunk_rows)}")
    return int(chunk_rows)
