"""The words that rules are written in: makers of formulas, and how each is computed.

Beside the primitives there are a few words of the search's own:

    @scale(x; by)         x times an exact rational number
    @pick(x, t; axis)     of each row of x along `axis` the class that t names
    @masked(x, mask)      the elements of x where the mask holds, in a row
    @loss(x, q, w…; axis, parts, reduction, temperature)
                          the fused loss of one or several targets, as `WeightedTarget`s say
    @linear_loss(x, weight, bias, q, …)
                          the same of the logits x weightᵀ + bias, which it does not hold

The sign @ keeps them apart from primitives, which anybody may add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from tinygrad_sm.engine import shapes
from tinygrad_sm.engine.primitive import TABLE
from tinygrad_sm.fusion.loss_node import WeightedTarget, build_linear_loss, build_loss
from tinygrad_sm.fusion.terms import CONSTANT, HERE, LOSS_NODE, NUMBER, Shape, Term
from tinygrad_sm.loss.options import without_axis

LOSS = "@loss"
LINEAR_LOSS = "@linear_loss"
PRIMITIVE = {LOSS: LOSS_NODE, LINEAR_LOSS: "LinearSoftmaxWithLoss"}
"""The primitives that words of the search's own are computed by."""

# Formulas, of patterns or of terms ----------------------------------------------------------------


def exp(x: Any) -> Any:
    """Return the exponentials."""
    return x.of("exp", x)


def log(x: Any) -> Any:
    """Return the natural logarithms."""
    return x.of("log", x)


def total(x: Any, axis: Any) -> Any:
    """Return the sum along an axis or several, which stay with length 1."""
    return x.of("sum", x, axis=axis)


def softmax(x: Any, axis: Any) -> Any:
    """Return exp(x) over its sum along an axis."""
    return x.of("softmax", x, axis=axis)


def log_softmax(x: Any, axis: Any) -> Any:
    """Return the logarithm of softmax."""
    return x.of("log_softmax", x, axis=axis)


def logsumexp(x: Any, axis: Any) -> Any:
    """Return log Σ exp along an axis, which stays with length 1."""
    return x.of("logsumexp", x, axis=axis)


def times(by: Any, x: Any) -> Any:
    """Return an exact number times x."""
    return x.of("@scale", x, by=by)


def pick(x: Any, t: Any, axis: Any) -> Any:
    """Return x at the classes t, whose shape is that of x without `axis`."""
    if isinstance(x, Term):
        return Term("@pick", (x, t), {"axis": axis}, without_axis(x.shape, axis), x.dtype)
    return x.of("@pick", x, t, axis=axis)


# Terms --------------------------------------------------------------------------------------------


def reshape(x: Term, shape: Shape) -> Term:
    """Return x in another shape; of a constant, a constant."""
    if x.shape == shape:
        return x
    if "content" in x.params and x.dtype is not None:
        content = {"content": x.params["content"]}
        return Term(CONSTANT if shape else NUMBER, (), content, shape, x.dtype)
    return Term("reshape", (x,), {}, shape, x.dtype)


def cast(x: Term, dtype: Any) -> Term:
    """Return x in another dtype."""
    return x if x.dtype == dtype else Term("astype", (x,), {}, x.shape, dtype)


def transposed(x: Term, axes: tuple[int, ...] = (1, 0)) -> Term:
    """Return x with its axes in another order; by default the transpose of a matrix."""
    return Term("transpose", (x,), {"axes": axes}, tuple(x.shape[i] for i in axes), x.dtype)


def loss(x: Term, target: Term, axis: int, kind: str) -> Term:
    """Return the loss of each row, of shape x.shape without `axis`; summed if there is one row."""
    rows = without_axis(x.shape, axis)
    one = all(n == 1 for n in rows)
    params = {
        "axis": axis, "parts": (WeightedTarget(kind, 0, Fraction(1)),), "temperature": Fraction(1),
        "reduction": "sum" if one else "none"
    }  # fmt: skip
    node = Term(LOSS, (x, target), params, () if one else rows, x.dtype)
    return reshape(node, rows)


def changed(term: Term, *inputs: Term, **params: Any) -> Term:
    """Return `term` with other inputs, or other values of some parameters."""
    return Term(term.op, inputs or term.inputs, {**term.params, **params}, term.shape, term.dtype)


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
    return shapes.reshape(shapes.take_along_axis(x, index, axis=axis), shape=rows)


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
    if "keepdims" in primitive.parameters:
        params = {"keepdims": True, **params}
    if term.op == "reshape":
        return primitive(*args, shape=term.shape)
    if term.op == "astype":
        return primitive(*args, dtype=term.dtype)
    return primitive(*args, **params)
