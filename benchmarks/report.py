"""The results as tables on the terminal, as JSON and as Markdown for the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from benchmarks.machine import in_words
from benchmarks.results import QUIET, Row, counts

WIDTH = 118  # of a table that goes to a file or a pipe
NARROW = 100  # columns: a terminal that has fewer is shown no quartiles
HEADER = (
    "measured / against", "ours", "theirs", "ratio", "quartiles", "limit", "target, result",
)  # fmt: skip
LEGEND = (
    "Ratio: of the medians over interleaved rounds; quartiles: of the ratio from round to round. "
    "Limit: how often np.copyto copies the logits (of the engine, three numbers), on one thread, "
    "in our time. "
    "Extra: the peak of memory in a fresh process, without the gradients."
)

_SCALES = {"s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"), (1e-12, "ps"))}
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def console() -> Console:
    """Where tables go; wide enough also where there is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH)


def quantity(value: float | None, unit: str) -> str:
    """A number with the unit that suits it, such as "3.41 µs"."""
    if value is None:
        return ""
    base, _, per = unit.partition("/")
    scales = _BYTES if base == "bytes" else _SCALES["s"]
    size, name = next((s for s in scales if abs(value) >= s[0]), scales[-1])
    return f"{value / size:.3g} {name}" + (f"/{_SHORT[per]}" if per else "")


_SHORT = {"operation": "op", "element": "el"}


def cells(row: Row) -> list[str]:
    """The row's text under `HEADER`, without its case."""
    ratio = quartiles = ""
    if row.ratio is not None:
        ratio = _number(row.ratio.median)
        if row.ratio.low != row.ratio.high:
            quartiles = f"{_number(row.ratio.low)} to {_number(row.ratio.high)}"
    return [
        f"{row.subject} / {row.against}",
        quantity(row.value, row.unit),
        quantity(row.reference, row.unit),
        ratio,
        quartiles,
        "" if row.limit is None else f"{row.limit:.{0 if row.limit > 100 else 1}f}",
        _result(row),
    ]


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _result(row: Row) -> str:
    if row.note:
        return row.note
    target = "" if row.target is None else f"≤ {row.target:g} "
    return f"{target}{row.verdict}" + (" (busy)" if row.disturbed else "")


def show(rows: Sequence[Row], machine: Mapping[str, Any], to: Console) -> None:
    """Print the machine and a table for each section."""
    for line in in_words(machine):
        to.print(escape(line), soft_wrap=True)
    for section, some in groupby(rows, key=lambda row: row.section):
        to.print(_table(section, list(some), to.width))
    to.print(LEGEND, summary(rows), soft_wrap=True)


def _table(section: str, rows: Sequence[Row], width: int) -> RenderableType:
    """A line for each row, below one for its case."""
    left_out = {"quartiles"} if width < NARROW else set()
    table = Table(title=section, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.pad_edge = False
    for name in HEADER:
        if name not in left_out:
            numeric = name not in (HEADER[0], HEADER[-1])
            table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric)
    for case, some in groupby(rows, key=lambda row: row.case):
        table.add_row(f"[bold]{escape(case)}[/bold]")
        for row in some:
            shown = zip(HEADER, cells(row), strict=True)
            text = [escape(cell) for name, cell in shown if name not in left_out]
            if row.verdict == "missed":
                text[-1] = f"[bold]{text[-1]}[/bold]"
            table.add_row(Padding(text[0], (0, 0, 0, 2)), *text[1:])  # where it wraps, too
    return table


def summary(rows: Sequence[Row]) -> str:
    """One sentence about the targets."""
    found = counts(rows)
    met, missed = found.get("met", 0), found.get("missed", 0)
    if not met + missed:
        return "No row has a target."
    disturbed = sum(row.disturbed for row in rows)
    return f"{met} of {met + missed} targets met, {missed} missed." + (
        f" Busy: other processes used more than {QUIET:.0%} of the cores, so the times mean little "
        f"({disturbed} of {len(rows)} rows)."
        if disturbed
        else ""
    )


def as_json(rows: Sequence[Row], machine: Mapping[str, Any], options: Mapping[str, Any]) -> bytes:
    """Everything that was measured, and where."""
    whole = {
        "machine": machine,
        "options": options,
        "summary": counts(rows),
        "rows": [row.to_dict() for row in rows],
    }
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def as_markdown(rows: Sequence[Row], machine: Mapping[str, Any]) -> bytes:
    """The same tables for a page."""
    lines = [f"{line}  " for line in in_words(machine)]
    for section, some in groupby(rows, key=lambda row: row.section):
        texts = [[row.case, *cells(row)] for row in some]
        lines += ["", f"**{section}**", "", *markdown_table(("case", *HEADER), texts)]
    return ("\n".join([*lines, "", f"{LEGEND} {summary(rows)}"]) + "\n").encode()


def markdown_table(header: Sequence[str], rows: Any) -> list[str]:
    """The lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
