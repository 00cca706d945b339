"""`python -m benchmarks.page RUN.json…`: the tables of docs/speed.md, from some runs' files.

Those of another page with `--page`, such as docs/speed-avx2.md.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from benchmarks.command import run
from benchmarks.machine import in_words
from benchmarks.report import markdown_table

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
HEADER = ("case", "measured / against", "ratio", "limit", "target")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=PAGE,
    help="Where to, between its two marks; docs/speed.md by default.",
)
def command(runs: tuple[Path, ...], page: Path) -> int:
    """Write medians over RUNS, each the benchmarks.json of a run, into a page."""
    try:
        found = [json.loads(path.read_text(encoding="utf-8")) for path in runs]
        measured = "\n".join(tables(found))
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"a run is not a benchmarks.json of today: {error}") from None
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise click.ClickException(f"{page.name} has no lines {BEGIN.strip()} and {END.strip()}")
    page.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}", encoding="utf-8")
    click.echo(page)
    return 0


def tables(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines: the machine, then a table for each section, of the rows that all runs have.

    Shown are the rows that have a target, and those about threads; the others are in the files.
    """
    yield from (f"{line}  " for line in in_words(runs[0]["machine"]))
    yield ""
    by_key = [{_key(row): row for row in each["rows"] if _is_shown(row)} for each in runs]
    common = [key for key in by_key[0] if all(key in each for each in by_key)]
    for section, keys in groupby(common, key=lambda key: key[0]):
        lines = [_line([each[key] for each in by_key]) for key in keys]
        yield from [f"**{section}**", "", *markdown_table(HEADER, lines), ""]
    busy = sum(row["disturbed"] for each in runs for row in each["rows"])
    rows = sum(len(each["rows"]) for each in runs)
    yield f"Rows measured while other processes were busy: {busy} of {rows} (marked *busy*)."


def _is_shown(row: dict[str, Any]) -> bool:
    return row["ratio"] is not None and (row["target"] is not None or row["section"] == "threads")


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["section"], row["case"], row["subject"], row["against"]


def _line(rows: Sequence[dict[str, Any]]) -> list[str]:
    ratios = [row["ratio"]["median"] for row in rows]
    ratio = f"{statistics.median(ratios):.3g}"
    if len(rows) > 1:
        ratio += f" ({', '.join(f'{each:.3g}' for each in ratios)})"
    limits = [row["limit"] for row in rows if row["limit"] is not None]
    target = "" if rows[0]["target"] is None else f"≤ {rows[0]['target']:g}"
    if target and statistics.median(ratios) > rows[0]["target"]:
        target += " missed"
    busy = " *busy*" if any(row["disturbed"] for row in rows) else ""
    return [
        rows[0]["case"],
        f"{rows[0]['subject']} / {rows[0]['against']}",
        ratio + busy,
        f"{statistics.median(limits):.3g}" if limits else "",
        target,
    ]


if __name__ == "__main__":
    sys.exit(run(command, "python -m benchmarks.page", sys.argv[1:]))
