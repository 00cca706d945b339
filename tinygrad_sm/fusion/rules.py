"""The rules that find softmax-cross-entropy and its parts, however they were written.

To add one, write it into `FUSIONS` (or pass your own list to `fuse`); nothing else has to know.
`p` below is softmax(x), `k` the class axis. The ideas are those of Theano's and PyTensor's softmax
rewrites and of tinygrad's pattern matcher.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from tinygrad_sm.fusion.algebra import ALGEBRA
from tinygrad_sm.fusion.loss_node import Part
from tinygrad_sm.fusion.patterns import (
    AlmostRule,
    Const,
    Either,
    Match,
    Maybe,
    Number,
    Op,
    Rule,
    Var,
)
from tinygrad_sm.fusion.terms import LEAF, LOSS_NODE, Term, walk
from tinygrad_sm.fusion.vocabulary import (
    LINEAR_LOSS,
    LOSS,
    cast,
    changed,
    kept,
    like,
    logsumexp,
    loss,
    number,
    reshape,
    scale,
    total,
    transposed,
)

x, m_, y, t, w = Var("x"), Var("m"), Const("y"), Const("t"), Const("w")
_shifted = Either(Op("sub", x, m_, name="d"), Op("add", x, m_, name="d", any_order=True))
_loss = Maybe("astype", Op(LOSS, x, name="loss", more=True), "cast")

# Conditions ---------------------------------------------------------------------------------------


def _along_one_axis(m: Match) -> bool:
    return bool(m.s.params["keepdims"] and len(m.s.params["axis"]) == 1)


def _shift_is_flat(m: Match) -> bool:
    """The shift has one number per row, and broadcasts nothing."""
    axis = m.f.params["axis"]
    back = m.x.ndim - axis
    flat = m.m.ndim < back or m.m.shape[-back] == 1
    return bool(flat and m.d.shape == m.x.shape and m.d.dtype == m.x.dtype)


def _shift_is_idle(m: Match) -> bool:
    """No leaf is reached through the shift alone, so that no gradient gets lost."""
    return all(term.op != LEAF for term in walk(m.m, stop=(m.x,)))


def _same_axis(m: Match) -> bool:
    same: bool = m.p.params["axis"] == m.f.params["axis"]
    return same


def _not_twice(m: Match) -> bool:
    core = m.x
    while core.op == "@scale":
        core = core.inputs[0]
    return bool(core.op != "softmax")


def _full_target(m: Match) -> bool:
    """The product has the logits' shape, but perhaps for axes of length 1 in front."""
    return bool(m.v.shape[-m.f.ndim :] == m.f.shape and m.v.size == m.f.size)


def _sums_classes(m: Match) -> bool:
    return bool(m.s.params["keepdims"] and m.f.params["axis"] in _axes_of_logits(m))


def _axes_of_logits(m: Match) -> tuple[int, ...]:
    """What is summed over, as axes of the logits: the sum's operand may have more in front."""
    return tuple(i - m.s.ndim + m.x.ndim for i in m.s.params["axis"])


def _per_row_weight(m: Match) -> bool:
    return bool(m.v.shape == m.loss.shape and m.loss.params["reduction"] == "none")


def _sums_rows(m: Match) -> bool:
    rows = tuple(i for i, n in enumerate(m.loss.shape) if n != 1)
    summed = m.s.params["keepdims"] and m.s.params["axis"] == rows
    return bool(summed and m.loss.params["reduction"] == "none")


SHIFT = (
    (_shift_is_flat, "the shift is not one number for all classes of a row"),
    (_shift_is_idle, "the shift has a gradient of its own"),
)
ONE_AXIS = ((_along_one_axis, "the sum runs over more than the one class axis"),)
TWICE = (_not_twice, "softmax is applied twice: its logits are probabilities already")

# Replacements -------------------------------------------------------------------------------------


def _soft_loss(m: Match, target: Term) -> Term:
    """The negative of the rows' losses for a dense target, summed over what else is summed."""
    axis = m.f.params["axis"]
    rows = cast(loss(m.x, target, axis, "dense"), m.s.dtype)
    rest = tuple(i for i in _axes_of_logits(m) if i != axis)
    by_row = reshape(scale(rows, -1), kept(m.x.shape, (axis,)))
    return reshape(total(by_row, rest) if rest else by_row, m.s.shape)


def _picked_loss(m: Match) -> Term:
    return scale(loss(m.x, m.t, m.f.params["axis"], "index"), -1)


def _masked_loss(m: Match) -> Term:
    """The loss of all rows at the classes where a mask holds, as an array with one element."""
    node = loss(m.x, m.t, m.f.params["axis"], "dense")
    while node.op != LOSS:
        node = node.inputs[0]
    whole = Term(LOSS, node.inputs, {**node.params, "reduction": "sum"}, (), node.dtype)
    return reshape(scale(whole, -1), (1,))


def _with(m: Match, node: Term) -> Term:
    """The changed loss, in the dtype that the cast around it had."""
    return cast(node, m.cast.dtype) if m.has("cast") else node


def _weighted(m: Match) -> Term:
    node = m.loss
    (part,) = node.params["parts"]
    params = {**node.params, "parts": (part._replace(weights=part.weights + 1),)}
    return cast(Term(node.op, (*node.inputs, m.w), params, node.shape, node.dtype), m.v.dtype)


def _multiplied(node: Term, by: Fraction) -> tuple[Part, ...]:
    return tuple(part._replace(by=part.by * by) for part in node.params["parts"])


def _parts_of_both(m: Match) -> tuple[Part, ...]:
    one = m.s.params["by"] if m.has("s") else Fraction(1)
    other = m.u.params["by"] if m.has("u") else Fraction(1)
    if m.whole.op == "sub":
        other = -other
    return _multiplied(m.loss, one) + _multiplied(m.k, other)


def _merged(m: Match) -> Term:
    parts = _parts_of_both(m)
    sign = -1 if parts[0].by < 0 else 1
    both = changed(
        m.loss, *m.loss.inputs, *m.k.inputs[1:],
        parts=tuple(part._replace(by=sign * part.by) for part in parts),
    )  # fmt: skip
    return both if sign > 0 else scale(both, -1)


def _alike(m: Match) -> bool:
    same = all(m.loss.params[p] == m.k.params[p] for p in ("axis", "temperature", "reduction"))
    return bool(same and m.loss.params["reduction"] == "sum")


def _of_one_sign(m: Match) -> bool:
    return len({part.by > 0 for part in _parts_of_both(m)}) == 1


def _summed(m: Match) -> Term:
    node = m.loss
    whole = Term(LOSS, node.inputs, {**node.params, "reduction": "sum"}, (), node.dtype)
    return reshape(_with(m, whole), m.s.shape)


# The parts: softmax, log_softmax, logsumexp -------------------------------------------------------

PARTS = [
    Rule(
        "softmax",
        "exp(x) over the sum of the same exp(x) along an axis is softmax(x).",
        Op("div", Op("exp", x), Op("sum", Op("exp", x), name="s")),
        lambda m: like(m.x, "softmax", m.x, axis=m.s.params["axis"][0]),
        ONE_AXIS,
    ),
    Rule(
        "softmax of a shift",
        "softmax(x - m) = softmax(x): exp(-m) stands above and below the fraction.",
        Op("softmax", _shifted, name="f"),
        lambda m: changed(m.f, m.x),
        SHIFT,
    ),
    Rule(
        "exp of log_softmax",
        "exp(log p) = p.",
        Op("exp", Op("log_softmax", x, name="f")),
        lambda m: like(m.x, "softmax", m.x, axis=m.f.params["axis"]),
        saves=True,
    ),
    Rule(
        "log of softmax",
        "log(softmax(x)) is log_softmax(x), which forms no probability that could underflow.",
        Op("log", Op("softmax", x, name="f")),
        lambda m: like(m.x, "log_softmax", m.x, axis=m.f.params["axis"]),
    ),
    Rule(
        "logsumexp",
        "log Σ exp(x) is logsumexp(x), which cannot overflow.",
        Op("log", Op("sum", Op("exp", x), name="s")),
        lambda m: logsumexp(m.x, m.s.params["axis"][0]),
        ONE_AXIS,
    ),
    Rule(
        "logsumexp of a shift, shifted back",
        "log Σ exp(x - m) + m = log Σ exp(x).",
        Op("add", Op("logsumexp", Op("sub", x, m_, name="d"), name="f"), m_, any_order=True),
        lambda m: logsumexp(m.x, m.f.params["axis"]),
        SHIFT,
    ),
    Rule(
        "logsumexp of a sum, shifted back",
        "log Σ exp(x + m) - m = log Σ exp(x).",
        Op(
            "sub",
            Op("logsumexp", Op("add", x, m_, name="d", any_order=True), name="f"),
            m_,
        ),
        lambda m: logsumexp(m.x, m.f.params["axis"]),
        SHIFT,
    ),
    Rule(
        "log_softmax",
        "x - logsumexp(x) is log_softmax(x).",
        Op("sub", x, Op("logsumexp", x, name="f")),
        lambda m: like(m.x, "log_softmax", m.x, axis=m.f.params["axis"]),
    ),
    Rule(
        "negative log_softmax",
        "logsumexp(x) - x is -log_softmax(x).",
        Op("sub", Op("logsumexp", x, name="f"), x),
        lambda m: scale(like(m.x, "log_softmax", m.x, axis=m.f.params["axis"]), -1),
        saves=True,
    ),
    Rule(
        "log_softmax of a shift",
        "log_softmax(x - m) = log_softmax(x), as for softmax.",
        Op("log_softmax", _shifted, name="f"),
        lambda m: changed(m.f, m.x),
        SHIFT,
    ),
]

# The loss -----------------------------------------------------------------------------------------

LOSSES = [
    Rule(
        "loss of a picked class",
        "-log p at the right class of each row is its cross-entropy.",
        Op("@pick", Op("log_softmax", x, name="f"), t, name="p"),
        _picked_loss,
        (
            (_same_axis, "the class is picked along another axis than softmax's"),
            TWICE,
        ),
    ),
    Rule(
        "loss of a distribution",
        "-Σ y·log p over the classes is the cross-entropy of y, one-hot or soft.",
        Op(
            "sum",
            Op("mul", y, Op("log_softmax", x, name="f"), name="v", any_order=True),
            name="s",
        ),
        lambda m: _soft_loss(m, reshape(m.y, m.y.shape[-m.x.ndim :])),
        (
            (_sums_classes, "the sum does not run over the class axis"),
            (_full_target, "the target is larger than the logits"),
            TWICE,
        ),
    ),
    Rule(
        "loss of all classes",
        "-Σ log p over the classes is the cross-entropy of a target of ones.",
        Op("sum", Op("log_softmax", x, name="f"), name="s"),
        lambda m: _soft_loss(m, number(1)),
        ((_sums_classes, "the sum does not run over the class axis"), TWICE),
    ),
    Rule(
        "loss of masked classes",
        "-Σ log p where a mask holds is the cross-entropy of the mask.",
        Op("sum", Op("@masked", Op("log_softmax", x, name="f"), t), name="s"),
        _masked_loss,
        (TWICE,),
    ),
    Rule(
        "loss of one masked class",
        "-log p where a mask holds once is the cross-entropy of the mask.",
        Op("@masked", Op("log_softmax", x, name="f"), t, name="s"),
        _masked_loss,
        ((lambda m: m.s.shape == (1,), "the mask holds more than once"), TWICE),
    ),
    Rule(
        "weighted rows",
        "A weight of a row's loss multiplies its target.",
        Op("mul", w, _loss, name="v", any_order=True),
        _weighted,
        (
            (_per_row_weight, "the weights are not one number per row"),
            (lambda m: len(m.loss.params["parts"]) == 1, "the loss has several targets"),
        ),
    ),
    Rule(
        "sum over rows",
        "The sum of the rows' losses is the loss with reduction 'sum'.",
        Op("sum", _loss, name="s"),
        _summed,
        ((_sums_rows, "the sum does not run over all rows"),),
    ),
    Rule(
        "factor of the loss",
        "A factor of the sum, such as 1/N for the mean, is what the fused node divides by.",
        Op("@scale", _loss, name="s"),
        lambda m: _with(
            m, changed(m.loss, *m.loss.inputs, parts=_multiplied(m.loss, m.s.params["by"]))
        ),
        (
            (lambda m: m.s.params["by"] > 0, "the factor is negative: the sign is turned round"),
            (lambda m: m.loss.params["reduction"] == "sum", "the rows are not summed"),
        ),
    ),
    Rule(
        "two targets",
        "Two losses of the same logits are the loss of the sum of their targets, as in smoothing.",
        Op(
            "add sub",
            Maybe("@scale", Op(LOSS, x, name="loss", more=True), "s"),
            Maybe("@scale", Op(LOSS, x, name="k", more=True), "u"),
            name="whole",
        ),
        _merged,
        (
            (_alike, "the two losses differ in more than their targets"),
            (_of_one_sign, "one loss is subtracted from the other"),
        ),
    ),
    Rule(
        "temperature",
        "Logits times c are logits over the temperature 1/c.",
        Op(LOSS, Op("@scale", x, name="s"), name="loss", more=True),
        lambda m: changed(
            m.loss, m.x, *m.loss.inputs[1:],
            temperature=m.loss.params["temperature"] / m.s.params["by"],
        ),
        ((lambda m: m.s.params["by"] > 0, "a temperature is positive"),),
    ),
    Rule(
        "loss of a shift",
        "The loss does not change when all logits of a row are shifted alike.",
        Op(LOSS, _shifted, name="f", more=True),
        lambda m: changed(m.f, m.x, *m.f.inputs[1:]),
        SHIFT,
    ),
]  # fmt: skip

# The linear layer before the loss -----------------------------------------------------------------

_product = Maybe("reshape", Op("matmul", Var("h"), Var("W"), name="product"), "inner")
_logits = Maybe(
    "reshape", Either(Op("add", _product, Var("b"), name="sum", any_order=True), _product), "outer"
)


def _layer(m: Match) -> tuple[Term, Term]:
    """The features and the weight of shape (V, D); a matrix times one row has it as it is."""
    return (m.W, m.h) if m.W.ndim == 1 else (m.h, transposed(m.W))


def _one_matrix(m: Match) -> bool:
    return bool(m.W.ndim == 2 or (m.W.ndim == 1 and m.h.ndim == 2))


def _classes_last(m: Match) -> bool:
    logits = m.loss.inputs[0]
    last: bool = m.loss.params["axis"] == logits.ndim - 1
    return last and logits.shape[-1] == m.product.shape[-1]


def _bias_by_class(m: Match) -> bool:
    classes = m.product.shape[-1:]
    return not m.has("b") or (m.b.size == classes[0] and m.b.shape[-1:] == classes)


def _linear(m: Match) -> Term:
    logits, *targets = m.loss.inputs
    features, weight = _layer(m)
    x = reshape(features, (*logits.shape[:-1], weight.shape[1]))
    bias = reshape(m.b, weight.shape[:1]) if m.has("b") else number(0)
    return like(m.loss, LINEAR_LOSS, x, weight, bias, *targets, **m.loss.params)


LINEAR = [
    Rule(
        "linear layer",
        "Logits x·Wᵀ + b that only the loss needs can be had and forgotten a few rows at a time.",
        Op(f"{LOSS} {LOSS_NODE}", _logits, name="loss", more=True),
        _linear,
        (
            (_one_matrix, "the weight is not one matrix for all rows"),
            (_classes_last, "the classes are not the last axis of the product"),
            (_bias_by_class, "the bias is not one number per class"),
        ),
        alone="the logits are used elsewhere, too",
    ),
]

FUSIONS = [*PARTS, *(replace(rule, saves=True) for rule in LOSSES), *LINEAR]
RULES = (*ALGEBRA, *FUSIONS)
"""All rules, in the order in which they are tried at each node."""
RULES_FOR_BACKWARD = tuple(rule for rule in RULES if not rule.alone)
"""Those that pay when backward is next: logits that are there already are not computed anew."""

# What is often meant ------------------------------------------------------------------------------

_clipped = Op("clip", Op("softmax", x), more=True)
_bounded = Op("maximum minimum", Op("softmax", x), Number("c"), any_order=True)
_bounded_twice = Op("maximum minimum", _bounded, Number("d"), any_order=True)
_masked = Op("mul", Op("exp", x), Const("mask"), any_order=True)

ALMOST = (
    AlmostRule(
        "log of softmax",
        "a number is added to p before the logarithm; without it log(p) is log_softmax(x), "
        "which needs none",
        Op("log", Op("add", Op("softmax", x), Number("c"), any_order=True)),
    ),
    AlmostRule(
        "log of softmax",
        "p is clipped before the logarithm; without it log(p) is log_softmax(x), which needs none",
        Op(
            "log", Either(Op("clip", Op("softmax", x), more=True), Either(_bounded, _bounded_twice))
        ),
    ),
    AlmostRule(
        "softmax",
        "the denominator is not the sum of the numerator alone: something is added to it",
        Op("div", Op("exp", x), Op("add", Op("sum", Op("exp", x)), Var("r"), any_order=True)),
    ),
    AlmostRule(
        "softmax",
        "a mask multiplies the exponentials; put -inf into the logits instead, before exp",
        Op("div", _masked, Op("sum", _masked)),
    ),
    AlmostRule(
        "softmax",
        "the sum keeps no axis, so that it is not divided along the rows; keepdims=True is missing",
        Op("div", Op("exp", x), Op("reshape", Op("sum", Op("exp", x)))),
    ),
    AlmostRule(
        "loss of a distribution",
        "the target requires a gradient, or depends on what does",
        Op("sum", Op("mul", Var("q"), Op("log_softmax", x), any_order=True)),
        lambda m: not m.q.constant,
    ),
    AlmostRule(
        "loss of a distribution",
        "the logarithm is missing: p itself is weighted, not log p",
        Op("sum", Op("mul", y, Op("softmax", x), any_order=True)),
    ),
    AlmostRule(
        "loss of a distribution",
        "the logarithm is taken of the sum; sum the logarithms, which for a one-hot y is the same",
        Op("log", Op("sum", Op("mul", y, Op("softmax", x), any_order=True))),
    ),
)
