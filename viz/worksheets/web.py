"""A worksheet as one HTML file, to be printed: no script, and nothing from elsewhere."""

from __future__ import annotations

from html import escape
from importlib import resources

import numpy as np

from viz.picture import svg_uri
from viz.values import number
from viz.worksheets.sheet import Question, Worksheet


def html_page(sheet: Worksheet, answered: bool) -> bytes:
    """Return the sheet, or its answer key, as UTF-8."""
    words = {key: _text(text) for key, text in sheet.words.items() if isinstance(text, str)}
    title = escape(sheet.say("key" if answered else "title"))
    fields = "".join(
        f'<span>{words[what]}<span class="field">&nbsp;</span></span>' for what in ("name", "date")
    )
    style = resources.files("viz.worksheets").joinpath("sheet.css").read_text(encoding="utf-8")
    intro = "" if answered else f"<p>{words['intro']}</p>"
    sections = "\n".join(_section(sheet, question, answered) for question in sheet.questions)
    return f"""<!DOCTYPE html>
<html lang="{sheet.lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{title}<small>{words["subtitle"]}</small></h1>{"" if answered else fields}</header>
<main>
{intro}
{sections}
</main>
<footer>{_text(sheet.say("footer"))}</footer>
</body>
</html>
""".encode()


def _section(sheet: Worksheet, question: Question, answered: bool) -> str:
    drawing = question.picture(answered)
    picture = svg_uri(drawing.render("svg"))
    alt = escape(sheet.say("described", formulas=", ".join(drawing.text.splitlines())))
    kind = "answer" if answered else "blank"
    blanks = "".join(
        f"<div><dt><b>{letter}</b> {_text(label)} =</dt>"
        f"<dd>{_numbers(blank.value, kind)}</dd></div>"
        for letter, label, blank in question.lettered
    )
    if answered:
        above = ""
        below = "".join(
            f'<p class="typical">{_text(said)}:</p>{_numbers(wrong, "wrong")}'
            for said, wrong in question.typical
        )
    else:
        rules = "".join(f"<li>{_text(rule)}</li>" for rule in question.rules)
        above, below = f'<ul class="rules">{rules}</ul>', ""
    return f"""<section>
<h2>{question.number}. {_text(question.title)}</h2>
<p>{_text(question.task)}</p>
<div class="work"><img src="{picture}" alt="{alt}">
<div>{above}<dl>{blanks}</dl>{below}</div></div>
</section>"""


def _text(text: str) -> str:
    """Text as HTML, in which no line breaks behind the stroke of ∂L/∂x."""
    return escape(text).replace("/", "/\N{WORD JOINER}")


def _numbers(value: np.ndarray, kind: str) -> str:
    """An array as a table: an "answer", a "wrong" one, or a "blank" with boxes to write in."""
    lines = ""
    for row in np.atleast_2d(value):
        texts = ("&nbsp;" if kind == "blank" else number(x) for x in row)
        cells = "".join(f'<td class="{kind}">{text}</td>' for text in texts)
        lines += f"<tr>{cells}</tr>"
    return f"<table>{lines}</table>"
