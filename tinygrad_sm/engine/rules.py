"""The table of primitives: each forward function with its vector-Jacobian products beside it.

A row reads ``name = def_primitive(name, forward, vjp of argument 0, vjp of argument 1, …)``. A vjp
is called as ``vjp(g, out, *arguments, **parameters)``: ``g`` is the cotangent of the output, and
the output and the arguments have a textbook's letters, as in q = f / d. The vjps are written with
these same operations, some of which stand further down; that is what makes second derivatives work.
Where an argument was broadcast, the sweep sums its cotangent down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_sm.engine.primitive import def_primitive
from tinygrad_sm.engine.shapes import astype, broadcast_to, reshape

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import Choice, Unary

Axis = int | tuple[int, ...] | None

# Arithmetic ---------------------------------------------------------------------------------------

add = def_primitive(
    "add", np.add, lambda g, z, x, y: g, lambda g, z, x, y: g, linear=True, notation="{} + {}"
)
sub = def_primitive(
    "sub", np.subtract, lambda g, z, x, y: g, lambda g, z, x, y: -g, linear=True, notation="{} − {}"
)
mul = def_primitive(
    "mul", np.multiply, lambda g, z, x, y: g * y, lambda g, z, x, y: g * x,
    analytic=True, notation="{} · {}",
)  # fmt: skip
div = def_primitive(  # (f/d)' as two edges: 1/d to the numerator, -f/d² = -q/d to the denominator
    "div",
    np.true_divide,
    lambda g, q, f, d: g / d,
    lambda g, q, f, d: -sum_to(g * q, d) / d,  # summed first: d is often one for many f
    analytic=True,
    notation="{} / {}",
)
neg = def_primitive("neg", np.negative, lambda g, y, x: -g, linear=True, notation="−{}")
pow = def_primitive(
    "pow",
    np.power,
    lambda g, z, x, n: g * n * x ** (n - (n != 0)),  # n = 0 has slope 0, also at x = 0
    # z log x; at x = 0 it is -inf for n < 0, and taken as its limit 0 else
    lambda g, z, x, n: g * z * log(where((x == 0) & (n >= 0), 1, x)),
    analytic=True,
    notation="{}^{}",
)

# Exponentials and friends -------------------------------------------------------------------------

exp = def_primitive("exp", np.exp, lambda g, y, x: g * y, analytic=True)
log: Unary = def_primitive("log", np.log, lambda g, y, x: g / x, analytic=True)
log1p = def_primitive("log1p", np.log1p, lambda g, y, x: g / (1 + x), analytic=True)
sqrt = def_primitive("sqrt", np.sqrt, lambda g, y, x: g / (2 * y), analytic=True, notation="√")
tanh = def_primitive("tanh", np.tanh, lambda g, y, x: g * (1 - y * y), analytic=True)


def _sigmoid(x: Any) -> Any:
    """The logistic function 1 / (1 + exp(-x)), from the side on which exp cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.where(np.greater_equal(x, 0), 1 / (1 + e), e / (1 + e))


sigmoid: Unary = def_primitive(  # 1 − y is σ(−x), which keeps its digits where y rounds to 1
    "sigmoid", _sigmoid, lambda g, y, x: g * y * sigmoid(-x), kind="elementwise"
)

# Choices ------------------------------------------------------------------------------------------


def _where(condition: Any, x: Any, y: Any) -> Any:
    """Elements of x where the condition holds, else of y; the condition is not differentiated."""
    return np.where(condition, x, y)


where: Choice = def_primitive(
    "where",
    _where,
    None,
    lambda g, z, condition, x, y: where(condition, g, 0),
    lambda g, z, condition, x, y: where(condition, 0, g),
    numpy=np.where,
    kind="elementwise",
    analytic=True,
)


def _relu(x: Any) -> Any:
    """The positive part max(x, 0); its slope at 0 is taken as 0."""
    return np.maximum(x, 0)


relu = def_primitive("relu", _relu, lambda g, y, x: where(x <= 0, 0, g), kind="elementwise")
abs = def_primitive(
    "abs", np.absolute, lambda g, y, x: where(x > 0, g, where(x < 0, -g, 0)), notation="|{}|"
)
maximum = def_primitive(  # at a tie each argument gets half; beside a NaN each gets all
    "maximum",
    np.maximum,
    lambda g, z, x, y: where(x < y, 0, where(x == y, g / 2, g)),
    lambda g, z, x, y: where(y < x, 0, where(x == y, g / 2, g)),
)
minimum = def_primitive(
    "minimum",
    np.minimum,
    lambda g, z, x, y: where(x > y, 0, where(x == y, g / 2, g)),
    lambda g, z, x, y: where(y > x, 0, where(x == y, g / 2, g)),
)


# Reductions ---------------------------------------------------------------------------------------

# np.sum and np.max are these with a layer of Python on top
_add_up: Callable[..., Any] = np.add.reduce
_largest: Callable[..., Any] = np.maximum.reduce


def _kept(y: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """Give a reduction's result, or its cotangent, the reduced axes of x back, of length 1.

    A single number goes with x as it is.
    """
    if keepdims or axis is None or y.ndim == x.ndim:
        return y
    axes = axis if isinstance(axis, tuple) else (axis,)
    reduced = {i % x.ndim for i in axes}
    return reshape(y, shape=tuple([1 if i in reduced else n for i, n in enumerate(x.shape)]))


def _sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum of the elements along `axis` (an int, a tuple, or None for all)."""
    if getattr(x, "dtype", None) == np.float16:  # in which 2048 + 1 is 2048
        return _add_up(x, axis=axis, keepdims=keepdims, dtype=np.float32).astype(np.float16)
    return _add_up(x, axis=axis, keepdims=keepdims)


def _sum_vjp(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    return broadcast_to(_kept(g, x, axis, keepdims), shape=x.shape)


sum = def_primitive(
    "sum", _sum, _sum_vjp, numpy=np.sum, kind="reduction", linear=True, notation="Σ"
)


def sum_to(x: Any, like: Any) -> Any:
    """Undo broadcasting: sum x over the axes along which an array like `like` was repeated."""
    shape = like.shape if hasattr(like, "shape") else np.shape(like)
    if x.shape == shape:
        return x
    extra = x.ndim - len(shape)
    repeated = [extra + i for i, n in enumerate(shape) if n != x.shape[extra + i]]
    if not extra:
        return sum(x, axis=tuple(repeated), keepdims=True)
    return reshape(sum(x, axis=(*range(extra), *repeated)), shape=shape)


def _mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean along `axis` (an int, a tuple, or None for all)."""
    return np.mean(x, axis=axis, keepdims=keepdims)


def _divided(g: Any, count: Any) -> Any:
    """g / count; float16 itself holds not every count above 2048, and none from 65520 on."""
    if g.dtype != np.float16:
        return g / count
    return astype(g / np.asarray(count, np.float64), g.dtype)


def _mean_vjp(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    return _sum_vjp(_divided(g, x.size / y.size if y.size else 1), y, x, axis, keepdims)


mean = def_primitive("mean", _mean, _mean_vjp, numpy=np.mean, kind="reduction", linear=True)


def _max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Largest element along `axis`; elements that tie for it share its cotangent evenly."""
    return _largest(x, axis=axis, keepdims=keepdims)


def _max_vjp(g: Any, y: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    top = _kept(y, x, axis, keepdims)
    largest = x == top
    ties = np.maximum(_add_up(largest, axis=axis, keepdims=True), 1)
    others = np.where(top != top, np.nan, 0).astype(x.dtype)  # if the largest is a NaN, so are all
    return where(largest, _divided(_kept(g, x, axis, keepdims), ties), others)


max = def_primitive("max", _max, _max_vjp, numpy=(np.max, np.amax), kind="reduction")

__all__ = [
    "abs", "add", "div", "exp", "log", "log1p", "max", "maximum", "mean", "minimum", "mul", "neg",
    "pow", "relu", "sigmoid", "sqrt", "sub", "sum", "sum_to", "tanh", "where",
]  # fmt: skip
