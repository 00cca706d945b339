"""A worksheet as a Jupyter notebook, whose checks are plain asserts.

The answer key is the same but for the answers, which stand between nbgrader's marks: it is the
source notebook from which nbgrader makes the sheet.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygrad_sm.study.worksheets import HEAD, Blank
from viz.worksheets.sheet import Question, Worksheet

Cell = dict[str, Any]

_CLOSE = "rtol=5e-3, atol=5e-4"
"""Three decimals, or three digits of what is large."""

_DPI = 120
"""Of the pictures: JupyterLab shows no svg that is attached to a cell."""


def notebook_json(sheet: Worksheet, answered: bool) -> bytes:
    """Return the sheet, or its answer key, as a notebook of format 4.5."""
    title, words = sheet.say("title"), sheet.words
    head = f"# {title}\n\n{words['intro']}\n\n{words['fill']} {words['setup']}"
    cells = [_markdown("head", head)]
    for question in sheet.questions:
        cells += _cells(sheet, question, answered)
    written = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(written, ensure_ascii=False, indent=1).encode() + b"\n"


def _cells(sheet: Worksheet, question: Question, answered: bool) -> Iterator[Cell]:
    """The problem, the cell to fill in, and its check."""
    kind = question.problem.kind
    picture = b64encode(question.asked.render("png", _DPI)).decode()
    rules = "\n".join(f"- {rule}" for rule in question.rules)
    yield _markdown(
        f"{kind}-problem",
        f"## {question.number}. {question.title}\n\n{question.task}\n\n"
        f"![{question.title}](attachment:{kind}.png)\n\n{sheet.words['rules']}:\n\n{rules}",
        attachments={f"{kind}.png": {"image/png": picture}},
    )
    yield _code(f"{kind}-answer", "\n".join(_answer(question, answered)))
    yield _code(f"{kind}-check", "\n".join(_check(sheet, question)), points=1)


def _answer(question: Question, answered: bool) -> Iterator[str]:
    """A line for each blank; in the key, the answers follow between nbgrader's marks."""
    for letter, label, blank in question.lettered:
        yield f"{_variable(question, blank)} = ...  # {letter}: {label}"
    if answered:
        yield "### BEGIN SOLUTION"
        for blank in question.problem.blanks:
            yield f"{_variable(question, blank)} = {(np.round(blank.value, 3) + 0.0).tolist()}"
        yield "### END SOLUTION"


def _variable(question: Question, blank: Blank) -> str:
    """A name that no other question has, since otter checks all of them at the end."""
    return f"q{question.number}_{blank.variable}"


def _check(sheet: Worksheet, question: Question) -> Iterator[str]:
    """The program itself, and asserts that hold the answers against what the engine finds."""
    yield f"# {sheet.words['check']}"
    yield f"{HEAD}\n\n{question.problem.program}\ntrace = L.backward(trace=True)"
    for name in dict.fromkeys(blank.name for blank in question.problem.blanks if blank.via):
        yield f"over_{name} = {{c.consumer.name: c.value for c in trace.contributions({name})}}"
    for letter, label, blank in question.lettered:
        found = (
            f'over_{blank.name}["{blank.via}"]' if blank.via else f"trace.cotangent({blank.name})"
        )
        answer, what = _variable(question, blank), {"letter": letter, "label": label}
        right = f"np.allclose({answer}, {found}, {_CLOSE})"
        yield f'assert {answer} is not ..., "{sheet.say("blank", **what)}"'
        yield f'assert {right}, "{sheet.say("wrong", **what)}"'


def _markdown(name: str, text: str, **more: Any) -> Cell:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text, **more}


def _code(name: str, text: str, *, points: int = 0) -> Cell:
    """A code cell that nbgrader knows: with points it is a test, without it is to be filled in."""
    graded = {"grade_id": name, "schema_version": 3, "task": False, "locked": bool(points)}
    graded |= {"grade": bool(points), "solution": not points}
    graded |= {"points": points} if points else {}
    return {
        "cell_type": "code",
        "id": name,
        "metadata": {"nbgrader": graded},
        "source": text,
        "execution_count": None,
        "outputs": [],
    }
