"""`tinygrad-sm compare`: composite and fused softmax-cross-entropy side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from tinygrad_sm.cli.inputs import SEED_LOGITS, SEED_TARGET, shipped_logits
from tinygrad_sm.cli.json_text import print_json
from tinygrad_sm.cli.options import (
    loss_arguments,
    loss_options,
    output_folder,
    picture_options,
    read_input,
)
from tinygrad_sm.cli.pictures import FORMATS, chosen_formats, write_pictures
from tinygrad_sm.cli.printing import console, print_whole, print_written
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.study.comparing import compare
from tinygrad_sm.study.comparison import Comparison

AGREE, DIFFER = 0, 1

SECONDS = 0.05  # to measure the time of each input


@click.command("compare", short_help="Hold the composite gradient against the fused p − y.")
@loss_options
@picture_options("both graphs", FORMATS)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead.")
@click.option("--arrays", is_flag=True, help="With --json: all logits, targets and gradients too.")
def compare_command(
    source: str | None,
    target: str | None,
    dtype: str | None,
    output: str | None,
    formats: str,
    as_json: bool,
    arrays: bool,
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
      echo 1000,0,0 | tinygrad-sm compare --logits - --target 1
    """
    wanted = chosen_formats(formats)
    folder = None if output is None else output_folder(output)
    if arrays and not as_json:
        raise InvalidValueError("--arrays goes with --json")
    arguments = loss_arguments(loss) | {"dtype": dtype, "seconds": SECONDS}
    given = source is not None or target is not None
    if given:
        cases = {"input": compare(*read_input(source, target), **arguments)}
    else:
        cases = {
            "seed": compare(SEED_LOGITS, SEED_TARGET, **arguments),
            "iris": compare(*shipped_logits(), **arguments),
        }
    written = [] if folder is None else _draw(cases, folder, wanted)
    if as_json:
        _print_json(cases, single=given, arrays=arrays)
    else:
        _print(cases, written)
    return AGREE if all(case.agree for case in cases.values()) else DIFFER


def _draw(cases: dict[str, Comparison], folder: Path, formats: tuple[str, ...]) -> list[Path]:
    import viz  # noqa: PLC0415  not needed, and not loaded, without pictures

    drawings = {}
    for name, case in cases.items():
        drawings[f"{name}-comparison"] = viz.draw_comparison(case)
        drawings[f"{name}-composite"] = viz.draw(case.composite_trace)
        drawings[f"{name}-fused"] = viz.draw(case.fused_trace)
    return write_pictures(drawings, folder, formats)


def _print_json(cases: dict[str, Comparison], single: bool, arrays: bool) -> None:
    found = {name: case.figures(arrays=arrays) for name, case in cases.items()}
    print_json(next(iter(found.values())) if single else found)


def _print(cases: dict[str, Comparison], written: list[Path]) -> None:
    out = console()
    for case in cases.values():
        out.print(case.headline(), style="bold", markup=False)
        if case.caption():
            out.print(case.caption(), markup=False)
        for header, rows in case.tables():
            print_whole(out, _table(header, rows))
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


def _table(header: list[str], rows: list[list[str]]) -> Table:
    table = Table(*header)
    for column in table.columns:
        column.justify = "right"
        column.no_wrap = True
    for row in rows:
        table.add_row(*row)
    return table
