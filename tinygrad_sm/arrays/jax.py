"""JAX's arrays, also while `jax.jit` traces: each primitive is run by JAX's function of its name.

The graph is recorded and swept while JAX traces, so that what is compiled is the forward pass and
the gradient together. Arrays may be sharded: labels are compared, not gathered, along the classes.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tinygrad_sm.arrays.kinds import Kind
from tinygrad_sm.errors import InvalidTypeError


def _sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return jnp.sum(x, axis=axis, keepdims=keepdims)


def _scatter(g: Any, index: Any, shape: Any, distinct: bool = False) -> Any:
    return jnp.zeros(shape, g.dtype).at[index].add(g, unique_indices=distinct)


def _logsumexp(a: Any, axis: Any = -1, keepdims: bool = False) -> Any:
    return jax.nn.logsumexp(a, axis=axis, keepdims=keepdims)


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
    }

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
        m = jnp.max(a, axis=axis, keepdims=True)
        return jnp.where(jnp.isinf(m), 0, m)

    def one_hot(self, index: Any, like: Any, axis: int) -> Any:
        """Labels compared with all classes, which leaves a sharding as it is.

        While JAX traces, nothing can be raised for a label out of range: it makes its row NaN.
        """
        count = [-1 if i == axis else 1 for i in range(like.ndim)]
        classes = like.shape[axis]
        hit = (jnp.arange(classes).reshape(count) == index).astype(like.dtype)
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
