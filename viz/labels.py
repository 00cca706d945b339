"""What stands in boxes, beside arrows and around both, in the HTML-like language of Graphviz."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable

from viz.notation import in_unicode
from viz.scene import Arrow, Box, Cluster, Grid, Row, Scene, subtitle
from viz.style import THEMES, Look

_WIDEST_LINE = 44  # characters, of a title
_WIDEST_UPRIGHT = 12  # of a title over columns
_WIDEST_NOTE = 22  # of what stands over a cluster
_WIDEST_CAPTION = {"TB": 66, "LR": 120}
_NOT_FINITE = frozenset({"NaN", "∞", "−∞"})
_HIDDEN = "transparent"


class Labels:
    """Writes the labels of one picture.

    What is hidden is written in no colour, so that all pictures of a series are laid out alike.
    """

    def __init__(self, scene: Scene, look: Look) -> None:
        self.scene = scene
        self.colours = THEMES[look.theme] | {_HIDDEN: _HIDDEN}
        self.size, self.small = look.size, look.size - 1
        self.sideways = scene.direction == "LR"
        self._widest = _WIDEST_CAPTION[scene.direction]

    def headline(self) -> list[list[str]]:
        """The title, and below it a cell for what happens, as wide in every picture of a series."""
        title = filter(None, _wrapped(self.scene.title, self._widest))
        big = self.size + 3
        lines = [[_cell(self._font(line, big, bold=True), align="LEFT")] for line in title]
        if self.scene.room:
            step = self._font(self.scene.step, self.size, "gradient", bold=True)
            width = round(self.scene.room * self.size * 0.7)
            room = {"fixedsize": "TRUE", "width": width, "height": 2 * self.size}
            lines.append([_cell(step, align="LEFT", **room)])
        return lines

    def below(self) -> str:
        """The lines that explain the picture."""
        said = [line for text in self.scene.caption for line in _wrapped(text, self._widest)]
        unsaid = [line for text in self.scene.unsaid for line in _wrapped(text, self._widest)]
        written = self._lines(said, "LEFT", self.small, "faint")
        return marked(written + self._lines(unsaid, "LEFT", self.small, _HIDDEN))

    def heading(self, cluster: Cluster) -> str:
        """The title of a cluster, on its frame."""
        title = _wrapped(cluster.title, _WIDEST_CAPTION["TB"])
        return marked(self._lines(title, "LEFT", self.size, bold=cluster.marked))

    def note(self, cluster: Cluster) -> str:
        """The title and the note of a cluster, for a place inside of it."""
        title, note = (_wrapped(text, _WIDEST_NOTE) for text in (cluster.title, cluster.note))
        lines = [self._font(line, self.size, bold=True) for line in title]
        lines += [self._font(line, self.small, "faint") for line in note]
        return table([_cell(line, align="LEFT")] for line in lines)

    def arrow(self, arrow: Arrow, *, apart: bool = False) -> str:
        """An arrow's words, then what backward sent, row by row; `apart` below the words."""
        cells = _turned(arrow.cells) if self.sideways and arrow.cells else arrow.cells
        lines = ["  ".join(row) for row in cells]
        if len(lines) == 1 or (lines and len(cells[0]) == 1):
            lines[0] = f"{arrow.sign} {lines[0]}"
        elif lines:
            lines.insert(0, arrow.sign)
        sent = _HIDDEN if arrow.hidden else arrow.tone
        texts = [self._font(f"  {line}  ", self.small, sent) for line in lines]
        if arrow.label:  # a text of its own, since it is seen even if the numbers are not
            role = self._font(f"  {arrow.label} ", self.small, arrow.tone)
            texts = [role, *texts] if apart or not texts else [role + texts[0], *texts[1:]]
        align = "CENTER" if apart else "LEFT"
        return table([_cell(text, align=align)] for text in texts)

    def box(self, box: Box) -> str:
        """A box's content: title, shape and dtype, the arrays, what to note."""
        numbers = self._columns(box.rows) if box.upright else self._rows(box.rows, box.stacked)
        width = max(map(len, numbers), default=1)
        title = _wrapped(box.title, _WIDEST_UPRIGHT if box.upright else _WIDEST_LINE)
        above = [self._lines(title, "CENTER", self.size, bold=True)]
        above += [self._font(subtitle(box), self.small, "faint")] if subtitle(box) else []
        remarks = [line for text in box.remarks for line in _wrapped(text, _WIDEST_LINE)]
        below = [self._font(line, self.small, "faint") for line in remarks]
        for warning in box.warnings:
            lines = _wrapped(f"⚠ {warning}", _WIDEST_LINE)
            below.append(self._lines(lines, "CENTER", self.size, "alarm", bold=True))
        for cells in numbers:  # what a shorter one lacks becomes one empty cell
            cells += [_cell(colspan=width - len(cells))] if len(cells) < width else []
        whole = [[[_cell(content, colspan=width)] for content in part] for part in (above, below)]
        return table([*whole[0], *numbers, *whole[1]])

    # Arrays ---------------------------------------------------------------------------------------

    def _rows(self, rows: tuple[Row, ...], stacked: bool) -> list[list[str]]:
        """Each array from left to right, behind its label or under it; its heads over it.

        A lone sentence among arrays whose numbers are called something takes their whole place.
        """
        headed = next((row for row in rows if row.heads), None)
        heads = len(headed.heads) if headed else 0
        width = max((len(row.cells[0]) for row in rows), default=0)
        lines: list[list[str]] = []
        for row in rows:
            beside = bool(row.label) and not stacked
            if row is headed:
                lines.append([*[_cell()] * beside, *self._heads(row)])
            if stacked:
                label = " ".join(row.label.split())
                lines.append([self._name(row, label, align="LEFT", colspan=width)])
            first = [self._name(row, row.label, align="LEFT", rowspan=len(row.cells))] * beside
            for cells in row.cells:
                lone = heads if len(cells) == 1 < heads else 0
                *others, last = cells
                port = row.port if cells is row.cells[-1] else ""  # arrows come from the right
                numbers = [self._number(row, text) for text in others]
                lines.append([*first, *numbers, self._number(row, last, colspan=lone, port=port)])
                first = []
        return lines

    def _columns(self, rows: tuple[Row, ...]) -> list[list[str]]:
        """Each array from top to bottom, under its label; a vector is a column."""
        if not rows:
            return []
        heads = self._heads(next((row for row in rows if row.heads), None))
        grids = [_turned(row.cells) for row in rows]
        names = [
            self._name(row, row.label, align="RIGHT", colspan=len(cells[0]), valign="BOTTOM")
            for row, cells in zip(rows, grids, strict=True)
        ]
        lines = [[_cell(), *names] if heads else names]
        for i in range(max(map(len, grids))):
            line = (heads[i : i + 1] or [_cell()]) if heads else []
            for row, grid in zip(rows, grids, strict=True):
                texts = grid[i] if i < len(grid) else ("",) * len(grid[0])
                line += [self._number(row, text) for text in texts]
            lines.append(line)
        return lines

    def _heads(self, row: Row | None) -> list[str]:
        """Cells with what the numbers of a row are called."""
        names = row.heads if row else ()
        colour = _HIDDEN if row and row.hidden else "faint"
        texts = [self._font(name, self.small, colour) for name in names]
        return [_cell(text, align="RIGHT", cellpadding=3) for text in texts]

    def _name(self, row: Row, label: str, align: str, **place: object) -> str:
        """A cell with the label of an array."""
        colour = _HIDDEN if row.hidden else row.tone
        padding = 3 if align == "RIGHT" else None
        content = self._lines(label.split("\n"), align, self.small, colour)
        return _cell(content, align=align, cellpadding=padding, **place)

    def _number(self, row: Row, text: str, **place: object) -> str:
        """A cell with one of the numbers of an array."""
        stands_out = text in _NOT_FINITE
        colour = "alarm" if stands_out else row.tone
        content = self._font(text, self.size, _HIDDEN if row.hidden else colour, bold=stands_out)
        fill = self.colours[_HIDDEN if row.hidden else "alarm fill"] if stands_out else None
        return _cell(content, align="RIGHT", cellpadding=3, bgcolor=fill, **place)

    # Text -----------------------------------------------------------------------------------------

    def _font(self, text: str, size: int, colour: str = "ink", bold: bool = False) -> str:
        inner = f"<B>{escaped(text)}</B>" if bold else escaped(text)
        return f'<FONT POINT-SIZE="{size}" COLOR="{self.colours[colour]}">{inner}</FONT>'

    def _lines(
        self, lines: Iterable[str], align: str, size: int, colour: str = "ink", bold: bool = False
    ) -> str:
        end = f'<BR ALIGN="{align}"/>'
        return "".join(f"{self._font(line, size, colour, bold)}{end}" for line in lines)


def table(rows: Iterable[list[str]]) -> str:
    """A label of cells in rows."""
    inner = "".join(f"<TR>{''.join(cells)}</TR>" for cells in rows)
    return marked(
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{inner}</TABLE>'
    )


def marked(content: str) -> str:
    """Mark text as one of Graphviz's HTML-like labels."""
    return f"<{content}>"


def escaped(text: str) -> str:
    """Escape text for an HTML-like label, in which Graphviz also looks for ``\\N`` and the like."""
    return html.escape(text).replace("\\", "\\\\") or " "


def _cell(content: str = "", **attributes: object) -> str:
    given = "".join(f' {name.upper()}="{x}"' for name, x in attributes.items() if x)
    return f"<TD{given}>{content}</TD>"


def _wrapped(text: str, width: int) -> list[str]:
    """Break text into lines, at its own new lines and where they are too wide."""
    wrap = textwrap.TextWrapper(
        width, break_long_words=width >= _WIDEST_LINE, break_on_hyphens=False
    ).wrap
    return [part for line in in_unicode(text).split("\n") for part in wrap(line) or [""]]


def _turned(cells: Grid) -> Grid:
    return tuple((cell,) for cell in cells[0]) if len(cells) == 1 else cells
