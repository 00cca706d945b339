"""`tinygrad-sm derive`: the textbook's derivation, each line checked against the graph."""

from __future__ import annotations

import click

from tinygrad_sm.cli.inputs import read_input
from tinygrad_sm.cli.options import language_option, source_options
from tinygrad_sm.cli.pictures import check_picture
from tinygrad_sm.cli.printing import console
from tinygrad_sm.study.derivation import derive
from tinygrad_sm.study.transcripts import FORMATS

HOLDS, FAILS = 0, 1


@click.command("derive", short_help="Derive p − y line by line, checked as it is printed.")
@source_options
@language_option
@click.option(
    "--format", "format_", type=click.Choice(tuple(FORMATS)), default="text",
    help="For the terminal, as Markdown, or as a LaTeX document.",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="FILE",
    help="Draw the graph with formulas in the place of numbers (.svg .png .pdf .dot .mmd).",
)  # fmt: skip
def derive_command(
    source: str | None, target: str | None, lang: str, format_: str, output: str | None
) -> int:
    """Derive the gradient of softmax and cross-entropy as the textbook does, line by line.

    Local rules, the Jacobian of softmax (i = j and i ≠ j), the split into the terms −y and p·Σy,
    the two edges of the graph that they are, and p − y. Each line names its nodes and edges, stands
    in letters and with your numbers put in, and is checked both ways as it is printed: as a formula
    for all logits and targets, and with at least 50 digits.

    Without --logits and --target: the example of the article "Softmax-with-Loss 계층" on ratsgo's
    blog. Needs SymPy and mpmath, the extra `symbolic`.

    Exit status: 0 if every line holds, 1 if one does not, 2 on bad input.

    \b
    Examples:
      tinygrad-sm derive --lang ko
      tinygrad-sm derive --logits 2,1.5,0.1 --target 1 --format markdown
      tinygrad-sm derive --format latex > derivation.tex
      tinygrad-sm derive -o formulas.svg
    """
    if output is not None:
        check_picture(output)
    derivation = derive(*read_input(source, target), lang=lang)
    written = FORMATS[format_](derivation)
    if output is not None:
        import viz  # noqa: PLC0415  only for a picture

        viz.draw_formulas(derivation).save(output)
    if format_ == "text":
        console().print(written, end="", markup=False)
    else:
        click.echo(written, nl=False)
    if output is not None:
        click.echo(output, err=format_ != "text")
    return HOLDS if derivation.holds else FAILS
