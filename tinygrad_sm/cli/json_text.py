"""Printing JSON piece by piece, so that large arrays are never a text as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

import click
import numpy as np

from tinygrad_sm.study.plain import jsonable

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
        mark = "["
        for rows in np.array_split(value, min(len(value), value.size // _NUMBERS + 1)):
            yield mark
            if len(rows) == 1:
                yield from _pieces(rows[0])
            else:
                yield _text(rows)[1:-1]
            mark = ", "
        yield "]"
    else:
        yield _text(value)


def _text(value: Any) -> str:
    return json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False)
