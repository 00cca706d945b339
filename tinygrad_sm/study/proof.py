"""A proof that the composite's gradient is the fused node's: in formulas, for every y and every a.

The logits and the target are symbols, and the engine runs on them as it does on numbers: the same
primitives, the same vjps, the same sweep. What it gives is then compared as formulas (`symbolic`).
Witness beside the engine is SymPy's own derivative, which knows nothing of vjps: of each rule that
takes part, so that a wrong one is named, and of the loss as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygrad_sm.arrays.elements import symbols
from tinygrad_sm.engine.gradients import grad
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import CONSTANT, Node, graph
from tinygrad_sm.errors import InvalidValueError, TinygradError, shown
from tinygrad_sm.loss.composite import FORMS, composite_cross_entropy
from tinygrad_sm.loss.fused import cross_entropy
from tinygrad_sm.study.diagnose import first_index, label
from tinygrad_sm.study.symbolic import same_formulas

MOST_CLASSES = 6
FUSED = "fused"
CHAPTERS = {
    "rules": "Each rule that takes part: its vjp is the derivative that SymPy finds",
    "loss": "The loss of every form is that of the fused node",
    "gradient": "So is the gradient, which is s·p − y, with s = Σy",
    "Hessian": "So are the second derivatives",
}
_LETTERS = "uvwxyz"  # for the arguments of a rule


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that the proof needs.

    Attributes:
        chapter: one of CHAPTERS.
        about: the rule or the form, e.g. ``"div, argument 1"`` or ``"naive"``.
        says: the claim as a formula, e.g. ``"∂L/∂a − fused = 0"``.
        count: how many formulas were compared, one for each element.
        example: the first of them, as the engine gives it.
        amiss: what was found instead, with its place; empty where the claim holds.
    """

    chapter: str
    about: str
    says: str
    count: int
    example: str
    amiss: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is true."""
        return not self.amiss


@dataclass(frozen=True, slots=True)
class Proof:
    """All claims, in the order in which they build on each other.

    Attributes:
        classes: the number of classes.
        claims: what was examined.
    """

    classes: int
    claims: tuple[Claim, ...]

    @property
    def holds(self) -> bool:
        """Whether every claim does."""
        return all(claim.holds for claim in self.claims)

    def verdict(self) -> str:
        """Return the outcome in a sentence; if the proof fails, with the first thing amiss."""
        count = sum(claim.count for claim in self.claims)
        wrong = [claim for claim in self.claims if not claim.holds]
        if not wrong:
            return (
                f"proved for N = {self.classes}: {count} times two formulas are equal; composite − "
                "fused is 0 for all logits and every target, in the gradient and in the Hessian"
            )
        first = wrong[0]
        return (
            f"not proved: {len(wrong)} of {len(self.claims)} claims fail, the first in the "
            f"{first.chapter} at {first.about}: {first.amiss}"
        )


def prove(classes: int = 3) -> Proof:
    """Prove that composite and fused have one gradient and one Hessian, for s = Σy of any value.

    Args:
        classes: from 1 to 6.

    Raises:
        InvalidValueError: another number of classes.
        InvalidTypeError: SymPy is missing.
    """
    if not isinstance(classes, int) or not 1 <= classes <= MOST_CLASSES:
        raise InvalidValueError(
            f"classes must be an integer from 1 to {MOST_CLASSES}; got {shown(classes)}"
        )
    names, y = symbols("a", classes), symbols("y", classes)
    a = Tensor(names, name="a")
    losses = {form: composite_cross_entropy(a, y, form=form) for form in FORMS}
    losses[FUSED] = cross_entropy(a, y)
    claims: list[Claim] = []
    try:
        gradients = {form: grad(loss, a, create_graph=True) for form, loss in losses.items()}
        seconds = {f"{form}'s gradient": gradient for form, gradient in gradients.items()}
        claims += _rules(losses | seconds)
        claims += _as_fused("loss", {form: loss.data for form, loss in losses.items()})
        claims += _gradients(gradients, losses[FUSED].data, names, y)
        claims += _hessians(gradients, a, y)
    except TinygradError as error:  # a wrong rule may not even fit its argument
        claims.append(Claim("gradient", "the sweep", "runs on formulas", 0, "", str(error)))
    return Proof(classes, tuple(claims))


# The claims ---------------------------------------------------------------------------------------


def _rules(outputs: dict[str, Tensor]) -> Iterator[Claim]:
    """Every vjp that takes part in the gradients or in their derivatives, in every shape."""
    found: dict[str, list[Claim]] = {}
    seen = set()
    for name, output in outputs.items():
        view = graph(output)
        for node in view.nodes:
            operands = [view.nodes[i] for i in node.inputs]
            call = (node.op, str(node.params), *((x.shape, x.op == CONSTANT) for x in operands))
            if node.primitive is None or node.primitive.kind == "loss" or call in seen:
                continue  # the fused node's rule is what the gradient's chapter is about
            seen.add(call)
            for claim in _of_one_call(node, operands, f"{name}, {label(node)}"):
                found.setdefault(claim.about, []).append(claim)
    for claims in found.values():
        first = next((claim for claim in claims if claim.amiss), claims[0])
        yield replace(first, count=sum(claim.count for claim in claims))


def _of_one_call(node: Node, operands: list[Node], where: str) -> Iterator[Claim]:
    """One operation on fresh symbols: its vjps against Σ g · ∂out/∂x, which SymPy derives."""
    assert node.primitive is not None
    given = [
        x.value if x.op == CONSTANT else Tensor(symbols(name, x.shape, positive=True))
        for name, x in zip(_LETTERS, operands, strict=False)
    ]
    out = node.primitive(*given, **node.params)
    g = symbols("g", out.shape)
    for i, x in enumerate(given):
        if isinstance(x, Tensor):
            derived = _derivative(np.sum(g * out.data), x.data)
            says = f"vjp = Σ g · ∂out/∂{_LETTERS[i]}"
            claim = _equal("rules", f"{node.op}, argument {i}", says, grad(out, x, g), derived)
            yield replace(claim, amiss=claim.amiss and f"{claim.amiss} (used in {where})")


def _as_fused(chapter: str, found: dict[str, Any]) -> Iterator[Claim]:
    """What every form has is what the fused node has."""
    for form in FORMS:
        yield _equal(chapter, form, "composite − fused = 0", found[form], found[FUSED])


def _gradients(gradients: dict[str, Tensor], loss: Any, a: Any, y: Any) -> Iterator[Claim]:
    """The fused gradient is what is on paper, and what SymPy derives; each form's is the same."""
    found = {form: gradient.data for form, gradient in gradients.items()}
    fused = found[FUSED]
    e = np.exp(a)
    yield _equal("gradient", FUSED, "fused − (s·p − y) = 0", fused, np.sum(y) * e / np.sum(e) - y)
    derived = _derivative(loss, a)
    yield _equal("gradient", FUSED, "fused − SymPy's ∂L/∂a = 0", fused, derived)
    yield from _as_fused("gradient", found)


def _hessians(gradients: dict[str, Tensor], a: Tensor, y: Any) -> Iterator[Claim]:
    """The same of the second derivatives, by differentiating each component of the gradients."""
    hessians = {
        form: np.stack([grad(gradient[i], a) for i in range(a.size)])
        for form, gradient in gradients.items()
    }
    e = np.exp(a.data)
    p = e / np.sum(e)
    paper = np.sum(y) * (np.diag(p) - np.outer(p, p))
    says = "fused − s·(diag(p) − p·pᵀ) = 0"
    yield _equal("Hessian", FUSED, says, hessians[FUSED], paper)
    yield from _as_fused("Hessian", hessians)


def _derivative(formula: Any, symbols: Any) -> Any:
    """What SymPy makes of ∂formula/∂symbol, for each symbol of an array."""
    return np.frompyfunc(np.asarray(formula).item().diff, 1, 1)(symbols)


def _equal(chapter: str, about: str, says: str, found: Any, expected: Any) -> Claim:
    """The claim that two arrays hold equal formulas."""
    equal = same_formulas(found, expected)
    amiss = ""
    if not equal.all():
        at = first_index(~equal)
        where = f" at {at}" if at else ""
        amiss = f"{says} fails{where}: got {found[at]}, not {expected[at]}"
    return Claim(chapter, about, says, equal.size, str(np.ravel(found)[0]), amiss)
