"""Rules of plain algebra, which bring what people write into the form that `rules` looks for.

They make nothing better by themselves (`helps`): where no fusion comes of it, the operations stay
as the user wrote them. The directions are always the same: numbers become one outermost factor,
reductions keep their axes, what only picks or reshapes moves outwards.
"""

from __future__ import annotations

import math
from fractions import Fraction

from tinygrad_sm.fusion.patterns import Check as Condition
from tinygrad_sm.fusion.patterns import Const, Make, Match, Number, Op, Rule, Var
from tinygrad_sm.fusion.terms import HERE, NUMBER, Shape, Term
from tinygrad_sm.fusion.vocabulary import (
    cast,
    changed,
    elementwise,
    kept,
    like,
    make,
    order,
    pick,
    reshape,
    scale,
    total,
    transposed,
)
from tinygrad_sm.loss.options import without_axis

UNARY = "exp log log1p sqrt tanh sigmoid relu abs"
BINARY = "add sub mul div maximum minimum"
LINEAR = "sum reshape @pick @masked getitem transpose broadcast_to take_along_axis"
x, y, r, t = Var("x"), Var("y"), Var("r"), Const("t")
c = Number("c")


def _rule(name: str, because: str, pattern: Op, make: Make, *only_if: Condition) -> Rule:
    return Rule(name, because, pattern, make, tuple((check, "") for check in only_if), helps=True)


# Numbers become one factor, outermost -------------------------------------------------------------


def _is_number(m: Match) -> bool:
    """The factor is finite, and neither widens nor broadcasts the other operand."""
    return m.number("c") is not None and m.whole.dtype == m.x.dtype and m.whole.shape == m.x.shape


def _mover_of_scaled(m: Match) -> Term:
    f, s = m.whole, m.s
    return scale(changed(f, m.x, *f.inputs[1:]), s.params["by"])


NUMBERS = [
    _rule("negation", "-x is -1 times x.", Op("neg", x), lambda m: scale(m.x, -1)),
    _rule(
        "number times",
        "A product with a number is a scaling.",
        Op("mul", c, x, name="whole", any_order=True),
        lambda m: scale(m.x, m.number("c")),
        lambda m: not m.x.constant and _is_number(m),
    ),
    _rule(
        "over a number",
        "Division by n is multiplication by 1/n.",
        Op("div", x, c, name="whole"),
        lambda m: scale(m.x, 1 / m.number("c")),
        lambda m: not m.x.constant and _is_number(m) and m.number("c") != 0,
    ),
    _rule(
        "two factors",
        "Two factors are one, and two negations none.",
        Op("@scale", Op("@scale", x, name="inner"), name="outer"),
        lambda m: scale(m.x, m.outer.params["by"] * m.inner.params["by"]),
    ),
    _rule(
        "factor 1",
        "1 times x is x.",
        Op("@scale", x, name="s"),
        lambda m: m.x,
        lambda m: m.s.params["by"] == 1,
    ),
    _rule(
        "factor out of a linear operation",
        "Sums, picks and reshapes are linear: f(c·x) = c·f(x).",
        Op(LINEAR, Op("@scale", x, name="s"), name="whole", more=True),
        _mover_of_scaled,
    ),
    _rule(
        "factor out of a product",
        "(c·x)·y = c·(x·y).",
        Op("mul", Op("@scale", x, name="s"), y, any_order=True),
        lambda m: scale(elementwise("mul", m.x, m.y), m.s.params["by"]),
    ),
    _rule(
        "factor out of a quotient",
        "(c·x)/y = c·(x/y).",
        Op("div", Op("@scale", x, name="s"), y),
        lambda m: scale(elementwise("div", m.x, m.y), m.s.params["by"]),
    ),
    _rule(
        "adding the negative",
        "x + (-y) = x - y.",
        Op("add", x, Op("@scale", y, name="s"), any_order=True),
        lambda m: elementwise("sub", m.x, m.y),
        lambda m: m.s.params["by"] == -1,
    ),
    _rule(
        "subtracting the negative",
        "x - (-y) = x + y.",
        Op("sub", x, Op("@scale", y, name="s")),
        lambda m: elementwise("add", m.x, m.y),
        lambda m: m.s.params["by"] == -1,
    ),
    _rule(
        "negative first",
        "-x - y = -(x + y).",
        Op("sub", Op("@scale", x, name="s"), y),
        lambda m: scale(elementwise("add", m.x, m.y), -1),
        lambda m: m.s.params["by"] == -1,
    ),
    _rule(
        "common factor",
        "c·x + c·y = c·(x + y), and the same with a minus.",
        Op("add sub", Op("@scale", x, name="s"), Op("@scale", y, name="u"), name="whole"),
        lambda m: scale(elementwise(m.whole.op, m.x, m.y), m.s.params["by"]),
        lambda m: m.s.params["by"] == m.u.params["by"],
    ),
]

# Quotients and powers -----------------------------------------------------------------------------

QUOTIENTS = [
    _rule(
        "times a reciprocal",
        "x·(1/y) = x/y.",
        Op("mul", x, Op("div", c, y), name="whole", any_order=True),
        lambda m: scale(elementwise("div", m.x, m.y), m.number("c")),
        lambda m: m.number("c") is not None and m.whole.dtype == m.x.dtype,
    ),
    _rule(
        "times the power -1",
        "x·y⁻¹ = x/y.",
        Op("mul", x, Op("pow", y, c), any_order=True),
        lambda m: elementwise("div", m.x, m.y),
        lambda m: m.number("c") == -1,
    ),
    _rule(
        "product of exponentials",
        "exp(x)·exp(y) = exp(x + y).",
        Op("mul", Op("exp", x), Op("exp", y)),
        lambda m: _exp(elementwise("add", m.x, m.y)),
    ),
    _rule(
        "quotient of exponentials",
        "exp(x)/exp(y) = exp(x - y).",
        Op("div", Op("exp", x), Op("exp", y)),
        lambda m: _exp(elementwise("sub", m.x, m.y)),
    ),
    _rule(
        "power 1",
        "x¹ = x.",
        Op("pow", x, c, name="whole"),
        lambda m: m.x,
        lambda m: m.number("c") == 1 and _is_number(m),
    ),
    _rule(
        "power of e",
        "e to the power of x is exp(x).",
        Op("pow", c, x),
        lambda m: _exp(m.x),
        lambda m: not m.x.constant and m.number("c") == Fraction(math.e),
    ),
    _rule("log of exp", "log(exp(x)) = x.", Op("log", Op("exp", x)), lambda m: m.x),
    _rule(
        "log of a reciprocal",
        "log(1/x) = -log(x).",
        Op("log", Op("div", c, x)),
        lambda m: scale(like(m.x, "log", m.x), -1),
        lambda m: m.number("c") == 1,
    ),
    _rule(
        "log of a quotient",
        "log(x/y) = log(x) - log(y).",
        Op("log", Op("div", x, y, name="q")),
        lambda m: elementwise("sub", like(m.x, "log", m.x), like(m.y, "log", m.y)),
        lambda m: m.x.op != NUMBER and not m.y.constant,
    ),
]


def _exp(of: Term) -> Term:
    return like(of, "exp", of)


# Reductions keep their axes -----------------------------------------------------------------------


def _keeping(m: Match) -> Term:
    f = m.whole
    axis = f.params["axis"]
    axes = axis if isinstance(axis, tuple) else (axis,)
    inner = make(
        f.op, *f.inputs, shape=kept(m.x.shape, axes), dtype=f.dtype, axis=axis, keepdims=True
    )
    return reshape(inner, f.shape)


def _sum_of_reshaped(m: Match) -> Term:
    """Carry the axes of a sum over to the shape before a reshape that moves only 1s about."""
    before = [i for i, n in enumerate(m.x.shape) if n != 1]
    after = [i for i, n in enumerate(m.v.shape) if n != 1]
    axes = tuple(before[after.index(i)] for i in m.whole.params["axis"])
    return reshape(total(m.x, axes), m.whole.shape)


def _total_of_both(m: Match) -> Term:
    """Combine the elements in the shape of the operand with fewer axes."""
    shape = min(m.x.shape, m.y.shape, key=len)
    both = elementwise(
        m.whole.op, *(v if v.shape == shape else reshape(v, shape) for v in (m.x, m.y))
    )
    return reshape(total(both, tuple(i for i, n in enumerate(shape) if n != 1)), m.whole.shape)


def _no_constant(m: Match) -> bool:
    return not m.x.constant and not m.y.constant


def _totals(m: Match) -> bool:
    return (
        m.s.size == m.u.size == 1
        and _no_constant(m)
        and m.x.dtype == m.y.dtype
        and _without_ones(m.x.shape) == _without_ones(m.y.shape)
    )


def _without_ones(shape: Shape) -> list[int]:
    return [n for n in shape if n != 1]


def _moves_ones(m: Match) -> bool:
    """The reshape `v` of x only adds or removes axes of length 1; others part the logits' rows."""
    return _without_ones(m.x.shape) == _without_ones(m.v.shape)


def _keeps(m: Match) -> bool:
    keepdims: bool = m.whole.params["keepdims"]
    return keepdims


REDUCTIONS = [
    _rule(
        "reduction keeps its axes",
        "A reduction without keepdims is one with keepdims, reshaped.",
        Op("sum max logsumexp", x, name="whole"),
        _keeping,
        lambda m: not _keeps(m),
    ),
    _rule(
        "mean",
        "A mean is a sum over the count.",
        Op("mean", x, name="whole"),
        lambda m: scale(
            reshape(total(m.x, m.whole.params["axis"]), m.whole.shape),
            Fraction(m.whole.size, m.x.size),
        ),
        lambda m: m.x.size > 0 and m.whole.size > 0,
    ),
    _rule(
        "sum over nothing",
        "A sum over axes of length 1 leaves the elements as they are.",
        Op("sum max", x, name="whole"),
        lambda m: m.x,
        lambda m: m.whole.params["axis"] == () and _keeps(m),
    ),
    _rule(
        "sum of a sum",
        "Two sums in a row are one over the axes of both.",
        Op("sum", Op("sum", x, name="inner"), name="whole"),
        lambda m: total(m.x, tuple(sorted({*m.inner.params["axis"], *m.whole.params["axis"]}))),
        lambda m: _keeps(m) and m.inner.params["keepdims"],
    ),
    _rule(
        "sum of reshaped",
        "Axes of length 1 do not change what a sum adds up.",
        Op("sum", Op("reshape", x, name="v"), name="whole"),
        _sum_of_reshaped,
        lambda m: _keeps(m) and _moves_ones(m),
    ),
    _rule(
        "sum in a wider dtype",
        "Elements may be widened after they are added up.",
        Op("sum", Op("astype", x, name="v"), name="whole"),
        lambda m: cast(total(m.x, m.whole.params["axis"]), m.v.dtype),
        lambda m: _keeps(m) and m.v.dtype.itemsize > m.x.dtype.itemsize,
    ),
    _rule(
        "difference of sums",
        "Σx ± Σy = Σ(x ± y).",
        Op("add sub", Op("sum", x, name="s"), Op("sum", y, name="u"), name="whole"),
        lambda m: total(elementwise(m.whole.op, m.x, m.y), m.s.params["axis"]),
        lambda m: m.x.shape == m.y.shape and dict(m.s.params) == dict(m.u.params)
        and _no_constant(m),
    ),
    _rule(
        "difference of totals",
        "Σx ± Σy = Σ(x ± y), also where one of them has more axes of length 1.",
        Op(
            "add sub",
            Op("reshape", Op("sum", x, name="s")),
            Op("reshape", Op("sum", y, name="u")),
            name="whole",
        ),
        _total_of_both,
        lambda m: m.whole.shape == () and _totals(m),
    ),
    _rule(
        "product with a constant summand",
        "y·(k ± x) = y·k ± y·x, of which y·k is a constant.",
        Op("mul", t, Op("add sub", x, y, name="v"), any_order=True),
        lambda m: elementwise(m.v.op, *(elementwise("mul", m.t, z) for z in (m.x, m.y))),
        lambda m: m.t.op != NUMBER and m.x.constant != m.y.constant,
    ),
    _rule(
        "sum with a constant summand",
        "Σ(k ± x) = Σk ± Σx, of which Σk is a constant.",
        Op("sum", Op("add sub", x, y, name="v"), name="whole"),
        lambda m: elementwise(m.v.op, *(total(z, m.whole.params["axis"]) for z in (m.x, m.y))),
        lambda m: m.x.constant != m.y.constant and m.x.shape == m.y.shape and _keeps(m),
    ),
    _rule(
        "inner product",
        "The product of two vectors is the sum of their elements' products.",
        Op("matmul", x, y),
        lambda m: reshape(total(elementwise("mul", m.x, m.y), (0,)), ()),
        lambda m: m.x.ndim == 1 and m.y.ndim == 1 and m.x.size > 1,
    ),
    _rule(
        "choice by a mask",
        "x where a mask holds, else 0, is x times the mask.",
        Op("where", Const("mask"), x, c, name="whole"),
        lambda m: elementwise("mul", m.mask, m.x),
        lambda m: m.mask.dtype == bool and m.number("c") == 0 and m.whole.dtype == m.x.dtype
        and not m.x.constant and m.mask.shape == m.x.shape,
    ),
]  # fmt: skip

# Shapes -------------------------------------------------------------------------------------------


def _all_elements(m: Match) -> bool:
    """The index takes every element once, in the same order: it only adds or removes axes."""
    taken: bool = m.x.size == m.whole.size and all(i.op == NUMBER for i in m.whole.inputs[1:])
    return taken and all(
        part in (None, Ellipsis, HERE) or (part[0] == "slice" and (part[3] or 1) > 0)
        for part in m.whole.params["index"]
    )


def _turned(m: Match) -> Term:
    """f along axes of a transpose → the transpose of f along the axes as they were."""
    f, axes, axis = m.whole, order(m.v), m.whole.params["axis"]
    before = axes[axis] if isinstance(axis, int) else tuple(sorted(axes[i] for i in axis))
    shape = tuple(f.shape[axes.index(i)] for i in range(f.ndim))
    params = {**f.params, "axis": before}
    return transposed(make(f.op, m.x, shape=shape, dtype=f.dtype, **params), axes)


def _both_turned(m: Match) -> Term:
    """Combine two operands before the transpose `v` of one of them; see `_turns_freely`."""
    axes = order(m.v)
    back = tuple(axes.index(i) for i in range(len(axes)))

    def as_before(z: Term) -> Term:
        if z.op == "transpose" and order(z) == axes:
            return z.inputs[0]
        turned = transposed(reshape(z, _padded(z.shape, len(axes))), back)
        return z if z.op == NUMBER else turned if z.constant else reshape(z, turned.shape)

    return transposed(elementwise(m.whole.op, *map(as_before, m.whole.inputs)), axes)


def _turns_freely(m: Match) -> bool:
    """The other operand is a constant, or has one axis that is not of length 1."""
    free = m.y.constant or (len(_without_ones(m.y.shape)) <= 1 and m.y.op != "transpose")
    return free and bool(m.whole.ndim == m.v.ndim)


def _keeps_order(m: Match) -> bool:
    """A transpose moves nothing but axes of length 1, which a reshape can do, too."""
    moved = [i for i in order(m.v) if m.x.shape[i] != 1]
    return moved == sorted(moved)


def _rows_keep_order(m: Match) -> bool:
    rows = without_axis(order(m.v), m.whole.params["axis"])
    return list(rows) == sorted(rows)


def _aligns(m: Match) -> bool:
    """The reshape only adds or removes axes of length 1 in front, as broadcasting does."""
    ndim = max(m.y.ndim, m.v.ndim)
    return _padded(m.y.shape, ndim) == _padded(m.v.shape, ndim)


def _padded(shape: Shape, ndim: int) -> Shape:
    return (1,) * (ndim - len(shape)) + shape


def _on_left(m: Match) -> Term:
    return elementwise(m.whole.op, m.y, m.x)


def _on_right(m: Match) -> Term:
    return elementwise(m.whole.op, m.x, m.y)


def _same_result(to: Make) -> Condition:
    return lambda m: to(m).shape == m.whole.shape


def _moved(m: Match) -> Term:
    """f(move(x)) → move(f(x)), for what picks or reshapes."""
    return changed(m.v, like(m.x, m.whole.op, m.x), *m.v.inputs[1:])


SHAPES = [
    _rule(
        "same shape", "A reshape or cast to what is there already is none.",
        Op("reshape broadcast_to astype", x, name="v"),
        lambda m: m.x, lambda m: (m.x.shape, m.x.dtype) == (m.v.shape, m.v.dtype),
    ),
    _rule(
        "two reshapes", "Of two reshapes the last counts.",
        Op("reshape", Op("reshape", x), name="v"), lambda m: reshape(m.x, m.v.shape),
    ),
    _rule(
        "two transposes", "Two transposes in a row are one.",
        Op("transpose", Op("transpose", x, name="inner"), name="outer"),
        lambda m: transposed(m.x, tuple(order(m.inner)[i] for i in order(m.outer))),
    ),
    _rule(
        "transpose of 1s", "A transpose that moves only axes of length 1 is a reshape.",
        Op("transpose", x, name="v"), lambda m: reshape(m.x, m.v.shape), _keeps_order,
    ),
    _rule(
        "along an axis of transposed", "A transpose can wait until after what runs along an axis.",
        Op("softmax log_softmax logsumexp sum max", Op("transpose", x, name="v"), name="whole"),
        _turned, lambda m: m.whole.params.get("keepdims", True),
    ),
    _rule(
        "both operands transposed", "Operands transposed alike may be combined before.",
        Op(BINARY, Op("transpose", x, name="v"), Op("transpose", y, name="w"), name="whole"),
        lambda m: transposed(elementwise(m.whole.op, m.x, m.y), order(m.v)),
        lambda m: order(m.v) == order(m.w),
    ),
    _rule(
        "operand transposed on the left", "What is free to turn is combined before a transpose.",
        Op(BINARY, Op("transpose", x, name="v"), y, name="whole"), _both_turned, _turns_freely,
    ),
    _rule(
        "operand transposed on the right", "What is free to turn is combined before a transpose.",
        Op(BINARY, y, Op("transpose", x, name="v"), name="whole"), _both_turned, _turns_freely,
    ),
    _rule(
        "class of transposed", "A class is picked as well before a transpose of the rest.",
        Op("@pick", Op("transpose", x, name="v"), t, name="whole"),
        lambda m: pick(m.x, m.t, order(m.v)[m.whole.params["axis"]]), _rows_keep_order,
    ),
    _rule(
        "index of all elements", "An index that takes every element in order is a reshape.",
        Op("getitem", x, name="whole", more=True),
        lambda m: reshape(m.x, m.whole.shape), _all_elements,
    ),
    _rule(
        "aligned operand on the left", "Broadcasting adds axes in front by itself.",
        Op(BINARY, Op("reshape broadcast_to", y, name="v"), x, name="whole"), _on_left,
        lambda m: _aligns(m) or m.v.op == "broadcast_to", _same_result(_on_left),
    ),
    _rule(
        "aligned operand on the right", "Broadcasting adds axes in front by itself.",
        Op(BINARY, x, Op("reshape broadcast_to", y, name="v"), name="whole"), _on_right,
        lambda m: _aligns(m) or m.v.op == "broadcast_to", _same_result(_on_right),
    ),
    _rule(
        "function of moved elements", "Picking and reshaping can wait until after a function.",
        Op(UNARY, Op("reshape transpose @pick @masked", x, name="v", more=True), name="whole"),
        _moved,
        lambda m: m.v.op != "reshape" or _moves_ones(m),
    ),
    _rule(
        "both operands reshaped", "Operands reshaped alike may be combined before.",
        Op(BINARY, Op("reshape", x, name="v"), Op("reshape", y, name="w"), name="whole"),
        lambda m: reshape(elementwise(m.whole.op, m.x, m.y), m.whole.shape),
        lambda m: m.x.shape == m.y.shape and m.v.shape == m.w.shape and _moves_ones(m),
    ),
    _rule(
        "reshaped and constant", "A constant is reshaped for free.",
        Op(BINARY, Op("reshape", x, name="v"), t, name="whole"),
        lambda m: reshape(elementwise(m.whole.op, m.x, _fit(m.t, m.x.shape)), m.whole.shape),
        lambda m: (m.t.op == NUMBER or m.t.shape == m.v.shape) and _moves_ones(m),
    ),
    _rule(
        "constant and reshaped", "A constant is reshaped for free.",
        Op(BINARY, t, Op("reshape", x, name="v"), name="whole"),
        lambda m: reshape(elementwise(m.whole.op, _fit(m.t, m.x.shape), m.x), m.whole.shape),
        lambda m: (m.t.op == NUMBER or m.t.shape == m.v.shape) and _moves_ones(m),
    ),
]  # fmt: skip


def _fit(t: Term, shape: Shape) -> Term:
    return t if t.op == NUMBER else reshape(t, shape)


# Picking one class per row ------------------------------------------------------------------------


def _class_axes(m: Match) -> list[int]:
    """The axes along which one class is picked for each position along all the others."""
    arrays = m.whole.inputs[1:]
    return [
        axis
        for axis, t in enumerate(arrays)
        if m.whole.params["index"] == (HERE,) * m.x.ndim
        and m.whole.shape == (rows := without_axis(m.x.shape, axis))
        and t.dtype.kind in "iu"
        and all(
            _counts(other, rows, i) for i, other in enumerate(arrays[:axis] + arrays[axis + 1 :])
        )
    ]


def _picked_class(m: Match) -> Term:
    axes, along = _class_axes(m), m.x.params.get("axis")  # of a square either axis will do
    axis = along if along in axes else axes[-1]
    return pick(m.x, m.whole.inputs[1 + axis], axis)


def _counts(index: Term, rows: Shape, i: int) -> bool:
    """Whether an index array counts the rows along their axis `i`."""
    back = i - len(rows)
    return back in index.params.get("counts", ()) and index.shape[back] == rows[i]


def _picks_one(m: Match) -> bool:
    """x[t] of one row, or x[:, t] and x[..., t]: the same class of each row."""
    *others, last = m.whole.params["index"]
    full = [o == ("slice", None, None, None) for o in others]
    every = all(full) and len(full) == m.x.ndim - 1
    return last == HERE and m.t.op == NUMBER and m.t.dtype.kind in "iu" and (
        every or others == [Ellipsis]
    )  # fmt: skip


def _takes_one(m: Match) -> bool:
    axis = m.whole.params["axis"]
    return bool(m.t.shape == kept(m.x.shape, (axis,)) and m.t.dtype.kind in "iu")


def _masks(m: Match) -> bool:
    return bool(m.whole.params["index"] == (HERE,) and m.t.dtype == bool and m.t.shape == m.x.shape)


def _taken(m: Match) -> Term:
    axis = m.whole.params["axis"]
    return reshape(pick(m.x, reshape(m.t, without_axis(m.x.shape, axis)), axis), m.whole.shape)


def _per_row(m: Match, shape: Shape) -> bool:
    """A shape with one number per row of what is picked from."""
    same: bool = shape == kept(m.x.shape, (m.p.params["axis"],))
    return same


def _row_constant(m: Match) -> Term:
    return _fit(m.k, kept(m.x.shape, (m.p.params["axis"],)))


def _beside_pick(swapped: bool) -> list[Rule]:
    """Rules that combine op(pick(x, t), r) to pick(op(x, r), t), or op(r, pick(x, t)) likewise."""
    picked = Op("@pick", x, t, name="p")
    turn = -1 if swapped else 1

    def inside(m: Match, other: Term) -> Term:
        both = elementwise(m.whole.op, *(m.x, other)[::turn])
        return pick(both, m.t, m.p.params["axis"])

    return [
        _rule(
            "picked, with one number per row",
            "Picking a class can wait: the other operand is the same for each class.",
            Op(BINARY, *(picked, Op("reshape", r, name="v"))[::turn], name="whole"),
            lambda m: inside(m, m.r),
            lambda m: _per_row(m, m.r.shape) and m.v.shape == m.p.shape,
        ),
        _rule(
            "picked and kept, with one number per row",
            "Picking a class can wait: the other operand is the same for each class.",
            Op(BINARY, *(Op("reshape", picked, name="q"), r)[::turn], name="whole"),
            lambda m: reshape(inside(m, m.r), m.whole.shape),
            lambda m: _per_row(m, m.r.shape) and m.q.shape == m.r.shape,
        ),
        _rule(
            "picked, with a constant",
            "Picking a class can wait: the constant is the same for each class.",
            Op("add sub div", *(picked, Const("k"))[::turn], name="whole"),
            lambda m: inside(m, _row_constant(m)),
            lambda m: m.k.op == NUMBER or m.k.shape == m.p.shape,
        ),
    ]


PICKS = [
    _rule(
        "class of each row", "x[range(N), t] picks one class of each row.",
        Op("getitem", x, name="whole", more=True),
        _picked_class, lambda m: bool(_class_axes(m)),
    ),
    _rule(
        "one class", "x[..., t] picks class t.", Op("getitem", x, t, name="whole"),
        lambda m: pick(m.x, m.t, m.x.ndim - 1), _picks_one,
    ),
    _rule(
        "taken along an axis", "take_along_axis with one index per row picks a class.",
        Op("take_along_axis", x, t, name="whole"), _taken, _takes_one,
    ),
    _rule(
        "chosen by a mask", "x[mask] keeps what a mask of x's shape chooses.",
        Op("getitem", x, t, name="whole"),
        lambda m: make("@masked", m.x, m.t, shape=m.whole.shape, dtype=m.x.dtype), _masks,
    ),
    *_beside_pick(swapped=False),
    *_beside_pick(swapped=True),
]  # fmt: skip

ALGEBRA = [*NUMBERS, *QUOTIENTS, *REDUCTIONS, *SHAPES, *PICKS]
"""All of them, in the order in which they are tried."""
