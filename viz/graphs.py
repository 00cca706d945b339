"""`draw`: one graph as a picture, with what backward sent along its edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from math import inf
from typing import Unpack

from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import LEAF, Edge, Graph, Node, graph
from tinygrad_sm.errors import InvalidTypeError
from viz.drawing import Drawing
from viz.formula import primitive_of
from viz.options import Choice, DrawOptions, chosen, takes
from viz.scene import Arrow, Box, Cluster, Kind, Row, Scene
from viz.sketch import Sketch, cluster_paths
from viz.values import brief, shape_text

_ROLES = {"{} / {}": ("numerator", "denominator"), "{}^{}": ("base", "exponent")}
_CUT = "cut"
_SIGNS: dict[Kind, str] = {
    "leaf": "round corners: leaf",
    "constant": "dashed: constant",
    "operation": "box: operation",
    "fused": "3-D box: fused node",
    "group": "folder: a group of operations",
}


@takes(DrawOptions)
def draw(
    output_or_trace: Tensor | BackwardTrace | Graph, **options: Unpack[DrawOptions]
) -> Drawing:
    """Draw what an output was computed from: formulas, values, gradients.

    The node where the numbers first stopped being finite is marked with the cause.

    Args:
        output_or_trace: a Tensor, whose graph is drawn with the gradients that its Tensors hold;
            or what ``backward(trace=True)`` returned: then each arrow also says what backward
            sent back along it; or a Graph.
        **options: see below.

    Raises:
        InvalidTypeError: the first argument is none of these, or an option is of a wrong type.
        InvalidValueError: an option is not possible, or its node is not in the graph.
    """
    choice = chosen(draw, options)
    source = graph(output_or_trace) if isinstance(output_or_trace, Tensor) else output_or_trace
    if not isinstance(source, (BackwardTrace, Graph)):
        raise InvalidTypeError(
            "draw needs a Tensor, a Graph or the BackwardTrace that backward(trace=True) "
            f"returns; got {type(source).__name__}"
        )
    course = Course(source, choice)
    return Drawing(course.scene(), str(course.graph), choice.look)


class Course:
    """One graph on its way to a picture, of all that happened or of what happened so far.

    Time counts what is computed, then what backward visits; the inputs are there at time 0.

    Attributes:
        computed, visited: when a node was, by id; of those with a box.
        groups: how many operations a box stands for, by the id of its node, the group's last.
        left_out: ids of the nodes that are not drawn.
    """

    def __init__(self, source: BackwardTrace | Graph, choice: Choice) -> None:
        self.choice = choice
        self.sketch = sketch = Sketch(source, choice=choice)
        self.graph = sketch.graph
        sketch.mark_breakdown()
        self._paths, self._titles = cluster_paths(self.graph)
        self.groups: dict[int, int] = {}
        self._total = len(sketch.boxed())
        self._collapse_groups()
        # ids are in the order of the computation: one box for all in the middle makes no cycle
        most = choice.max_nodes
        self.left_out = [node.id for node in sketch.boxed()][most // 2 : most // 2 - most]
        sketch.lead(self.left_out, _CUT)
        times = count(1)
        boxed = {node.id: node for node in sketch.boxed()}
        self.computed = {i: next(times) if node.inputs else 0 for i, node in boxed.items()}
        self.visited = {i: next(times) for i in sketch.swept if i in boxed}

    def _collapse_groups(self) -> None:
        """Draw the innermost groups as one box each, then those around, until there is room."""
        for depth in range(max(map(len, self._paths), default=0), 0, -1):
            if len(self.sketch.boxed()) <= self.choice.max_nodes:
                return
            inside: dict[tuple[str, ...], list[int]] = {}
            for node in self.sketch.boxed():
                if len(path := self._paths[node.id]) >= depth:
                    inside.setdefault(path[:depth], []).append(node.id)
            for path, ids in inside.items():
                if len(ids) > 1:
                    self._collapse(ids, path)

    def _collapse(self, ids: list[int], path: tuple[str, ...]) -> None:
        """Let the last of these nodes stand for all, with what is said of them."""
        *others, last = ids
        self.groups[last] = sum(self.groups.pop(i, 1) for i in ids)
        self.sketch.lead(others, self.sketch.keys[last])
        for said in (self.sketch.marks, self.sketch.notes):
            said[last] = [text for i in ids for text in said.get(i, ())]
        self._paths[last] = path[:-1]
        self.sketch.titles[last] = self._titles[path[-1]]

    def scene(self, time: float = inf, step: str = "", room: int = 0) -> Scene:
        """What the picture says at a time; the rest keeps its room."""
        boxes = [self._box(node, time) for node in self.sketch.boxed()]
        if self.left_out:
            paths = [self._paths[i] for i in self.left_out]
            around = tuple(key for key in paths[0] if all(key in path for path in paths))
            title = f"… {len(self.left_out)} nodes left out …"
            boxes.insert(self.choice.max_nodes // 2, Box(_CUT, title, "cut", path=around))
        return Scene(
            boxes=tuple(boxes),
            arrows=tuple(self._arrows(time)),
            clusters={key: Cluster(key, self._titles[key]) for box in boxes for key in box.path},
            caption=tuple(self._caption(boxes)),
            unsaid=() if self.choice.gradients else tuple(self._of_backward()),
            direction=self.choice.direction,
            title=self.choice.headline,
            step=step,
            room=room,
        )

    def _box(self, node: Node, time: float) -> Box:
        box = self.sketch.box(
            node,
            rows=tuple(self._rows(node, time)),
            path=self._paths[node.id],
            upright=self.choice.direction == "LR",
            output=node.id == self.graph.output,
            current=time in (self.computed[node.id], self.visited.get(node.id)),
        )
        if node.id in self.groups:
            subtitle = f"{self.groups[node.id]} nodes · {shape_text(node.shape)}"
            return replace(box, kind="group", subtitle=subtitle)
        return box

    def _rows(self, node: Node, time: float) -> Iterator[Row]:
        """The node's numbers, those hidden that are not wanted or not there yet."""
        shown, compact = self.choice, self.choice.compact
        if shown.values or not compact:
            hidden = not shown.values or self.computed[node.id] > time
            yield replace(self.sketch.row("value", node.value), hidden=hidden)
        grad = self.sketch.gradient(node)
        if grad is not None and (shown.gradients or not compact):
            hidden = not shown.gradients or self.visited.get(node.id, 0) > time
            yield replace(self.sketch.row("grad", grad, "gradient"), hidden=hidden)

    def _arrows(self, time: float) -> Iterator[Arrow]:
        crossing: set[tuple[str, str]] = set()
        own = {node.id for node in self.sketch.boxed()}
        for edge, arrow in zip(self.sketch.edges(), self.sketch.arrows(), strict=True):
            if {edge.source, edge.target} <= own:
                yield self._labelled(arrow, edge, time)
            elif (ends := (arrow.source, arrow.target)) not in crossing:
                crossing.add(ends)  # many edges to what one box stands for are one
                yield arrow

    def _labelled(self, arrow: Arrow, edge: Edge, time: float) -> Arrow:
        """The arrow of an edge with the argument's role, and what backward sent back along it."""
        roles = _ROLES.get(primitive_of(self.graph.nodes[edge.target]).notation, ())
        role = roles[edge.argument] if edge.argument < len(roles) else ""
        sent = self.sketch.sent.get((edge.target, edge.argument))
        if sent is None or (self.choice.compact and not self.choice.gradients):
            return replace(arrow, label=role)
        at = self.visited[edge.target]
        return replace(
            arrow,
            label=role,
            cells=brief(sent, self.choice.digits),
            hidden=not self.choice.gradients or at > time,
            tone="gradient" if at == time else "plain",
        )

    def _caption(self, boxes: list[Box]) -> Iterator[str]:
        if self.left_out:
            yield (
                f"This graph has {self._total} nodes: "
                f"the first and the last are drawn, {len(self.left_out)} between them are left out."
            )
        elif self.groups:
            yield f"This graph has {self._total} nodes: groups are drawn as one box each."
        if not self.choice.legend:
            return
        kinds = {box.kind for box in boxes}
        signs = [sign for kind, sign in _SIGNS.items() if kind in kinds]
        signs.append("double border: output")
        yield " · ".join(sign.replace(" ", "\N{NO-BREAK SPACE}") for sign in signs)
        if self.choice.gradients:
            yield from self._of_backward()

    def _of_backward(self) -> Iterator[str]:
        """What explains the numbers that backward sent, if they are seen or have their room."""
        room = self.choice.gradients or not self.choice.compact
        if self.sketch.traced and self.choice.legend and room:
            yield (
                "∂ on an arrow: what backward sent back along it;\n"
                "a node's grad is the sum over the arrows that leave it."
            )

    # Frames ---------------------------------------------------------------------------------------

    def steps(self) -> list[str]:
        """One sentence for each time, from the inputs on."""
        title = self.sketch.title
        nodes = self.graph.nodes
        forward = [nodes[i] for i, time in self.computed.items() if time]
        backward = [nodes[i] for i in self.visited]
        texts = ["the inputs"]
        texts += [f"forward {i} of {len(forward)}: {title(n)}" for i, n in enumerate(forward, 1)]
        for i, node in enumerate(backward, 1):
            what = "the gradient of" if node.op == LEAF else "through"
            texts.append(f"backward {i} of {len(backward)}: {what} {title(node)}")
        return texts
