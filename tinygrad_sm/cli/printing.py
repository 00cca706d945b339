"""Text and tables for a terminal, none of whose figures a narrow one costs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

_NARROWEST = 60  # columns; on fewer, lines run on, so that no figure is broken in two


def console(file: TextIO | None = None) -> Console:
    """Return a console as wide as the terminal, or as COLUMNS says if that is a number above 0.

    It prints to `file`, or to stdout.
    """
    size = shutil.get_terminal_size()
    width = max(size.columns, _NARROWEST)
    return Console(file=file, width=width, height=size.lines, highlight=False, emoji=False)


def print_whole(console: Console, table: Table) -> None:
    """Print a table at its own width, whatever the terminal's is."""
    wide = console.options.update(width=1000)
    table.width = console.measure(table, options=wide).maximum
    console.print(table, crop=False)


def print_written(console: Console, written: Iterable[Path]) -> None:
    """Name the pictures that were written, if any were."""
    paths = [str(path) for path in written]
    if paths:
        console.print("pictures:", *paths, sep="\n  ", markup=False, soft_wrap=True)
