"""The rules that find softmax-cross-entropy and its parts, however they were written.

To add one, write it into `FUSIONS` (or pass your own list to `fuse`); nothing else has to know.
A rule says a name, why it holds, what to look for and what that becomes; `k` is the class axis.
The ideas are those of Theano's and PyTensor's softmax rewrites and of tinygrad's pattern matcher.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

from tinygrad_sm.fusion.algebra import ALGEBRA
from tinygrad_sm.fusion.loss_node import WeightedTarget
from tinygrad_sm.fusion.patterns import Const, Either, Number, Op, Rule, Var, Varying, almost, maybe
from tinygrad_sm.fusion.terms import LEAF, LOSS_NODE, Term, axes_of, kept, number, walk
from tinygrad_sm.fusion.vocabulary import (
    LINEAR_LOSS,
    LOSS,
    cast,
    changed,
    exp,
    log,
    log_softmax,
    logsumexp,
    loss,
    pick,
    reshape,
    softmax,
    times,
    total,
    transposed,
)

x, m, y, t, w = Var("x"), Var("m"), Const("y"), Const("t"), Const("w")
k, j, c, d = Var("k"), Var("j"), Number("c"), Number("d")
shifted = Either((x - m).named("s"), (x + m).named("s"))

# The parts: softmax, log_softmax, logsumexp -------------------------------------------------------


def _is_flat(x: Term, m: Term, s: Term, k: int) -> bool:
    """The shift has one number per row, and broadcasts nothing."""
    back = x.ndim - k
    return s.fits(x) and (m.ndim < back or m.shape[-back] == 1)


def _is_idle(x: Term, m: Term) -> bool:
    """No leaf is reached through the shift alone, so that no gradient gets lost."""
    return all(term.op != LEAF for term in walk(m, stop=(x,)))


SHIFT = (
    (_is_flat, "the shift is not one number for all classes of a row"),
    (_is_idle, "the shift has a gradient of its own"),
)
ONE_AXIS = ((lambda k: isinstance(k, int), "the sum runs over more than the one class axis"),)

PARTS = [
    Rule("softmax", "exp(x) over the sum of the same exp(x) along an axis is softmax(x).",
         exp(x) / total(exp(x), k), softmax(x, k), ONE_AXIS),
    Rule("softmax of a shift",
         "softmax(x - m) = softmax(x): exp(-m) stands above and below the fraction.",
         softmax(shifted, k), softmax(x, k), SHIFT),
    Rule("exp of log_softmax", "exp(log p) = p.",
         exp(log_softmax(x, k)), softmax(x, k), saves=True),
    Rule("log of softmax",
         "log(softmax(x)) is log_softmax(x), which forms no probability that could underflow.",
         log(softmax(x, k)), log_softmax(x, k)),
    Rule("logsumexp", "log Σ exp(x) is logsumexp(x), which cannot overflow.",
         log(total(exp(x), k)), logsumexp(x, k), ONE_AXIS),
    Rule("logsumexp of a shift, shifted back", "log Σ exp(x - m) + m = log Σ exp(x).",
         logsumexp((x - m).named("s"), k) + m, logsumexp(x, k), SHIFT),
    Rule("logsumexp of a sum, shifted back", "log Σ exp(x + m) - m = log Σ exp(x).",
         logsumexp((x + m).named("s"), k) - m, logsumexp(x, k), SHIFT),
    Rule("log_softmax", "x - logsumexp(x) is log_softmax(x).",
         x - logsumexp(x, k), log_softmax(x, k)),
    Rule("negative log_softmax", "logsumexp(x) - x is -log_softmax(x).",
         logsumexp(x, k) - x, times(-1, log_softmax(x, k)), saves=True),
    Rule("log_softmax of a shift", "log_softmax(x - m) = log_softmax(x), as for softmax.",
         log_softmax(shifted, k), log_softmax(x, k), SHIFT),
]  # fmt: skip

# The loss -----------------------------------------------------------------------------------------

a_loss = maybe("astype", Op(LOSS, x, more=True).named("loss"), "cast")


def _not_twice(x: Term) -> bool:
    while x.op == "@scale":
        (x,) = x.inputs
    return x.op != "softmax"


TWICE = (_not_twice, "softmax is applied twice: its logits are probabilities already")


def _axes_of_logits(x: Term, whole: Term, j: Any) -> tuple[int, ...]:
    """What is summed over, as axes of the logits: the sum's operand may have more in front."""
    return tuple(i - whole.ndim + x.ndim for i in axes_of(j))


def _sums_classes(x: Term, whole: Term, j: Any, k: int) -> bool:
    return k in _axes_of_logits(x, whole, j)


CLASSES = (_sums_classes, "the sum does not run over the class axis")


def _of_distribution(x: Term, y: Term | None, whole: Term, j: Any, k: int) -> Term:
    """The negative of the rows' losses for a dense target, summed over what else is summed."""
    target = number(1) if y is None else reshape(y, y.shape[-x.ndim :])
    rows = times(-1, cast(loss(x, target, k, "dense"), whole.dtype))
    rest = tuple(i for i in _axes_of_logits(x, whole, j) if i != k)
    by_row = reshape(rows, kept(x.shape, k))
    return reshape(total(by_row, rest) if rest else by_row, whole.shape)


def _as_sum(node: Term) -> Term:
    return Term(LOSS, node.inputs, {**node.params, "reduction": "sum"}, (), node.dtype)


def _of_mask(x: Term, t: Term, k: int) -> Term:
    """The loss of all rows at the classes where a mask holds, as an array with one element."""
    node = loss(x, t, k, "dense")
    while node.op != LOSS:
        (node,) = node.inputs
    return reshape(times(-1, _as_sum(node)), (1,))


def _with(cast_: Term | None, node: Term) -> Term:
    """The changed loss, in the dtype that the cast around it had."""
    return node if cast_ is None else cast(node, cast_.dtype)


def _is_sum(loss: Term) -> bool:
    reduction: str = loss.params["reduction"]
    return reduction == "sum"


def _weighted(whole: Term, loss: Term, w: Term) -> Term:
    (part,) = loss.params["parts"]
    params = {**loss.params, "parts": (part._replace(weights=part.weights + 1),)}
    return cast(Term(LOSS, (*loss.inputs, w), params, loss.shape, loss.dtype), whole.dtype)


def _sums_rows(whole: Term, loss: Term, j: Any) -> bool:
    rows = tuple(i for i, n in enumerate(loss.shape) if n != 1)
    return axes_of(j) == rows and not _is_sum(loss)


def _multiplied(node: Term, by: Fraction) -> tuple[WeightedTarget, ...]:
    return tuple(part._replace(by=part.by * by) for part in node.params["parts"])


def _sum_of_both(
    whole: Term, loss: Term, other: Term, c: Fraction | None, d: Fraction | None
) -> Term | None:
    """One loss of the targets of both; None if one is subtracted from the other."""
    sign = -1 if whole.op == "sub" else 1
    parts = _multiplied(loss, c or Fraction(1)) + _multiplied(other, (d or Fraction(1)) * sign)
    first = -1 if parts[0].by < 0 else 1
    parts = tuple(part._replace(by=first * part.by) for part in parts)
    if any(part.by < 0 for part in parts):
        return None
    both = changed(loss, *loss.inputs, *other.inputs[1:], parts=parts)
    negative: Term = times(-1, both)
    return both if first > 0 else negative


def _alike(loss: Term, other: Term) -> bool:
    same = all(loss.params[p] == other.params[p] for p in ("axis", "temperature", "reduction"))
    return same and _is_sum(loss)


_one, _other = (Op(LOSS, x, more=True).named(name) for name in ("loss", "other"))
LOSSES = [
    Rule("loss of a picked class", "-log p at the right class of each row is its cross-entropy.",
         pick(log_softmax(x, k), t, j), lambda x, t, k: times(-1, loss(x, t, k, "index")),
         ((lambda k, j: k == j, "the class is picked along another axis than softmax's"), TWICE)),
    Rule(
        "loss of a distribution",
        "-Σ y·log p over the classes is the cross-entropy of y, one-hot or soft.",
        total((y * log_softmax(x, k)).named("v"), j), _of_distribution,
        (
            CLASSES,
            # the product has the logits' shape, but perhaps for axes of length 1 in front
            (
                lambda x, v: v.shape[-x.ndim :] == x.shape and v.size == x.size,
                "the target is larger than the logits",
            ),
            TWICE,
        ),
    ),
    Rule("loss of all classes",
         "-Σ log p over the classes is the cross-entropy of a target of ones.",
         total(log_softmax(x, k), j),
         lambda x, whole, j, k: _of_distribution(x, None, whole, j, k), (CLASSES, TWICE)),
    Rule("loss of masked classes", "-Σ log p where a mask holds is the cross-entropy of the mask.",
         total(Op("@masked", log_softmax(x, k), t), j), _of_mask, (TWICE,)),
    Rule("loss of one masked class",
         "-log p where a mask holds once is the cross-entropy of the mask.",
         Op("@masked", log_softmax(x, k), t), _of_mask,
         ((lambda whole: whole.shape == (1,), "the mask holds more than once"), TWICE)),
    Rule(
        "weighted rows", "A weight of a row's loss multiplies its target.",
        w * a_loss, _weighted,
        (
            (
                lambda whole, loss: whole.shape == loss.shape and not _is_sum(loss),
                "the weights are not one number per row",
            ),
            (lambda loss: len(loss.params["parts"]) == 1, "the loss has several targets"),
        ),
    ),
    Rule("sum over rows", "The sum of the rows' losses is the loss with reduction 'sum'.",
         total(a_loss, j),
         lambda whole, loss, cast: reshape(_with(cast, _as_sum(loss)), whole.shape),
         ((_sums_rows, "the sum does not run over all rows"),)),
    Rule(
        "factor of the loss",
        "A factor of the sum, such as 1/N for the mean, is what the fused node divides by.",
        times(c, a_loss),
        lambda loss, c, cast: _with(cast, changed(loss, parts=_multiplied(loss, c))),
        (
            (lambda c: c > 0, "the factor is negative: the sign is turned round"),
            (_is_sum, "the rows are not summed"),
        ),
    ),
    Rule(
        "two targets",
        "Two losses of the same logits are the loss of the sum of their targets, as in smoothing.",
        Op("add sub", Either(_one, times(c, _one)), Either(_other, times(d, _other))), _sum_of_both,
        (
            (_alike, "the two losses differ in more than their targets"),
            (
                lambda whole, loss, other, c, d: _sum_of_both(whole, loss, other, c, d) is not None,
                "one loss is subtracted from the other",
            ),
        ),
    ),
    Rule("temperature", "Logits times c are logits over the temperature 1/c.",
         Op(LOSS, times(c, x), more=True, temperature=k),
         lambda whole, x, c, k: changed(whole, x, *whole.inputs[1:], temperature=k / c),
         ((lambda c: c > 0, "a temperature is positive"),)),
    Rule("loss of a shift", "The loss does not change when all logits of a row are shifted alike.",
         Op(LOSS, shifted, more=True, axis=k),
         lambda whole, x: changed(whole, x, *whole.inputs[1:]), SHIFT),
]  # fmt: skip

# The linear layer before the loss -----------------------------------------------------------------

_product = (Var("h") @ Var("W")).named("product")
_inner = maybe("reshape", _product, "inner")
_logits = maybe("reshape", Either(_inner + Var("b"), _inner), "outer")


def _one_matrix(h: Term, W: Term) -> bool:
    return W.ndim == 2 or (W.ndim == 1 and h.ndim == 2)


def _classes_last(loss: Term, product: Term) -> bool:
    logits = loss.inputs[0]
    last: bool = loss.params["axis"] == logits.ndim - 1
    return last and logits.shape[-1] == product.shape[-1]


def _bias_by_class(product: Term, b: Term | None) -> bool:
    classes = product.shape[-1:]
    return b is None or (b.size == classes[0] and b.shape[-1:] == classes)


def _linear(loss: Term, h: Term, W: Term, b: Term | None) -> Term:
    logits, *targets = loss.inputs
    # of shape (V, D); a matrix times one row has it as it is
    features, weight = (W, h) if W.ndim == 1 else (h, transposed(W))
    x = reshape(features, (*logits.shape[:-1], weight.shape[1]))
    bias = number(0) if b is None else reshape(b, weight.shape[:1])
    return Term(LINEAR_LOSS, (x, weight, bias, *targets), loss.params, loss.shape, loss.dtype)


LINEAR = [
    Rule(
        "linear layer",
        "Logits x·Wᵀ + b that only the loss needs can be had and forgotten a few rows at a time.",
        Op(f"{LOSS} {LOSS_NODE}", _logits, more=True).named("loss"), _linear,
        (
            (_one_matrix, "the weight is not one matrix for all rows"),
            (_classes_last, "the classes are not the last axis of the product"),
            (_bias_by_class, "the bias is not one number per class"),
        ),
        alone="the logits are used elsewhere, too",
    ),
]  # fmt: skip

FUSIONS = [*PARTS, *(replace(rule, saves=True) for rule in LOSSES), *LINEAR]
RULES = (*ALGEBRA, *FUSIONS)
"""All rules, in the order in which they are tried at each node."""
RULES_FOR_BACKWARD = tuple(rule for rule in RULES if not rule.alone)
"""Those that pay when backward is next: logits that are there already are not computed anew."""

# What is often meant ------------------------------------------------------------------------------

_p = softmax(x, k)
_bounded = Op("maximum minimum", _p, c)
_clipped = Either(Op("clip", _p, more=True), _bounded, Op("maximum minimum", _bounded, d))
_masked = exp(x) * t

ALMOST = (
    almost(
        "log of softmax",
        "a number is added to p before the logarithm; without it log(p) is log_softmax(x), "
        "which needs none",
        log(_p + c),
    ),
    almost(
        "log of softmax",
        "p is clipped before the logarithm; without it log(p) is log_softmax(x), which needs none",
        log(_clipped),
    ),
    almost("softmax",
           "the denominator is not the sum of the numerator alone: something is added to it",
           exp(x) / (total(exp(x), k) + m)),
    almost("softmax",
           "a mask multiplies the exponentials; put -inf into the logits instead, before exp",
           _masked / total(_masked, k)),
    almost(
        "softmax",
        "the sum keeps no axis, so that it is not divided along the rows; keepdims=True is missing",
        exp(x) / Op("reshape", total(exp(x), k)),
    ),
    almost("loss of a distribution", "the target requires a gradient, or depends on what does",
           total(Varying("q") * log_softmax(x, k), j)),
    almost("loss of a distribution", "the logarithm is missing: p itself is weighted, not log p",
           total(y * _p, j)),
    almost(
        "loss of a distribution",
        "the logarithm is taken of the sum; sum the logarithms, which for a one-hot y is the same",
        log(total(y * _p, j)),
    ),
)  # fmt: skip
