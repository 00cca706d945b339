"""The map of the house, `imports.svg`, read from the code itself: `python docs/imports_map.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import graphviz

from viz.rendering import render
from viz.style import BOXES, FONT, LIGHT, SIZE

ROOT = Path(__file__).parent.parent
PACKAGES = ("tinygrad_sm", "viz")
OPENED = ("tinygrad_sm.engine", "tinygrad_sm.arrays")
"""The rooms whose files are shown one by one; of the others, the folder."""
CORE = ("primitive", "rules", "node", "sweep")
"""The files of the engine to read first."""


def imported(path: Path) -> set[str]:
    """Return the names that a file imports when it runs, at their finest."""

    def found(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from found(child)

    return set(found(ast.parse(path.read_text(encoding="utf-8"))))


def modules() -> dict[str, Path]:
    """Return every module of the project, and its file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def room_of(module: str) -> str:
    """Return the room that a module belongs to."""
    parts = module.split(".")
    if parts[0] == "viz":
        return "viz"
    return ".".join(parts[: 3 if module.startswith(OPENED) else 2])


def arrows() -> set[tuple[str, str]]:
    """Return (importing room, imported room) pairs, without what follows from two others."""
    files = modules()
    direct: set[tuple[str, str]] = set()
    for module, path in files.items():
        if module in PACKAGES:  # the front page imports everything
            continue
        for name in imported(path):
            while name and name not in files:  # a name in a module
                name = name.rpartition(".")[0]
            if name and name not in PACKAGES and room_of(name) != room_of(module):
                direct.add((room_of(module), room_of(name)))
    return {
        (a, c) for a, c in direct
        if not any(a == x and b != c and reaches(b, c, direct) for x, b in direct)
    }  # fmt: skip


def reaches(start: str, end: str, pairs: set[tuple[str, str]]) -> bool:
    """Return whether there is a way along the arrows."""
    seen, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        new = {b for a, b in pairs if a == here} - seen
        seen |= new
        waiting.extend(new)
    return end in seen


def imports_map(format: str = "svg") -> bytes:
    """Return the map: what a room imports from is below it."""
    style = {"fontname": FONT, "fontsize": str(SIZE)}
    look = {kind: box | {"fillcolor": LIGHT[kind]} for kind, box in BOXES.items()}
    drawing = graphviz.Digraph(
        "imports",
        graph_attr={"ranksep": "0.3", "nodesep": "0.2", "bgcolor": "white", "pad": "0.1"},
        node_attr=look["operation"] | style | {"height": "0.3"},
        edge_attr={"color": LIGHT["faint"], "arrowsize": "0.7"},
    )
    pairs = sorted(arrows())
    framed = {"color": LIGHT["faint"], "style": "rounded", "labeljust": "l"} | style
    inside = {
        opened: graphviz.Digraph(f"cluster_{name}", graph_attr=framed | {"label": name})
        for opened in OPENED
        for name in [opened.rpartition(".")[2]]
    }
    for room in sorted({room for pair in pairs for room in pair}):
        folder, _, file = room.rpartition(".")
        core = folder == OPENED[0] and file in CORE
        marked = look["fused"] | {"shape": "box"} if core else {}
        inside.get(folder, drawing).node(room, label=file, **marked)
    for cluster in inside.values():
        drawing.subgraph(cluster)
    drawing.edges(pairs)
    return render(drawing.source, format)


if __name__ == "__main__":
    (ROOT / "docs" / "imports.svg").write_bytes(imports_map())
