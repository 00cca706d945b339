"""A Scene as a Mermaid flowchart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from viz.scene import Arrow, Box, Grid, Kind, Row, Scene, Tone, subtitle

_SHAPES: dict[Kind, tuple[str, str]] = {
    "leaf": ("(", ")"),
    "constant": ("[/", "/]"),
    "operation": ("[", "]"),
    "fused": ("[[", "]]"),
    "cut": ("[", "]"),
}
_LINES: dict[Tone, str] = {
    "plain": "-->",
    "numerator": "==>",
    "denominator": "-.->",
    "gradient": "==>",
    "rewrite": "-.->",
}
_CLASSES = (
    "classDef leaf fill:#DDF0FB,stroke:#1A1A1A,stroke-width:2px,color:#1A1A1A",
    "classDef constant fill:#FFFFFF,stroke:#1A1A1A,stroke-dasharray:4 3,color:#1A1A1A",
    "classDef operation fill:#FAFAFA,stroke:#1A1A1A,color:#1A1A1A",
    "classDef fused fill:#FFF0CC,stroke:#1A1A1A,stroke-width:2px,color:#1A1A1A",
    "classDef cut fill:#FFFFFF,stroke:#555555,stroke-dasharray:1 3,color:#1A1A1A",
    "classDef output stroke-width:4px",
    "classDef warning stroke:#B34700,stroke-width:5px",
)


# What may open a list, emphasis or a shape; a dot is harmless only inside a number.
_SPECIAL = re.compile(r"(?<!\d)\.|\.(?!\d)|[^\w .,=·−∂Σ√∞ᵀ…:()/^⏎⚠]|_")


def mermaid_text(scene: Scene) -> str:
    """Write a Scene as the text of a Mermaid flowchart."""
    lines = [f"flowchart {scene.direction}"]
    lines += [f"%% {_comment(line)}" for line in scene.caption]
    lines += _level(scene, (), "  ")
    lines += [f"  {_arrow(arrow)}" for arrow in scene.arrows]
    lines += [f"  {line}" for line in (*_CLASSES, *_marks(scene.boxes))]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Write every character that might mean something to Mermaid by its code; lines stay."""
    apart = text.replace("\\n", "\\\N{WORD JOINER}n")  # Mermaid breaks the line at \n, even coded
    lines = apart.split("\n")
    return "<br/>".join(_SPECIAL.sub(lambda c: f"#{ord(c.group())};", line) for line in lines)


def _comment(line: str) -> str:
    return " ".join(line.replace("{", "(").replace("}", ")").split())


def _level(scene: Scene, path: tuple[str, ...], indent: str) -> Iterator[str]:
    """The boxes right inside one cluster, and the subgraphs inside it, in order."""
    for box, cluster in scene.inside(path):
        if cluster is None:
            yield f"{indent}{_box(box)}"
        else:
            yield f'{indent}subgraph {cluster.key}["{_label([cluster.title, cluster.note])}"]'
            yield from _level(scene, (*path, cluster.key), indent + "  ")
            yield f"{indent}end"


def _box(box: Box) -> str:
    lines = [box.title, subtitle(box)]
    lines += [f"{' '.join(row.label.split())}: {_figures(row)}" for row in box.rows]
    lines += [*box.remarks, *(f"⚠ {warning}" for warning in box.warnings)]
    start, end = _SHAPES[box.kind]
    return f'{box.key}{start}"{_label(lines)}"{end}:::{box.kind}'


def _label(lines: Iterable[str]) -> str:
    return "<br/>".join(escaped(line) for line in lines if line)


def _marks(boxes: Iterable[Box]) -> Iterator[str]:
    """A second class is given apart, since a box names only one."""
    for box in boxes:
        if box.output:
            yield f"class {box.key} output"
        if box.alarming:
            yield f"class {box.key} warning"


def _figures(row: Row) -> str:
    """A row's numbers, each behind what it is called."""
    named = [" ".join(pair) for pair in zip(row.heads, row.cells[0], strict=False)]
    return " ".join(named) if named else _numbers(row.cells)


def _numbers(cells: Grid) -> str:
    return "; ".join(" ".join(row) for row in cells)


def _arrow(arrow: Arrow) -> str:
    text = " ".join(filter(None, [arrow.label, _numbers(arrow.cells)]))
    label = f'|"{escaped(text)}"|' if text else ""
    return f"{arrow.source} {_LINES[arrow.tone]}{label} {arrow.target}"
