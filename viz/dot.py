"""A Scene as Graphviz source."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable
from itertools import pairwise

import graphviz

from viz.scene import Arrow, Box, Grid, Row, Scene, subtitle
from viz.style import ALARM, ALARM_FILL, BOXES, FAINT, FONT, INK, SIZE, SMALL, TONES

_WIDEST_LINE = 44  # characters, of a title
_WIDEST_UPRIGHT = 12  # of a title over columns
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
        ranksep="0.24" if scene.direction == "LR" else "0.35",
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
    _write_level(digraph, scene, ())
    _write_stack(digraph, scene.stack)
    for arrow in scene.arrows:
        _write_arrow(digraph, arrow, scene.direction == "LR")
    return digraph


def _caption(scene: Scene) -> str:
    width = _WIDEST_CAPTION[scene.direction]
    return _lines(_wrapped(scene.caption, width), "LEFT", SMALL, FAINT)


def _write_level(digraph: graphviz.Digraph, scene: Scene, path: tuple[str, ...]) -> None:
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
                title = _wrapped([cluster.title], _WIDEST_CAPTION["TB"])
                inner.attr(
                    label=_html(_lines(title, "LEFT", SIZE, bold=cluster.marked)),
                    labelloc="t",
                    labeljust="l",
                    margin="6",
                    color=INK if cluster.marked else "#999999",
                    style="rounded,dashed" if cluster.marked else "rounded",
                    penwidth="2" if cluster.marked else "1",
                )
                _write_level(inner, scene, (*path, key))


def _write_stack(digraph: graphviz.Digraph, keys: tuple[str, ...]) -> None:
    """Keep boxes in one rank and in order, by edges that are not seen."""
    if len(keys) < 2:
        return
    with digraph.subgraph(graph_attr={"rank": "same"}) as rank:
        for above, below in pairwise(keys):
            rank.edge(above, below, style="invis")


def _write_arrow(digraph: graphviz.Digraph, arrow: Arrow, upright: bool) -> None:
    tone = TONES[arrow.tone]
    attributes = dict(tone)
    head = f"{arrow.target}:{arrow.port}:e" if arrow.port else arrow.target
    if arrow.label or arrow.cells:
        attributes["label"] = _html(_arrow_label(arrow, upright, tone["color"]))
    if arrow.back:
        attributes["constraint"] = "false"
    if arrow.loose:
        attributes["weight"] = "0"
    tail = f"{arrow.source}:{arrow.source_port}:e" if arrow.source_port else arrow.source
    digraph.edge(tail, head, **attributes)


def _box_style(box: Box) -> dict[str, str]:
    style = dict(BOXES[box.kind])
    if box.output:
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
            lines += textwrap.wrap(line, width, break_long_words=width >= _WIDEST_LINE) or [""]
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
    numbers = _columns(box.rows) if box.upright else _rows(box.rows)
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
    """Each array from left to right, behind its label."""
    table = []
    for row in rows:
        color = TONES[row.tone]["color"]
        label = _lines(row.label.split("\n"), "LEFT", SMALL, color)
        head = f'<TD ALIGN="LEFT" ROWSPAN="{len(row.cells)}">{label}</TD>'
        lines = [[_number(cell, color) for cell in cells] for cells in row.cells]
        table += [[head, *lines[0]], *lines[1:]]
        if row.port:  # arrows come from the right
            table[-1][-1] = table[-1][-1].replace("<TD", f'<TD PORT="{row.port}"', 1)
    return table


def _columns(rows: tuple[Row, ...]) -> list[list[str]]:
    """Each array from top to bottom, under its label; a vector is a column."""
    grids = [_turned(row.cells) for row in rows]
    if not grids:
        return []
    head = []
    for row, cells in zip(rows, grids, strict=True):
        label = _lines(row.label.split("\n"), "RIGHT", SMALL, TONES[row.tone]["color"])
        place = f'COLSPAN="{len(cells[0])}" ALIGN="RIGHT" VALIGN="BOTTOM" CELLPADDING="3"'
        head.append(f"<TD {place}>{label}</TD>")
    table = [head]
    for i in range(max(map(len, grids))):
        line = []
        for row, cells in zip(rows, grids, strict=True):
            color = TONES[row.tone]["color"]
            texts = cells[i] if i < len(cells) else ("",) * len(cells[0])
            line += [_number(text, color) for text in texts]
        table.append(line)
    return table


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
    if len(texts) <= 1:
        texts = [" ".join(filter(None, [arrow.label, *texts]))]
    elif arrow.label:
        texts = [*arrow.label.split("\n"), *texts]
    rows = "".join(
        f'<TR><TD ALIGN="LEFT">{_font(f"  {text}  ", SMALL, color)}</TD></TR>'
        for text in "\n".join(texts).split("\n")
    )
    return _table(rows)
