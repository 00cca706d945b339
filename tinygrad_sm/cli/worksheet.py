"""`tinygrad-sm worksheet`: exercises for a class, with the answer key."""

from __future__ import annotations

from pathlib import Path

import click

from tinygrad_sm.cli.options import language_option
from tinygrad_sm.cli.pictures import folder_option, list_option, write_into
from tinygrad_sm.study.worksheets import KINDS

FORMATS = ("html", "tex", "ipynb")


@click.command("worksheet", short_help="Exercises for a class: gradients by hand, with answers.")
@click.option("--seed", type=click.IntRange(min=0), default=1, help="Each gives other numbers.")
@list_option(
    "--kind",
    tuple(KINDS),
    "What the problems are about, in the order of the sheet; several with commas.",
)
@list_option("--format", FORMATS, "Several with commas.")
@language_option
@folder_option("Write the files into this folder.", default=".")
def worksheet_command(
    seed: int, kinds: tuple[str, ...], formats: tuple[str, ...], lang: str, folder: Path
) -> None:
    """Write a worksheet: graphs with numbers, whose gradients are to be found by hand.

    Each seed gives another sheet of the same difficulty, and the same seed the same sheet. The
    engine computes the answers, and typical wrong ones, which the answer key names.

    \b
    The kinds of problems:
      chain     three operations on a number
      diamond   a number that is used twice
      softmax   the loss from exp, sum, div and log, to p − y
      mean      the loss of a batch, with its 1/N

    \b
    The files, each with its answer key beside it:
      worksheet-1.html    to print
      worksheet-1.tex     for LaTeX, with a PDF for each picture
      worksheet-1.ipynb   a notebook with checks, also for nbgrader and otter

    \b
    Examples:
      tinygrad-sm worksheet --seed 7 -o sheets
      tinygrad-sm worksheet --kind softmax,mean --format html --lang ko
    """
    from viz.worksheets import Worksheet, worksheet_files  # noqa: PLC0415  it loads Graphviz

    written = write_into(folder, worksheet_files(Worksheet(seed, kinds, lang), formats))
    for path in written:
        click.echo(path)
