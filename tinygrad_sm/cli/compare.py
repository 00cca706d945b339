"""`tinygrad-sm compare`: composite and fused softmax-cross-entropy side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Column, Table

from tinygrad_sm import Comparison, compare
from tinygrad_sm.cli.inputs import read_input, shipped_logits
from tinygrad_sm.cli.json_text import print_json
from tinygrad_sm.cli.looks import look_options
from tinygrad_sm.cli.options import loss_options
from tinygrad_sm.cli.pictures import OF_A_LOSS, drawn, part_of, picture_options, write_pictures
from tinygrad_sm.cli.printing import console, print_whole, print_written
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.study.comparison import Table as TextTable

AGREE, DIFFER = 0, 1

SECONDS = 0.05  # to measure the time of each input


@click.command("compare", short_help="Hold the composite gradient against the fused p − y.")
@loss_options
@picture_options("both graphs")
@look_options()
@click.option(
    "--exact", is_flag=True,
    help="Hold both gradients against 50 digits, and find the node that lost some.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead.")
@click.option("--arrays", is_flag=True, help="With --json: all logits, targets and gradients too.")
def compare_command(
    source: str | None,
    target: str | None,
    folder: Path | None,
    formats: tuple[str, ...],
    exact: bool,
    as_json: bool,
    arrays: bool,
    look: dict[str, Any],
    **loss: Any,
) -> int:
    """Compare the gradient built from exp, sum, div and log with the fused p − y.

    Classes count from 0. Without --logits: those of the article's example, [2, 1, 0.1]; without
    --target too, y = [1, 0, 0], and the logits of a small classifier on Fisher's iris flowers.

    The article is "Softmax-with-Loss 계층" on ratsgo's blog; the textbook whose layer it explains,
    Saito, "Deep Learning from Scratch".

    Exit status: 0 if the gradients agree, 1 if they differ, 2 on bad input.

    \b
    Examples:
      tinygrad-sm compare -o out
      tinygrad-sm compare --logits 2,1.5,0.1 --target 1
      tinygrad-sm compare --logits logits.csv --target 0,2,1 --dtype float32
      tinygrad-sm compare --exact --logits 40,0,0 --target 0
      echo 1000,0,0 | tinygrad-sm compare --logits - --target 1
    """
    if arrays and not as_json:
        raise InvalidValueError("--arrays goes with --json")
    inputs = {"input": read_input(source, target)}
    if source is None and target is None:
        inputs = {"seed": inputs["input"], "iris": shipped_logits()}
    cases = {
        name: compare(*data, seconds=SECONDS, exact=exact, **loss) for name, data in inputs.items()
    }
    pictures = (
        (f"{name}-{which}", drawn(part_of(case, which), look))
        for name, case in cases.items()
        for which in sorted(OF_A_LOSS)
    )
    written = write_pictures(pictures, folder, formats)
    if as_json:
        found = {name: case.figures(arrays=arrays) for name, case in cases.items()}
        print_json(found.get("input", found))
    else:
        _print(cases, written)
    return AGREE if all(case.agree for case in cases.values()) else DIFFER


def _print(cases: dict[str, Comparison], written: list[Path]) -> None:
    out = console()
    for case in cases.values():
        out.print(case.headline(), style="bold", markup=False)
        if case.caption():
            out.print(case.caption(), markup=False)
        for table in case.tables():
            print_whole(out, _table(table))
        facts = Table.grid(padding=(0, 2))
        for what, value in case.summary():
            facts.add_row(what, value)
        print_whole(out, facts)
        verdict, *others = case.sentences()
        out.print(verdict, style="bold", markup=False)
        out.print("\n".join(others), "\n", sep="", markup=False)
    if not all(case.agree for case in cases.values()):
        out.print("see where each form breaks: tinygrad-sm stability", markup=False)
    print_written(out, written)


def _table(columns: TextTable) -> Table:
    table = Table(*(Column(name, justify="right", no_wrap=True) for name in columns.header))
    for row in columns.rows:
        table.add_row(*row)
    return table
