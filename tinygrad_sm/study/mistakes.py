"""The mistakes that learners make, put into the engine: it then computes the wrong gradient itself.

`mistaken` is the switch. Inside it every sweep goes wrong in one way: a vjp is not the derivative,
or edges that meet do not add up. `break_it` shows one mistake on one loss: the gradient that comes
out, the edge or the node where it goes wrong, and what gradcheck says of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_sm.engine import memory
from tinygrad_sm.engine.gradients import pulled, stand_ins
from tinygrad_sm.engine.node import Recorded
from tinygrad_sm.engine.sweep import Cotangents, Pulled, pull
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import Node as View
from tinygrad_sm.errors import InvalidValueError, LossWarning, shown
from tinygrad_sm.loss.composite import FORMS, composite_cross_entropy
from tinygrad_sm.loss.fused import cross_entropy, spread
from tinygrad_sm.loss.probabilities import softmax
from tinygrad_sm.study.check import GradcheckReport, gradcheck
from tinygrad_sm.texts import texts

FUSED = "fused"
"""The form of the loss that is one node; the others are the composite's FORMS."""

Spoil = Callable[[Any, Any, list[Pulled]], Iterable[Pulled]]
"""Makes wrong edges of the right ones that a node with its cotangent passes on."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake of a learner.

    Attributes:
        name: as in MISTAKES, and in the texts.
        form: where it is made by default: in the composite ("naive"), or in the closed form
            ("fused").
        spoil: called at the start of each `mistaken`, gives what spoils the edges; None for a
            mistake that leaves them right.
        add: what is done where edges meet.
        twice: whether the program is wrong and not the engine: it gives softmax(a) for a.
    """

    name: str
    form: str = "naive"
    spoil: Callable[[], Spoil] | None = None
    add: Callable[[Cotangents, Any, Any], None] = memory.add_up
    twice: bool = False

    def says(self, lang: str = "en") -> dict[str, str]:
        """Return its texts: "title", "what", "why", "caught" and "hides".

        Raises:
            InvalidValueError: there is no such language.
        """
        found: dict[str, str] = texts(lang, "mistakes")[self.name]
        return found


# What goes wrong ----------------------------------------------------------------------------------


def _values(node: Any, g: Any) -> tuple[Any, ...]:
    """The result of a node and its operands: as nodes, where the sweep itself is recorded."""
    return (node, *node._operands) if isinstance(g, Recorded) else (node._array, *node._values)


def _in_closed_form(node: Any, g: Any, wrong: Callable[[Any, Any], Any]) -> Any:
    """g·wrong(p, q)/T in the place of g·(Σq·p − q)/T; see `logits_cotangent`."""
    task, (_, logits, target) = node._operation.params["task"], _values(node, g)
    q = target if task.index is None else task.dense(logits.dtype)
    p = softmax(logits / task.temperature, axis=task.axis)
    return spread(g, task) * wrong(p, q) / task.temperature


def _only_diagonal() -> Spoil:
    """∂p_i/∂a_j is taken for i = j alone: of what comes through the sum, each keeps its own."""
    shares: dict[Any, Any] = {}  # what the quotients contribute to their sums, before it is summed

    def spoil(node: Any, g: Any, edges: list[Pulled]) -> Iterable[Pulled]:
        if node.op == "SoftmaxWithLoss":
            return [(0, node._first, _in_closed_form(node, g, lambda p, q: q * p - q)), *edges[1:]]
        if node.op == "softmax":
            p = _values(node, g)[0]
            return [(0, node._first, g * p * (1 - p))]
        if node in shares:
            return [(0, node._first, shares.pop(node))]
        if node.op == "div" and _is_sum_of(node._second, node._first):
            p, _, s = _values(node, g)
            shares[node._second] = -(g * p / s)
        return edges

    return spoil


def _is_sum_of(s: Any, e: Any) -> bool:
    return isinstance(s, Tensor) and s.op == "sum" and s._first is e


def _p_minus_y() -> Spoil:
    """The closed form without the factor Σy."""

    def spoil(node: Any, g: Any, edges: list[Pulled]) -> Iterable[Pulled]:
        if node.op == "SoftmaxWithLoss":
            return [(0, node._first, _in_closed_form(node, g, lambda p, q: p - q)), *edges[1:]]
        return edges

    return spoil


def _mean_times(power: int) -> Callable[[], Spoil]:
    """The gradient of each mean over N rows comes out N^power times as large."""

    def spoil(node: Any, g: Any, edges: list[Pulled]) -> Iterable[Pulled]:
        n = _divided_by(node)
        return edges if n == 1 else [(i, x, c * n**power) for i, x, c in edges]

    return lambda: spoil


def _divided_by(node: Any) -> float:
    """What a mean divides by: `mean` itself, the loss's own, or a sum over a constant; else 1."""
    if node.op == "mean":
        return float(node._first.size / node.size)
    if node.op == "SoftmaxWithLoss":
        return float(node._operation.params["task"].divisor)
    if node.op == "div" and getattr(node._first, "op", None) == "sum":
        n = node._values[1]
        return 1 if isinstance(node._second, Recorded) or np.ndim(n) else float(n)
    return 1


def _overwrite(cotangents: Cotangents, node: Any, contribution: Any) -> None:
    """The last contribution wins: it should have been added."""
    cotangents[node] = contribution


MISTAKES = {
    mistake.name: mistake
    for mistake in (
        Mistake("diagonal", spoil=_only_diagonal),
        Mistake("overwritten", add=_overwrite),
        Mistake("mean-forgotten", spoil=_mean_times(1)),
        Mistake("mean-twice", spoil=_mean_times(-1)),
        Mistake("softmax-twice", twice=True),
        Mistake("p-minus-y", form=FUSED, spoil=_p_minus_y),
    )
}
"""Every mistake by name."""


def mistake_named(name: str) -> Mistake:
    """Return a mistake.

    Raises:
        InvalidValueError: there is none of this name.
    """
    if name not in MISTAKES:
        raise InvalidValueError(f"name must be one of {', '.join(MISTAKES)}; got {shown(name)}")
    return MISTAKES[name]


# The switch ---------------------------------------------------------------------------------------


@contextmanager
def mistaken(name: str) -> Iterator[Mistake]:
    """Make one mistake in every sweep inside this block: `backward`, `grad`, gradcheck.

    Only the thread that entered it goes wrong.

    Raises:
        InvalidValueError: there is no mistake of this name, or it is one of the program: for
            "softmax-twice" give ``tg.softmax(logits)`` to the loss.

    Examples:
        >>> import tinygrad_sm as tg
        >>> a = tg.Tensor([2.0, 1.0, 0.1])
        >>> with mistaken("diagonal"):
        ...     tg.grad(tg.composite_cross_entropy(a, [1, 0, 0]), a).round(3) + 0.0
        array([-0.341,  0.   ,  0.   ])
    """
    mistake = mistake_named(name)
    if mistake.twice:
        raise InvalidValueError(
            f"{name} is a mistake of the program, not of the engine: give tg.softmax(logits) to "
            "the loss"
        )
    if mistake.spoil is None:
        before = stand_ins.set((pulled, mistake.add))
    else:
        spoil = mistake.spoil()
        before = stand_ins.set((lambda t, g: spoil(t, g, list(pulled(t, g))), mistake.add))
    try:
        yield mistake
    finally:
        stand_ins.reset(before)


# One mistake on one loss --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Broken:
    """A mistake, and what the engine computed with it.

    Attributes:
        mistake: which.
        gradient, right: what came out, and what should have; of the logits' shape.
        trace, right_trace: the sweeps that found them. But for "softmax-twice" their graphs have
            the same nodes, so that one can be drawn beside the other.
        edges: where it goes wrong: (id of the consumer, position of the argument) of each edge
            of `trace` over which something else goes than its consumer's vjp makes of the
            cotangent that it was given.
        nodes: ids of the nodes that go wrong themselves: whose cotangent is not the sum of what
            came, or which should not be there.
        report: what gradcheck says.
    """

    mistake: Mistake
    gradient: np.ndarray
    right: np.ndarray
    trace: BackwardTrace
    right_trace: BackwardTrace
    edges: tuple[tuple[int, int], ...]
    nodes: tuple[int, ...]
    report: GradcheckReport

    @property
    def shows(self) -> bool:
        """Whether the gradient is wrong at all: with one row a forgotten 1/N is not."""
        return not np.allclose(self.gradient, self.right, rtol=1e-6, atol=1e-12, equal_nan=True)

    def __str__(self) -> str:
        says, nodes = self.mistake.says(), self.trace.graph.nodes
        edges = [(nodes[i], nodes[nodes[i].inputs[argument]]) for i, argument in self.edges]
        where = [f"on the edge from {_called(y)} back to {_called(x)}" for y, x in edges]
        where += [f"at {_called(nodes[i])}" for i in self.nodes]
        lines = [
            f"{says['title']}. {says['what']}",
            f"wrong: {np.round(self.gradient, 3) + 0.0}",
            f"right: {np.round(self.right, 3) + 0.0}",
            f"where: {', '.join(where) or 'nowhere in this graph'}",
            says["caught"] if self.shows else says["hides"],
        ]
        return "\n".join(lines)


def _called(node: View) -> str:
    return node.op if node.name is None else f"{node.name} ({node.op})"


def break_it(
    name: str, logits: Any, target: Any, *, form: str | None = None, **options: Any
) -> Broken:
    """Compute the gradient of softmax + cross-entropy with one mistake in the engine.

    Args:
        name: a key of MISTAKES.
        logits: as for `cross_entropy`.
        target: as for `cross_entropy`.
        form: of the loss: "fused", or one of the composite's; where the mistake is usually made
            unless given.
        **options: as for `cross_entropy`; "none" is not a reduction here.

    Raises:
        InvalidValueError: there is no such mistake or form, or the loss is not one number.
        InvalidTypeError, InvalidValueError, LabelError: as for `cross_entropy`.

    Examples:
        >>> broken = break_it("overwritten", [2.0, 1.0, 0.1], [1, 0, 0])
        >>> broken.gradient.round(3)
        array([0.659, 0.242, 0.099])
        >>> [broken.trace.graph.nodes[i].name for i in broken.nodes]
        ['e']
        >>> len(broken.report.failures)
        1
    """
    mistake = mistake_named(name)
    form = mistake.form if form is None else form
    if form not in (FUSED, *FORMS):
        raise InvalidValueError(
            f"form must be one of {', '.join((FUSED, *FORMS))}; got {shown(form)}"
        )

    def right(a: Tensor) -> Any:
        if form == FUSED:
            return cross_entropy(a, target, **options)
        return composite_cross_entropy(a, target, form=form, **options)

    def wrong(a: Tensor) -> Any:
        return right(softmax(a, axis=options.get("axis", -1)) if mistake.twice else a)

    switch = nullcontext() if mistake.twice else mistaken(name)
    with np.errstate(all="ignore"), warnings.catch_warnings():  # the report says so
        warnings.simplefilter("ignore", LossWarning)  # that softmax is applied twice
        gradient_of_right, right_trace = _swept(right, logits)
        with switch:
            gradient, trace = _swept(wrong, logits)
            report = gradcheck(wrong, [logits], raise_on_failure=False)
    edges, nodes = faults(trace)
    if mistake.twice:
        nodes = tuple(node.id for node in trace.graph.nodes if node.op == "softmax")
    return Broken(mistake, gradient, gradient_of_right, trace, right_trace, edges, nodes, report)


def _swept(f: Callable[[Tensor], Tensor], logits: Any) -> tuple[np.ndarray, BackwardTrace]:
    a = Tensor(logits, name="a")
    trace = f(a).backward(trace=True)
    assert trace is not None
    return np.array(a.grad), trace


def faults(trace: BackwardTrace) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Return where a sweep went wrong by itself, and not because of what came from above.

    Edges, as (id of the consumer, position of the argument): what went over them is not what the
    consumer's vjp makes of its cotangent. Nodes, by id: their cotangent is not the sum of what
    came.
    """
    edges, nodes = [], []
    for node, cotangent, passed_on in trace.steps:
        went = {argument: value for _, argument, value in passed_on}
        for i, _, value in pull(node.tensor, cotangent):
            if not (i in went and np.array_equal(went[i], value, equal_nan=True)):
                edges.append((node.id, i))
        came = [value for _, _, value in trace.contributions(node.tensor)]
        if came and not np.array_equal(sum(came[1:], came[0]), cotangent, equal_nan=True):
            nodes.append(node.id)
    return tuple(edges), tuple(nodes)


def recognised(
    gradient: Any, logits: Any, target: Any, *, decimals: int = 3, **options: Any
) -> list[Mistake]:
    """Return the mistakes that give this gradient: none, if it is right or wrong in another way.

    Args:
        gradient: a learner's answer, of the logits' shape.
        logits: as for `break_it`.
        target: as for `break_it`.
        decimals: to which the answer was rounded.
        **options: as for `break_it`.

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: as for `break_it`, or the answer has
            another shape than the logits.

    Examples:
        >>> [mistake.name for mistake in recognised([-0.341, 0, 0], [2.0, 1.0, 0.1], [1, 0, 0])]
        ['diagonal']
    """
    answer, shape = np.asarray(gradient, np.float64), np.shape(logits)
    if answer.shape != shape:
        raise InvalidValueError(f"gradient must have the logits' shape {shape}; got {answer.shape}")

    def is_meant(by: np.ndarray) -> bool:
        return bool(np.allclose(answer, by, rtol=0, atol=0.51 * 10.0**-decimals))

    made = [break_it(name, logits, target, **options) for name in MISTAKES]
    if is_meant(made[0].right):
        return []
    return [broken.mistake for broken in made if is_meant(broken.gradient)]
