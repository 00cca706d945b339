"""A worksheet as one HTML file, to be printed: no script, and nothing from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from html import escape

import numpy as np

from viz.values import number
from viz.worksheets.sheet import Question, Worksheet

_STYLE = """
:root { color-scheme: light; }
body { font: 11pt/1.45 "DejaVu Sans", Verdana, "Noto Sans CJK KR", "Malgun Gothic", sans-serif;
  color: #1a1a1a; background: #fff; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
header { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .5rem 2rem;
  border-bottom: 2px solid; padding-bottom: .5rem; align-items: baseline; }
h1 { font-size: 1.5rem; margin: 0; }
h1 small { display: block; font-size: 1rem; font-weight: normal; }
.field { display: inline-block; width: 9rem; border-bottom: 1px solid; margin-left: .3rem; }
section { margin-top: 1.5rem; }
h2 { font-size: 1.15rem; margin: 0 0 .3rem; }
p { margin: .3rem 0 .6rem; }
.work { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.work img { max-width: 100%; height: auto; }
.work > div { flex: 1 1 18rem; min-width: 0; }
.rules { font-size: .9rem; border-left: 3px solid #999; padding-left: .7rem; margin: 0 0 1rem;
  list-style: none; }
.rules li { white-space: pre-wrap; }
dl { margin: 0; }
dl div { display: flex; flex-wrap: wrap; align-items: center; gap: 0 .4rem; margin-top: .3rem; }
dd { margin: 0; }
.typical { margin: .8rem 0 0; }
td { padding: .25rem .5rem; text-align: right; font-variant-numeric: tabular-nums; }
table { border-spacing: .2rem; }
td.blank { width: 4.2rem; height: 1.5rem; border: 1px solid #666; }
td.wrong { color: #8a3600; font-style: italic; border-bottom: 1px dashed #999; }
td.answer { color: #00664b; font-weight: bold; border-bottom: 1px solid #999; }
footer { margin-top: 2rem; font-size: .8rem; color: #555; }
@page { size: A4; margin: 15mm; }
@media print {
  body { font-size: 10pt; margin: 0; max-width: none; padding: 0; }
  section { break-inside: avoid; }
  .work { flex-wrap: nowrap; }
  .work img { max-width: 57%; max-height: 215mm; }
}
"""


def html_page(sheet: Worksheet, answered: bool) -> bytes:
    """Return the sheet, or its answer key, as UTF-8."""
    words = {key: _text(text) for key, text in sheet.words.items() if isinstance(text, str)}
    title = escape(sheet.say("key" if answered else "title"))
    fields = "".join(
        f'<span>{words[what]}<span class="field">&nbsp;</span></span>' for what in ("name", "date")
    )
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
<style>{_STYLE}</style>
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
    picture = b64encode(drawing.render("svg")).decode()
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
<div class="work"><img src="data:image/svg+xml;base64,{picture}" alt="{alt}">
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
