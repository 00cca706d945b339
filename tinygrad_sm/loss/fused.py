"""Softmax-cross-entropy as one node, whose gradient is the closed form Σy·p − y.

With s = Σ_k exp(a_k) and p_i = exp(a_i)/s the loss is L = −Σ_j y_j log p_j, and softmax has the
derivatives

    ∂p_i/∂a_i = p_i (1 − p_i)        ∂p_j/∂a_i = −p_j p_i   for j ≠ i

so that by the chain rule, in which the p_j cancel,

    ∂L/∂a_i = −Σ_j y_j (1/p_j) ∂p_j/∂a_i
            = −y_i (1 − p_i) + Σ_{j≠i} y_j p_i
            = −y_i + p_i Σ_j y_j             = Σy·p_i − y_i

which is p − y where Σy = 1. The two terms are what the composite's graph adds up at exp(a), whose
result is used twice: −y comes through the quotient's numerator, +Σy·p through its denominator.

With y go the options (see `options`): weights and smoothing make q of it, a temperature T divides
the logits and thus the gradient, and a mean divides it again. `closed_form` says it by operations
that can be differentiated once more; on plain arrays the kernel computes it, to more digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack, overload

import numpy as np

from tinygrad_sm.arrays.kinds import kind_for, kind_of
from tinygrad_sm.engine import rules, shapes
from tinygrad_sm.engine.calling import call
from tinygrad_sm.engine.gradients import grad
from tinygrad_sm.engine.intake import float_array
from tinygrad_sm.engine.memory import current
from tinygrad_sm.engine.primitive import def_primitive
from tinygrad_sm.engine.scopes import is_recording
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import made_of
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.loss.kernels.calling import reduced, run_kernel
from tinygrad_sm.loss.options import (
    DEFAULTS,
    LossOptions,
    Task,
    as_given,
    as_tensor,
    refuse_non_finite,
    refuse_others,
    takes,
    task_of,
    warn,
)
from tinygrad_sm.loss.probabilities import log_softmax, softmax, unless_masked


def closed_form(p: Any, y: Any, axis: int) -> Any:
    """Σy·p − y, the gradient of −Σ_j y_j log p_j by the logits of p; shapes (…, classes, …)."""
    return rules.sum(y, axis=axis, keepdims=True) * p - y


def logits_cotangent(g: Any, logits: Any, target: Any, task: Task) -> Any:
    """g·∂L/∂a = g·(Σq·p − q)/T, p = softmax(a/T), by differentiable operations."""
    q = target if task.index is None else task.dense(logits.dtype, like=values_of(logits))
    p = softmax(logits / task.temperature, axis=task.axis)
    return spread(g, task) * closed_form(p, q, task.axis) / task.temperature


def target_cotangent(g: Any, logits: Any, target: Any, task: Task) -> Any:
    """g·∂L/∂q_j = −g·log p_j; 0 where the class is masked and q_j = 0."""
    return spread(g, task) * _surprisals(logits, target, task)


def _surprisals(logits: Any, q: Any, task: Task) -> Any:
    """−log p_j; 0 where the class is masked and q_j = 0."""
    values = values_of(logits)
    kind = kind_of(values)
    masked = np.isneginf(values) if kind is None else kind.masked(values)
    terms = -log_softmax(logits / task.temperature, axis=task.axis)
    return unless_masked(terms, 0.0, masked, q)


def values_of(x: Any) -> Any:
    """The array of a Tensor, or an array as it is."""
    return current(x) if isinstance(x, Tensor) else x


def spread(g: Any, task: Task) -> Any:
    """The cotangent of each row's loss, with a class axis of length 1."""
    return shapes.expand_dims(g, task.axis) if task.reduction == "none" else g / task.divisor


# --- the node --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Saved:
    """The gradient that the forward pass found on its way, until the first backward takes it."""

    wanted: bool
    gradient: np.ndarray | None = None


def _forward(logits: Any, target: Any, task: Task, saved: _Saved) -> Any:
    """Softmax-cross-entropy of logits and target, as `cross_entropy` describes it."""
    losses, saved.gradient = run_kernel(logits, target, task, 1.0 / task.divisor, saved.wanted)
    return reduced(losses, task, logits.dtype)


def by_operations(logits: Any, target: Any, task: Task) -> Any:
    """Σq·(lse(a/T) − a/T), reduced, by operations: on arrays that the kernel does not know."""
    q = target if task.index is None else task.dense(logits.dtype, like=logits)
    losses = rules.sum(q * _surprisals(logits, q, task), axis=task.axis)
    return losses if task.reduction == "none" else rules.sum(losses) / task.divisor


def _logits_vjp(g: Any, loss: Any, logits: Any, target: Any, task: Task, saved: _Saved) -> Any:
    """g·(Σq·p − q)/T: what the forward pass left, or the kernel once more."""
    if isinstance(g, Tensor):
        return logits_cotangent(g, logits, target, task)
    per_row = task.reduction == "none"
    one = np.count_nonzero(g == 1.0) == g.size if per_row else float(g) == 1.0
    gradient, saved.gradient = saved.gradient, None  # given away: the receiver may change it
    if not one and not scales_last(g):
        scale = g.reshape(-1).astype(np.float64) if per_row else float(g) / task.divisor
        _, gradient = run_kernel(logits, target, task, scale)
        return gradient
    if gradient is None:
        _, gradient = run_kernel(logits, target, task, 1.0 / task.divisor)
    if not one:
        gradient *= np.expand_dims(g, task.axis) if per_row else g
    return gradient


def scales_last(g: Any) -> bool:
    """Whether the gradient may be rounded first and multiplied by g then: if g is 0 or ±2^-k.

    A larger g would show the digits lost to underflow, any other would round once more.
    """
    mantissa, exponent = np.frexp(g)
    return bool(np.all((mantissa == 0.0) | (np.abs(mantissa) == 0.5) & (exponent <= 1)))


def target_vjp(g: Any, loss: Any, logits: Any, target: Any, task: Task, saved: Any) -> Any:
    """What `target_cotangent` gives."""
    return target_cotangent(g, logits, target, task)


softmax_with_loss = def_primitive(
    "SoftmaxWithLoss", _forward, _logits_vjp, target_vjp, integers=True, kind="loss"
)


def loss_node(logits: Tensor, task: Task) -> Tensor:
    """Return the fused node of logits and a task that was checked against them."""
    saved = _Saved(wanted=logits.requires_grad and is_recording())
    loss = call(softmax_with_loss, (logits, task.target), {"task": task, "saved": saved})
    loss.name = "L"
    return loss


# --- the loss --------------------------------------------------------------------------------


@overload
def cross_entropy(logits: Tensor, target: Any, **options: Unpack[LossOptions]) -> Tensor: ...
@overload
def cross_entropy(logits: Any, target: Any, **options: Unpack[LossOptions]) -> np.ndarray: ...
@takes(LossOptions)
def cross_entropy(logits: Any, target: Any, **options: Unpack[LossOptions]) -> Any:
    """Softmax-cross-entropy as one fused node: L = Σ_j y_j (lse(a) − a_j), ∂L/∂a = Σy·p − y.

    The same function as `composite_cross_entropy`, computed in one visit to the logits.

    Args:
        logits: a Tensor or array with at least one axis, the classes along `axis`. float16 is
            computed in float32, longdouble in float64. −inf masks a class: p = 0 and no gradient.
        target: its shape alone decides. The logits' shape: a distribution over the classes
            (one-hot or soft, any row sum, integers allowed). The logits' shape without `axis`:
            class indices (integers).

    Returns:
        A Tensor of shape () or, with "none", of the logits' shape without `axis`; of the logits'
        dtype. For plain arrays a plain array.

    Loss and gradient are within 5 ULP of the exact values, also times whatever cotangent comes from
    above. Where a smoothed or soft target makes s·p − y a difference that cancels, they are within
    5 ULP of its larger term; `docs/accuracy.md` says which.

    Where it departs from torch.nn.functional.cross_entropy: the class axis is the last by default;
    a mean over no rows is 0, with a warning, instead of NaN; distributions whose sum is not 1
    have the true gradient Σy·p − y; a NaN or +inf among the logits is an error.

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit; see `Task`.

    Source: Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA J. Numer. Anal. 2021.
    """
    a = as_tensor(logits)
    task = task_of(cross_entropy, a.shape, a.dtype, target, **options)
    if a.op is not None and _ends_in_softmax(a, task.axis):
        warn(
            "the logits of a cross-entropy are what softmax returned: then softmax is applied "
            "twice; give what went into softmax"
        )
    return as_given(loss_node(a, task), logits)


def _ends_in_softmax(a: Tensor, axis: int) -> bool:
    """Whether a computed Tensor is softmax(x) or exp(x) / Σ exp(x) over `axis`, and that alone."""
    if a.op not in ("div", "softmax"):
        return False
    operation, (e, *others) = made_of(a)
    default: int | None = -1
    if a.op == "div":
        (total,) = others
        if not (isinstance(e, Tensor) and isinstance(total, Tensor)):
            return False
        operation, summed = made_of(total)
        if (e.op, total.op) != ("exp", "sum") or summed[0] is not e:
            return False
        default = None
    over = operation.params.get("axis", default)
    axes = range(a.ndim) if over is None else np.ravel(over).tolist()
    return {i % a.ndim for i in axes} == {axis}


# --- loops written by hand -------------------------------------------------------------------


@takes(LossOptions)
def cross_entropy_with_gradient(
    logits: Any, target: Any, *, out: np.ndarray | None = None, **options: Unpack[LossOptions]
) -> tuple[np.ndarray, np.ndarray]:
    """The loss of plain arrays and its gradient Σy·p − y, with no graph: for loops written by hand.

    Args:
        logits: an array; the gradient is taken by it.
        target: as in `cross_entropy`; it is not differentiated.
        out: an array of the logits' shape and dtype that receives the gradient. It may be `logits`
            itself, which is then overwritten: so nothing of the logits' size is allocated, if the
            classes are the last axis of a C-contiguous float32 or float64 array.

    Returns:
        The loss, as `cross_entropy` returns it, and the gradient of its sum: `out`, or a new array
        of the logits' shape and dtype.

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit; `out` is then
            unchanged. (A warning that you turned into an error comes when it is written.)

    Example:
        >>> a = np.array([[2.0, 1.0, 0.1]])
        >>> loss, gradient = cross_entropy_with_gradient(a, [0], out=a)
        >>> gradient is a, gradient.round(3)
        (True, array([[-0.341,  0.242,  0.099]]))
    """
    for name, value in (("logits", logits), ("target", target)):
        if isinstance(value, Tensor):
            raise InvalidTypeError(
                f"{name} must be a plain array, since nothing is recorded; got a Tensor: "
                "use cross_entropy(...).backward(), or t.numpy()"
            )
    a = float_array(logits, None, copy=False, what="logits")
    if type(a) is not np.ndarray:
        if out is not None:
            raise InvalidTypeError(f"out is for NumPy's logits; got {type(logits).__name__}")
        t = Tensor(a)
        total = cross_entropy(t, target, **options)
        return total.data, grad(total, t, kind_for(a).ones(total.data))
    task = task_of(cross_entropy_with_gradient, a.shape, a.dtype, target, **options)
    if out is not None:
        _check_out(out, a, task)
        refuse_non_finite(a, task.axis)  # before `out` is written
    losses, gradient = run_kernel(a, task.soft, task, 1.0 / task.divisor, out=out)
    return reduced(losses, task, a.dtype), gradient


def _check_out(out: Any, logits: np.ndarray, task: Task) -> None:
    """Raise before anything is written if `out` cannot receive the gradient."""
    if not isinstance(out, np.ndarray):
        raise InvalidTypeError(f"out must be an array; got {type(out).__name__}")
    if out.shape != logits.shape or out.dtype != logits.dtype:
        raise InvalidValueError(
            f"out must have the logits' shape {logits.shape} and dtype {logits.dtype}; "
            f"got {out.shape} and {out.dtype}"
        )
    if not out.flags.writeable:
        raise InvalidValueError("out must be writeable; this array is read-only")
    same = (out.ctypes.data, out.strides) == (logits.ctypes.data, logits.strides)
    if not same and np.shares_memory(out, logits):
        raise InvalidValueError("out must be the logits' own array or share no memory with it")
    if task.soft is not None and np.shares_memory(out, task.soft):
        raise InvalidValueError("out must not share memory with target")
    reach = out.itemsize  # of the axes so far, from the one with the smallest steps on
    for step, n in sorted((abs(step), n) for step, n in zip(out.strides, out.shape, strict=True)):
        if n > 1 and step < reach:
            raise InvalidValueError("out must not overlap with itself; this view does")
        reach += step * (n - 1)


# --- the textbook's layer --------------------------------------------------------------------


class SoftmaxWithLoss:
    """The layer of Saito's "Deep Learning from Scratch", softmax and cross-entropy in one.

    It has `forward` and `backward`, takes any options of `cross_entropy`, honours `dout`, and its
    gradient is right for soft targets of any row sum, for one row and for a batch (the mean over
    the rows by default).

    Attributes:
        loss: the loss of the last `forward`.
        y: the probabilities softmax(x / temperature), of x's shape.
        t: the target as it was given.

    Examples:
        >>> layer = SoftmaxWithLoss()
        >>> loss = layer.forward([2.0, 1.0, 0.1], [1, 0, 0])
        >>> layer.backward().round(3)
        array([-0.341,  0.242,  0.099])
    """

    @takes(LossOptions)
    def __init__(self, **options: Unpack[LossOptions]) -> None:
        """Take any options of `cross_entropy`."""
        refuse_others(cross_entropy, options.keys() - DEFAULTS.keys())
        self.options = options
        self.loss: Any = None
        self.t: Any = None
        self._y: np.ndarray | None = None
        self._logits: np.ndarray | None = None  # whose softmax `y` is, until it is known
        self._x: Tensor | None = None
        self._out: Tensor | None = None

    @property
    def y(self) -> np.ndarray | None:
        """The probabilities, found when first asked for: neither loss nor gradient needs them."""
        if self._logits is not None:
            scaled = self._logits / self.options.get("temperature", 1.0)
            found = softmax(scaled, axis=self.options.get("axis", -1))
            same = found.dtype == self.loss.dtype
            self._y, self._logits = found if same else found.astype(self.loss.dtype), None
        return self._y

    def forward(self, x: Any, t: Any) -> Any:
        """Return the loss of logits `x` and target `t` as a plain array."""
        x = Tensor(x)
        # float16 has not the range of a scaled loss's `dout`
        out = self(x.astype(np.float32) if x.dtype == np.float16 else x, t)
        self._x, self._out = x, out
        if self.loss.dtype != x.dtype:
            with np.errstate(over="ignore"):
                self.loss = self.loss.astype(x.dtype)
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
        logits = current(as_tensor(a))
        self._logits = np.array(logits) if kind_of(logits) is None else logits  # our own
        self.t = t
        self.loss = out.data if isinstance(out, Tensor) else out
        return out
