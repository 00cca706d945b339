"""What Graphviz drew, as a LaTeX document of one TikZ picture.

Boxes, lines and places are Graphviz's, text is set by LaTeX: a name between dollar signs is a
formula. The document needs TikZ alone, and compiles with pdfTeX, XeTeX and LuaTeX.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any

from viz.notation import in_latex, in_unicode, split
from viz.scene import Scene

_NUMBER = re.compile(r"[−∞]?[\d.]*(e[+−]?\d+)?|NaN|−?∞")
_NEAR = 3.0  # points from the middle of a box, of text that is centred in it
_BOLD = 1  # of Graphviz's bits for a font
_WIDTHS = {"bold": 2.0, "solid": 1.0}  # of lines, in points
_KNOWN = re.compile(r"[\x00-\x7f\u00b0-\u00b7\u00c0-\u017f\u2013-\u2026]")  # pdfTeX has these
_DOCUMENT = r"""\documentclass{article}
\usepackage{iftex,amsmath,tikz}
\usepackage[paperwidth=%(width)gbp,paperheight=%(height)gbp,margin=0pt]{geometry}
\pagestyle{empty}\setlength{\parindent}{0pt}\setlength{\topskip}{0pt}
%(colours)s
\ifPDFTeX
\usepackage[T1]{fontenc}
\newcommand{\unknown}[1]{{\fboxsep1pt\fbox{\tiny #1}}}
%(letters)s
\else
\usepackage{fontspec}
\fi
\newcommand{\written}[6]{\node[anchor=#1,inner sep=0pt,text=#2,
  font=\sffamily\fontsize{#3}{#3}\selectfont#4] at #5 {#6};}
\begin{document}
\begin{tikzpicture}[x=1bp,y=1bp,overlay,shift={(0,-%(height)g)}]
%(drawn)s
\end{tikzpicture}
\end{document}
"""


def tikz_document(drawn: bytes, scene: Scene) -> str:
    """Write what Graphviz drew of a Scene, as "json", as a document that stands alone."""
    graph = json.loads(drawn)
    formulas = _formulas(scene)
    writer = _TikzWriter(formulas)
    parts = [graph, *graph.get("objects", ()), *graph.get("edges", ())]
    lines = [line for part in parts for line in writer.lines(part)]
    width, height = map(float, graph["bb"].split(",")[2:])
    text = "\n".join(lines)
    letters = sorted({c for c in text if not _KNOWN.match(c)})
    return _DOCUMENT % {
        "width": width, "height": height, "drawn": text,
        "colours": "\n".join(f"\\definecolor{{c{x}}}{{HTML}}{{{x}}}" for x in writer.colours),
        # pdfTeX has no letters for what it does not know; the number of the letter stands for it
        "letters": "\n".join(
            rf"\DeclareUnicodeCharacter{{{ord(c):04X}}}{{\unknown{{{ord(c):X}}}}}" for c in letters
        ),
    }  # fmt: skip


def _formulas(scene: Scene) -> dict[str, str]:
    """The formulas of a Scene's texts as LaTeX, by how the picture writes them."""
    texts = [scene.title, scene.step, *scene.caption]
    texts += [text for box in scene.boxes for text in (box.title, *box.remarks, *box.warnings)]
    texts += [row.label for box in scene.boxes for row in box.rows]
    texts += [text for cluster in scene.clusters.values() for text in (cluster.title, cluster.note)]
    pieces = (piece for text in texts for piece, tree in split(text) if tree is not None)
    return {in_unicode(piece): in_latex(piece) for piece in pieces}


class _TikzWriter:
    """Graphviz's operations on their way to TikZ's."""

    def __init__(self, formulas: dict[str, str]) -> None:
        self.colours: dict[str, None] = {}
        self._formulas = formulas
        names = sorted(filter(None, formulas), key=len, reverse=True)
        self._named = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def lines(self, part: dict[str, Any]) -> Iterator[str]:
        """What one box, arrow or frame, or the whole picture, is drawn with."""
        for place in ("_draw_", "_ldraw_", "_hdraw_", "_tdraw_"):
            pen = fill = "000000"
            style, width, size, bold = "", 1.0, 10.0, False
            for op in part.get(place, ()):
                kind = op["op"]
                if kind == "c":
                    pen = op["color"]
                elif kind == "C":
                    fill = op["color"]
                elif kind == "S":
                    style, width = _line_style(op["style"], style, width)
                elif kind == "F":
                    size = op["size"]
                elif kind == "t":
                    bold = bool(op["fontchar"] & _BOLD)
                elif kind == "T" and not _is_hidden(pen):
                    middle = float(part["pos"].split(",")[0]) if "width" in part else inf
                    yield self._text(op, self._colour(pen), size, bold, middle)
                elif kind in "pPbBL" and width:
                    line = [f"draw={self._colour(pen)}", f"line width={width:g}bp", style]
                    if kind in "PB":
                        line.append(f"fill={self._colour(fill)}")
                    path = _curve(op["points"]) if kind in "bB" else _polygon(op["points"], kind)
                    yield f"\\path[{','.join(filter(None, line))}] {path};"

    def _colour(self, given: str) -> str:
        code = given.removeprefix("#")[:6].upper()
        self.colours[code] = None
        return f"c{code}"

    def _text(self, op: Any, colour: str, size: float, bold: bool, middle: float) -> str:
        text = op["text"].strip().replace("\\\\", "\\")  # which a newer Graphviz doubles
        x, y = op["pt"]
        if not text:
            return ""
        if _NUMBER.fullmatch(text):  # digits of one column end below each other
            anchor, x = "base east", x + op["width"]
        elif abs(x + op["width"] / 2 - middle) < _NEAR:
            anchor, x = "base", x + op["width"] / 2
        else:
            anchor = "base west"
        weight = "\\bfseries" if bold else ""
        return (
            f"\\written{{{anchor}}}{{{colour}}}{{{size:g}}}{{{weight}}}{{({x:g},{y:g})}}"
            f"{{{self._latex(text)}}}"
        )

    def _latex(self, text: str) -> str:
        between = map(in_latex, self._named.split(text))
        found = [self._formulas[name] for name in self._named.findall(text)]
        written = "".join(x for pair in zip(between, [*found, ""], strict=True) for x in pair)
        return written.replace("  ", "\\quad ")


def _is_hidden(colour: str) -> bool:
    return colour == "transparent" or (len(colour) == 9 and colour.endswith("00"))


def _line_style(given: str, style: str, width: float) -> tuple[str, float]:
    if given.startswith("setlinewidth("):
        return style, float(given[13:-1])
    return given if given in ("dashed", "dotted") else style, _WIDTHS.get(given, width)


def _polygon(points: Iterable[Any], kind: str) -> str:
    path = " -- ".join(f"({x:g},{y:g})" for x, y in points)
    return path if kind == "L" else f"{path} -- cycle"


def _curve(points: list[Any]) -> str:
    """A start, then three points for each piece: two that direct it, and its end."""
    first, *rest = [f"({x:g},{y:g})" for x, y in points]
    pieces = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    return first + "".join(f" .. controls {a} and {b} .. {end}" for a, b, end in pieces)
