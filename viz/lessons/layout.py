"""Where Graphviz puts the boxes of a graph, written as a lean SVG that the page fills with numbers.

A box has room for its title and for arrays of numbers: the value, the gradient, and at a fork what
arrives over each edge. Vectors stand side by side as columns, matrices one over the other.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from tinygrad_sm.engine.view import CONSTANT, Edge, Node
from viz.formula import Formulas, legible
from viz.notation import in_unicode
from viz.rendering import render
from viz.sketch import Sketch, kind_of

CELL, ROW = 50, 17  # of one number
TITLE, HEAD = 24, 14  # heights of a box's title, and of what an array is called
_PAD = 8
_CHARACTER = 7.4  # of a title
_FEW = 4  # rows that stand above an edge
_WIDEST_TITLE = 28  # characters
MOST_ROWS = 12
"""Of an array; the page shows the first ones of a longer one."""
_MOST_COLUMNS = 6


@dataclass(frozen=True, slots=True)
class _Box:
    """A node's box, before it has a place."""

    node: Node
    title: str
    width: float
    height: float


def picture(sketch: Sketch, side: str, terms: Mapping[int, int] | None = None) -> str:
    """Lay a graph out and return its SVG.

    Args:
        sketch: the graph.
        side: "graph" or "fused", for which of the page's two places it is.
        terms: how many more arrays than value and gradient the box of a node shows, by its id.
    """
    boxes = [_box(sketch, node, (terms or {}).get(node.id, 0)) for node in sketch.boxed()]
    edges = {f"{e.target}-{e.argument}": e for e in sketch.edges()}
    keys = sketch.keys
    lines = [
        f'{keys[e.source]} -> {keys[e.target]} [id="{key}" weight={_weight(sketch, e)} '
        f"{_room(sketch.graph.nodes[e.source]) if (e.target, e.argument) in sketch.sent else ''}]"
        for key, e in edges.items()
    ]
    sizes = [
        f"{keys[b.node.id]} [width={b.width / 72:.4f} height={b.height / 72:.4f}]" for b in boxes
    ]
    source = (
        f"digraph {{ rankdir=LR; ranksep=0.12; nodesep=0.3; "
        f'node [shape=box, fixedsize=true, label=""]; {"; ".join([*sizes, *lines])}; }}'
    )
    laid = json.loads(render(source, "json0"))
    _, _, wide, high = (float(x) for x in laid["bb"].split(","))
    places = {one["name"]: _point(one["pos"], high) for one in laid.get("objects", [])}
    ways = {line["id"]: line for line in laid.get("edges", [])}
    body = [_edge_svg(key, ways[key]["pos"], ways[key].get("lp"), high) for key in edges]
    tops = [_point(ways[key]["lp"], high)[1] - grid(sketch.graph.nodes[e.source].shape)[0] * ROW / 2
            for key, e in edges.items() if "lp" in ways[key]]  # fmt: skip
    top = min([0.0, *tops])
    body += [_box_svg(box, *places[keys[box.node.id]]) for box in boxes]
    return (
        f'<svg class="picture" data-side="{side}" role="img" '
        f'viewBox="-6 {top - 6:.0f} {wide + 12:.0f} {high - top + 12:.0f}">{"".join(body)}</svg>'
    )


def grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many rows and columns of numbers the page shows of an array; one column for a vector."""
    size = math.prod(shape)
    if len(shape) < 2 or shape[-1] == 1 or size == shape[-1]:
        return min(max(size, 1), MOST_ROWS), 1
    rows = size // max(shape[-1], 1)
    return min(max(rows, 1), MOST_ROWS), min(max(shape[-1], 1), _MOST_COLUMNS)


def title_of(node: Node, formulas: Formulas) -> str:
    """A node's formula in one line of plain characters."""
    return " ".join(in_unicode(legible(formulas.title(node))).split())


def _box(sketch: Sketch, node: Node, terms: int) -> _Box:
    title = title_of(node, sketch.formulas)
    if len(title) > _WIDEST_TITLE:
        title = f"{title[: _WIDEST_TITLE - 1]}…"
    arrays = 1 if sketch.gradient(node) is None else 2 + terms
    rows, columns = grid(node.shape)
    beside, below = (arrays, 1) if columns == 1 else (1, arrays)
    width = max(columns * beside * CELL, len(title) * _CHARACTER) + 2 * _PAD
    height = TITLE + below * (HEAD + rows * ROW) + _PAD
    return _Box(node, title, width, height)


def _weight(sketch: Sketch, edge: Edge) -> int:
    """How straight an edge is: the first operand that was computed stays on the main line."""
    inputs = sketch.graph.nodes[edge.target].inputs
    computed = [i for i in inputs if sketch.graph.nodes[i].op != CONSTANT]
    return 8 if computed[:1] == [edge.source] else 1


def _room(node: Node) -> str:
    """A label without words, as large as the numbers that are sent to a node; of many the half.

    Those of a long vector begin above the edge and end below it, beside the boxes' own numbers.
    """
    rows, columns = grid(node.shape)
    rows = rows if rows <= _FEW else rows // 2
    return (
        f'label=<<TABLE BORDER="0" FIXEDSIZE="TRUE" WIDTH="{columns * CELL}" HEIGHT="{rows * ROW}">'
        "<TR><TD></TD></TR></TABLE>>"
    )


def _edge_svg(key: str, pos: str, label: str | None, high: float) -> str:
    """An edge's curve, and where the numbers stand that are sent over it."""
    tip, *points = (_point(word.removeprefix("e,"), high) for word in pos.split())
    corners = [f"{x:.0f} {y:.0f}" for x, y in (*points, tip)]  # Graphviz writes the tip first
    if len({round(y) for _, y in (*points, tip)}) == 1:
        way = f"M{corners[0]}L{corners[-1]}"
    else:
        way = f"M{corners[0]}C{' '.join(corners[1:-1])}L{corners[-1]}"
    at = "" if label is None else ' data-at="{:.0f} {:.0f}"'.format(*_point(label, high))
    return f'<g data-edge="{key}"{at}><path d="{way}"/></g>'


def _box_svg(box: _Box, x: float, y: float) -> str:
    return (
        f'<g data-node="{box.node.id}" class="{kind_of(box.node)}" '
        f'transform="translate({x - box.width / 2:.0f} {y - box.height / 2:.0f})">'
        f'<rect width="{box.width:.0f}" height="{box.height:.0f}"/>'
        f'<text class="title" x="{box.width / 2:.0f}" y="17">{html.escape(box.title)}</text></g>'
    )


def _point(text: str, high: float) -> tuple[float, float]:
    x, y = text.split(",")
    return float(x), high - float(y)  # Graphviz counts from below
