"""Defects of a primitive that its numbers may not show: what it changes, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import graph


def defects_in(out: Tensor, random: np.random.Generator) -> Iterator[str]:
    """Run every recorded operation again on copies, and say what is not as it must be."""
    for node in graph(out).nodes:
        t = node.tensor
        if t is not None and t._operation.primitive is not None:
            yield from _forward_defects(t, t._operation.primitive)
            yield from _vjp_defects(t, t._operation.primitive, random)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal in shape, dtype and every element, NaN being equal to NaN."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


def _copies(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(np.array(v) if isinstance(v, np.ndarray) else v for v in values)


def changed(values: Sequence[Any], before: Sequence[Any]) -> list[int]:
    """The positions of the arrays among `values` that are not as they were before."""
    pairs = enumerate(zip(values, before, strict=True))
    return [i for i, (v, b) in pairs if isinstance(v, np.ndarray) and not same(v, b)]


def _forward_defects(t: Tensor, op: Primitive) -> Iterator[str]:
    args = _copies(t._values)
    again = np.asarray(op.forward(*args, **t._operation.params))
    for i in changed(args, t._values):
        yield f"the forward function of {op.name!r} changes its argument {i}"
    if not same(again, t._array):
        yield (
            f"the result of {op.name!r} is not what its forward function gives a second time: "
            "it is random, or an operation on the result changes it"
        )
    vjps = op.vjps(len(args))
    numbers = [a for a, vjp in zip(t._values, vjps, strict=True) if vjp is not None]
    allowed = {np.asarray(a).dtype for a in numbers} | {np.result_type(*numbers)}
    if "dtype" not in op.parameters and t.dtype not in allowed:
        names = " and ".join(sorted({str(np.asarray(a).dtype) for a in numbers}))
        yield f"the forward function of {op.name!r} turns {names} into {t.dtype}"


def _vjp_defects(t: Tensor, op: Primitive, random: np.random.Generator) -> Iterator[str]:
    vjps = op.vjps(len(t._values))
    if t.dtype.kind != "f":
        return
    for i, (x, vjp) in enumerate(zip(t._operands, vjps, strict=True)):
        if not isinstance(x, Tensor) or not x.requires_grad or vjp is None:
            continue
        cotangent = random.standard_normal(t.shape).astype(t.dtype)
        before = (cotangent, t._array, *t._values)
        given = _copies(before)
        with np.errstate(all="ignore"):  # a random cotangent may overflow where the real one fits
            c = vjp(*given, **t._operation.params)
        who = f"the vjp of {op.name!r} for argument {i}"
        names = ["its cotangent", "the output", *(f"argument {j}" for j in range(len(t._values)))]
        for j in changed(given, before):
            yield f"{who} changes {names[j]}"
        if c is not None:
            yield from _result_defects(np.asarray(c), x, t, who)


def _result_defects(c: np.ndarray, x: Tensor, t: Tensor, who: str) -> Iterator[str]:
    extra = c.ndim - x.ndim
    if extra < 0 or any(n not in (1, m) for n, m in zip(x.shape, c.shape[extra:], strict=True)):
        yield f"{who} returns shape {c.shape}; the argument's shape is {x.shape}"
    digits = min(np.finfo(x.dtype).precision, np.finfo(t.dtype).precision)
    if c.dtype.kind != "f" or np.finfo(c.dtype).precision < digits:
        yield f"{who} returns {c.dtype}; the argument's dtype is {x.dtype}"
