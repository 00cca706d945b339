"""A derivation written out: for a terminal, as Markdown, and as a LaTeX document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygrad_sm.study.derivation import Derivation, Line
from tinygrad_sm.study.equations import Latex, Plain
from tinygrad_sm.texts import texts

_PREAMBLE = r"""\documentclass[a4paper]{article}
\usepackage[margin=25mm]{geometry}
\usepackage{amsmath,amssymb}
%s\setlength{\parindent}{0pt}
\begin{document}
"""
_IN_LATEX = {"−": "$-$", "→": r"$\to$", "✓": r"$\checkmark$", "✗": r"$\times$", ">": "$>$"}


def as_text(derivation: Derivation) -> str:
    """Return it in plain characters, five short lines for each of its own."""

    def shown(number: int, line: Line) -> Iterator[str]:
        filled, listed = _with_classes(line, Plain, "  "), line.listed(Plain)
        words = texts(derivation.lang, "derive")
        yield f"({number}) {line.says}"
        yield f"      {line.equation(Plain())}"
        yield f"      {filled}" + (f"   {words['all']}: {listed}" if listed else "")
        yield f"      {_checks(derivation, line)}"
        yield ""

    return _written(derivation, shown, title="{}\n", section="{}\n")


def as_markdown(derivation: Derivation) -> str:
    """Return it as Markdown, with formulas between double dollar signs."""

    def shown(number: int, line: Line) -> Iterator[str]:
        yield f"**({number})** {line.says}\n"
        for formula in _formulas(line):
            yield f"$${formula}$$\n"
        yield f"*{_checks(derivation, line)}*\n"

    return _written(derivation, shown, title="# {}\n", section="## {}\n")


def as_latex(derivation: Derivation) -> str:
    """Return it as a document for pdfLaTeX; in Korean it needs the package kotex."""

    def shown(number: int, line: Line) -> Iterator[str]:
        yield line.says
        equation, *others = _formulas(line)
        yield rf"\begin{{gather}} \tag{{{number}}} {equation}"
        yield from (rf"\\ {other} \notag" for other in others)
        yield r"\end{gather}"
        yield rf"{{\small {_checks(derivation, line)}}}\par\medskip"

    body = _written(derivation, shown, title=r"\section*{{{}}}", section=r"\subsection*{{{}}}")
    for sign, command in _IN_LATEX.items():
        body = body.replace(sign, command)
    korean = "\\usepackage{kotex}\n" if derivation.lang == "ko" else ""
    return f"{_PREAMBLE % korean}{body}\\end{{document}}\n"


FORMATS: dict[str, Callable[[Derivation], str]] = {
    "text": as_text, "markdown": as_markdown, "latex": as_latex
}  # fmt: skip


def verdict(derivation: Derivation) -> str:
    """Return in a sentence whether all lines hold."""
    words, lines = texts(derivation.lang, "derive"), derivation.lines
    wrong = [number for number, line in enumerate(lines, 1) if not line.holds]
    if not wrong:
        return str(words["checked"].format(count=len(lines)))
    return str(words["failed"].format(wrong=len(wrong), count=len(lines), number=wrong[0]))


def _written(
    derivation: Derivation, shown: Callable[[int, Line], Iterator[str]], title: str, section: str
) -> str:
    words = texts(derivation.lang, "derive")
    a, y = (_row(x) for x in (derivation.logits, derivation.target))
    given = words["given"].format(a=a, y=y, symbols=derivation.symbols, digits=derivation.digits)
    parts = [title.format(words["title"]), f"{given}\n"]
    number = 0
    for name, lines in derivation.sections():
        parts.append(section.format(name))
        for line in lines:
            number += 1
            parts += shown(number, line)
    return "\n".join([*parts, verdict(derivation), ""])


def _row(x: np.ndarray) -> str:
    return f"({', '.join(map(Plain().number, x.tolist()))})"


def _formulas(line: Line) -> Iterator[str]:
    """In LaTeX: the equation, with numbers put in, and for all classes."""
    yield line.equation(Latex())
    yield _with_classes(line, Latex, r"\quad ")
    if listed := line.listed(Latex):
        yield f"{Latex().write(line.sides[0])}: {listed}"


def _with_classes(line: Line, writer: type[Plain], space: str) -> str:
    """The equation in numbers, with the classes that they are of."""
    filled, classes = line.in_numbers(writer), line.classes()
    return f"{classes}:{space}{filled}" if classes else filled


def _checks(derivation: Derivation, line: Line) -> str:
    """What a line is about, and how it was checked."""
    words: dict[str, Any] = texts(derivation.lang, "derive")
    by_number = words["number"]
    if line.by_number is None:
        total = float(derivation.target.sum())
        off = abs(total - 1) * float(max(line.numbers["p"]))
        by_number = words["other_sum"].format(sum=f"{total:.6g}", off=f"{off:.3g}")
    mark = {True: "✓ ", False: "✗ ", None: ""}
    return (
        f"{line.about}; {mark[line.by_formula]}{words['formula']}, "
        f"{mark[line.by_number]}{by_number}"
    )
