"""Rules of plain algebra, which bring what people write into the form that `rules` looks for.

They make nothing better by themselves (`helps`): where no fusion comes of it, the operations stay
as the user wrote them. The directions are always the same: numbers become one outermost factor,
and what only picks or reshapes moves outwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinygrad_sm.engine.primitive import TABLE
from tinygrad_sm.fusion.patterns import Const, Number, Op, Pattern, Rule, Var
from tinygrad_sm.fusion.terms import HERE, NUMBER, Shape, Term, axes_of, kept
from tinygrad_sm.fusion.vocabulary import (
    cast,
    changed,
    exp,
    log,
    pick,
    reshape,
    times,
    total,
    transposed,
)
from tinygrad_sm.loss.options import without_axis

x, y, t, k, j = Var("x"), Var("y"), Const("t"), Var("k"), Var("j")
c, d = Number("c"), Number("d")


def _rule(
    name: str, because: str, pattern: Any, becomes: Pattern | Callable[..., Term | None]
) -> Rule:
    return Rule(name, because, pattern, becomes, helps=True)


# Numbers become one factor, outermost -------------------------------------------------------------


def _factor_out(whole: Term, x: Term, c: Any) -> Any:
    rest = whole.inputs[1:]
    if not all(i.dtype is not None and i.dtype.kind in "iub" for i in rest):
        return None
    return times(c, changed(whole, x, *rest))


NUMBERS = [
    _rule("negation", "-x is -1 times x.", -x, times(-1, x)),
    _rule("number times", "A product with a number is a scaling.", c * x, times(c, x)),
    _rule("over a number", "Division by n is multiplication by 1/n.",
          x / c, lambda x, c: times(1 / c, x) if c else None),
    _rule("two factors", "Two factors are one, and two negations none.",
          times(c, times(d, x)), lambda c, d, x: times(c * d, x)),
    _rule("factor 1", "1 times x is x.", times(1, x), x),
    _rule("factor out of a linear operation",
          "Sums, picks and reshapes are linear: f(c·x) = c·f(x).",
          Op("linear view move @pick @masked", times(c, x), more=True), _factor_out),
    _rule("factor out of a product", "(c·x)·y = c·(x·y).", times(c, x) * y, times(c, x * y)),
    _rule("factor out of a quotient", "(c·x)/y = c·(x/y).", times(c, x) / y, times(c, x / y)),
    _rule("adding the negative", "x + (-y) = x - y.", x + times(-1, y), x - y),
    _rule("subtracting the negative", "x - (-y) = x + y.", x - times(-1, y), x + y),
    _rule("negative first", "-x - y = -(x + y).", times(-1, x) - y, times(-1, x + y)),
    _rule("common factor", "c·x + c·y = c·(x + y).", times(c, x) + times(c, y), times(c, x + y)),
    _rule("common factor", "c·x - c·y = c·(x - y).", times(c, x) - times(c, y), times(c, x - y)),
]  # fmt: skip

# Quotients and powers -----------------------------------------------------------------------------

QUOTIENTS = [
    _rule("times a reciprocal", "x·(c/y) = c·(x/y).", x * (c / y), times(c, x / y)),
    _rule("times the power -1", "x·y⁻¹ = x/y.", x * y**-1, x / y),
    _rule("product of exponentials", "exp(x)·exp(y) = exp(x + y).", exp(x) * exp(y), exp(x + y)),
    _rule("quotient of exponentials", "exp(x)/exp(y) = exp(x - y).", exp(x) / exp(y), exp(x - y)),
    _rule("power 1", "x¹ = x.", x**1, x),
    _rule("power of e", "e to the power of x is exp(x).", math.e**x, exp(x)),
    _rule("log of exp", "log(exp(x)) = x.", log(exp(x)), x),
    _rule("log of a reciprocal", "log(1/x) = -log(x).", log(1 / x), times(-1, log(x))),
    _rule("log of a quotient", "log(x/y) = log(x) - log(y).",
          log(x / y), lambda x, y: None if x.op == NUMBER or y.constant else log(x) - log(y)),
]  # fmt: skip

# Sums ---------------------------------------------------------------------------------------------

_either = Op("add sub", x, y)


def _without_ones(shape: Shape) -> list[int]:
    return [n for n in shape if n != 1]


def _moves_ones(v: Term) -> bool:
    """A reshape only adds or removes axes of length 1; others part the logits' rows."""
    return _without_ones(v.inputs[0].shape) == _without_ones(v.shape)


def _sum_of_reshaped(whole: Term, x: Term, v: Term, k: Any) -> Term | None:
    """Carry the axes of a sum over to the shape before a reshape that moves only 1s about."""
    if not _moves_ones(v):
        return None
    before = [i for i, n in enumerate(x.shape) if n != 1]
    after = [i for i, n in enumerate(v.shape) if n != 1]
    return reshape(total(x, tuple(before[after.index(i)] for i in axes_of(k))), whole.shape)


def _total_of_both(whole: Term, x: Term, y: Term) -> Term | None:
    """Combine the elements in the shape of the operand with fewer axes."""
    shape = min(x.shape, y.shape, key=len)
    alike = _without_ones(x.shape) == _without_ones(y.shape) and x.dtype == y.dtype
    if whole.shape or not alike or x.constant or y.constant:
        return None
    if any(s.inputs[0].size != 1 for s in whole.inputs):  # the reshaped sums are totals
        return None
    both = Term.of(whole.op, reshape(x, shape), reshape(y, shape))
    return reshape(total(both, tuple(i for i, n in enumerate(shape) if n != 1)), ())


def _beside_constant(v: Term, x: Term, y: Term, each: Callable[[Term], Term]) -> Term | None:
    """f(k ± x) → f(k) ± f(x), of which f(k) is a constant."""
    return None if x.constant == y.constant else Term.of(v.op, each(x), each(y))


SUMS = [
    _rule("sum over nothing", "A sum over axes of length 1 leaves the elements as they are.",
          Op("sum max", x, axis=()), x),
    _rule("sum of a sum", "Two sums in a row are one over the axes of both.",
          total(total(x, j), k),
          lambda x, j, k: total(x, tuple(sorted({*axes_of(j), *axes_of(k)})))),
    _rule("sum of reshaped", "Axes of length 1 do not change what a sum adds up.",
          total(Op("reshape", x).named("v"), k), _sum_of_reshaped),
    _rule(
        "sum in a wider dtype", "Elements may be widened after they are added up.",
        total(Op("astype", x).named("v"), k),
        lambda x, v, k: cast(total(x, k), v.dtype) if v.dtype.itemsize > x.dtype.itemsize else None,
    ),
    _rule(
        "difference of sums", "Σx ± Σy = Σ(x ± y).",
        Op("add sub", total(x, k), total(y, k)),
        lambda whole, x, y, k: None if x.constant or y.constant or x.shape != y.shape
        else total(Term.of(whole.op, x, y), k),
    ),
    _rule("difference of totals",
          "Σx ± Σy = Σ(x ± y), also where one of them has more axes of length 1.",
          Op("add sub", Op("reshape", total(x, k)), Op("reshape", total(y, j))), _total_of_both),
    _rule(
        "product with a constant summand", "t·(k ± x) = t·k ± t·x, of which t·k is a constant.",
        t * _either.named("v"),
        lambda t, v, x, y: None if t.op == NUMBER else _beside_constant(v, x, y, lambda z: t * z),
    ),
    _rule(
        "sum with a constant summand", "Σ(k ± x) = Σk ± Σx, of which Σk is a constant.",
        total(_either.named("v"), k),
        lambda v, x, y, k: None if x.shape != y.shape
        else _beside_constant(v, x, y, lambda z: total(z, k)),
    ),
    _rule("inner product", "The product of two vectors is the sum of their elements' products.",
          x @ y,
          lambda x, y: reshape(total(x * y, 0), ()) if x.ndim == y.ndim == 1 < x.size else None),
    _rule("choice by a mask", "x where a mask holds, else 0, is x times the mask.",
          Op("where", t, x, 0),
          lambda t, x: t * x if t.dtype == bool and t.shape == x.shape else None),
]  # fmt: skip

# What only moves elements -------------------------------------------------------------------------


def _before(v: Term, z: Term, f: Term) -> Term | None:
    """What stands for `z` in f(v, z) if the move `v` waits until after f; None if nothing does."""
    x, *index = v.inputs
    if z.op == NUMBER:
        return z
    if (z.op, z.params, z.shape) == (v.op, v.params, v.shape):
        other, *others = z.inputs
        if other.shape == x.shape and others == index:
            return other
    if v.op == "reshape" and z.shape == v.shape:
        kept_pick = x.op == "@pick" and v.shape == kept(x.inputs[0].shape, x.params["axis"])
        return reshape(z, x.shape) if z.constant or kept_pick else None
    if v.op == "@pick":
        per_row = kept(x.shape, v.params["axis"])
        if z.shape != v.shape:
            return None
        if z.constant and TABLE[f.op].linear:  # a factor stays outside: it weighs a row
            return reshape(z, per_row)
        return z.inputs[0] if z.op == "reshape" and z.inputs[0].shape == per_row else None
    if v.op == "transpose" and z.ndim <= v.ndim == f.ndim:
        axes = v.params["axes"]
        back = tuple(axes.index(i) for i in range(len(axes)))
        turned = transposed(reshape(z, _padded(z.shape, len(axes))), back)
        if z.constant:
            return turned
        if z.op != "transpose" and len(_without_ones(z.shape)) <= 1:
            return reshape(z, turned.shape)
    return None


def _after_moves(whole: Term) -> Term | None:
    """f(move(x), move(y)) → move(f(x, y)), also where y comes from before the move otherwise."""
    for v in whole.inputs:
        if v.op not in ("reshape", "transpose", "@pick", "@masked"):
            continue
        if v.op == "reshape" and not _moves_ones(v):
            continue
        before = [_before(v, z, whole) for z in whole.inputs]
        if any(z is None for z in before):
            continue
        inner = Term.of(whole.op, *before, **whole.params)
        if v.op == "transpose":
            return transposed(inner, v.params["axes"])
        if inner.shape == v.inputs[0].shape:
            return Term(v.op, (inner, *v.inputs[1:]), v.params, v.shape, inner.dtype)
    return None


def _padded(shape: Shape, ndim: int) -> Shape:
    return (1,) * (ndim - len(shape)) + shape


def _broadcasts_itself(whole: Term) -> Term | None:
    """Leave out a broadcast, or a reshape that adds axes in front, where NumPy does so anyway."""
    for i, v in enumerate(whole.inputs):
        if v.op in ("reshape", "broadcast_to"):
            (x,) = v.inputs
            ndim = max(x.ndim, v.ndim)
            if v.op == "broadcast_to" or _padded(x.shape, ndim) == _padded(v.shape, ndim):
                inputs = (*whole.inputs[:i], x, *whole.inputs[i + 1 :])
                made = Term.of(whole.op, *inputs, **whole.params)
                if made.fits(whole):
                    return made
    return None


def _turned(whole: Term, v: Term, x: Term, k: Any) -> Term:
    """f along axes of a transpose → the transpose of f along the axes as they were."""
    axes = v.params["axes"]
    before = tuple(sorted(axes[i] for i in axes_of(k)))
    return transposed(Term.of(whole.op, x, axis=before), axes)


def _keeps_order(v: Term) -> bool:
    """A transpose moves nothing but axes of length 1, which a reshape can do, too."""
    moved = [i for i in v.params["axes"] if v.inputs[0].shape[i] != 1]
    return moved == sorted(moved)


def _pick_before(x: Term, v: Term, t: Term, k: int) -> Term | None:
    rows = without_axis(v.params["axes"], k)
    return pick(x, t, v.params["axes"][k]) if list(rows) == sorted(rows) else None


def _all_elements(whole: Term, x: Term) -> Term | None:
    """The index takes every element once, in the same order: it only adds or removes axes."""
    taken = x.size == whole.size and all(i.op == NUMBER for i in whole.inputs[1:])
    in_order = all(
        part in (None, Ellipsis, HERE) or (part[0] == "slice" and (part[3] or 1) > 0)
        for part in whole.params["index"]
    )
    return reshape(x, whole.shape) if taken and in_order else None


_turn = Op("transpose", x).named("v")
MOVES = [
    _rule("same shape", "A reshape or cast to what is there already is none.",
          Op("reshape broadcast_to astype", x), x),
    _rule("two reshapes", "Of two reshapes the last counts.",
          Op("reshape", Op("reshape", x)), lambda whole, x: reshape(x, whole.shape)),
    _rule("two transposes", "Two transposes in a row are one.",
          Op("transpose", Op("transpose", x, axes=j), axes=k),
          lambda x, j, k: transposed(x, tuple(j[i] for i in k))),
    _rule("transpose of 1s", "A transpose that moves only axes of length 1 is a reshape.",
          Op("transpose", x),
          lambda whole, x: reshape(x, whole.shape) if _keeps_order(whole) else None),
    _rule("along an axis of transposed",
          "A transpose can wait until after what runs along an axis.",
          Op("softmax log_softmax logsumexp sum max", _turn, axis=k), _turned),
    _rule("class of transposed", "A class is picked as well before a transpose of the rest.",
          pick(_turn, t, k), _pick_before),
    _rule("index of all elements", "An index that takes every element in order is a reshape.",
          Op("getitem", x, more=True), _all_elements),
    _rule("aligned operand", "Broadcasting adds axes in front by itself.",
          Op("elementwise", more=True), _broadcasts_itself),
    _rule("function of moved elements", "Picking and reshaping can wait until after a function.",
          Op("elementwise", more=True), _after_moves),
]  # fmt: skip

# Picking one class per row ------------------------------------------------------------------------


def _class_axes(x: Term, index: tuple[Any, ...], arrays: tuple[Term, ...], shape: Shape) -> Any:
    """The axes along which one class is picked for each position along all the others."""
    if index != (HERE,) * x.ndim:
        return
    for axis, t in enumerate(arrays):
        rows, others = without_axis(x.shape, axis), arrays[:axis] + arrays[axis + 1 :]
        counts = all(_counts(other, rows, i) for i, other in enumerate(others))
        if counts and shape == rows and t.dtype is not None and t.dtype.kind in "iu":
            yield axis


def _picked_class(whole: Term, x: Term) -> Any:
    arrays = whole.inputs[1:]
    along: Any = x.params.get("axis")
    axes = list(_class_axes(x, whole.params["index"], arrays, whole.shape))
    if not axes:
        return None
    axis = along if along in axes else axes[-1]  # of a square either axis will do
    return pick(x, arrays[axis], axis)


def _counts(index: Term, rows: Shape, i: int) -> bool:
    """Whether an index array counts the rows along their axis `i`."""
    back = i - len(rows)
    return back in index.params.get("counts", ()) and index.shape[back] == rows[i]


def _one_class(whole: Term, x: Term, t: Term) -> Term | None:
    """x[t] of one row, or x[:, t] and x[..., t]: the same class of each row."""
    *others, last = whole.params["index"]
    every = others == [("slice", None, None, None)] * (x.ndim - 1) or others == [Ellipsis]
    fits = every and last == HERE and t.op == NUMBER and t.dtype.kind in "iu"  # type: ignore[union-attr]
    return pick(x, t, x.ndim - 1) if fits else None


def _taken(whole: Term, x: Term, t: Term, k: int) -> Term | None:
    if t.shape != kept(x.shape, k) or t.dtype is None or t.dtype.kind not in "iu":
        return None
    return reshape(pick(x, reshape(t, without_axis(x.shape, k)), k), whole.shape)


def _masked(whole: Term, x: Term, t: Term) -> Term | None:
    fits = whole.params["index"] == (HERE,) and t.dtype == bool and t.shape == x.shape
    return Term("@masked", (x, t), {}, whole.shape, x.dtype) if fits else None


PICKS = [
    _rule("class of each row", "x[range(N), t] picks one class of each row.",
          Op("getitem", x, more=True), _picked_class),
    _rule("one class", "x[..., t] picks class t.", Op("getitem", x, t), _one_class),
    _rule("taken along an axis", "take_along_axis with one index per row picks a class.",
          Op("take_along_axis", x, t, axis=k), _taken),
    _rule("chosen by a mask", "x[mask] keeps what a mask of x's shape chooses.",
          Op("getitem", x, t), _masked),
]  # fmt: skip

ALGEBRA = [*NUMBERS, *QUOTIENTS, *SUMS, *MOVES, *PICKS]
"""All of them, in the order in which they are tried."""
