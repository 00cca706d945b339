"""`draw_comparison`: the composite and the fused node in one picture, which shows why they agree.

Both lead from the same logits on the left to the same loss on the right. Backward's two terms are
set off where they meet in the composite: −y through the numerator, +p·Σy through the denominator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.engine.sweep import BackwardTrace
from tinygrad_sm.engine.view import CONSTANT, LEAF, Graph, Node
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.study.diagnose import first_breakdown
from viz.drawing import Drawing
from viz.formula import Formulas, implied_names, letter
from viz.graphs import MOST_NODES, Gradients, box_of, breakdown_note, cluster_paths
from viz.scene import Arrow, Box, Cluster, Row, Scene, Tone
from viz.selection import folded, is_drawn, is_view, same_inputs
from viz.values import in_full, row

_FRAME = Cluster("composite", "composite: from primitives, what the one node below replaces", True)
_LOSS = "loss"
_EXAMPLES = 3
_TONES: tuple[Tone, Tone] = ("numerator", "denominator")


def _is_trifle(node: Node) -> bool:
    """Whether a node without a name goes into the next formula: a view, −x, another dtype."""
    op = node.primitive
    mere = op is not None and op.kind == "elementwise" and op.linear and op.arity == 1
    return mere or is_view(node)


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
    detour: tuple[int, ...]
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
    classes: tuple[int, ...]
    text: str

    @property
    def heads(self) -> tuple[str, ...]:
        """What the elements are called."""
        return tuple(f"class {j}" for j in self.classes)

    def of(self, x: np.ndarray) -> np.ndarray:
        """The elements of an array of the logits' shape."""
        found: np.ndarray = _by_row(x, self.axis)[self.row, list(self.classes)]
        return found


def draw_comparison(comparison: Any, fused_trace: BackwardTrace | None = None) -> Drawing:
    """Draw the composite and the fused node, from the same logits to the same loss.

    Args:
        comparison: what `compare` returned; or the BackwardTrace of the composite.
        fused_trace: the BackwardTrace of the fused node, if `comparison` is a BackwardTrace.

    Raises:
        InvalidTypeError: the arguments are none of these.
        InvalidValueError: the two graphs have no leaf in common, or too many nodes.
    """
    composite, fused = comparison, fused_trace
    terms = None
    axis = -1
    remarks: list[str] = []
    if fused_trace is None and hasattr(comparison, "composite_trace"):
        composite, fused = comparison.composite_trace, comparison.fused_trace
        terms = (comparison.contributions.numerator, comparison.contributions.denominator)
        axis = comparison.axis
        if comparison.reduction == "mean" and comparison.logits.ndim > 1:
            remarks.append("Both terms are divided as the mean divides.")
        remarks.append(f"Composite and fused {comparison.verdict}.")
    if not isinstance(composite, BackwardTrace) or not isinstance(fused, BackwardTrace):
        raise InvalidTypeError(
            "draw_comparison needs a Comparison, or the composite's and the fused node's "
            f"BackwardTrace; got {type(comparison).__name__} and {type(fused_trace).__name__}"
        )
    scene = _Comparison(Gradients(composite), Gradients(fused), terms, axis).scene(remarks)
    text = f"composite\n{composite.graph}\n\nfused\n{fused.graph}"
    return Drawing(scene, "\n\n".join([text, *remarks]))


class _Comparison:
    """The two graphs on their way to one Scene."""

    def __init__(
        self,
        composite: Gradients,
        fused: Gradients,
        terms: tuple[np.ndarray, np.ndarray] | None,
        axis: int,
    ) -> None:
        self.composite = composite
        self.fused = fused
        self.broken = breakdown_note(first_breakdown(composite.source))
        same = same_inputs(composite.graph, fused.graph)
        self.leaves = {i: j for i, j in same.items() if composite.graph.nodes[j].op == LEAF}
        self.folded = folded(composite.graph, _is_trifle)
        self.fork = _fork(composite, terms)
        self.examples = None if self.fork is None else _examples(self.fork, axis)
        given = implied_names(fused.graph)
        names = {mine: given[other] for other, mine in same.items() if other in given}
        silent = [i for i in self.folded if is_view(composite.graph.nodes[i])]
        self.formulas = Formulas(composite.graph, names, silent)
        if max(len(composite.graph.nodes), len(fused.graph.nodes)) > MOST_NODES:
            raise InvalidValueError(
                f"draw_comparison draws graphs of at most {MOST_NODES} nodes; use draw for each"
            )
        if not self.leaves:
            raise InvalidValueError(
                "draw_comparison needs two graphs of the same leaves; these have none in common"
            )

    def scene(self, remarks: Iterable[str]) -> Scene:
        paths, titles = _framed(self.composite.graph, set(self.leaves.values()))
        boxes = [*self._composite_boxes(paths), *self._fused_boxes(), self._loss_box()]
        clusters = {key: Cluster(key, title) for key, title in titles.items()}
        return Scene(
            boxes=tuple(boxes),
            arrows=(*self._forward_arrows(), *self._backward_arrows()),
            clusters=clusters | {_FRAME.key: _FRAME},
            caption=(*self._caption(), *remarks),
            stack=self._givens(),
            direction="LR",
        )

    # Boxes ----------------------------------------------------------------------------------------

    def _composite_boxes(self, paths: list[tuple[str, ...]]) -> Iterator[Box]:
        theirs = {mine: other for other, mine in self.leaves.items()}
        for node in self.composite.graph.nodes:
            if not is_drawn(node) or node.id in self.folded:
                continue
            warning = [self.broken[node.id]] if node.id in self.broken else []
            box = box_of(
                self.composite, node, self.formulas, key=f"c{node.id}", path=paths[node.id],
                warnings=warning, upright=True,
            )  # fmt: skip
            rows: tuple[Row, ...] = (row("value", node.value, full=_narrow(node)),)
            box = replace(box, output=False, rows=rows)
            if node.op == CONSTANT:
                box = _plain(box, node)
            elif node.op != LEAF:
                box = replace(box, subtitle="")
            if self.fork is not None and node.id == self.fork.node.id:
                rows = tuple(self._terms(self.fork))
                parts = [box.subtitle, self.examples.text if self.examples else ""]
                box = replace(
                    box, rows=rows, subtitle=" · ".join(filter(None, parts)), upright=False,
                    stacked=len(node.shape) > 1,
                )  # fmt: skip
            if node.op == LEAF:
                rows = (*box.rows, *self._gradients(node, theirs))
                vectors = all(len(row.cells) == 1 and row.port is None for row in rows)
                box = replace(box, rows=rows, upright=vectors, stacked=not vectors)
            yield box

    def _ways(self, fork: Fork) -> tuple[str, str]:
        """What the two ways to the fork are called."""
        nodes = self.composite.graph.nodes
        if nodes[fork.direct].op == "div":
            return "the numerator", "the denominator"
        return self.formulas.title(nodes[fork.direct]), self.formulas.title(nodes[fork.detour[-1]])

    def _terms(self, fork: Fork) -> Iterator[Row]:
        """The rows of the box where the terms meet; an arrow points to each term."""
        yield self._row("value", fork.node.value, port="value")
        signs = ("−y, ", "+ p·Σy, ") if fork.at_logits else ("", "+ ")
        for sign, way, x, tone in zip(signs, self._ways(fork), fork.terms, _TONES, strict=True):
            yield self._row(f"{sign}through\n{way}", x, tone, tone)
        if fork.node.op != LEAF:  # a leaf shows its gradient anyway
            logits = self.composite.graph.nodes[min(self.leaves.values())]
            of = logits if fork.at_logits else fork.node
            with np.errstate(all="ignore"):  # where it broke
                total = fork.terms[0] + fork.terms[1]
            yield self._row(f"= ∂L/∂{self.formulas.name(of) or letter(of)}", total, "gradient")

    def _row(self, label: str, x: np.ndarray, tone: Tone = "plain", port: str | None = None) -> Row:
        """A row of the box where the terms meet."""
        if self.examples is None:
            return row(label, x, tone, port)
        return replace(row(label, self.examples.of(x), tone, port), heads=self.examples.heads)

    def _gradients(self, leaf: Node, theirs: dict[int, int]) -> Iterator[Row]:
        """What each side found for the leaf's gradient."""
        sides = [("composite", self.composite.of(leaf))]
        if leaf.id in theirs:
            sides.append(("fused", self.fused.of(self.fused.graph.nodes[theirs[leaf.id]])))
        for side, grad in sides:
            if grad is not None:
                meet = self.fork is not None and self.fork.node.id == leaf.id
                yield (self._row if meet else row)(f"grad\n{side}", grad, "gradient")

    def _fused_boxes(self) -> Iterator[Box]:
        formulas = Formulas(self.fused.graph)
        for node in self.fused.graph.nodes:
            if is_drawn(node) and node.id not in self.leaves:
                box = box_of(self.fused, node, formulas, key=f"f{node.id}")
                if node.op == CONSTANT:
                    yield _plain(box, node)
                    continue
                rows = [*box.rows[:1]]
                for i, source in enumerate(node.inputs):
                    sent = self.fused.sent(node.id, i)
                    if sent is not None and self.fused.graph.nodes[source].op == LEAF:
                        name = formulas.name(self.fused.graph.nodes[source]) or "logits"
                        rows.append(row(f"Σy·p − y\n= ∂L/∂{name}", sent, "gradient"))
                yield replace(box, output=False, subtitle="", rows=tuple(rows))

    def _givens(self) -> tuple[str, ...]:
        """Keys of what stands at the start: the leaves, and below them the fused node's target."""
        targets = [n for n in self.fused.graph.nodes if not n.inputs and n.id not in self.leaves]
        leaves = [f"c{i}" for i in sorted(self.leaves.values())]
        return (*leaves, *(f"f{n.id}" for n in targets if is_drawn(n)))

    def _loss_box(self) -> Box:
        rows = tuple(
            row(side, swept.graph.nodes[swept.graph.output].value)
            for side, swept in (("composite", self.composite), ("fused", self.fused))
        )
        return Box(_LOSS, "loss", "operation", rows=rows, output=True)

    # Arrows ---------------------------------------------------------------------------------------

    def _forward_arrows(self) -> Iterator[Arrow]:
        keys = {i: f"c{mine}" for i, mine in self.leaves.items()}
        for edge in self.composite.graph.edges:
            if edge.target in self.folded or not is_drawn(self.composite.graph.nodes[edge.source]):
                continue
            source = self.folded.get(edge.source, edge.source)
            forks = self.fork is not None and source == self.fork.node.id
            yield Arrow(f"c{source}", f"c{edge.target}", source_port="value" if forks else None)
        for edge in self.fused.graph.edges:
            if is_drawn(self.fused.graph.nodes[edge.source]):
                yield Arrow(keys.get(edge.source, f"f{edge.source}"), f"f{edge.target}")
        yield Arrow(f"c{self.composite.graph.output}", _LOSS)
        yield Arrow(f"f{self.fused.graph.output}", _LOSS, loose=True)

    def _backward_arrows(self) -> Iterator[Arrow]:
        for other, mine in self.leaves.items():
            for edge in self.fused.graph.edges:
                if edge.source == other and self.fused.sent(edge.target, edge.argument) is not None:
                    yield Arrow(f"f{edge.target}", f"c{mine}", tone="gradient", back=True)
        if self.fork is None:
            return
        here = self.fork.node
        while here.op != LEAF:
            below = self.composite.graph.nodes[self.folded.get(here.inputs[0], here.inputs[0])]
            yield Arrow(f"c{here.id}", f"c{below.id}", tone="gradient", back=True)
            here = below
        meet = self.fork.node.id
        yield Arrow(
            f"c{self.fork.direct}", f"c{meet}", tone="numerator", back=True, port="numerator"
        )
        way = (*self.fork.detour, self.fork.direct)
        for near, far in pairwise(way):
            yield Arrow(f"c{far}", f"c{near}", tone="denominator", back=True)
        yield Arrow(f"c{way[0]}", f"c{meet}", tone="denominator", back=True, port="denominator")

    def _caption(self) -> Iterator[str]:
        if self.fork is not None:
            if self.fork.at_logits:
                one, other = self._ways(self.fork)
                yield (
                    f"−y and + p·Σy: what backward brings back through {one} and through {other}, "
                    "taken on to the logits.\n"
                    "They add up to the gradient that the one node gives at once."
                )
            else:
                yield "Coloured: what backward brings on the two ways to where they meet."
        yield "Thin arrows: what is computed. Bold arrows: what backward brings back."


def _examples(fork: Fork, axis: int) -> Examples | None:
    """The largest elements of the first row that counts; None if there is room for all."""
    if in_full(fork.node.value):
        return None
    with np.errstate(all="ignore"):
        size = np.abs(_by_row(fork.terms[0] + fork.terms[1], axis))
    rows, n = size.shape
    at = int(np.argmax(size.any(axis=1)))
    largest = np.argsort(-np.nan_to_num(size[at], nan=np.inf), kind="stable")
    classes = tuple(sorted(map(int, largest[:_EXAMPLES])))
    parts = [f"row {at} of {rows}"] if rows > 1 else []
    parts += [f"{len(classes)} of {n} classes"] if len(classes) < n else []
    return Examples(axis, at, classes, ", ".join(parts))


def _by_row(x: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def _plain(box: Box, node: Node) -> Box:
    """The box of a constant, which has little to say: its name and its values."""
    return replace(box, subtitle="", rows=(row("", node.value),), upright=False)


def _narrow(node: Node) -> bool:
    """Whether a value is one number wide; between logits and loss there is no room for more."""
    return node.op == LEAF or len(node.shape) < 2 or node.shape[-1] == 1


def _framed(view: Graph, outside: set[int]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """The clusters of the composite inside its frame; what both sides use stays outside."""
    paths, titles = cluster_paths(view)
    framed: list[tuple[str, ...]] = [(_FRAME.key, *path) for path in paths]
    for edge in view.edges:  # a constant of the composite's own stands with its consumer
        if not view.nodes[edge.source].inputs:
            framed[edge.source] = framed[edge.target]
    for i in outside:
        framed[i] = ()
    return framed, titles


def _fork(composite: Gradients, at_logits: tuple[np.ndarray, np.ndarray] | None) -> Fork | None:
    """Find the first value that two consumers sent a contribution to, or None."""
    consumers: dict[int, list[tuple[int, np.ndarray]]] = {}
    for edge in composite.graph.edges:
        sent = composite.sent(edge.target, edge.argument)
        if sent is not None:
            consumers.setdefault(edge.source, []).append((edge.target, sent))
    meet = min((i for i, found in consumers.items() if len(found) == 2), default=None)
    if meet is None:
        return None
    (first, around), (direct, straight) = consumers[meet]
    detour = [first]
    while detour[-1] != direct:
        onward = consumers.get(detour[-1], [])
        if len(onward) != 1:
            return None
        detour.append(onward[0][0])
    return Fork(
        composite.graph.nodes[meet],
        direct,
        tuple(detour[:-1]),
        at_logits or (straight, around),
        at_logits is not None,
    )
