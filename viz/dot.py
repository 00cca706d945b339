"""A Scene as Graphviz source."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import graphviz

from viz.notation import in_unicode
from viz.rendering import QUICKLY
from viz.scene import Arrow, Box, Cluster, Grid, Path, Row, Scene, subtitle
from viz.style import BOXES, CLUSTERS, FONT, LINES, THEMES, Look

_WIDEST_LINE = 44  # characters, of a title
_WIDEST_UPRIGHT = 12  # of a title over columns
_WIDEST_NOTE = 22  # of what stands over a cluster
_WIDEST_CAPTION = {"TB": 66, "LR": 120}
_NOT_FINITE = frozenset({"NaN", "∞", "−∞"})
_FAR = 6000  # ranks that all arrows cross together; more take Graphviz's best layout minutes
_HIDDEN = "transparent"
_BARE = {"shape": "plaintext", "margin": "0"}


def dot_source(scene: Scene, look: Look) -> str:
    """Write a Scene as DOT; the same Scene gives the same bytes.

    What is hidden is written in no colour, so that all pictures of a series are laid out alike.
    """
    return str(_Writer(scene, look).digraph.source)


class _Writer:
    """A Scene on its way to DOT.

    Attributes:
        framed: arrows whose label is a node of its own, by position, and the cluster around it.
    """

    def __init__(self, scene: Scene, look: Look) -> None:
        self.scene = scene
        self.colours = THEMES[look.theme]
        self.size, self.small = look.size, look.size - 1
        self.sideways = scene.direction == "LR"
        depth = _depths(scene)
        self.framed = {} if self.sideways else _labels_in_frames(scene, depth)
        self.digraph = graphviz.Digraph("tinygrad_sm")
        self._write_attributes()
        far = sum(abs(depth[arrow.target] - depth[arrow.source]) for arrow in scene.arrows)
        if far > _FAR:
            self.digraph.attr(**QUICKLY)
        headline = self._headline()
        if headline and scene.aligned:  # a cluster around it might exchange what is side by side
            above = _table([*headline, [f'<TD ALIGN="LEFT" BALIGN="LEFT">{self._caption()}</TD>']])
            self.digraph.attr(label=_html(above), labelloc="t")
        if headline and not scene.aligned:
            with self.digraph.subgraph(name="cluster_title") as titled:
                title = _html(_table(headline))
                titled.attr(label=title, labelloc="t", penwidth="0", margin="4")
                self._write_level(titled, ())
        else:
            self._write_level(self.digraph, ())
        self._write_ranks()
        for i, arrow in enumerate(scene.arrows):
            self._write_arrow(arrow, f"label{i}" if i in self.framed else "")

    def _write_attributes(self) -> None:
        text = {"fontname": FONT, "fontcolor": self.colours["ink"]}
        small = text | {"fontsize": str(self.small)}
        self.digraph.attr(
            rankdir=self.scene.direction, ranksep="0.2" if self.sideways else "0.35",
            nodesep="0.25", pad="0.1", bgcolor=self.colours["paper"],
            label=_html(self._caption()), labelloc="b", labeljust="l", **small,
        )  # fmt: skip
        self.digraph.attr("node", fontsize=str(self.size), margin="0.05,0.04", width="0",
                          height="0", **text)  # fmt: skip
        self.digraph.attr("edge", arrowsize="0.7", **small)
        if self.scene.aligned:
            self.digraph.attr(newrank="true")  # else no rank may hold boxes of two clusters

    def _headline(self) -> list[list[str]]:
        """The title, and below it a cell for what happens, as wide in every picture of a series."""
        title = _wrapped(self.scene.title, _WIDEST_CAPTION[self.scene.direction])
        place = 'ALIGN="LEFT"'
        cells = [
            f"<TD {place}>{self._font(line, self.size + 3, bold=True)}</TD>"
            for line in title
            if line
        ]
        if self.scene.room:
            room = f'FIXEDSIZE="TRUE" WIDTH="{self.scene.room * self.size * 0.7:.0f}"'
            step = self._font(self.scene.step, self.size, "gradient", bold=True)
            cells.append(f'<TD {place} {room} HEIGHT="{2 * self.size}">{step}</TD>')
        return [[cell] for cell in cells]

    def _caption(self) -> str:
        width = _WIDEST_CAPTION[self.scene.direction]
        lines = [line for text in self.scene.caption for line in _wrapped(text, width)]
        hidden = [line for text in self.scene.unsaid for line in _wrapped(text, width)]
        said = self._lines(lines, "LEFT", self.small, "faint")
        return said + self._lines(hidden, "LEFT", self.small, _HIDDEN)

    # Structure ------------------------------------------------------------------------------------

    def _write_level(self, digraph: graphviz.Digraph, path: Path) -> None:
        """Write the boxes right inside one cluster, and the clusters inside it, in order."""
        for box, cluster in self.scene.inside(path):
            if cluster is None:
                style = self._box_style(box)
                label = _html(self._label(box))
                digraph.node(box.key, label=label, id=f"node-{box.key}", **style)
                continue
            with digraph.subgraph(name=f"cluster_{cluster.key}") as inner:
                colour = self.colours["ink" if cluster.marked else "frame"]
                inner.attr(
                    label="" if cluster.note else _html(self._heading(cluster)), labelloc="t",
                    labeljust="l", margin="6" if self.sideways else "12", color=colour,
                    **CLUSTERS[cluster.marked],
                )  # fmt: skip
                if cluster.note:
                    self._write_note(inner, cluster, box.key)
                self._write_level(inner, (*path, cluster.key))
        for i, place in self.framed.items():
            if place == path:
                arrow = self.scene.arrows[i]
                label = _html(self._arrow_label(arrow, below=True))
                digraph.node(f"label{i}", label=label, id=f"label-{arrow.id}", **_BARE)

    def _heading(self, cluster: Cluster) -> str:
        title = _wrapped(cluster.title, _WIDEST_CAPTION["TB"])
        return self._lines(title, "LEFT", self.size, bold=cluster.marked)

    def _write_note(self, digraph: graphviz.Digraph, cluster: Cluster, first: str) -> None:
        """Write a cluster's title and note beside its first box, where no arrow runs through."""
        lines = [self._font(x, self.size, bold=True) for x in _wrapped(cluster.title, _WIDEST_NOTE)]
        lines += [self._font(x, self.small, "faint") for x in _wrapped(cluster.note, _WIDEST_NOTE)]
        label = _html(_table([f'<TD ALIGN="LEFT">{line}</TD>'] for line in lines))
        with digraph.subgraph(graph_attr={"rank": "same"}) as rank:
            rank.node(f"note_{cluster.key}", label=label, **_BARE)
            rank.edge(f"note_{cluster.key}", first, style="invis")

    def _write_ranks(self) -> None:
        """Keep boxes in one rank: the stack also in order, by edges that are not seen."""
        for keys in filter(None, (self.scene.stack, *self.scene.aligned)):
            with self.digraph.subgraph(graph_attr={"rank": "same"}) as rank:
                for key in keys:
                    rank.node(key)
                if keys is self.scene.stack:
                    for above, below in pairwise(keys):
                        rank.edge(above, below, style="invis")

    def _write_arrow(self, arrow: Arrow, by_way_of: str) -> None:
        attributes = LINES[arrow.tone] | {"color": self.colours[arrow.tone]}
        tail = f"{arrow.source}:{arrow.source_port}:e" if arrow.source_port else arrow.source
        head = f"{arrow.target}:{arrow.port}:e" if arrow.port else arrow.target
        if arrow.back:
            attributes["constraint"] = "false"
        if arrow.loose:
            attributes["weight"] = "0"
            head = f"{arrow.target}:s"  # around the cluster, not through it
        if by_way_of:
            start = attributes | {"id": f"{arrow.id}-start", "arrowhead": "none"}
            self.digraph.edge(tail, by_way_of, **start)
            tail = by_way_of
        elif arrow.label or arrow.cells:
            attributes["label"] = _html(self._arrow_label(arrow))
        self.digraph.edge(tail, head, id=arrow.id, **attributes)

    def _box_style(self, box: Box) -> dict[str, str]:
        style = BOXES[box.kind] | {
            "color": self.colours["ink"],
            "fillcolor": self.colours[box.kind],
        }
        if box.output and box.kind != "fused":  # a second border would hide the third dimension
            style["peripheries"] = "2"
        if box.alarming or box.current:
            colour = self.colours["alarm" if box.alarming else "gradient"]
            double = "peripheries" in style and not box.alarming
            style |= {"penwidth": "2.5" if double else "4", "color": colour}
        return style

    # Labels ---------------------------------------------------------------------------------------

    def _font(self, text: str, size: int, colour: str = "ink", bold: bool = False) -> str:
        shown = colour if colour == _HIDDEN else self.colours[colour]
        inner = f"<B>{escaped(text)}</B>" if bold else escaped(text)
        return f'<FONT POINT-SIZE="{size}" COLOR="{shown}">{inner}</FONT>'

    def _lines(
        self, lines: Iterable[str], align: str, size: int, colour: str = "ink", bold: bool = False
    ) -> str:
        end = f'<BR ALIGN="{align}"/>'
        return "".join(f"{self._font(line, size, colour, bold)}{end}" for line in lines)

    def _label(self, box: Box) -> str:
        """A box's content as one table: title, shape and dtype, the arrays, what to note."""
        numbers = self._columns(box.rows) if box.upright else self._rows(box.rows, box.stacked)
        width = max((len(cells) for cells in numbers), default=1)
        title = _wrapped(box.title, _WIDEST_UPRIGHT if box.upright else _WIDEST_LINE)
        above = [self._lines(title, "CENTER", self.size, bold=True)]
        if line := subtitle(box):
            above.append(self._font(line, self.small, "faint"))
        remarks = [line for text in box.remarks for line in _wrapped(text, _WIDEST_LINE)]
        below = [self._font(line, self.small, "faint") for line in remarks]
        for warning in box.warnings:
            lines = _wrapped(f"⚠ {warning}", _WIDEST_LINE)
            below.append(self._lines(lines, "CENTER", self.size, "alarm", bold=True))
        table = [[f'<TD COLSPAN="{width}">{content}</TD>'] for content in above]
        for cells in numbers:  # what a shorter one lacks becomes one empty cell
            lack = width - len(cells)
            table.append([*cells, f'<TD COLSPAN="{lack}"></TD>'] if lack else cells)
        table += [[f'<TD COLSPAN="{width}">{content}</TD>'] for content in below]
        return _table(table)

    def _rows(self, rows: tuple[Row, ...], stacked: bool) -> list[list[str]]:
        """Each array from left to right, behind its label or under it; its heads over it.

        A lone sentence among arrays whose numbers are called something takes their whole place.
        """
        headed = next((row for row in rows if row.heads), None)
        width = max((len(row.cells[0]) for row in rows), default=0)
        table: list[list[str]] = []
        for row in rows:
            beside = bool(row.label) and not stacked
            if row is headed:
                table.append([*(["<TD></TD>"] if beside else []), *self._heads(row)])
            if stacked:
                flat = replace(row, label=" ".join(row.label.split()))
                table.append([_with(self._name(flat, "LEFT"), f'ALIGN="LEFT" COLSPAN="{width}"')])
            lines = self._numbers(row, row.cells)
            if headed and len(lines[0]) == 1 < len(headed.heads):
                lines[0][0] = _with(lines[0][0], f'COLSPAN="{len(headed.heads)}"')
            if beside:
                place = f'ALIGN="LEFT" ROWSPAN="{len(row.cells)}"'
                lines[0].insert(0, _with(self._name(row, "LEFT"), place))
            if row.port:  # arrows come from the right
                lines[-1][-1] = _with(lines[-1][-1], f'PORT="{row.port}"')
            table += lines
        return table

    def _columns(self, rows: tuple[Row, ...]) -> list[list[str]]:
        """Each array from top to bottom, under its label; a vector is a column."""
        grids = [_turned(row.cells) for row in rows]
        heads = self._heads(next((row for row in rows if row.heads), None))
        table = [["<TD></TD>"] if heads else []]
        for row, cells in zip(rows, grids, strict=True):
            place = f'COLSPAN="{len(cells[0])}" ALIGN="RIGHT" VALIGN="BOTTOM" CELLPADDING="3"'
            table[0].append(_with(self._name(row, "RIGHT"), place))
        for i in range(max(map(len, grids), default=0)):
            line = heads[i : i + 1] or table[0][:1] if heads else []
            for row, cells in zip(rows, grids, strict=True):
                line += self._numbers(row, cells[i : i + 1] or (("",) * len(cells[0]),))[0]
            table.append(line)
        return table if rows else []

    def _heads(self, row: Row | None) -> list[str]:
        """Cells with what the numbers of a row are called."""
        colour = _HIDDEN if row and row.hidden else "faint"
        names = row.heads if row else ()
        return [
            f'<TD ALIGN="RIGHT" CELLPADDING="3">{self._font(name, self.small, colour)}</TD>'
            for name in names
        ]

    def _name(self, row: Row, align: str) -> str:
        """A cell with the label of an array."""
        colour = _HIDDEN if row.hidden else row.tone
        return f"<TD>{self._lines(row.label.split(chr(10)), align, self.small, colour)}</TD>"

    def _numbers(self, row: Row, cells: Grid) -> list[list[str]]:
        """Cells with some of the numbers of an array."""
        return [[self._number(text, row) for text in line] for line in cells]

    def _number(self, text: str, row: Row) -> str:
        stands_out = text in _NOT_FINITE
        shade = _HIDDEN if row.hidden else self.colours["alarm fill"]
        fill = f' BGCOLOR="{shade}"' if stands_out else ""
        colour = _HIDDEN if row.hidden else "alarm" if stands_out else row.tone
        content = self._font(text, self.size, colour, bold=stands_out)
        return f'<TD ALIGN="RIGHT" CELLPADDING="3"{fill}>{content}</TD>'

    def _arrow_label(self, arrow: Arrow, below: bool = False) -> str:
        """An arrow's words, then what backward sent, row by row: beside the words or below."""
        cells = _turned(arrow.cells) if self.sideways and arrow.cells else arrow.cells
        lines = ["  ".join(row) for row in cells]
        sent = _HIDDEN if arrow.hidden else arrow.tone
        if len(lines) == 1 or (lines and len(cells[0]) == 1):
            lines[0] = f"{arrow.sign} {lines[0]}"
        elif lines:
            lines.insert(0, arrow.sign)
        texts = [self._font(f"  {line}  ", self.small, sent) for line in lines] or [""]
        if arrow.label:  # apart, since it is seen even if the numbers are not
            role = self._font(f"  {arrow.label}  ", self.small, arrow.tone)
            texts = [role, *texts] if below else [role.replace("  <", " <") + texts[0], *texts[1:]]
        align = "CENTER" if below else "LEFT"
        return _table([f'<TD ALIGN="{align}">{text}</TD>'] for text in texts)


# Layout -------------------------------------------------------------------------------------------


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


def _labels_in_frames(scene: Scene, depth: dict[str, int]) -> dict[int, Path]:
    """Arrows that pass by other boxes of their cluster, by position, and the cluster.

    Graphviz would let the label of such a one stick out.
    """
    paths = {box.key: box.path for box in scene.boxes}
    return {
        i: paths[arrow.source]
        for i, arrow in enumerate(scene.arrows)
        if arrow.label
        and paths[arrow.source]
        and paths[arrow.source] == paths[arrow.target]
        and depth[arrow.target] - depth[arrow.source] > 1
    }


# Text ---------------------------------------------------------------------------------------------


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
    return [part for line in in_unicode(text).split("\n") for part in wrap(line) or [""]]


def _table(rows: Iterable[list[str]]) -> str:
    inner = "".join(f"<TR>{''.join(cells)}</TR>" for cells in rows)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{inner}</TABLE>'


def _with(cell: str, attributes: str) -> str:
    return cell.replace("<TD", f"<TD {attributes}", 1)


def _turned(cells: Grid) -> Grid:
    return tuple((cell,) for cell in cells[0]) if len(cells) == 1 else cells
