"""A Scene as Graphviz source."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import graphviz

from viz.scene import Arrow, Box, Cluster, Grid, Path, Row, Scene, subtitle
from viz.style import ALARM, ALARM_FILL, BOXES, CLUSTERS, FAINT, FONT, INK, SIZE, SMALL, TONES

_WIDEST_LINE = 44  # characters, of a title
_WIDEST_UPRIGHT = 12  # of a title over columns
_WIDEST_NOTE = 22  # of what stands over a cluster
_WIDEST_CAPTION = {"TB": 66, "LR": 120}
_NOT_FINITE = frozenset({"NaN", "∞", "−∞"})


def dot_source(scene: Scene) -> graphviz.Digraph:
    """Write a Scene as a Digraph; the same Scene gives the same bytes."""
    digraph = graphviz.Digraph("tinygrad_sm")
    digraph.attr(
        rankdir=scene.direction, ranksep="0.2" if scene.direction == "LR" else "0.35",
        nodesep="0.25", pad="0.1", bgcolor="white",
        label=_html(_caption(scene)), labelloc="b", labeljust="l",
        fontname=FONT, fontcolor=FAINT, fontsize=str(SMALL),
    )  # fmt: skip
    digraph.attr("node", fontname=FONT, fontsize=str(SIZE), fontcolor=INK, margin="0.05,0.04",
                 width="0", height="0")  # fmt: skip
    digraph.attr("edge", fontname=FONT, fontsize=str(SMALL), arrowsize="0.7")
    if scene.aligned:
        digraph.attr(newrank="true")  # else no rank may hold boxes of two clusters
    framed = _labels_in_frames(scene)
    _write_level(digraph, scene, (), framed)
    _write_stack(digraph, scene.stack)
    for keys in scene.aligned:
        with digraph.subgraph(graph_attr={"rank": "same"}) as rank:
            for key in keys:
                rank.node(key)
    for i, arrow in enumerate(scene.arrows):
        _write_arrow(digraph, arrow, scene.direction == "LR", f"label{i}" if i in framed else "")
    return digraph


def _caption(scene: Scene) -> str:
    width = _WIDEST_CAPTION[scene.direction]
    lines = [line for text in scene.caption for line in _wrapped(text, width)]
    return _lines(lines, "LEFT", SMALL, FAINT)


def _labels_in_frames(scene: Scene) -> dict[int, Path]:
    """Arrows whose label is a node of its own, by position, and the cluster that it lies in.

    Of an arrow that passes by other boxes of its cluster, Graphviz would let the label stick out.
    """
    if scene.direction == "LR":
        return {}
    paths = {box.key: box.path for box in scene.boxes}
    depth = _depths(scene)
    return {
        i: paths[arrow.source]
        for i, arrow in enumerate(scene.arrows)
        if arrow.label
        and paths[arrow.source]
        and paths[arrow.source] == paths[arrow.target]
        and depth[arrow.target] - depth[arrow.source] > 1
    }


def _depths(scene: Scene) -> dict[str, int]:
    """For each box how many arrows lead to it on the longest way; boxes are in order."""
    sources: dict[str, list[str]] = {}
    for arrow in scene.arrows:
        if not arrow.back:
            sources.setdefault(arrow.target, []).append(arrow.source)
    depth: dict[str, int] = {}
    for box in scene.boxes:
        ways = [depth.get(source, 0) + 1 for source in sources.get(box.key, ())]
        depth[box.key] = max(ways, default=0)
    return depth


def _write_level(
    digraph: graphviz.Digraph,
    scene: Scene,
    path: tuple[str, ...],
    framed: dict[int, tuple[str, ...]],
) -> None:
    """Write the boxes right inside one cluster, and the clusters inside it, in order."""
    for box, cluster in scene.inside(path):
        if cluster is None:
            style = _box_style(box)
            digraph.node(box.key, label=_html(_label(box)), id=f"node-{box.key}", **style)
            continue
        with digraph.subgraph(name=f"cluster_{cluster.key}") as inner:
            inner.attr(
                label="" if cluster.note else _html(_heading(cluster)),
                labelloc="t",
                labeljust="l",
                margin="6" if scene.direction == "LR" else "12",
                **CLUSTERS[cluster.marked],
            )
            if cluster.note:
                _write_note(inner, cluster, box.key)
            _write_level(inner, scene, (*path, cluster.key), framed)
    for i, place in framed.items():
        if place == path:
            label = _html(_arrow_label(scene.arrows[i], upright=False))
            name = f"label-{scene.arrows[i].id}"
            digraph.node(f"label{i}", label=label, id=name, shape="plaintext", margin="0")


def _heading(cluster: Cluster) -> str:
    title = _wrapped(cluster.title, _WIDEST_CAPTION["TB"])
    return _lines(title, "LEFT", SIZE, bold=cluster.marked)


def _write_note(digraph: graphviz.Digraph, cluster: Cluster, first: str) -> None:
    """Write a cluster's title and note beside its first box, where no arrow runs through them."""
    lines = [_font(line, bold=True) for line in _wrapped(cluster.title, _WIDEST_NOTE)]
    lines += [_font(line, SMALL, FAINT) for line in _wrapped(cluster.note, _WIDEST_NOTE)]
    label = _table([f'<TD ALIGN="LEFT">{line}</TD>'] for line in lines)
    with digraph.subgraph(graph_attr={"rank": "same"}) as rank:
        rank.node(f"note_{cluster.key}", label=_html(label), shape="plaintext", margin="0")
        rank.edge(f"note_{cluster.key}", first, style="invis")


def _write_stack(digraph: graphviz.Digraph, keys: tuple[str, ...]) -> None:
    """Keep boxes in one rank and in order, by edges that are not seen."""
    if len(keys) > 1:
        with digraph.subgraph(graph_attr={"rank": "same"}) as rank:
            for above, below in pairwise(keys):
                rank.edge(above, below, style="invis")


def _write_arrow(digraph: graphviz.Digraph, arrow: Arrow, upright: bool, by_way_of: str) -> None:
    attributes = dict(TONES[arrow.tone])
    tail = f"{arrow.source}:{arrow.source_port}:e" if arrow.source_port else arrow.source
    head = f"{arrow.target}:{arrow.port}:e" if arrow.port else arrow.target
    if arrow.back:
        attributes["constraint"] = "false"
    if arrow.loose:
        attributes["weight"] = "0"
        head = f"{arrow.target}:s"  # around the cluster, not through it
    if by_way_of:
        digraph.edge(tail, by_way_of, id=f"{arrow.id}-start", **attributes, arrowhead="none")
        tail = by_way_of
    elif arrow.label or arrow.cells:
        attributes["label"] = _html(_arrow_label(arrow, upright))
    digraph.edge(tail, head, id=arrow.id, **attributes)


def _box_style(box: Box) -> dict[str, str]:
    style = dict(BOXES[box.kind])
    if box.output and box.kind != "fused":  # a second border would hide the third dimension
        style["peripheries"] = "2"
    if box.alarming:
        style |= {"penwidth": "4", "color": ALARM}
    return style


# Labels -------------------------------------------------------------------------------------------


def _html(content: str) -> str:
    """Mark text as one of Graphviz's HTML-like labels."""
    return f"<{content}>"


def escaped(text: str) -> str:
    """Escape text for an HTML-like label, in which Graphviz also looks for ``\\N`` and the like."""
    return html.escape(text).replace("\\", "\\\\") or " "


def _wrapped(text: str, width: int) -> list[str]:
    """Break text into lines, at its own new lines and where they are too wide."""
    wrap = textwrap.TextWrapper(
        width, break_long_words=width >= _WIDEST_LINE, break_on_hyphens=False
    ).wrap
    return [part for line in text.split("\n") for part in wrap(line) or [""]]


def _font(text: str, size: int = SIZE, color: str = INK, bold: bool = False) -> str:
    inner = f"<B>{escaped(text)}</B>" if bold else escaped(text)
    return f'<FONT POINT-SIZE="{size}" COLOR="{color}">{inner}</FONT>'


def _lines(
    lines: Iterable[str], align: str, size: int = SIZE, color: str = INK, bold: bool = False
) -> str:
    return "".join(f'{_font(line, size, color, bold)}<BR ALIGN="{align}"/>' for line in lines)


def _label(box: Box) -> str:
    """A box's content as one table: title, shape and dtype, the arrays, what to note."""
    numbers = _columns(box.rows) if box.upright else _rows(box.rows, box.stacked)
    width = max((len(cells) for cells in numbers), default=1)
    title = _wrapped(box.title, _WIDEST_UPRIGHT if box.upright else _WIDEST_LINE)
    above = [_lines(title, "CENTER", bold=True)]
    if line := subtitle(box):
        above.append(_font(line, SMALL, FAINT))
    below = [_font(x, SMALL, FAINT) for text in box.remarks for x in _wrapped(text, _WIDEST_LINE)]
    for warning in box.warnings:
        lines = _wrapped(f"⚠ {warning}", _WIDEST_LINE)
        below.append(_lines(lines, "CENTER", SIZE, ALARM, bold=True))
    table = [[f'<TD COLSPAN="{width}">{content}</TD>'] for content in above]
    for cells in numbers:  # what a shorter one lacks becomes one empty cell
        lack = width - len(cells)
        table.append([*cells, f'<TD COLSPAN="{lack}"></TD>'] if lack else cells)
    table += [[f'<TD COLSPAN="{width}">{content}</TD>'] for content in below]
    return _table(table)


def _table(rows: Iterable[list[str]]) -> str:
    inner = "".join(f"<TR>{''.join(cells)}</TR>" for cells in rows)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{inner}</TABLE>'


def _rows(rows: tuple[Row, ...], stacked: bool) -> list[list[str]]:
    """Each array from left to right, behind its label or under it; over it what numbers are called.

    A lone sentence among arrays whose numbers are called something takes the place of them all.
    """
    headed = next((row for row in rows if row.heads), None)
    width = max((len(row.cells[0]) for row in rows), default=0)
    table: list[list[str]] = []
    for row in rows:
        beside = bool(row.label) and not stacked
        if row is headed:
            table.append([*(["<TD></TD>"] if beside else []), *map(_head, row.heads)])
        if stacked:
            flat = replace(row, label=" ".join(row.label.split()))
            table.append([_with(_name(flat, "LEFT"), f'ALIGN="LEFT" COLSPAN="{width}"')])
        lines = _numbers(row, row.cells)
        if headed and len(lines[0]) == 1 < len(headed.heads):
            lines[0][0] = _with(lines[0][0], f'COLSPAN="{len(headed.heads)}"')
        if beside:
            place = f'ALIGN="LEFT" ROWSPAN="{len(row.cells)}"'
            lines[0].insert(0, _with(_name(row, "LEFT"), place))
        if row.port:  # arrows come from the right
            lines[-1][-1] = _with(lines[-1][-1], f'PORT="{row.port}"')
        table += lines
    return table


def _columns(rows: tuple[Row, ...]) -> list[list[str]]:
    """Each array from top to bottom, under its label; a vector is a column."""
    grids = [_turned(row.cells) for row in rows]
    heads = [_head(name) for name in next((row.heads for row in rows if row.heads), ())]
    table = [["<TD></TD>"] if heads else []]
    for row, cells in zip(rows, grids, strict=True):
        place = f'COLSPAN="{len(cells[0])}" ALIGN="RIGHT" VALIGN="BOTTOM" CELLPADDING="3"'
        table[0].append(_with(_name(row, "RIGHT"), place))
    height = max(map(len, grids), default=0)
    for i in range(height):
        line = heads[i : i + 1] or table[0][:1] if heads else []
        for row, cells in zip(rows, grids, strict=True):
            line += _numbers(row, cells[i : i + 1] or (("",) * len(cells[0]),))[0]
        table.append(line)
    return table if rows else []


def _head(name: str) -> str:
    return f'<TD ALIGN="RIGHT" CELLPADDING="3">{_font(name, SMALL, FAINT)}</TD>'


def _name(row: Row, align: str) -> str:
    """A cell with the label of an array."""
    label = _lines(row.label.split("\n"), align, SMALL, TONES[row.tone]["color"])
    return f"<TD>{label}</TD>"


def _with(cell: str, attributes: str) -> str:
    return cell.replace("<TD", f"<TD {attributes}", 1)


def _numbers(row: Row, cells: Grid) -> list[list[str]]:
    """Cells with some of the numbers of an array."""
    return [[_number(text, TONES[row.tone]["color"]) for text in line] for line in cells]


def _number(text: str, color: str) -> str:
    stands_out = text in _NOT_FINITE
    fill = f' BGCOLOR="{ALARM_FILL}"' if stands_out else ""
    content = _font(text, SIZE, ALARM if stands_out else color, bold=stands_out)
    return f'<TD ALIGN="RIGHT" CELLPADDING="3"{fill}>{content}</TD>'


def _turned(cells: Grid) -> Grid:
    return tuple((cell,) for cell in cells[0]) if len(cells) == 1 else cells


def _arrow_label(arrow: Arrow, upright: bool) -> str:
    """A label beside an arrow: its words, then the numbers, row by row."""
    cells = _turned(arrow.cells) if upright and arrow.cells else arrow.cells
    texts = ["  ".join(row) for row in cells]
    if len(texts) <= 1 or len(cells[0]) == 1:
        texts[:1] = [" ".join(filter(None, [arrow.label, *texts[:1]]))]
    elif arrow.label:
        texts = [*arrow.label.split("\n"), *texts]
    color = TONES[arrow.tone]["color"]
    lines = [_font(f"  {line}  ", SMALL, color) for text in texts for line in text.split("\n")]
    return _table([f'<TD ALIGN="LEFT">{line}</TD>'] for line in lines)
