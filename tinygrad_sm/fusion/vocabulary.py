"""The words that rules are written in: makers of terms, their cost, and how each is computed.

Beside the primitives there are a few words of the search's own:

    @scale(x; by)         x times an exact rational number
    @pick(x, t; axis)     of each row of x along `axis` the class that t names
    @masked(x, mask)      the elements of x where the mask holds, in a row
    @loss(x, q, w…; axis, parts, reduction, temperature)
                          the fused loss of one or several targets, as `Part`s say
    @linear_loss(x, weight, bias, q, …)
                          the same of the logits x weightᵀ + bias, which it does not hold

The sign @ keeps them apart from primitives, which anybody may add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine.primitive import TABLE
from tinygrad_sm.fusion.loss_node import Part, build_linear_loss, build_loss
from tinygrad_sm.fusion.terms import CONSTANT, HERE, LOSS_NODE, NUMBER, Shape, Term
from tinygrad_sm.loss.options import without_axis

LOSS = "@loss"
LINEAR_LOSS = "@linear_loss"
PRIMITIVE = {LOSS: LOSS_NODE, LINEAR_LOSS: "LinearSoftmaxWithLoss"}
"""The primitives that words of the search's own are computed by."""

# Makers of terms ----------------------------------------------------------------------------------


def make(op: str, *inputs: Term, shape: Shape, dtype: Any, **params: Any) -> Term:
    """Return a new term; the loop interns it."""
    return Term(op, inputs, params, shape, dtype)


def number(value: Fraction | int) -> Term:
    """Return the term of an exact number."""
    return make(NUMBER, shape=(), dtype=None, value=Fraction(value))


def like(x: Term, op: str, *inputs: Term, **params: Any) -> Term:
    """Return an operation whose result has the shape and dtype of `x`."""
    return make(op, *inputs, shape=x.shape, dtype=x.dtype, **params)


def scale(x: Term, by: Fraction | int) -> Term:
    """Return x times a number."""
    return like(x, "@scale", x, by=Fraction(by))


def reshape(x: Term, shape: Shape) -> Term:
    """Return x in another shape; of a constant, a constant."""
    if x.shape == shape:
        return x
    if x.op == CONSTANT:
        return make(
            CONSTANT if shape else NUMBER, shape=shape, dtype=x.dtype, content=x.params["content"]
        )
    if x.op == NUMBER and x.dtype is not None:
        return make(CONSTANT, shape=shape, dtype=x.dtype, content=x.params["content"])
    return make("reshape", x, shape=shape, dtype=x.dtype)


def cast(x: Term, dtype: Any) -> Term:
    """Return x in another dtype."""
    return x if x.dtype == dtype else make("astype", x, shape=x.shape, dtype=dtype)


def elementwise(op: str, *inputs: Term) -> Term:
    """Return an operation element by element, with NumPy's broadcasting and promotion."""
    return make(op, *inputs, shape=broadcast(*inputs), dtype=promoted(*inputs))


def kept(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Return a shape with `axes` reduced to length 1."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def order(x: Term) -> tuple[int, ...]:
    """Return the order in which a transpose takes the axes."""
    ndim = x.ndim
    axes = x.params["axes"]
    return tuple(range(ndim))[::-1] if axes is None else tuple(i % ndim for i in axes)


def transposed(x: Term, axes: tuple[int, ...] = (1, 0)) -> Term:
    """Return x with its axes in another order; by default the transpose of a matrix."""
    shape = tuple(x.shape[i] for i in axes)
    return make("transpose", x, shape=shape, dtype=x.dtype, axes=axes)


def total(x: Term, axes: tuple[int, ...]) -> Term:
    """Return the sum along `axes`, which stay with length 1."""
    return make("sum", x, shape=kept(x.shape, axes), dtype=x.dtype, axis=axes, keepdims=True)


def logsumexp(x: Term, axis: int) -> Term:
    """Return log Σ exp along an axis, which stays with length 1."""
    return make(
        "logsumexp", x, shape=kept(x.shape, (axis,)), dtype=x.dtype, axis=axis, keepdims=True
    )


def pick(x: Term, t: Term, axis: int) -> Term:
    """Return x at the classes t, whose shape is that of x without `axis`."""
    return make("@pick", x, t, shape=without_axis(x.shape, axis), dtype=x.dtype, axis=axis)


def loss(x: Term, target: Term, axis: int, kind: str) -> Term:
    """Return the loss of each row, of shape x.shape without `axis`; summed if there is one row."""
    rows = without_axis(x.shape, axis)
    one = all(n == 1 for n in rows)
    node = make(
        LOSS, x, target, shape=() if one else rows, dtype=x.dtype, axis=axis,
        parts=(Part(kind, 0, Fraction(1)),), reduction="sum" if one else "none",
        temperature=Fraction(1),
    )  # fmt: skip
    return reshape(node, rows) if one and rows else node


def changed(term: Term, *inputs: Term, **params: Any) -> Term:
    """Return `term` with other inputs, or other values of some parameters."""
    return Term(term.op, inputs or term.inputs, {**term.params, **params}, term.shape, term.dtype)


def broadcast(*terms: Term) -> Shape:
    """Return the shape that the terms broadcast to."""
    return np.broadcast_shapes(*(x.shape for x in terms))


def promoted(*terms: Term) -> Any:
    """Return the dtype of an operation on the terms; Python numbers take that of the others."""
    return np.result_type(*(x.dtype for x in terms if x.dtype is not None))


LARGEST = 10**100
MOST_BITS = 2200  # of an exact product: a long chain of factors is combined in stretches


def out_of_range(term: Term) -> bool:
    """Return whether an exact number is so large or small that floats lose it, or too long."""
    if term.op not in ("@scale", *PRIMITIVE):
        return False
    numbers = [term.params[name] for name in ("by", "temperature") if name in term.params]
    numbers += [part.by for part in term.params.get("parts", ())]
    return any(
        n and (n.denominator.bit_length() > MOST_BITS or not 1 < LARGEST * abs(n) < LARGEST**2)
        for n in numbers
    )


# What a term costs --------------------------------------------------------------------------------

# Two readings of a term as a linear polynomial in its variables, compared one after the other:
# an operation of cost (k, c) on inputs x, y, … costs k·(x + y + …) + c; constants cost nothing.
# Each application of a rule must lower the first, or keep it and lower the second; since both grow
# with each variable, no sequence of applications is endless (Lankford's polynomial readings).
_MOVERS = dict.fromkeys(("@pick", "@masked", "reshape", "@scale", "astype"), (1, 1))
_RAW = (4, 9)  # forms that rules turn into plainer ones
_FIRST: dict[str, tuple[int, int]] = {
    **_MOVERS,
    **dict.fromkeys(("mean", "getitem", "take_along_axis", "matmul", "where", "pow"), _RAW),
    "transpose": (1, 3),
    "exp": (2, 2),
    "sum": (2, 2),
    "add": (2, 3),
    "sub": (2, 3),
    "div": (2, 9),
    "maximum": (2, 2),
    "minimum": (2, 2),
    "log_softmax": (2, 3),
    LOSS: (2, 0),
}
_SECOND = {"@scale": (1, 1)}


def cost(term: Term, reading: int) -> tuple[int, int]:
    """Return (k, c) of a term in the first (0) or second (1) reading."""
    if reading == 1:
        return _SECOND.get(term.op, (2, 1))
    if term.params.get("keepdims") is False:
        return _RAW
    return _FIRST.get(term.op, (2, 1))


# How it is computed -------------------------------------------------------------------------------


def _scaled(args: Any, params: Mapping[str, Any]) -> Any:
    by = params["by"]
    if by == -1:
        return -args[0]
    return args[0] / by.denominator if by.numerator == 1 else args[0] * float(by)


def _picked(args: Any, params: Mapping[str, Any]) -> Any:
    x, t = args
    axis = params["axis"]
    rows = without_axis(x.shape, axis)
    index = np.expand_dims(np.broadcast_to(t, rows), axis)
    return p.reshape(p.take_along_axis(x, index, axis=axis), shape=rows)


def _indexed(args: Any, params: Mapping[str, Any]) -> Any:
    """Put the arrays of an index back into their places."""
    x, *arrays = args
    rest = iter(arrays)
    index = tuple(
        next(rest) if part == HERE else slice(*part[1:]) if isinstance(part, tuple) else part
        for part in params["index"]
    )
    return x[index]


BUILD: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "@scale": _scaled,
    "@pick": _picked,
    "@masked": lambda args, params: args[0][args[1]],
    LOSS: build_loss,
    LINEAR_LOSS: build_linear_loss,
    "getitem": _indexed,
}
"""How a word of the search's own is computed from arrays and Tensors; primitives need no entry."""


def build(term: Term, args: list[Any], params: Mapping[str, Any]) -> Any:
    """Compute a term from its inputs' values."""
    own = BUILD.get(term.op)
    if own is not None:
        return own(args, params)
    primitive = TABLE[term.op]
    if term.op == "reshape":
        return primitive(*args, shape=term.shape)
    if term.op == "astype":
        return primitive(*args, dtype=term.dtype)
    return primitive(*args, **params)
