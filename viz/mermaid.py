"""A Scene as a Mermaid flowchart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from viz.notation import in_unicode
from viz.scene import Arrow, Box, Grid, Kind, Row, Scene, Tone, subtitle
from viz.style import THEMES, Colours, Look

_BOXES: dict[Kind, tuple[str, str, str]] = {  # brackets around the text, and the border
    "leaf": ("(", ")", "stroke-width:2px"),
    "constant": ("[/", "/]", "stroke-dasharray:4 3"),
    "operation": ("[", "]", ""),
    "fused": ("[[", "]]", "stroke-width:2px"),
    "group": ("[[", "]]", "stroke-width:3px"),
    "cut": ("[", "]", "stroke-dasharray:1 3"),
}
_LINES: dict[Tone, str] = {
    "plain": "-->",
    "numerator": "==>",
    "denominator": "-.->",
    "gradient": "==>",
    "rewrite": "-.->",
}

# What may open a list, emphasis or a shape; a dot is harmless only inside a number.
_SPECIAL = re.compile(r"(?<!\d)\.|\.(?!\d)|[^\w .,=·−∂Σ√∞ᵀ…:()/^⏎⚠]|_")


def mermaid_text(scene: Scene, look: Look) -> str:
    """Write a Scene as the text of a Mermaid flowchart; what is hidden is left out."""
    title = " — ".join(filter(None, [scene.title, scene.step]))
    lines = [f"flowchart {scene.direction}"]
    lines += [f"%% {_comment(line)}" for line in scene.caption]
    lines += [f'  title["{escaped(title)}"]:::title'] if title else []
    lines += _level(scene, (), "  ")
    lines += [f"  {_arrow(arrow)}" for arrow in scene.arrows]
    lines += [f"  {line}" for line in (*_classes(THEMES[look.theme]), *_marks(scene.boxes))]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Write every character that might mean something to Mermaid by its code; lines stay."""
    # Mermaid breaks the line at \n, even coded
    apart = in_unicode(text).replace("\\n", "\\\N{WORD JOINER}n")
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
    lines += [
        f"{' '.join(row.label.split())}: {_figures(row)}" for row in box.rows if not row.hidden
    ]
    lines += [*box.remarks, *(f"⚠ {warning}" for warning in box.warnings)]
    start, end, _ = _BOXES[box.kind]
    return f'{box.key}{start}"{_label(lines)}"{end}:::{box.kind}'


def _label(lines: Iterable[str]) -> str:
    return "<br/>".join(escaped(line) for line in lines if line)


def _classes(colours: Colours) -> Iterator[str]:
    ink = colours["ink"]
    for name, (_, _, border) in _BOXES.items():
        style = ",".join(filter(None, [f"fill:{colours[name]},stroke:{ink}", border]))
        yield f"classDef {name} {style},color:{ink}"
    yield f"classDef title fill:none,stroke:none,color:{ink}"
    yield "classDef output stroke-width:4px"
    yield f"classDef current stroke:{colours['gradient']},stroke-width:4px"
    yield f"classDef warning stroke:{colours['alarm']},stroke-width:5px"


def _marks(boxes: Iterable[Box]) -> Iterator[str]:
    """A second class is given apart, since a box names only one."""
    for box in boxes:
        marks = {"output": box.output, "current": box.current, "warning": box.alarming}
        yield from (f"class {box.key} {mark}" for mark, has_it in marks.items() if has_it)


def _figures(row: Row) -> str:
    """A row's numbers, each behind what it is called."""
    named = [" ".join(pair) for pair in zip(row.heads, row.cells[0], strict=False)]
    return " ".join(named) if named else _numbers(row.cells)


def _numbers(cells: Grid) -> str:
    return "; ".join(" ".join(row) for row in cells)


def _arrow(arrow: Arrow) -> str:
    sent = f"{arrow.sign} {_numbers(arrow.cells)}" if arrow.cells and not arrow.hidden else ""
    text = " ".join(filter(None, [arrow.label, sent]))
    label = f'|"{escaped(text)}"|' if text else ""
    return f"{arrow.source} {_LINES[arrow.tone]}{label} {arrow.target}"
