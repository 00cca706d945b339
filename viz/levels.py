"""`draw_levels`: several ways to the same output in one picture, with what each node keeps.

The ways lead from the same inputs on the left to the same output on the right, one above the
other, such as a linear classifier's loss from primitives, by a fused loss, and by one node that
holds the layer as well. Each box says how many bytes stay in memory for backward because of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Unpack

from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import LEAF, Graph, graph
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.study.kept import Kept, kept_for_backward
from viz.drawing import Drawing
from viz.formula import is_loss, legible
from viz.options import MOST_NODES, Choice, PictureOptions, chosen, takes
from viz.scene import Arrow, Box, Cluster, Row, Scene
from viz.sketch import Sketch, is_view, same_inputs
from viz.values import memory, shape_text

_INPUTS, _OUTPUT = "inputs", "output"


@takes(PictureOptions)
def draw_levels(levels: Mapping[str, Tensor], **options: Unpack[PictureOptions]) -> Drawing:
    """Draw several graphs of the same inputs and the same output, with the bytes that each keeps.

    What is kept is explained at `tinygrad_sm.study.kept.kept_for_backward`. Draw before
    `backward`, which takes the gradients that fused nodes have saved.

    Args:
        levels: a title for each output, from the top of the picture to its bottom.
        **options: see below.

    Raises:
        InvalidTypeError: `levels` is not a dictionary of Tensors, or an option of a wrong type.
        InvalidValueError: there are fewer than two, they have no leaf in common, or one has too
            many nodes; or an option is not possible.
    """
    choice = chosen(draw_levels, options)
    if not isinstance(levels, Mapping) or not all(isinstance(t, Tensor) for t in levels.values()):
        raise InvalidTypeError("draw_levels needs a dictionary from titles to output Tensors")
    if len(levels) < 2:
        raise InvalidValueError(f"draw_levels needs at least two outputs; got {len(levels)}")
    views = [graph(output) for output in levels.values()]
    if max(len(view.nodes) for view in views) > MOST_NODES:
        raise InvalidValueError(f"draw_levels draws graphs of at most {MOST_NODES} nodes")
    titles = zip(levels, views, strict=True)
    shown = [_Level(i, title, view, views[0], choice) for i, (title, view) in enumerate(titles)]
    if not all(any(x.graph.nodes[i].op == LEAF for i in x.same) for x in shown):
        raise InvalidValueError("draw_levels needs graphs of the same leaves; one has none of them")
    text = "\n\n".join(f"{level.heading}\n{level.graph}" for level in shown)
    return Drawing(_scene(shown, choice), text, choice.look)


class _Level:
    """One of the graphs on its way to a Scene.

    Attributes:
        sketch: the graph; its views stand in the next formula.
        kept, all_kept: what each node keeps, by id; and all of it.
        heading: the title, with how much is kept.
        same: inputs that the first level has too, by id, with their ids there.
    """

    def __init__(self, number: int, title: str, view: Graph, first: Graph, choice: Choice) -> None:
        self.number = number
        self.graph = view
        self.sketch = Sketch(view, f"l{number}n", choice=choice, fold=is_view)
        self.kept = kept_for_backward(view)
        self.all_kept = [kept for of_node in self.kept for kept in of_node]
        total = memory(sum(kept.bytes for kept in self.all_kept))
        self.heading = f"{legible(title)}: {total} kept"
        self.same = same_inputs(first, view)
        self.sketch.lead(self.same, _INPUTS)

    def boxes(self) -> Iterator[Box]:
        """A box for each operation, and for inputs that no other level has."""
        for node in self.sketch.boxed():
            chunk = node.params.get("chunk_rows")
            yield self.sketch.box(
                node,
                subtitle=shape_text(node.shape),
                rows=tuple(_kept_row(kept) for kept in self.kept[node.id]),
                remarks=(f"{chunk} rows at a time",) if chunk else (),
                path=(f"level{self.number}",),
                upright=not is_loss(node),
            )

    def arrows(self) -> Iterator[Arrow]:
        """The edges between boxes, and one from the inputs to each node that starts from them."""
        keys = self.sketch.keys
        for node in self.sketch.boxed():
            sources = [key for key in map(keys.get, node.inputs) if key not in (None, _INPUTS)]
            if node.inputs:
                yield from (Arrow(key, keys[node.id]) for key in sources or [_INPUTS])

    @property
    def end(self) -> str:
        """The key of the box that the level's output comes from."""
        return self.sketch.keys[self.graph.output]


def _kept_row(kept: Kept) -> Row:
    what = "keeps" if kept.what == "result" else f"{kept.what} {shape_text(kept.shape)}"
    return Row(what, ((memory(kept.bytes),),))


def _scene(levels: list[_Level], choice: Choice) -> Scene:
    boxes = [_inputs_box(levels[0]), *(box for level in levels for box in level.boxes())]
    arrows = [arrow for level in levels for arrow in level.arrows()]
    arrows += [Arrow(level.end, _OUTPUT, loose=level is levels[-1]) for level in levels]
    clusters = [Cluster(f"level{x.number}", f"{x.number + 1}. {x.heading}") for x in levels]
    return Scene(
        boxes=(*boxes, _output_box(levels)),
        arrows=tuple(arrows),
        clusters={cluster.key: cluster for cluster in clusters},
        caption=tuple(_caption(levels)) if choice.legend else (),
        aligned=(tuple(level.end for level in levels),),
        direction="LR",
        title=choice.headline,
    )


def _inputs_box(first: _Level) -> Box:
    """One box for all inputs: an arrow for each use would hide the levels."""
    formulas = first.sketch.formulas
    nodes = [first.graph.nodes[i] for i in first.same if i in first.sketch.keys]
    rows = tuple(Row(formulas.title(n), ((shape_text(n.shape),),)) for n in nodes)
    return Box(_INPUTS, "inputs", "leaf", rows=rows)


def _output_box(levels: list[_Level]) -> Box:
    outputs = [level.graph.nodes[level.graph.output] for level in levels]
    row = levels[0].sketch.row
    rows = tuple(row(f"{i}.", node.value) for i, node in enumerate(outputs, 1))
    title = legible(outputs[0].name or "output")
    return Box(_OUTPUT, title, "operation", rows=rows, output=True)


def _caption(levels: list[_Level]) -> Iterator[str]:
    yield "keeps: what stays in memory for backward because of a node, its result or what it saved."
    yield "Inputs are not counted; a transpose or reshape is only a view, and has no box."
    largest = max(levels[0].all_kept, key=lambda kept: kept.bytes, default=None)
    if largest is None:
        return
    shape = largest.shape
    holds = [level for level in levels if any(kept.shape == shape for kept in level.all_kept)]
    free = [level for level in levels if level not in holds]
    if free:
        where = f"kept by {_listed(holds)}, never by {_listed(free)}"
        yield f"An array of shape {shape_text(shape)} is {where}."


def _listed(levels: list[_Level]) -> str:
    words = [str(level.number + 1) for level in levels]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
