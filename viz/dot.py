"""A Scene as Graphviz source."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import graphviz

from viz.scene import Arrow, Box, Cluster, Grid, Row, Scene, subtitle
from viz.style import ALARM, ALARM_FILL, BOXES, FAINT, FONT, INK, SIZE, SMALL, TONES

_WIDEST_LINE = 44  # characters, of a title
_WIDEST_UPRIGHT = 12  # of a title over columns
_WIDEST_NOTE = 22  # of what stands over a cluster
_WIDEST_CAPTION = {"TB": 66, "LR": 120}
_NOT_FINITE = frozenset({"NaN", "∞", "−∞"})


def dot_source(scene: Scene) -> graphviz.Digraph:
    """Write a Scene as a Digraph; the same Scene gives the same bytes."""
    digraph = graphviz.Digraph("tinygrad_sm")
    digraph.attr(
        rankdir=scene.direction,
        bgcolor="white",
        pad="0.1",
        nodesep="0.25",
        ranksep="0.2" if scene.direction == "LR" else "0.35",
        label=_html(_caption(scene)),
        labelloc="b",
        labeljust="l",
        fontname=FONT,
        fontcolor=FAINT,
        fontsize=str(SMALL),
    )
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
    return _lines(_wrapped(scene.caption, width), "LEFT", SMALL, FAINT)


def _labels_in_frames(scene: Scene) -> dict[int, tuple[str, ...]]:
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
    written: set[str] = set()
    for box in scene.boxes:
        if box.path == path:
            digraph.node(box.key, label=_html(_label(box)), **_box_style(box))
        elif box.path[: len(path)] == path and box.path[len(path)] not in written:
            key = box.path[len(path)]
            written.add(key)
            cluster = scene.clusters[key]
            with digraph.subgraph(name=f"cluster_{key}") as inner:
                inner.attr(
                    label="" if cluster.note else _html(_heading(cluster)),
                    labelloc="t",
                    labeljust="l",
                    margin="6" if scene.direction == "LR" else "12",
                    color=INK if cluster.marked else "#999999",
                    style="rounded,dashed" if cluster.marked else "rounded",
                    penwidth="2" if cluster.marked else "1",
                )
                if cluster.note:
                    _write_note(inner, cluster, box.key)
                _write_level(inner, scene, (*path, key), framed)
    for i, place in framed.items():
        if place == path:
            arrow = scene.arrows[i]
            label = _html(_arrow_label(arrow, False, TONES[arrow.tone]["color"]))
            digraph.node(f"label{i}", label=label, shape="plaintext", margin="0")


def _heading(cluster: Cluster) -> str:
    title = _wrapped([cluster.title], _WIDEST_CAPTION["TB"])
    return _lines(title, "LEFT", SIZE, bold=cluster.marked)


def _write_note(digraph: graphviz.Digraph, cluster: Cluster, first: str) -> None:
    """Write a cluster's title and note beside its first box, where no arrow runs through them."""
    lines = [_font(line, SIZE, INK, bold=True) for line in _wrapped([cluster.title], _WIDEST_NOTE)]
    lines += [_font(line, SMALL, FAINT) for line in _wrapped([cluster.note], _WIDEST_NOTE)]
    label = _table("".join(f'<TR><TD ALIGN="LEFT">{line}</TD></TR>' for line in lines))
    with digraph.subgraph(graph_attr={"rank": "same"}) as rank:
        rank.node(f"note_{cluster.key}", label=_html(label), shape="plaintext", margin="0")
        rank.edge(f"note_{cluster.key}", first, style="invis")


def _write_stack(digraph: graphviz.Digraph, keys: tuple[str, ...]) -> None:
    """Keep boxes in one rank and in order, by edges that are not seen."""
    if len(keys) < 2:
        return
    with digraph.subgraph(graph_attr={"rank": "same"}) as rank:
        for above, below in pairwise(keys):
            rank.edge(above, below, style="invis")


def _write_arrow(digraph: graphviz.Digraph, arrow: Arrow, upright: bool, by_way_of: str) -> None:
    tone = TONES[arrow.tone]
    attributes = dict(tone)
    head = f"{arrow.target}:{arrow.port}:e" if arrow.port else arrow.target
    if (arrow.label or arrow.cells) and not by_way_of:
        attributes["label"] = _html(_arrow_label(arrow, upright, tone["color"]))
    if arrow.back:
        attributes["constraint"] = "false"
    if arrow.loose:
        attributes["weight"] = "0"
        head = f"{arrow.target}:s"  # around the cluster, not through it
    tail = f"{arrow.source}:{arrow.source_port}:e" if arrow.source_port else arrow.source
    if by_way_of:
        digraph.edge(tail, by_way_of, **attributes, arrowhead="none")
        tail = by_way_of
    digraph.edge(tail, head, **attributes)


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


def _wrapped(texts: Iterable[str], width: int) -> list[str]:
    """Break texts into lines, at their own new lines and where they are too wide."""
    lines: list[str] = []
    for text in texts:
        for line in text.split("\n"):
            long_words = width >= _WIDEST_LINE
            lines += textwrap.wrap(
                line, width, break_long_words=long_words, break_on_hyphens=False
            ) or [""]
    return lines


def _font(text: str, size: int = SIZE, color: str = INK, bold: bool = False) -> str:
    inner = escaped(text)
    if bold:
        inner = f"<B>{inner}</B>"
    return f'<FONT POINT-SIZE="{size}" COLOR="{color}">{inner}</FONT>'


def _lines(
    lines: Iterable[str], align: str, size: int = SIZE, color: str = INK, bold: bool = False
) -> str:
    return f'<BR ALIGN="{align}"/>'.join([*(_font(line, size, color, bold) for line in lines), ""])


def _label(box: Box) -> str:
    """A box's content as one table: title, shape and dtype, the arrays, what to note."""
    write = _columns if box.upright else _stacked if box.stacked else _rows
    numbers = write(box.rows)
    width = max((len(cells) for cells in numbers), default=1)
    table = [_across(_title(box), width)]
    if line := subtitle(box):
        table.append(_across(_font(line, SMALL, FAINT), width))
    table += [_row(cells, width) for cells in numbers]
    for remark in _wrapped(box.remarks, _WIDEST_LINE):
        table.append(_across(_font(remark, SMALL, FAINT), width))
    for warning in box.warnings:
        lines = _wrapped([f"⚠ {warning}"], _WIDEST_LINE)
        table.append(_across(_lines(lines, "CENTER", SIZE, ALARM, bold=True), width))
    return _table("".join(table))


def _table(rows: str) -> str:
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{rows}</TABLE>'


def _title(box: Box) -> str:
    width = _WIDEST_UPRIGHT if box.upright else _WIDEST_LINE
    return _lines(_wrapped([box.title], width), "CENTER", SIZE, bold=True)


def _across(content: str, width: int) -> str:
    return f'<TR><TD COLSPAN="{width}">{content}</TD></TR>'


def _row(cells: list[str], width: int) -> str:
    """A table row; what a shorter one lacks becomes one empty cell."""
    if len(cells) < width:
        cells = [*cells, f'<TD COLSPAN="{width - len(cells)}"></TD>']
    return f"<TR>{''.join(cells)}</TR>"


def _rows(rows: tuple[Row, ...]) -> list[list[str]]:
    """Each array from left to right, behind its label; over it what its numbers are called."""
    heads = _heads(rows)
    table: list[list[str]] = []
    for row in rows:
        if row.heads and not any(other.heads for other in rows[: rows.index(row)]):
            table.append([*(["<TD></TD>"] if row.label else []), *map(_head, heads)])
        color = TONES[row.tone]["color"]
        label = _lines(row.label.split("\n"), "LEFT", SMALL, color)
        lines = [[_number(cell, color) for cell in cells] for cells in row.cells]
        if heads and not row.heads and len(lines[0]) == 1:
            lines[0][0] = lines[0][0].replace("<TD", f'<TD COLSPAN="{len(heads)}"', 1)
        if row.label:
            head = f'<TD ALIGN="LEFT" ROWSPAN="{len(row.cells)}">{label}</TD>'
            lines[0].insert(0, head)
        table += lines
        if row.port:  # arrows come from the right
            table[-1][-1] = table[-1][-1].replace("<TD", f'<TD PORT="{row.port}"', 1)
    return table


def _stacked(rows: tuple[Row, ...]) -> list[list[str]]:
    """Each array from left to right, under its label."""
    width = max(len(row.cells[0]) for row in rows)
    heads = _heads(rows)
    table = [[_head(name) for name in heads]] if heads else []
    for row in rows:
        label = _lines([" ".join(row.label.split())], "LEFT", SMALL, TONES[row.tone]["color"])
        table.append([f'<TD ALIGN="LEFT" COLSPAN="{width}">{label}</TD>'])
        table += _rows((replace(row, label="", heads=()),))
    return table


def _columns(rows: tuple[Row, ...]) -> list[list[str]]:
    """Each array from top to bottom, under its label; a vector is a column."""
    grids = [_turned(row.cells) for row in rows]
    if not grids:
        return []
    heads = _heads(rows)
    head = ["<TD></TD>"] if heads else []
    for row, cells in zip(rows, grids, strict=True):
        label = _lines(row.label.split("\n"), "RIGHT", SMALL, TONES[row.tone]["color"])
        place = f'COLSPAN="{len(cells[0])}" ALIGN="RIGHT" VALIGN="BOTTOM" CELLPADDING="3"'
        head.append(f"<TD {place}>{label}</TD>")
    table = [head]
    for i in range(max(map(len, grids))):
        line = [_head(heads[i])] if i < len(heads) else ["<TD></TD>"] if heads else []
        for row, cells in zip(rows, grids, strict=True):
            color = TONES[row.tone]["color"]
            texts = cells[i] if i < len(cells) else ("",) * len(cells[0])
            line += [_number(text, color) for text in texts]
        table.append(line)
    return table


def _heads(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """What the numbers of a box are called, if its rows say so."""
    return next((row.heads for row in rows if row.heads), ())


def _head(name: str) -> str:
    return f'<TD ALIGN="RIGHT" CELLPADDING="3">{_font(name, SMALL, FAINT)}</TD>'


def _turned(cells: Grid) -> Grid:
    return tuple((cell,) for cell in cells[0]) if len(cells) == 1 else cells


def _number(text: str, color: str) -> str:
    stands_out = text in _NOT_FINITE
    fill = f' BGCOLOR="{ALARM_FILL}"' if stands_out else ""
    content = _font(text, SIZE, ALARM if stands_out else color, bold=stands_out)
    return f'<TD ALIGN="RIGHT" CELLPADDING="3"{fill}>{content}</TD>'


def _arrow_label(arrow: Arrow, upright: bool, color: str) -> str:
    """A label beside an arrow: its words, then the numbers, row by row."""
    cells = _turned(arrow.cells) if upright and arrow.cells else arrow.cells
    texts = ["  ".join(row) for row in cells]
    if len(texts) <= 1 or len(cells[0]) == 1:
        texts[:1] = [" ".join(filter(None, [arrow.label, *texts[:1]]))]
    elif arrow.label:
        texts = [*arrow.label.split("\n"), *texts]
    rows = "".join(
        f'<TR><TD ALIGN="LEFT">{_font(f"  {text}  ", SMALL, color)}</TD></TR>'
        for text in "\n".join(texts).split("\n")
    )
    return _table(rows)
