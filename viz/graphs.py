"""`draw`: one graph as a picture, with what backward sent along its edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from tinygrad_sm.engine.sweep import BackwardTrace
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import CONSTANT, LEAF, Graph, Node, graph
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.study.diagnose import Breakdown, first_breakdown
from viz.drawing import Drawing
from viz.formula import Formulas, legible, target_of
from viz.scene import Arrow, Box, Cluster, Kind, Scene
from viz.selection import is_drawn
from viz.values import alarm, brief, in_full, row, shape_and_dtype

MOST_NODES = 60
"""A larger graph is cut: nobody could read it, and long arrows make its layout take minutes."""

_ROLES = {"{} / {}": ("numerator", "denominator"), "{}^{}": ("base", "exponent")}
_CUT = "cut"
_SIGNS: dict[Kind, str] = {
    "leaf": "round corners: leaf",
    "constant": "dashed: constant",
    "operation": "box: operation",
    "fused": "3-D box: fused node",
}


def draw(
    output_or_trace: Tensor | BackwardTrace | Graph,
    *,
    direction: Literal["TB", "LR"] = "TB",
    max_nodes: int = MOST_NODES,
    notes: Mapping[Node | Tensor | int, str] | None = None,
) -> Drawing:
    """Draw what an output was computed from: formulas, values, gradients.

    The node where the numbers first stopped being finite is marked with the cause.

    Args:
        output_or_trace: a Tensor, whose graph is drawn with the gradients that its Tensors hold;
            or what ``backward(trace=True)`` returned: then each arrow also says what backward
            sent back along it; or a Graph.
        direction: "TB" from top to bottom or "LR" from left to right.
        max_nodes: of a graph with more nodes only the first and the last ones are drawn.
        notes: sentences that mark a node, by Node, Tensor or node id.

    Raises:
        InvalidTypeError: the first argument is none of these, or a note's key or text is not.
        InvalidValueError: `direction` or `max_nodes` is not possible, or a note's node is not in
            the graph.
    """
    scene = scene_of(output_or_trace, direction=direction, max_nodes=max_nodes, notes=notes)
    text = output_or_trace.graph if isinstance(output_or_trace, BackwardTrace) else output_or_trace
    return Drawing(scene, str(graph(text) if isinstance(text, Tensor) else text))


def scene_of(
    output_or_trace: Tensor | BackwardTrace | Graph,
    *,
    direction: Literal["TB", "LR"] = "TB",
    max_nodes: int = MOST_NODES,
    notes: Mapping[Node | Tensor | int, str] | None = None,
) -> Scene:
    """Return the picture that `draw` makes, before any format."""
    if direction not in ("TB", "LR"):
        raise InvalidValueError(f"direction must be 'TB' or 'LR'; got {direction!r}")
    if not isinstance(max_nodes, int) or max_nodes < 2:
        raise InvalidValueError(f"max_nodes must be an integer of at least 2; got {max_nodes!r}")
    swept = Gradients(output_or_trace)
    view = swept.graph
    kept, left_out = _cut(view, max_nodes)
    paths, titles = cluster_paths(view)
    formulas = Formulas(view)
    marks = _notes_by_id(view, notes or {})
    for i, broke in breakdown_note(first_breakdown(swept.source)).items():
        marks.setdefault(i, []).insert(0, broke)
    boxes = [
        box_of(
            swept,
            view.nodes[i],
            formulas,
            key=f"n{i}",
            path=paths[i],
            warnings=marks.get(i, ()),
            upright=direction == "LR",
        )
        for i in kept
    ]
    if left_out:
        boxes.insert(max_nodes // 2, _cut_box(view, left_out, paths))
    clusters = {key: Cluster(key, titles[key]) for box in boxes for key in box.path}
    return Scene(
        boxes=tuple(boxes),
        arrows=tuple(_arrows(swept, kept, left_out)),
        clusters=clusters,
        caption=tuple(_caption(swept, boxes, left_out)),
        direction=direction,
    )


class Gradients:
    """A graph with what is known about its gradients, from a trace or from `Tensor.grad`.

    Attributes:
        graph: the view of the graph.
        source: the trace, if there is one, else the graph.
        traced: whether the contribution of each edge is known.
    """

    def __init__(self, source: Tensor | BackwardTrace | Graph) -> None:
        self.traced = isinstance(source, BackwardTrace)
        self._cotangents: dict[int, np.ndarray] = {}
        self._sent: dict[tuple[int, int], np.ndarray] = {}
        if isinstance(source, BackwardTrace):
            self.graph = source.graph
            for step in source.steps:
                self._cotangents[step.node.id] = step.cotangent
                for edge in step.passed_on:
                    self._sent[step.node.id, edge.argument] = edge.value
        elif isinstance(source, (Tensor, Graph)):
            self.graph = source if isinstance(source, Graph) else graph(source)
        else:
            raise InvalidTypeError(
                "draw needs a Tensor, a Graph or the BackwardTrace that backward(trace=True) "
                f"returns; got {type(source).__name__}"
            )
        self.source = source if isinstance(source, BackwardTrace) else self.graph

    def of(self, node: Node) -> np.ndarray | None:
        """The gradient of a node, of its shape, or None if there is none."""
        if self.traced:
            return self._cotangents.get(node.id)
        if node.tensor is None:
            return None
        grad = node.tensor.grad
        return grad.numpy() if isinstance(grad, Tensor) else grad

    def sent(self, consumer: int, argument: int) -> np.ndarray | None:
        """What backward sent to an argument of a node, or None."""
        return self._sent.get((consumer, argument))


def box_of(
    swept: Gradients,
    node: Node,
    formulas: Formulas,
    *,
    key: str,
    path: tuple[str, ...] = (),
    warnings: Iterable[str] = (),
    upright: bool = False,
) -> Box:
    """The box of one node."""
    rows = [row("value", node.value)]
    remarks = []
    notes = list(warnings)
    grad = swept.of(node)
    arrays = {"value": node.value, "grad": grad}
    alarms = {what: alarm(x) for what, x in arrays.items() if x is not None}
    counts = [
        f"{what}: {found}"
        for what, found in alarms.items()
        if found and not in_full(node.value)  # a small array shows them itself
    ]
    if grad is not None:
        rows.append(row("grad", grad, "gradient"))
    elif node.op == LEAF:
        remarks.append("no gradient reached it" if swept.traced else "backward has not run")
    return Box(
        key=key,
        title=formulas.title(node),
        kind=kind_of(node),
        subtitle=shape_and_dtype(node.shape, node.dtype),
        rows=tuple(rows),
        remarks=tuple(remarks),
        warnings=(*notes, *counts),
        alarming=bool(notes),
        output=node.id == swept.graph.output,
        path=path,
        upright=upright,
    )


def breakdown_note(broke: Breakdown | None) -> dict[int, str]:
    """The sentence that marks where a computation broke, by id of the node; or nothing."""
    if broke is None:
        return {}
    return {broke.node.id: ("broke: " if broke.phase == "forward" else "broke on the way back: ")
            + legible(broke.cause)}  # fmt: skip


def kind_of(node: Node) -> Kind:
    """Which of the kinds of boxes a node is drawn as."""
    if node.op == LEAF:
        return "leaf"
    if node.op == CONSTANT:
        return "constant"
    return "operation" if target_of(node) is None else "fused"


def _cut(view: Graph, most: int) -> tuple[list[int], range]:
    """Ids of the nodes to draw, and the ids that are left out between them if there are too many.

    Ids are in the order of the computation, so what is left out lies between the first nodes and
    the last, and one box in its place makes no cycle.
    """
    ids = [node.id for node in view.nodes if is_drawn(node)]
    if len(ids) <= most:
        return ids, range(0)
    first, last = ids[: most // 2], ids[most // 2 - most :]
    return first + last, range(first[-1] + 1, last[0])


DEEPEST = 32
"""How many clusters may lie inside each other."""
_DEEPER = " (groups inside are left out)"


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
        groups = node.groups[:DEEPEST]
        common = _in_common(names, groups)
        entered = entered[:common]
        for name in groups[common:]:
            key = f"g{len(titles)}"
            titles[key] = legible(name)
            entered = (*entered, key)
        if groups != node.groups and not titles[entered[-1]].endswith(_DEEPER):
            titles[entered[-1]] += _DEEPER
        names = groups
        paths.append(entered)
    return paths, titles


def _in_common(x: tuple[str, ...], y: tuple[str, ...]) -> int:
    """How many first elements two tuples share."""
    pairs = zip(x, y, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(x), len(y)))


def _notes_by_id(view: Graph, notes: Mapping[Node | Tensor | int, str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for key, note in notes.items():
        if not isinstance(note, str):
            raise InvalidTypeError(f"a note must be text; got {type(note).__name__}")
        found.setdefault(_id_of(view, key), []).append(legible(note))
    return found


def _id_of(view: Graph, key: Any) -> int:
    if isinstance(key, Tensor):
        return view.node_of(key).id
    id = key.id if isinstance(key, Node) else key
    if not isinstance(id, int):
        raise InvalidTypeError(
            f"a note belongs to a Node, a Tensor or a node id; got {type(key).__name__}"
        )
    if not 0 <= id < len(view.nodes):
        raise InvalidValueError(f"a note's node must be in the graph; there is no node {id}")
    return id


def _cut_box(view: Graph, left_out: range, paths: list[tuple[str, ...]]) -> Box:
    """One box for all that is left out, in the clusters that hold all of it."""
    around = paths[left_out[0]]
    for i in left_out:
        around = around[: _in_common(around, paths[i])]
    return Box(_CUT, f"… {_count(view, left_out)} nodes left out …", "cut", path=around)


def _count(view: Graph, ids: Iterable[int]) -> int:
    return sum(is_drawn(view.nodes[i]) for i in ids)


def _arrows(swept: Gradients, kept: list[int], left_out: range) -> Iterable[Arrow]:
    keys = {i: f"n{i}" for i in kept} | dict.fromkeys(left_out, _CUT)
    crossing: set[tuple[str, str]] = set()
    for edge in swept.graph.edges:
        if edge.source not in keys or not is_drawn(swept.graph.nodes[edge.source]):
            continue
        source, target = keys[edge.source], keys[edge.target]
        if _CUT in (source, target):  # many edges to what is not shown are one
            if source != target and (source, target) not in crossing:
                crossing.add((source, target))
                yield Arrow(source, target)
            continue
        sent = swept.sent(edge.target, edge.argument)
        primitive = swept.graph.nodes[edge.target].primitive
        roles = _ROLES.get(primitive.notation, ()) if primitive is not None else ()
        words = list(roles[edge.argument : edge.argument + 1])
        if sent is None:
            yield Arrow(source, target, " ".join(words))
        else:
            yield Arrow(source, target, " ".join([*words, "∂:"]), brief(sent))


def _caption(swept: Gradients, boxes: list[Box], left_out: range) -> Iterable[str]:
    if left_out:
        count = _count(swept.graph, left_out)
        yield (
            f"This graph has {_count(swept.graph, range(len(swept.graph.nodes)))} nodes: "
            f"the first and the last are drawn, {count} between them are left out."
        )
    kinds = {box.kind for box in boxes}
    signs = [sign for kind, sign in _SIGNS.items() if kind in kinds]
    signs = [sign.replace(" ", "\N{NO-BREAK SPACE}") for sign in (*signs, "double border: output")]
    yield " · ".join(signs)
    if swept.traced:
        yield (
            "∂ on an arrow: what backward sent back along it;\n"
            "a node's grad is the sum over the arrows that leave it."
        )
    elif all(swept.of(node) is None for node in swept.graph.nodes):
        yield "backward has not run: there are no gradients yet."
