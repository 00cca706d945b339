"""A worksheet as LaTeX, with its pictures as PDF files beside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from viz.values import number
from viz.worksheets.sheet import Question, Worksheet

_SYMBOLS = {
    "∂": r"\partial", "Σ": r"\Sigma", "−": "-", "·": r"\cdot", "²": "^2", "→": r"\to",
}  # fmt: skip
_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"-": "-{}"}  # two hyphens stay two
_LINE = r"\underline{\hspace{14mm}}"


def latex_source(sheet: Worksheet, stem: str, answered: bool) -> bytes:
    """Return the sheet, or its answer key, as UTF-8, for any LaTeX.

    The picture of question 1 is the file ``{stem}-1.pdf``.
    """
    return "\n".join(_document(sheet, stem, answered)).encode()


def _document(sheet: Worksheet, stem: str, answered: bool) -> Iterator[str]:
    yield r"\documentclass[11pt,a4paper]{article}"
    yield r"\usepackage[margin=18mm]{geometry}"
    yield r"\usepackage{graphicx,newunicodechar}"
    if sheet.lang == "ko":
        yield r"\usepackage{kotex}"
    for character, symbol in _SYMBOLS.items():
        yield rf"\newunicodechar{{{character}}}{{\ensuremath{{{symbol}}}}}"
    yield r"\setlength{\parindent}{0pt}"
    yield r"\begin{document}"
    yield rf"{{\Large\bfseries {_text(sheet.say('key' if answered else 'title'))}}}"
    yield rf"\quad {_text(sheet.words['subtitle'])}"
    if not answered:
        for what in ("name", "date"):
            yield rf"\hfill {_text(sheet.words[what])} \underline{{\hspace{{25mm}}}}"
        yield rf"\par\medskip {_text(sheet.words['intro'])}"
    for question in sheet.questions:
        yield from _question(question, f"{stem}-{question.number}.pdf", answered)
    yield rf"\vfill{{\footnotesize {_text(sheet.say('footer'))}\par}}"
    yield "\\end{document}\n"


def _question(question: Question, picture: str, answered: bool) -> Iterator[str]:
    """The picture, and beside it what is asked."""
    yield r"\par\bigskip\begin{minipage}{\textwidth}"
    yield rf"\textbf{{{question.number}. {_text(question.title)}}}\par {_text(question.task)}"
    yield r"\par\medskip\begin{minipage}[t]{0.56\textwidth}\vspace{0pt}\centering"
    yield rf"\includegraphics[scale=0.65]{{{picture}}}"
    yield r"\end{minipage}\hfill\begin{minipage}[t]{0.42\textwidth}\vspace{0pt}\raggedright"
    if not answered:
        for rule in question.rules:
            yield rf"{{\small {_text(rule)}\par}}"
    for letter, label, blank in question.lettered:
        yield rf"\medskip\textbf{{{letter}}} {_text(label)} ="
        yield _numbers(blank.value, answered)
    if answered:
        for said, wrong in question.typical:
            yield rf"\medskip {_text(said)}:"
            yield _numbers(wrong, answered)
    yield r"\end{minipage}\end{minipage}"


def _numbers(value: np.ndarray, answered: bool) -> str:
    """An array in rows, or as many lines to write on; a lone row goes on behind what is asked."""
    rows = np.atleast_2d(value)
    shown = [r" \ ".join(f"${number(x)}$" if answered else _LINE for x in row) for row in rows]
    lines = [rf"\mbox{{{row}}}" for row in shown]
    if len(lines) == 1:
        return rf"{lines[0]}\par"
    return "".join(rf"\par\smallskip\quad {line}" for line in lines) + r"\par"


def _text(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)
