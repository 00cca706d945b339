"""Softmax-cross-entropy as one fused node, with the closed form Σy·p − y for its gradient."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine.primitive import def_primitive
from tinygrad_sm.engine.tensor import Tensor, is_recording, record
from tinygrad_sm.errors import InvalidTypeError
from tinygrad_sm.loss.kernel.in_numpy import NonFiniteRow, softmax_cross_entropy
from tinygrad_sm.loss.options import FEW, Task, non_finite, task_of, warn
from tinygrad_sm.loss.probabilities import logsumexp, softmax

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import LossOptions


@dataclass(slots=True)
class _Saved:
    """The gradient that the forward pass found on its way, until the first backward takes it."""

    wanted: bool
    gradient: np.ndarray | None = None


def _as_rows(x: np.ndarray, axis: int) -> np.ndarray:
    """The array as (rows, classes): a view if the class axis is the last."""
    if x.ndim == 2 and axis == 1:
        return x
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def _as_before(rows: np.ndarray, task: Task) -> np.ndarray:
    """Undo `_as_rows`."""
    if len(task.shape) == 2 and task.axis == 1:
        return rows
    return np.moveaxis(rows.reshape(*task.rows, task.classes), -1, task.axis)


ONES = np.ones(FEW)
INFINITE = {np.dtype(np.float16): 65520.0, np.dtype(np.float32): 2.0**128 - 2.0**103}
"""What is rounded to inf."""
KERNEL_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def kernel_dtype(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """What the kernel computes in: float16 in float32, longdouble in float64."""
    return np.float32 if dtype.itemsize <= 4 else np.float64


def kernel_target(target: Any, task: Task, rows: slice = slice(None)) -> dict[str, Any]:
    """The target of some rows in the kernel's terms; all of them by default."""
    if task.index is None:
        return {"soft": _as_rows(target, task.axis)[rows]}
    if task.coefficient is None:
        return {"index": task.index.reshape(-1)[rows]}
    return {
        "index": task.index.reshape(-1)[rows],
        "coefficient": task.coefficient.reshape(-1)[rows],
        "active": None if task.active is None else task.active.reshape(-1)[rows],
        "smooth": task.smooth,
    }


def run_kernel(
    logits: np.ndarray,
    target: Any,
    task: Task,
    scale: Any,
    want_grad: bool,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the row losses in float64 and, if wanted, the gradient in the logits' shape and dtype.

    `out` receives the gradient; without a copy on the way if its rows can be seen as such.
    """
    dtype = logits.dtype
    rows = _as_rows(logits, task.axis)
    if dtype not in KERNEL_DTYPES:
        rows = rows.astype(kernel_dtype(dtype))
    out_rows = None if out is None else _as_rows(out, task.axis)
    direct = out_rows is not None and rows.dtype == dtype and np.may_share_memory(out_rows, out)
    try:
        losses, gradient = softmax_cross_entropy(
            rows,
            temperature=task.temperature,
            scale=scale,
            want_grad=want_grad,
            out=out_rows if direct else None,
            **kernel_target(target, task),
        )
    except NonFiniteRow as error:
        raise non_finite(error.row, task.shape, task.axis) from None
    if gradient is not None:
        gradient = _as_before(gradient, task)
        if gradient.dtype != dtype:
            gradient = gradient.astype(dtype)
    if out is not None and not direct:
        out[...] = gradient
    return losses, gradient if out is None else out


def reduced(losses: np.ndarray, task: Task, dtype: Any) -> np.ndarray:
    """The loss in the shape that `reduction` asks for; warns of a masked right class."""
    infinite = INFINITE.get(dtype, math.inf)
    if task.reduction == "none":
        shaped = losses.reshape(task.rows)
        if np.maximum.reduce(losses, initial=0.0) < infinite:
            return shaped.astype(dtype, copy=False)
        _warn_of_infinity()
        with np.errstate(over="ignore"):
            return shaped.astype(dtype, copy=False)
    total: Any
    if losses.size == 1:
        total = losses.item()
    elif losses.size <= FEW and dtype == np.float32:  # the quickest sum has digits enough
        total = losses.dot(ONES[: losses.size])
    else:  # in extended precision the sum costs no digits of its own
        total = np.add.reduce(losses, dtype=np.longdouble)
    mean = total / task.divisor
    if abs(mean) >= infinite:
        mean = math.copysign(math.inf, mean)
        _warn_of_infinity()
    return np.array(mean, dtype)


def _warn_of_infinity() -> None:
    warn(
        "a row's loss is inf, since its right class is masked (logit -inf) or too far below "
        "the others; its gradient is finite"
    )


def _forward(logits: Any, target: Any, task: Task, saved: _Saved) -> Any:
    """Softmax-cross-entropy of logits and target, as `cross_entropy` describes it."""
    losses, saved.gradient = run_kernel(
        logits, target, task, 1.0 / task.divisor, want_grad=saved.wanted
    )
    return reduced(losses, task, logits.dtype)


def _spread(g: Any, task: Task) -> Any:
    """The cotangent of each row's loss, with a class axis of length 1."""
    return p.expand_dims(g, task.axis) if task.reduction == "none" else g / task.divisor


def closed_form(g: Any, logits: Any, target: Any, task: Task) -> Any:
    """g·(Σq·p − q)/T by differentiable operations, for second derivatives."""
    q = target if task.index is None else task.dense(logits.dtype)
    mass = p.sum(q, axis=task.axis, keepdims=True)
    probabilities = softmax(logits / task.temperature, axis=task.axis)
    return _spread(g, task) * (mass * probabilities - q) / task.temperature


def target_cotangent(g: Any, logits: Any, target: Any, task: Task) -> Any:
    """g·∂L/∂q_j = g·(lse(a/T) − a_j/T); 0 where the class is masked and q_j = 0."""
    z = logits / task.temperature
    terms = logsumexp(z, axis=task.axis, keepdims=True) - z
    masked = np.isneginf(logits.numpy() if isinstance(logits, Tensor) else logits)
    if masked.any():
        q = target.numpy() if isinstance(target, Tensor) else target
        terms = p.where(masked & (q == 0), 0.0, terms)
    return _spread(g, task) * terms


def scales_last(g: Any) -> bool:
    """Whether the gradient may be rounded first and multiplied by g then: if g is 0 or ±2^-k.

    A larger g would show the digits lost to underflow, any other would round once more.
    """
    mantissa, exponent = np.frexp(g)
    return bool(np.all((mantissa == 0.0) | (np.abs(mantissa) == 0.5) & (exponent <= 1)))


def _logits_vjp(g: Any, loss: Any, logits: Any, target: Any, task: Task, saved: _Saved) -> Any:
    """g·(Σq·p − q)/T: what the forward pass left, or the kernel once more."""
    if isinstance(g, Tensor):
        return closed_form(g, logits, target, task)
    per_row = task.reduction == "none"
    one = np.count_nonzero(g == 1.0) == g.size if per_row else float(g) == 1.0
    gradient, saved.gradient = saved.gradient, None  # given away: the receiver may change it
    if not one and not scales_last(g):
        scale = g.reshape(-1).astype(np.float64) if per_row else float(g) / task.divisor
        return run_kernel(logits, target, task, scale, want_grad=True)[1]
    if gradient is None:
        gradient = run_kernel(logits, target, task, 1.0 / task.divisor, want_grad=True)[1]
    if not one:
        gradient *= np.expand_dims(g, task.axis) if per_row else g
    return gradient


def _target_vjp(g: Any, loss: Any, logits: Any, target: Any, task: Task, saved: _Saved) -> Any:
    return target_cotangent(g, logits, target, task)


softmax_with_loss = def_primitive(
    "SoftmaxWithLoss", _forward, _logits_vjp, _target_vjp, integers=True, kind="loss"
)


@overload
def cross_entropy(logits: Tensor, target: Any, **options: Unpack[LossOptions]) -> Tensor: ...
@overload
def cross_entropy(logits: Any, target: Any, **options: Unpack[LossOptions]) -> np.ndarray: ...
def cross_entropy(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    axis: int = -1,
) -> Any:
    """Softmax-cross-entropy as one fused node: L = Σ_j y_j (lse(a) − a_j), ∂L/∂a = Σy·p − y.

    The same function as `composite_cross_entropy`, computed in one visit to the logits.

    Args:
        logits: a Tensor or array with at least one axis, the classes along `axis`. float16 is
            computed in float32, longdouble in float64. −inf masks a class: p = 0 and no gradient.
        target: its shape alone decides. The logits' shape: a distribution over the classes
            (one-hot or soft, any row sum, integers allowed). The logits' shape without `axis`:
            class indices (integers).
        weight: one number per class that multiplies its target; shape (classes,), not negative.
        ignore_index: a class index that marks rows that do not count; with class indices only.
        reduction: "mean" over the rows that count (weighted by `weight` with class indices, as
            PyTorch does), "sum", or "none" for one loss per row.
        label_smoothing: ε in [0, 1]: the target becomes (1 − ε)·y + ε/n.
        temperature: T > 0: the logits are divided by it.
        axis: the class axis.

    Returns:
        A Tensor of shape () or, with "none", of the logits' shape without `axis`; of the logits'
        dtype. For plain arrays a plain array.

    Loss and gradient are within 5 ULP of the exact values, also times whatever cotangent comes from
    above. Where a smoothed or soft target makes s·p − y a difference that cancels, they are within
    5 ULP of its larger term; the README, "Where each form breaks", says which.

    Where it departs from torch.nn.functional.cross_entropy: the class axis is the last by default;
    a mean over no rows is 0, with a warning, instead of NaN; distributions whose sum is not 1
    have the true gradient Σy·p − y; a NaN or +inf among the logits is an error.

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit; see `Task`.

    Source: Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA J. Numer. Anal. 2021.
    """
    plain = not isinstance(logits, Tensor)
    a = Tensor(logits, requires_grad=False) if plain else logits
    task = task_of(
        a.shape,
        a.dtype,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        temperature=temperature,
        axis=axis,
    )
    if a._op is not None and _ends_in_softmax(a, task.axis):
        warn(
            "the logits of a cross-entropy are what softmax returned: then softmax is applied "
            "twice; give what went into softmax"
        )
    loss = loss_node(a, task)
    return loss.numpy() if plain and not loss.requires_grad else loss


def _ends_in_softmax(a: Tensor, axis: int) -> bool:
    """Whether a computed Tensor is softmax(x) or exp(x) / Σ exp(x) over `axis`, and that alone."""
    total = a
    if a._op is p.div:
        e, total = a._operands
        if not (isinstance(total, Tensor) and total._op is p.sum and total._operands[0] is e):
            return False
        if not (isinstance(e, Tensor) and e._op is p.exp):
            return False
    elif a._op is not softmax:
        return False
    over = total._params.get("axis", -1 if total is a else None)
    axes = range(a.ndim) if over is None else np.ravel(over).tolist()
    return {i % a.ndim for i in axes} == {axis}


def loss_node(logits: Tensor, task: Task) -> Tensor:
    """Return the fused node of logits and a task that was checked against them."""
    saved = _Saved(wanted=logits.requires_grad and is_recording())
    target = task.soft if task.index is None else task.index
    loss = record(softmax_with_loss, (logits, target), {"task": task, "saved": saved})
    loss.name = "L"
    return loss


class SoftmaxWithLoss:
    """The layer of Saito's "Deep Learning from Scratch", softmax and cross-entropy in one.

    It has `forward` and `backward`, takes any options of `cross_entropy`, honours `dout`, and its
    gradient is right for soft targets of any row sum, for one row and for a batch (the mean over
    the rows by default).

    Attributes:
        loss: the loss of the last `forward`.
        y: the probabilities softmax(x / temperature), of x's shape.
        t: the target as it was given.

    Example:
        >>> layer = SoftmaxWithLoss()
        >>> loss = layer.forward([2.0, 1.0, 0.1], [1, 0, 0])
        >>> layer.backward().round(3)
        array([-0.341,  0.242,  0.099])
    """

    def __init__(self, **options: Any) -> None:
        known = inspect.signature(cross_entropy).parameters
        for name in options:
            if name not in known or name in ("logits", "target"):
                raise InvalidTypeError(
                    f"SoftmaxWithLoss takes the options of cross_entropy; {name!r} is none of them"
                )
        self.options = options
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None
        self._x: Tensor | None = None
        self._out: Tensor | None = None

    def forward(self, x: Any, t: Any) -> Any:
        """Return the loss of logits `x` and target `t` as a plain array."""
        x = Tensor(x)
        half = x.dtype == np.float16  # which has not the range of a scaled loss's `dout`
        self._out = self(x.astype(np.float32) if half else x, t)
        self._x = x
        if half:
            with np.errstate(over="ignore"):
                self.loss, self.y = self.loss.astype(x.dtype), self.y.astype(x.dtype)
        return self.loss

    def backward(self, dout: Any = 1) -> np.ndarray:
        """Return dout · ∂loss/∂x, of x's shape and dtype.

        Raises:
            InvalidTypeError: `forward` has not run.
            InvalidValueError: `dout` has not the loss's shape.
        """
        if self._x is None or self._out is None:
            raise InvalidTypeError("backward needs a forward before it; call forward(x, t) first")
        self._x.zero_grad()
        gradient = np.broadcast_to(dout, self._out.shape) if np.ndim(dout) == 0 else dout
        self._out.backward(gradient)
        grad: np.ndarray = self._x.grad
        return grad

    @overload
    def __call__(self, a: Tensor, t: Any) -> Tensor: ...
    @overload
    def __call__(self, a: Any, t: Any) -> np.ndarray: ...
    def __call__(self, a: Any, t: Any) -> Any:
        """Return the loss of a Tensor `a` and target `t` as a Tensor of the graph."""
        out = cross_entropy(a, t, **self.options)
        self._x = self._out = None  # `backward` belongs to the last `forward`
        logits = a.numpy() if isinstance(a, Tensor) else np.asarray(a)
        scaled = logits / self.options.get("temperature", 1.0)
        self.y = softmax(scaled, axis=self.options.get("axis", -1))
        self.t = t
        self.loss = out.numpy() if isinstance(out, Tensor) else out
        return out
