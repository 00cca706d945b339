"""Printing JSON piece by piece, so that large arrays are never a text as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

import click
import numpy as np

from tinygrad_sm.study.comparison import jsonable

_NUMBERS = 10_000  # of an array in a piece


def print_json(value: Any, file: TextIO | None = None) -> None:
    """Print a value as one line of JSON; numbers that are not finite as text.

    Args:
        value: what JSON has, and arrays, also in dicts in it.
        file: where to; stdout if it is None.
    """
    for piece in _pieces(value):
        click.echo(piece, nl=False, file=file)
    click.echo(file=file)


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        mark = "{"
        for key, inner in value.items():
            yield f"{mark}{_text(key)}: "
            yield from _pieces(inner)
            mark = ", "
        yield "}" if value else "{}"
    elif isinstance(value, np.ndarray) and value.size > _NUMBERS:
        rows = _NUMBERS * len(value) // value.size  # in a piece; 0 if not even one fits
        for start in range(0, len(value), max(rows, 1)):
            yield ", " if start else "["
            if rows:
                yield _text(value[start : start + rows])[1:-1]
            else:
                yield from _pieces(value[start])
        yield "]"
    else:
        yield _text(value)


def _text(value: Any) -> str:
    return json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False)
