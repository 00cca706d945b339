"""`draw`: one graph as a picture, with what backward sent along its edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import Edge, Graph, Node, graph
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown
from viz.drawing import Drawing
from viz.formula import legible
from viz.scene import Arrow, Box, Cluster, Kind, Scene
from viz.sketch import MOST_NODES, Sketch, cluster_paths
from viz.values import brief, row

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
    if direction not in ("TB", "LR"):
        raise InvalidValueError(f"direction must be 'TB' or 'LR'; got {shown(direction)}")
    if not isinstance(max_nodes, int) or max_nodes < 2:
        raise InvalidValueError(
            f"max_nodes must be an integer of at least 2; got {shown(max_nodes)}"
        )
    source = graph(output_or_trace) if isinstance(output_or_trace, Tensor) else output_or_trace
    if not isinstance(source, (BackwardTrace, Graph)):
        raise InvalidTypeError(
            "draw needs a Tensor, a Graph or the BackwardTrace that backward(trace=True) "
            f"returns; got {type(source).__name__}"
        )
    sketch = Sketch(source)
    sketch.mark_breakdown()
    for key, note in (notes or {}).items():
        if not isinstance(note, str):
            raise InvalidTypeError(f"a note must be text; got {type(note).__name__}")
        sketch.marks.setdefault(_id_of(sketch.graph, key), []).append(legible(note))
    # ids are in the order of the computation: one box for all in the middle makes no cycle
    left_out = list(sketch.keys)[max_nodes // 2 : max_nodes // 2 - max_nodes]
    sketch.lead(left_out, _CUT)
    paths, titles = cluster_paths(sketch.graph)
    boxes = [_box(sketch, n, paths[n.id], upright=direction == "LR") for n in sketch.boxed()]
    if left_out:
        around = tuple(key for key in paths[left_out[0]] if all(key in paths[i] for i in left_out))
        title = f"… {len(left_out)} nodes left out …"
        boxes.insert(max_nodes // 2, Box(_CUT, title, "cut", path=around))
    scene = Scene(
        boxes=tuple(boxes),
        arrows=tuple(_arrows(sketch)),
        clusters={key: Cluster(key, titles[key]) for box in boxes for key in box.path},
        caption=tuple(_caption(sketch, boxes, left_out)),
        direction=direction,
    )
    return Drawing(scene, str(sketch.graph))


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


def _box(sketch: Sketch, node: Node, path: tuple[str, ...], upright: bool) -> Box:
    grad = sketch.gradient(node)
    rows = [row("value", node.value)]
    rows += [] if grad is None else [row("grad", grad, "gradient")]
    output = node.id == sketch.graph.output
    return sketch.box(node, path=path, rows=tuple(rows), output=output, upright=upright)


def _arrows(sketch: Sketch) -> Iterator[Arrow]:
    crossing: set[tuple[str, str]] = set()
    for edge in sketch.edges():
        arrow = Arrow(sketch.keys[edge.source], sketch.keys[edge.target], edge.argument)
        ends = arrow.source, arrow.target
        if _CUT not in ends:
            yield _labelled(arrow, edge, sketch)
        elif ends not in crossing:  # many edges to what is not shown are one
            crossing.add(ends)
            yield arrow


def _labelled(arrow: Arrow, edge: Edge, sketch: Sketch) -> Arrow:
    """The arrow of an edge with the argument's role, and what backward sent back along it."""
    primitive = sketch.graph.nodes[edge.target].primitive
    assert primitive is not None  # it has arguments
    words = _ROLES.get(primitive.notation, ())[edge.argument : edge.argument + 1]
    sent = sketch.sent.get((edge.target, edge.argument))
    if sent is None:
        return replace(arrow, label=" ".join(words))
    return replace(arrow, label=" ".join([*words, "∂:"]), cells=brief(sent))


def _caption(sketch: Sketch, boxes: list[Box], left_out: Sequence[int]) -> Iterator[str]:
    if left_out:
        yield (
            f"This graph has {len(sketch.keys)} nodes: "
            f"the first and the last are drawn, {len(left_out)} between them are left out."
        )
    kinds = {box.kind for box in boxes}
    signs = [sign for kind, sign in _SIGNS.items() if kind in kinds]
    signs = [sign.replace(" ", "\N{NO-BREAK SPACE}") for sign in (*signs, "double border: output")]
    yield " · ".join(signs)
    if sketch.traced:
        yield (
            "∂ on an arrow: what backward sent back along it;\n"
            "a node's grad is the sum over the arrows that leave it."
        )
    elif all(sketch.gradient(node) is None for node in sketch.graph.nodes):
        yield "backward has not run: there are no gradients yet."
