"""Reads back what a picture says."""

import xml.etree.ElementTree as ElementTree

from pygraphviz import AGraph

from viz import Drawing


def svg_text(drawing: Drawing) -> str:
    """All text of the svg, one line per text element."""
    root = ElementTree.fromstring(drawing.render("svg"))
    lines = [
        "".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text")
    ]
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def edges(drawing: Drawing) -> list[tuple[str, str]]:
    return sorted(tuple(edge[:2]) for edge in AGraph(string=drawing.source).edges(keys=True))


def attributes(drawing: Drawing, key: str) -> dict[str, str]:
    graph = AGraph(string=drawing.source)
    found = graph.get_node(key).attr
    return {name: found[name] for name in ("shape", "style", "peripheries", "penwidth")}
