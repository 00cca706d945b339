"""`draw_comparison`: the composite and the fused node in one picture, which shows why they agree.

Both lead from the same logits on the left to the same loss on the right. Backward's two terms are
set off where they meet in the composite: −y through the numerator, +p·Σy through the denominator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple, Unpack

import numpy as np

from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import CONSTANT, LEAF, Graph, Node
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.study.comparison import Comparison
from viz.drawing import Drawing
from viz.formula import implied_names, letter
from viz.options import MOST_NODES, Choice, PictureOptions, chosen, takes
from viz.scene import Arrow, Box, Cluster, Row, Scene, Tone
from viz.sketch import Sketch, cluster_paths, is_view, same_inputs
from viz.values import in_full

_FRAME = Cluster("composite", "composite: from primitives, what the one node below replaces", True)
_LOSS = "loss"
_EXAMPLES = 3
_TONES: tuple[Tone, Tone] = ("numerator", "denominator")


class Fork(NamedTuple):
    """Where a value goes two ways in the composite, and backward's two terms meet.

    Attributes:
        node: the value with the two consumers: e = exp(a), or the logits themselves.
        direct: the consumer on the short way, as p = e/s is: its term comes "through the
            numerator".
        detour: the other way, from the sum to `direct`: its term comes "through the denominator".
        terms: the two contributions; at the logits if `at_logits`, else as they arrive at `node`.
    """

    node: Node
    direct: int
    detour: list[int]
    terms: tuple[np.ndarray, np.ndarray]
    at_logits: bool


class Examples(NamedTuple):
    """A few elements of one row of a large array.

    The least elements of two arrays do not add up to the least of their sum, so that where terms
    are to be seen to add up, elements are shown and not min, mean and max.

    Attributes:
        axis: the class axis.
        row: which of the rows.
        classes: which of its elements.
        text: the same in words.
    """

    axis: int
    row: int
    classes: list[int]
    text: str

    def of(self, x: np.ndarray) -> np.ndarray:
        """The elements of an array of the logits' shape."""
        found: np.ndarray = _by_row(x, self.axis)[self.row, self.classes]
        return found


@takes(PictureOptions)
def draw_comparison(
    comparison: Comparison | BackwardTrace,
    fused_trace: BackwardTrace | None = None,
    **options: Unpack[PictureOptions],
) -> Drawing:
    """Draw the composite and the fused node, from the same logits to the same loss.

    Args:
        comparison: what `compare` returned; or the BackwardTrace of the composite.
        fused_trace: the BackwardTrace of the fused node, if `comparison` is a BackwardTrace.
        **options: see below.

    Raises:
        InvalidTypeError: the arguments are none of these, or an option is of a wrong type.
        InvalidValueError: the two graphs have no leaf in common, or too many nodes; or an option
            is not possible.
    """
    choice = chosen(draw_comparison, options)
    remarks: list[str] = []
    if isinstance(comparison, Comparison) and fused_trace is None:
        traces = comparison.composite_trace, comparison.fused_trace
        terms = comparison.contributions.numerator, comparison.contributions.denominator
        sides = _Comparison(*traces, choice, comparison.axis, terms)
        if comparison.reduction == "mean" and comparison.logits.ndim > 1:
            remarks.append("Both terms are divided as the mean divides.")
        remarks.append(f"Composite and fused {comparison.verdict}.")
    elif isinstance(comparison, BackwardTrace) and isinstance(fused_trace, BackwardTrace):
        sides = _Comparison(comparison, fused_trace, choice)
    else:
        raise InvalidTypeError(
            "draw_comparison needs a Comparison, or the composite's and the fused node's "
            f"BackwardTrace; got {type(comparison).__name__} and {type(fused_trace).__name__}"
        )
    text = f"composite\n{sides.composite.graph}\n\nfused\n{sides.fused.graph}"
    return Drawing(sides.scene(remarks), "\n\n".join([text, *remarks]), choice.look)


class _Comparison:
    """The two graphs on their way to one Scene."""

    def __init__(
        self,
        composite: BackwardTrace,
        fused: BackwardTrace,
        choice: Choice,
        axis: int = -1,
        terms: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.choice = choice
        if max(len(composite.graph.nodes), len(fused.graph.nodes)) > MOST_NODES:
            raise InvalidValueError(
                f"draw_comparison draws graphs of at most {MOST_NODES} nodes; use draw for each"
            )
        same = same_inputs(composite.graph, fused.graph)
        given = implied_names(fused.graph)
        names = {mine: given[other] for other, mine in same.items() if other in given}
        self.composite = Sketch(composite, "c", choice=choice, fold=_is_trifle, names=names)
        self.composite.mark_breakdown()
        self.fused = Sketch(fused, "f", choice=choice)
        self.leaves = {j: i for i, j in same.items() if composite.graph.nodes[j].op == LEAF}
        if not self.leaves:
            raise InvalidValueError(
                "draw_comparison needs two graphs of the same leaves; these have none in common"
            )
        for mine, other in self.leaves.items():
            self.fused.lead([other], self.composite.keys[mine])
        self.fork = _fork(self.composite, terms)
        self.examples = None if self.fork is None else _examples(self.fork, axis)

    def scene(self, remarks: Iterable[str]) -> Scene:
        paths, titles = _framed(self.composite.graph, self.leaves)
        boxes = [self._composite_box(n, paths[n.id]) for n in self.composite.boxed()]
        boxes += [self._fused_box(n) for n in self.fused.boxed()]
        clusters = {key: Cluster(key, title) for key, title in titles.items()}
        return Scene(
            boxes=(*boxes, self._loss_box()),
            arrows=(*self._forward_arrows(), *self._backward_arrows()),
            clusters=clusters | {_FRAME.key: _FRAME},
            caption=(*(self._caption() if self.choice.legend else ()), *remarks),
            title=self.choice.headline,
            stack=self._givens(),
            direction="LR",
        )

    # Boxes ----------------------------------------------------------------------------------------

    def _composite_box(self, node: Node, path: tuple[str, ...]) -> Box:
        value = self.composite.row("value", node.value, full=_narrow(node))
        box = self.composite.box(node, path=path, rows=(value,), upright=True)
        if node.op == CONSTANT:
            return self._plain(box, node)
        if node.op != LEAF:
            box = replace(box, subtitle="")
        if self.fork is not None and node.id == self.fork.node.id:
            parts = [box.subtitle, self.examples.text if self.examples else ""]
            box = replace(
                box, rows=tuple(self._terms(self.fork)), subtitle=" · ".join(filter(None, parts)),
                upright=False, stacked=node.value.ndim > 1,
            )  # fmt: skip
        if node.op == LEAF:
            rows = (*box.rows, *self._gradients(node))
            vectors = all(len(row.cells) == 1 and row.port is None for row in rows)
            box = replace(box, rows=rows, upright=vectors, stacked=not vectors)
        return box

    def _ways(self, fork: Fork) -> tuple[str, str]:
        """What the two ways to the fork are called."""
        nodes = self.composite.graph.nodes
        if nodes[fork.direct].op == "div":
            return "the numerator", "the denominator"
        title = self.composite.formulas.title
        return title(nodes[fork.direct]), title(nodes[fork.detour[-1]])

    def _terms(self, fork: Fork) -> Iterator[Row]:
        """The rows of the box where the terms meet; an arrow points to each term."""
        yield self._row("value", fork.node.value, port="value")
        signs = ("−y, ", "+ p·Σy, ") if fork.at_logits else ("", "+ ")
        for sign, way, x, tone in zip(signs, self._ways(fork), fork.terms, _TONES, strict=True):
            yield self._row(f"{sign}through\n{way}", x, tone, tone)
        if fork.node.op != LEAF:  # a leaf shows its gradient anyway
            logits = self.composite.graph.nodes[min(self.leaves)]
            of = logits if fork.at_logits else fork.node
            label = f"= ∂L/∂{self.composite.formulas.name(of) or letter(of)}"
            yield self._row(label, _total(fork), "gradient")

    def _row(self, label: str, x: np.ndarray, tone: Tone = "plain", port: str | None = None) -> Row:
        """A row of the box where the terms meet."""
        if self.examples is None:
            return self.composite.row(label, x, tone, port)
        heads = tuple(f"class {j}" for j in self.examples.classes)
        shown = self.composite.row(label, self.examples.of(x), tone, port)
        return replace(shown, heads=heads)

    def _gradients(self, leaf: Node) -> Iterator[Row]:
        """What each side found for the leaf's gradient."""
        grads = {"composite": self.composite.gradient(leaf)}
        if leaf.id in self.leaves:
            grads["fused"] = self.fused.gradient(self.fused.graph.nodes[self.leaves[leaf.id]])
        meet = self.fork is not None and self.fork.node.id == leaf.id
        for side, grad in grads.items():
            if grad is not None:
                yield (self._row if meet else self.composite.row)(f"grad\n{side}", grad, "gradient")

    def _fused_box(self, node: Node) -> Box:
        box = self.fused.box(node)
        if node.op == CONSTANT:
            return self._plain(box, node)
        row = self.fused.row
        rows = [row("value", node.value)]
        for i, source in enumerate(node.inputs):
            sent = self.fused.sent.get((node.id, i))
            leaf = self.fused.graph.nodes[source]
            if sent is not None and leaf.op == LEAF:
                name = self.fused.formulas.name(leaf) or "logits"
                rows.append(row(f"Σy·p − y\n= ∂L/∂{name}", sent, "gradient"))
        return replace(box, subtitle="", rows=tuple(rows))

    def _plain(self, box: Box, node: Node) -> Box:
        """The box of a constant, which has little to say: its name and its values."""
        rows = (self.composite.row("", node.value),)
        return replace(box, subtitle="", rows=rows, upright=False)

    def _givens(self) -> tuple[str, ...]:
        """Keys of what stands at the start: the leaves, and below them the fused node's target."""
        leaves = [self.composite.keys[i] for i in sorted(self.leaves)]
        return (*leaves, *(self.fused.keys[n.id] for n in self.fused.boxed() if not n.inputs))

    def _loss_box(self) -> Box:
        row = self.composite.row
        sides = {"composite": self.composite.graph, "fused": self.fused.graph}
        rows = tuple(row(side, view.nodes[view.output].value) for side, view in sides.items())
        return Box(_LOSS, "loss", "operation", rows=rows, output=True)

    # Arrows ---------------------------------------------------------------------------------------

    def _forward_arrows(self) -> Iterator[Arrow]:
        mine, other = self.composite.keys, self.fused.keys
        fork = None if self.fork is None else mine[self.fork.node.id]
        for arrow in self.composite.arrows():
            yield replace(arrow, source_port="value") if arrow.source == fork else arrow
        yield from self.fused.arrows()
        yield Arrow(mine[self.composite.graph.output], _LOSS)
        yield Arrow(other[self.fused.graph.output], _LOSS, loose=True)

    def _backward_arrows(self) -> Iterator[Arrow]:
        keys, leaves = self.fused.keys, self.leaves.values()
        for edge in self.fused.edges():
            if edge.source in leaves and (edge.target, edge.argument) in self.fused.sent:
                yield Arrow(keys[edge.target], keys[edge.source], tone="gradient", back=True)
        if self.fork is None:
            return
        keys = self.composite.keys
        here = self.fork.node
        while here.op != LEAF:
            above, here = here, self.composite.graph.nodes[here.inputs[0]]
            if keys[above.id] != keys[here.id]:
                yield Arrow(keys[above.id], keys[here.id], tone="gradient", back=True)
        meet, direct = keys[self.fork.node.id], keys[self.fork.direct]
        yield Arrow(direct, meet, tone="numerator", back=True, port="numerator")
        way = list(dict.fromkeys(keys[i] for i in (*self.fork.detour, self.fork.direct)))
        for near, far in pairwise(way):
            yield Arrow(far, near, tone="denominator", back=True)
        yield Arrow(way[0], meet, tone="denominator", back=True, port="denominator")

    def _caption(self) -> Iterator[str]:
        if self.fork is not None and self.fork.at_logits:
            one, other = self._ways(self.fork)
            yield (
                f"−y and + p·Σy: what backward brings back through {one} and through {other}, "
                "taken on to the logits.\n"
                "They add up to the gradient that the one node gives at once."
            )
        elif self.fork is not None:
            yield "Coloured: what backward brings on the two ways to where they meet."
        yield "Thin arrows: what is computed. Bold arrows: what backward brings back."


def _fork(composite: Sketch, at_logits: tuple[np.ndarray, np.ndarray] | None) -> Fork | None:
    """Find the first value that two consumers sent a contribution to, or None."""
    consumers: dict[int, list[tuple[int, np.ndarray]]] = {}
    for edge in composite.graph.edges:
        sent = composite.sent.get((edge.target, edge.argument))
        if sent is not None:
            consumers.setdefault(edge.source, []).append((edge.target, sent))
    twice = (i for i, found in consumers.items() if len(dict(found)) == len(found) == 2)
    meet = min(twice, default=None)
    if meet is None:
        return None
    (onward, around), (direct, straight) = consumers[meet]
    detour = []
    while onward != direct:
        detour.append(onward)
        if len(consumers.get(onward, [])) != 1:
            return None
        [(onward, _)] = consumers[onward]
    terms = at_logits or (straight, around)
    return Fork(composite.graph.nodes[meet], direct, detour, terms, at_logits is not None)


def _total(fork: Fork) -> np.ndarray:
    with np.errstate(all="ignore"):  # where it broke
        total: np.ndarray = np.add(*fork.terms)
    return total


def _examples(fork: Fork, axis: int) -> Examples | None:
    """The largest elements of the first row that counts; None if there is room for all."""
    if in_full(fork.node.value):
        return None
    size = np.abs(_by_row(_total(fork), axis))
    rows, n = size.shape
    at = int(np.argmax(size.any(axis=1)))
    largest = np.argsort(-np.nan_to_num(size[at], nan=np.inf), kind="stable")
    classes = sorted(map(int, largest[:_EXAMPLES]))
    parts = [f"row {at} of {rows}"] if rows > 1 else []
    parts += [f"{len(classes)} of {n} classes"] if len(classes) < n else []
    return Examples(axis, at, classes, ", ".join(parts))


def _by_row(x: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def _is_trifle(node: Node) -> bool:
    """Whether a node without a name goes into the next formula: a view, −x, another dtype."""
    op = node.primitive
    mere = op is not None and op.kind == "elementwise" and op.linear and op.arity == 1
    return mere or is_view(node)


def _narrow(node: Node) -> bool:
    """Whether a value is one number wide; between logits and loss there is no room for more."""
    return node.op == LEAF or len(node.shape) < 2 or node.shape[-1] == 1


def _framed(view: Graph, outside: Iterable[int]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """The clusters of the composite inside its frame; what both sides use stays outside."""
    paths, titles = cluster_paths(view)
    framed: list[tuple[str, ...]] = [(_FRAME.key, *path) for path in paths]
    for edge in view.edges:  # a constant of the composite's own stands with its consumer
        if not view.nodes[edge.source].inputs:
            framed[edge.source] = framed[edge.target]
    for i in outside:
        framed[i] = ()
    return framed, titles
