"""`tinygrad-sm draw`: one computation graph as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click.core import ParameterSource

from tinygrad_sm.cli.examples import linear_levels
from tinygrad_sm.cli.inputs import SEED_LOGITS, SEED_TARGET, read_input
from tinygrad_sm.cli.options import loss_options
from tinygrad_sm.cli.pictures import OF_A_LOSS, check_picture, picture_of
from tinygrad_sm.cli.user_code import guarded, is_place, output_of, traceback_option
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.study.comparing import compare

if TYPE_CHECKING:
    from viz import Drawing

LEVELS = "levels"


@click.command("draw", short_help="Draw one graph with the gradient on every edge.")
@click.argument("which", default="composite")
@loss_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="File to write; its suffix (.svg .png .pdf .tex .dot .mmd) is the format. "
    "Without it the text of the graph is printed as DOT.",
)
@traceback_option
def draw_command(
    which: str,
    source: str | None,
    target: str | None,
    output: str | None,
    show_all: bool,
    **loss: Any,
) -> None:
    """Draw one graph with the values and the gradient that flows over every edge.

    WHICH is one of

    \b
      composite         the loss from primitives (the default)
      fused             the loss as one node
      comparison        both side by side
      levels            a linear classifier in three levels, from primitives to one
                        node, with the bytes that each keeps for backward
      FILE.py:function  a graph of yours: the function takes no arguments and returns
                        the output, a Tensor; backward runs if it is a single number

    The options of the loss are for the first three. Without --logits and --target they draw the
    example of the article "Softmax-with-Loss 계층" on ratsgo's blog (3 classes, y = [1, 0, 0]).

    \b
    Examples:
      tinygrad-sm draw -o composite.svg
      tinygrad-sm draw comparison -o both.png
      tinygrad-sm draw fused --logits logits.csv --target 0,2,1 -o fused.pdf
      tinygrad-sm draw levels -o levels.svg
      tinygrad-sm draw model.py:loss -o model.svg
    """
    if output is not None:
        check_picture(output)
    if which not in OF_A_LOSS and (unused := _given({"source", "target", *loss})):
        raise InvalidValueError(
            f"--logits and --target are for {', '.join(OF_A_LOSS)} only, as are the options of "
            f"the loss; got {unused[0]}"
        )
    with guarded(which if is_place(which) else None, show_all) as stdout:
        if which in OF_A_LOSS:
            given = source is not None or target is not None
            data = read_input(source, target) if given else (SEED_LOGITS, SEED_TARGET)
            drawing = picture_of(compare(*data, **loss), which)
        elif which == LEVELS or is_place(which):
            shown = linear_levels() if which == LEVELS else output_of(which)
            drawing = _drawn(shown)
        else:
            raise InvalidValueError(
                f"{which!r} is not one of {', '.join(map(repr, (*OF_A_LOSS, LEVELS)))}, "
                "nor FILE.py:function"
            )
    if output is None:
        click.echo(drawing.source, file=stdout)
    else:
        drawing.save(output)
        click.echo(output, file=stdout)


def _given(names: set[str]) -> list[str]:
    """Which options the command line gives, of those that set these arguments."""
    context = click.get_current_context()
    return [
        option.opts[0]
        for option in context.command.params
        if option.name in names
        and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]


def _drawn(shown: Tensor | dict[str, Tensor]) -> Drawing:
    import viz  # noqa: PLC0415  Graphviz is loaded only to draw, and after the user's own code

    if isinstance(shown, dict):
        return viz.draw_levels(shown)
    if shown.size != 1 or not shown.requires_grad:
        return viz.draw(shown)
    with np.errstate(all="ignore"):  # the picture says where it overflows
        trace = shown.backward(trace=True)
    assert trace is not None
    return viz.draw(trace)
