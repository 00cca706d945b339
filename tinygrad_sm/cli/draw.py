"""`tinygrad-sm draw`: one computation graph as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tinygrad_sm.cli.compare import SEED_LOGITS, SEED_TARGET
from tinygrad_sm.cli.options import loss_arguments, loss_options, read_input
from tinygrad_sm.cli.pictures import FORMATS
from tinygrad_sm.compare import compare
from tinygrad_sm.errors import InvalidValueError

if TYPE_CHECKING:
    from viz import Drawing

GRAPHS = ("composite", "fused", "comparison")


@click.command("draw")
@click.argument("which", type=click.Choice(GRAPHS), default="composite")
@loss_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="File to write; its suffix (.svg .png .pdf .dot .mmd) is the format. "
    "Without it the text of the graph is printed as DOT.",
)
def draw_command(
    which: str,
    source: str | None,
    target: str | None,
    dtype: str | None,
    output: str | None,
    **loss: Any,
) -> None:
    """Draw one graph with the values and the gradient that flows over every edge.

    WHICH is the composite (the default), the fused node, or both side by side (comparison).
    Without --logits: the textbook's example (3 classes, y = [1, 0, 0]).

    \b
    Examples:
      tinygrad-sm draw -o composite.svg
      tinygrad-sm draw comparison -o both.png
      tinygrad-sm draw fused --logits logits.csv --target 0,2,1 -o fused.pdf
    """
    if output is not None and Path(output).suffix.lower()[1:] not in FORMATS:
        raise InvalidValueError(
            f"--output must end in one of {', '.join('.' + name for name in FORMATS)}; "
            f"got {output!r}"
        )
    if source is None and target is not None:
        raise InvalidValueError("--target needs --logits")
    data = (SEED_LOGITS, SEED_TARGET) if source is None else read_input(source, target)
    drawing = _drawing(which, compare(*data, **(loss_arguments(loss) | {"dtype": dtype})))
    if output is None:
        click.echo(drawing.source)
    else:
        drawing.save(output)
        click.echo(output)


def _drawing(which: str, comparison: Any) -> Drawing:
    import viz  # noqa: PLC0415  Graphviz is loaded only to draw

    if which == "comparison":
        return viz.draw_comparison(comparison)
    trace = comparison.composite_trace if which == "composite" else comparison.fused_trace
    return viz.draw(trace)
