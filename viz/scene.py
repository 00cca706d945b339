"""What a picture says, before any format: boxes, arrows between them, clusters around them.

`draw` and its siblings build a Scene; `dot` and `mermaid` write it down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from viz.notation import in_unicode

Kind = Literal["leaf", "constant", "operation", "fused", "group", "cut"]
Tone = Literal["plain", "numerator", "denominator", "gradient", "rewrite"]
Direction = Literal["TB", "LR"]
Grid = tuple[tuple[str, ...], ...]
"""Numbers as text, in rows; one row for a vector."""
Path = tuple[str, ...]
"""Keys of the clusters around a box, outermost first."""


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled array inside a box.

    Attributes:
        label, cells, tone: what is shown, and how.
        port: a name that an arrow may point to.
        heads: what each number of a row is called, if its place does not say it: "min", "max".
        hidden: its room is kept, and nothing is seen there.
    """

    label: str
    cells: Grid
    tone: Tone = "plain"
    port: str | None = None
    heads: tuple[str, ...] = ()
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """One node of the picture.

    Attributes:
        key: unique, of letters and digits.
        title: the first line, in bold: a formula or a name.
        kind: decides the shape of the border.
        subtitle: shape and dtype.
        rows: the arrays it shows.
        remarks: short sentences under the numbers.
        warnings: sentences that must stand out.
        alarming: the box gets a thick border.
        current: it is what the picture is about just now.
        output: whether the picture is about this node's value.
        path: the clusters around it.
        upright: its vectors are columns instead of rows.
        stacked: each array stands under its label instead of behind it.
    """

    key: str
    title: str
    kind: Kind
    subtitle: str = ""
    rows: tuple[Row, ...] = ()
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    alarming: bool = False
    current: bool = False
    output: bool = False
    path: Path = ()
    upright: bool = False
    stacked: bool = False


def subtitle(box: Box) -> str:
    """A box's second line: shape and dtype, and whether it is the output."""
    return " · ".join(filter(None, ["output" if box.output else "", box.subtitle]))


@dataclass(frozen=True, slots=True)
class Arrow:
    """One edge of the picture.

    Attributes:
        source, target: keys of boxes.
        argument: which of the target's arguments the source is.
        label: text beside it.
        cells: what backward sent back along it, behind `sign`.
        hidden: the room of those numbers is kept, and they are not seen.
        tone: "plain" for what is computed, "rewrite" from what was replaced to what replaces it,
            the others for what backward sends.
        back: it runs against the computation and has no say in the layout.
        port: of the target's rows, the one that it points to.
        source_port: of the source's rows, the one that it leaves from.
        loose: the layout need not keep its ends together, and it comes from the side.
    """

    source: str
    target: str
    argument: int = 0
    label: str = ""
    sign: str = "∂:"
    cells: Grid = ()
    hidden: bool = False
    tone: Tone = "plain"
    back: bool = False
    port: str | None = None
    source_port: str | None = None
    loose: bool = False

    @property
    def id(self) -> str:
        """What the arrow is called in an svg, e.g. "edge-n3-n5-0"; a box is "node-n3"."""
        way = "-back" if self.back else ""
        return f"edge-{self.source}-{self.target}-{self.argument}{way}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A labelled frame around boxes; `marked` gives it a thick border, `note` is small print."""

    key: str
    title: str
    marked: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """A whole picture.

    Attributes:
        boxes: in the order of the computation.
        arrows: by target and argument.
        clusters: by key.
        caption: lines under the picture that explain its signs.
        unsaid: lines that would follow them, and whose room is kept.
        stack: keys of boxes that stand at the start, side by side in this order.
        aligned: keys of boxes that are equally far from the start, whatever clusters they are in.
        direction: "TB" from top to bottom or "LR" from left to right.
        title: a line above the picture.
        step: a line above it that says what happens; every picture of a series has its room,
            which is as wide as `room` characters.
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    clusters: dict[str, Cluster]
    caption: tuple[str, ...]
    unsaid: tuple[str, ...] = ()
    stack: tuple[str, ...] = ()
    aligned: tuple[tuple[str, ...], ...] = ()
    direction: Direction = "TB"
    title: str = ""
    step: str = ""
    room: int = 0

    @property
    def name(self) -> str:
        """What it is a picture of, for who hears it."""
        outputs = ", ".join(box.title for box in self.boxes if box.output)
        return in_unicode(self.title or f"computation of {outputs}")

    def inside(self, path: Path) -> Iterator[tuple[Box, Cluster | None]]:
        """The boxes right inside a cluster; of each cluster inside it its first box, and itself."""
        entered = set()
        for box in self.boxes:
            if box.path == path:
                yield box, None
            elif box.path[: len(path)] == path and box.path[len(path)] not in entered:
                entered.add(box.path[len(path)])
                yield box, self.clusters[box.path[len(path)]]
