"""`tinygrad-sm draw`: one computation graph as a picture."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tinygrad_sm import BackwardTrace, compare
from tinygrad_sm.cli.examples import linear_levels
from tinygrad_sm.cli.inputs import read_input
from tinygrad_sm.cli.looks import OF_ONE_GRAPH, for_graph, look_options
from tinygrad_sm.cli.options import given, loss_options
from tinygrad_sm.cli.pictures import FORMATS, OF_A_LOSS, check_picture, drawn, part_of
from tinygrad_sm.cli.user_code import guarded, is_place, output_of, traceback_option
from tinygrad_sm.errors import InvalidValueError

if TYPE_CHECKING:
    from viz import Drawing, Frames

LEVELS = "levels"
SEVERAL = ("comparison", LEVELS)  # pictures of more than one graph
MANY = 60  # boxes that are drawn at once


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
@click.option("--scale", type=float, metavar="X", help="Of a .png or .gif, in place of 1.")
@click.option(
    "--frames",
    is_flag=True,
    help="Forward, then backward, a picture a step: an .svg or .gif that plays by itself, a .pdf "
    "of many pages, or one numbered file each of any other format.",
)
@click.option("--numbered", is_flag=True, help="With --frames: numbered files of any format.")
@click.option("--seconds", type=float, metavar="X", help="With --frames: how long each is seen.")
@look_options(one_graph=True)
@traceback_option
def draw_command(
    which: str,
    source: str | None,
    target: str | None,
    output: str | None,
    scale: float | None,
    frames: bool,
    numbered: bool,
    seconds: float | None,
    look: dict[str, Any],
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

    What --no-values and --no-gradients hide keeps its room: such pictures are laid out alike.

    \b
    Examples:
      tinygrad-sm draw -o composite.svg
      tinygrad-sm draw comparison -o both.png
      tinygrad-sm draw fused --logits logits.csv --target 0,2,1 -o fused.pdf
      tinygrad-sm draw levels -o levels.svg
      tinygrad-sm draw model.py:loss -o model.svg
      tinygrad-sm draw model.py:loss --frames -o slides.pdf
      tinygrad-sm draw --label 'e=$e^{a_j}$' --theme dark --scale 2 -o composite.png
    """
    if output is not None:
        check_picture(output, (*FORMATS, "gif") if frames and not numbered else FORMATS)
    elif unused := given({"frames", "scale"}):
        raise InvalidValueError(f"{min(unused)} goes with --output")
    if not frames and given({"numbered", "seconds"}):
        raise InvalidValueError("--numbered and --seconds go with --frames")
    if which in SEVERAL and (unused := given({"frames", *OF_ONE_GRAPH})):
        refused = "--frames" if frames else min(unused)
        raise InvalidValueError(f"{refused} is for the picture of one graph, not for {which}")
    if which not in OF_A_LOSS and (unused := given({"source", "target", *loss})):
        raise InvalidValueError(
            f"--logits and --target are for {', '.join(OF_A_LOSS)} only, as are the options of "
            f"the loss; got {unused[0]}"
        )
    with guarded(which if is_place(which) else None, show_all) as stdout:
        if which in OF_A_LOSS:
            shown: Any = part_of(compare(*read_input(source, target), **loss), which)
        elif which == LEVELS:
            shown = linear_levels()
        elif is_place(which):
            shown = output_of(which)
            if shown.size == 1 and shown.requires_grad:
                shown = shown.backward(trace=True)
        else:
            raise InvalidValueError(
                f"{which!r} is not one of {', '.join(map(repr, (*OF_A_LOSS, LEVELS)))}, "
                "nor FILE.py:function"
            )
        picture: Any = _frames(shown, look, seconds) if frames else drawn(shown, look)
    if output is None:
        click.echo(picture.source, file=stdout)
        return
    _tell_if_it_takes_long(picture if frames else [picture])
    if not frames or (not numbered and Path(output).suffix.lower() in (".svg", ".pdf", ".gif")):
        picture.save(output, scale=scale)
        click.echo(output, file=stdout)
    else:
        for path in picture.save_each(output, scale=scale):
            click.echo(path, file=stdout)


def _frames(shown: Any, look: dict[str, Any], seconds: float | None) -> Frames:
    import viz  # noqa: PLC0415  Graphviz is loaded only to draw, and after the user's own code

    if not isinstance(shown, BackwardTrace):
        raise InvalidValueError("--frames needs an output that is a single number, for backward")
    lasting: Any = {} if seconds is None else {"seconds": seconds}
    return viz.frames(shown, **lasting, **for_graph(look, shown.graph))


def _tell_if_it_takes_long(pictures: Collection[Drawing]) -> None:
    """One line on the terminal before what may take seconds."""
    boxes = sum(len(picture.scene.boxes) for picture in pictures)
    if boxes > MANY and sys.stderr.isatty():
        many = f"{len(pictures)} pictures, " if len(pictures) > 1 else ""
        click.echo(f"drawing {many}{boxes} boxes ...", err=True)
