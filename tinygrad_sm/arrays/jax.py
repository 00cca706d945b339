"""JAX's arrays, also while `jax.jit` traces: each primitive is run by JAX's function of its name.

The graph is recorded and swept while JAX traces, so that what is compiled is the forward pass and
the gradient together. Arrays may be sharded: labels are compared, not gathered, along the classes.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tinygrad_sm.arrays.kinds import Kind, along
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError
from tinygrad_sm.loss.fused import closed_form, logits_cotangent, spread, target_vjp
from tinygrad_sm.loss.options import Task


def _sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return jnp.sum(x, axis=axis, keepdims=keepdims)


def _shift(a: Any, axis: Any) -> Any:
    m = jnp.max(a, axis=axis, keepdims=True)
    return jnp.where(jnp.isinf(m), 0, m)


def _scatter(g: Any, index: Any, shape: Any, distinct: bool = False) -> Any:
    return jnp.zeros(shape, g.dtype).at[index].add(g, unique_indices=distinct)


def _logsumexp(a: Any, axis: Any = -1, keepdims: bool = False) -> Any:
    return jax.nn.logsumexp(a, axis=axis, keepdims=keepdims)


# The fused node -----------------------------------------------------------------------------------


def _parts(logits: Any, task: Task) -> tuple[Any, Any, Any, Any]:
    """z = a/T, its shift m, e = exp(z − m), and Σe along the classes; XLA computes them once."""
    a = jnp.asarray(logits)
    z = a.astype(jnp.promote_types(a.dtype, jnp.float32)) / task.temperature
    m = _shift(z, task.axis)
    e = jnp.exp(z - m)
    s = jnp.sum(e, axis=task.axis, keepdims=True)
    return z, m, e, jnp.where(s == 0, 1, s)  # 0 where every class is masked


def _hits(e: Any, task: Task) -> tuple[Any, Any, Any]:
    """Where the right classes are, e there, and Σe of the others, which no difference rounds.

    While JAX traces, nothing can be raised for a label out of range: it makes its row NaN.
    """
    t = jnp.asarray(task.by_class(task.index))
    hit = along(jnp.arange(task.classes), task.axis, e.ndim) == t
    peak = jnp.take_along_axis(e, t, task.axis)
    rest = jnp.sum(jnp.where(hit, 0, e), axis=task.axis, keepdims=True)
    return hit, jnp.where((t < 0) | (t >= task.classes), jnp.nan, peak), rest


def _aim(task: Task, like: Any) -> tuple[Any, Any]:
    """What a row's target has at its right class, and what it has at every class."""

    def numbers(x: Any) -> Any:
        return jnp.asarray(x, like.dtype)

    at = 1.0 if task.coefficient is None else numbers(task.by_class(task.coefficient))
    if task.smooth is None:
        return at, None
    smooth = along(numbers(task.smooth), task.axis, like.ndim)
    return at, smooth if task.active is None else smooth * numbers(task.by_class(task.active))


def _fused(logits: Any, target: Any, task: Task, saved: Any) -> Any:
    z, m, e, s = _parts(logits, task)
    lse = jnp.log(s) + m
    if task.index is None:
        each = jnp.where(target == 0, 0, target * (lse - z))
        losses = jnp.sum(each, axis=task.axis, keepdims=True)
    else:
        _, peak, rest = _hits(e, task)
        at, smooth = _aim(task, z)
        z_t = jnp.take_along_axis(z, jnp.asarray(task.by_class(task.index)), task.axis)
        near = rest < peak  # then log(s/e_t) is near 0, and log1p keeps its digits
        right = jnp.where(near, jnp.log1p(rest / jnp.where(near, peak, 1)), lse - z_t)
        losses = jnp.where(at == 0, 0, at * jnp.where(jnp.isnan(peak), jnp.nan, right))
        if smooth is not None:
            each = jnp.where(smooth == 0, 0, smooth * (lse - z))
            losses += jnp.sum(each, axis=task.axis, keepdims=True)
    losses = jnp.squeeze(losses, task.axis)
    loss = losses if task.reduction == "none" else jnp.sum(losses) / task.divisor
    return loss.astype(jnp.asarray(logits).dtype)


def _fused_vjp(g: Any, loss: Any, logits: Any, target: Any, task: Task, saved: Any) -> Any:
    """g·(Σq·p − q)/T."""
    if isinstance(g, Tensor):
        return logits_cotangent(g, logits, target, task)
    _, _, e, s = _parts(logits, task)
    factor = spread(g, task) / task.temperature
    if task.index is None:
        gradient = factor * closed_form(e / s, target, task.axis)
    else:
        hit, peak, rest = _hits(e, task)
        at, smooth = _aim(task, e)
        mass = at if smooth is None else at + jnp.sum(smooth, axis=task.axis, keepdims=True)
        others = factor * mass / s
        there = e * others if smooth is None else e * others - factor * smooth
        # at the right class mass·p − q is mass − q − mass·(Σe of the others)/s
        left = 0 if smooth is None else factor * (mass - at - smooth)
        gradient = jnp.where(hit, left - others * (rest + 0 * peak), there)
    return gradient.astype(logits.dtype)


class OfJax(Kind):
    """Arrays of JAX, eager or traced."""

    name = "JAX"
    forwards = {  # noqa: RUF012
        "astype": lambda x, dtype: jnp.asarray(x, dtype),
        "concatenate": lambda *arrays, axis=0: jnp.concatenate(arrays, axis),
        "einsum": lambda *arrays, subscripts: jnp.einsum(subscripts, *arrays),
        "getitem": lambda x, index: jnp.asarray(x)[index],
        "log_softmax": lambda a, axis=-1: jax.nn.log_softmax(a, axis),
        "logsumexp": _logsumexp,
        "relu": lambda x: jnp.maximum(x, 0),
        "root": lambda x, n=2: jnp.sqrt(x) if n == 2 else jnp.power(x, 1 / n),
        "scatter": _scatter,
        "sigmoid": jax.nn.sigmoid,
        "softmax": lambda a, axis=-1: jax.nn.softmax(a, axis),
        "sum": _sum,
        "SoftmaxWithLoss": _fused,
    }
    vjps = {"SoftmaxWithLoss": (_fused_vjp, target_vjp)}  # noqa: RUF012

    def covers(self, cls: type) -> bool:
        """Arrays, and what stands for them while JAX traces."""
        return issubclass(cls, (jax.Array, jax.core.Tracer))

    def leaf(self, data: Any, dtype: Any = None) -> Any:
        """Numbers as they are, whole ones in JAX's own floating-point dtype."""
        if not jnp.issubdtype(data.dtype, jnp.number) or data.dtype.kind not in "iuf":
            raise InvalidTypeError(
                f"data must be real numbers of a dtype that NumPy has; got a JAX array of dtype "
                f"{data.dtype}"
            )
        if dtype is None:
            dtype = data.dtype if data.dtype.kind == "f" else jnp.zeros(()).dtype
        return data if data.dtype == dtype else jnp.asarray(data, dtype)

    def beside(self, data: Any, like: Any) -> Any:
        """Such data, or NumPy's, in the dtype of a JAX array."""
        return jnp.asarray(data, like.dtype)

    def run(self, primitive: Any, args: Any, params: Any) -> Any:
        """Run a primitive by JAX's function of the same name, if there is one."""
        name = primitive.name
        called = getattr(primitive.forward, "__name__", name)
        forward = self.forwards.get(name) or getattr(jnp, called, None) or getattr(jnp, name, None)
        if forward is None:
            return super().run(primitive, args, params)
        return forward(*args, **params)

    def is_computed(self, array: Any) -> bool:
        """Whether there are values; while JAX traces there are none."""
        return not isinstance(array, jax.core.Tracer)

    def ones(self, like: Any) -> Any:
        """Ones where and as the array lies."""
        return jnp.ones_like(like)

    def pictured(self, array: Any) -> Any:
        """The values, or that there are none yet."""
        return np.asarray(array) if self.is_computed(array) else "traced by JAX"

    def shift(self, a: Any, axis: Any) -> Any:
        """The largest logit; 0 where it is infinite."""
        return _shift(a, axis)

    def one_hot(self, index: Any, like: Any, axis: int) -> Any:
        """Labels compared with all classes, which leaves a sharding as it is.

        While JAX traces, nothing can be raised for a label out of range: it makes its row NaN.
        """
        classes = like.shape[axis]
        hit = (along(jnp.arange(classes), axis, like.ndim) == index).astype(like.dtype)
        if not isinstance(index, jax.core.Tracer):
            return hit
        return jnp.where((index < 0) | (index >= classes), jnp.nan, hit)

    def labels(self, given: Any, classes: int, ignore_index: int) -> tuple[Any, Any]:
        """Class indices with 0 where a row is ignored, and which rows count."""
        active = given != ignore_index
        return jnp.where(active, given, 0), active

    def pick(self, per_class: np.ndarray, index: Any) -> Any:
        """One number per class, at class indices."""
        return jnp.asarray(per_class)[index]

    def masked(self, logits: Any) -> Any:
        """Which classes are masked by -inf."""
        return jnp.isneginf(logits)


KIND = OfJax()
