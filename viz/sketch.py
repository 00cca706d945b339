"""A graph on its way into a picture: which nodes get a box, and what every picture says of one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from operator import eq
from typing import Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_for
from tinygrad_sm.arrays.kinds import kind_of as is_of_a_kind
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import CONSTANT, LEAF, Edge, Graph, Node
from tinygrad_sm.study.diagnose import first_breakdown
from viz.formula import MOST_CHARACTERS, Formulas, is_loss, is_number, legible
from viz.options import Choice, texts_by_node
from viz.scene import Arrow, Box, Kind, Row
from viz.values import alarm, in_full, row, shape_text

DEEPEST = 32
"""How many clusters may lie inside each other."""
_DEEPER = " (groups inside are left out)"


class Sketch:
    """One graph on its way into a picture. Plain numbers get no box, since formulas show them.

    Args:
        source: a graph, or the trace of a backward sweep through one.
        prefix: what the keys of its boxes begin with; they end in the node's id.
        choice: the options of the picture.
        fold: which nodes stand in the formula of their only consumer, if they have no name.
        names: other names in formulas than the nodes' own, by id.
        most: how many characters of an unnamed argument formulas write out.

    Attributes:
        source, graph: what was given, and the view of its graph.
        keys: the box that an arrow from or to a node goes to, by the node's id: usually its own.
        marks: sentences that make a node stand out, by its id.
        notes: sentences in a box, by its id.
        titles: titles instead of a box's formula, by its id.
        sent: what backward sent along an edge, by the consumer's id and the argument's number.
        swept: ids of the nodes that backward visited, in order.
    """

    def __init__(
        self,
        source: BackwardTrace | Graph,
        prefix: str = "n",
        *,
        choice: Choice | None = None,
        fold: Callable[[Node], bool] = lambda node: False,
        names: Mapping[int, str] | None = None,
        most: int = MOST_CHARACTERS,
    ) -> None:
        self.source = source
        self.traced = isinstance(source, BackwardTrace)
        self.graph = source.graph if isinstance(source, BackwardTrace) else source
        steps = source.steps if isinstance(source, BackwardTrace) else []
        self.sent = {(s.node.id, edge.argument): edge.value for s in steps for edge in s.passed_on}
        self._cotangents = {step.node.id: step.cotangent for step in steps}
        self.swept = list(self._cotangents)
        self._own = {n.id: f"{prefix}{n.id}" for n in self.graph.nodes if not is_number(n)}
        self.keys = dict(self._own)
        folded = _folded(self.graph, fold)
        self.keys |= {i: self.keys[source] for i, source in folded.items() if source in self.keys}
        silent = [i for i in folded if _has_no_sign(self.graph.nodes[i])]
        self.formulas = Formulas(self.graph, names, silent, most)
        self.choice = choice = choice or Choice()
        self.marks = texts_by_node("warnings", choice.warnings, self.graph)
        self.notes = texts_by_node("notes", choice.notes, self.graph)
        labels = texts_by_node("labels", choice.labels, self.graph)
        self.titles = {i: texts[-1] for i, texts in labels.items()}

    def boxed(self) -> list[Node]:
        """The nodes that have a box of their own, in order."""
        return [self.graph.nodes[i] for i, key in self._own.items() if self.keys.get(i) == key]

    def lead(self, ids: Iterable[int], key: str) -> None:
        """Let another box stand for that of these nodes, and for what is folded into it."""
        gone = {self.keys[i] for i in ids if i in self.keys}
        self.keys |= {i: key for i, own in self.keys.items() if own in gone}

    def show(self, ids: Collection[int]) -> None:
        """Let only these nodes have a box."""
        self.keys = {i: key for i, key in self.keys.items() if i in ids}

    def edges(self) -> Iterator[Edge]:
        """The edges that lead from one box to another."""
        for edge in self.graph.edges:
            source, target = self.keys.get(edge.source), self.keys.get(edge.target)
            if source is not None and target not in (None, source):
                yield edge

    def arrows(self) -> Iterator[Arrow]:
        """An arrow for each of these edges."""
        keys = self.keys
        return (Arrow(keys[e.source], keys[e.target], e.argument) for e in self.edges())

    def gradient(self, node: Node) -> np.ndarray | None:
        """The gradient of a node, of its shape, or None if there is none."""
        if self.traced:
            return self._cotangents.get(node.id)
        grad = None if node.tensor is None else node.tensor.grad
        return grad.numpy() if isinstance(grad, Tensor) else grad

    def mark_breakdown(self) -> None:
        """Mark the node where the numbers first stopped being finite, if they did."""
        broke = first_breakdown(self.source)
        if broke is not None:
            words = "broke: " if broke.phase == "forward" else "broke on the way back: "
            self.marks.setdefault(broke.node.id, []).insert(0, words + legible(broke.cause))

    def title(self, node: Node) -> str:
        """A box's title: a label of the user's own, or the node's formula."""
        return self.titles.get(node.id) or self.formulas.title(node)

    def row(self, label: str, x: np.ndarray, *placed: Any, full: bool = True) -> Row:
        """A labelled array, with as many digits as were asked for; `placed` is tone and port."""
        return row(label, x, *placed, full=full, digits=self.choice.digits)

    def box(self, node: Node, **given: Any) -> Box:
        """A node's own box, with what every picture says of it; the rest as given."""
        marks = self.marks.get(node.id, [])
        grad = self.gradient(node)
        arrays = {} if in_full(node.value) else {"value": node.value, "grad": grad}
        alarms = {what: alarm(x) for what, x in arrays.items() if x is not None}
        alone = node.op == LEAF and self.traced and grad is None and self.choice.gradients
        shape = shape_text(node.shape)
        usual: dict[str, Any] = {
            "title": self.title(node),
            "kind": kind_of(node),
            "subtitle": f"{shape} {kind_for(node.value).elements(node.value)}"
            if self.choice.dtypes
            else shape,
            "remarks": (*self.notes.get(node.id, ()), *["no gradient reached it"] * alone),
            "warnings": (*marks, *(f"{what}: {found}" for what, found in alarms.items() if found)),
            "alarming": bool(marks),
        }
        return Box(self._own[node.id], **(usual | given))


def kind_of(node: Node) -> Kind:
    """Which of the kinds of boxes a node is drawn as."""
    if node.op == LEAF:
        return "leaf"
    if node.op == CONSTANT:
        return "constant"
    return "fused" if is_loss(node) else "operation"


def is_view(node: Node) -> bool:
    """Whether a node only looks at the same numbers in another shape."""
    return node.primitive is not None and node.primitive.kind == "view"


def _has_no_sign(node: Node) -> bool:
    """Whether a formula can pass over a node, as over a reshape but not over a transpose."""
    return is_view(node) and node.primitive is not None and "{" not in node.primitive.notation


def _folded(view: Graph, kind: Callable[[Node], bool]) -> dict[int, int]:
    """The nodes that stand in their consumer's formula, each with the node that its arrow is from.

    What has a name, or is the output, keeps its box.
    """
    uses = [0] * len(view.nodes)
    for edge in view.edges:
        uses[edge.source] += 1
    found: dict[int, int] = {}
    for node in view.nodes:
        if uses[node.id] == 1 and node.name is None and node.id != view.output and kind(node):
            found[node.id] = found.get(node.inputs[0], node.inputs[0])
    return found


def same_inputs(reference: Graph, other: Graph) -> dict[int, int]:
    """The inputs of `other` that `reference` has too: the same Tensor, or an equal constant.

    Returns their ids in `other`, with those in `reference`.
    """
    known: dict[Hashable, int] = {}
    for node in reference.nodes:
        if not node.inputs:
            known.setdefault(_identity(node), node.id)
    found = {node.id: known.get(_identity(node)) for node in other.nodes if not node.inputs}
    return {mine: theirs for mine, theirs in found.items() if theirs is not None}


def _identity(node: Node) -> Hashable:
    """What is the same for the same leaf, and for constants with equal elements."""
    if node.op == LEAF:
        return id(node.tensor)
    if is_of_a_kind(node.value) is not None:
        return node.op, id(node.value)
    return node.op, node.value.size, (node.value.astype(np.float64) + 0.0).tobytes()


def cluster_paths(view: Graph) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """For each node the keys of the clusters around it, and the title of each cluster.

    A group that was entered twice, with other operations between, is two clusters. Of groups
    inside more than DEEPEST others, which nobody could read, the title around them tells.
    """
    paths: list[tuple[str, ...]] = []
    titles: dict[str, str] = {}
    entered: tuple[str, ...] = ()  # keys of the groups that the last operation was in
    names: tuple[str, ...] = ()
    for node in view.nodes:
        if not node.inputs and not node.groups:  # leaves lie outside and separate nothing
            paths.append(())
            continue
        common = [*map(eq, names, node.groups), False].index(False)  # so many begin alike
        names = node.groups[:DEEPEST]
        entered = entered[:common]
        for name in names[common:]:
            entered = (*entered, f"g{len(titles)}")
            titles[entered[-1]] = legible(name)
        if names != node.groups and not titles[entered[-1]].endswith(_DEEPER):
            titles[entered[-1]] += _DEEPER
        paths.append(entered)
    return paths, titles
