"""`tinygrad-sm page`: one HTML file that steps through the chain rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinygrad_sm.cli.inputs import read_input
from tinygrad_sm.cli.options import language_option
from tinygrad_sm.cli.user_code import guarded, is_place, output_of, traceback_option
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.study.comparing import compare


@click.command("page", short_help="A page that steps through the chain rule.")
@click.argument("which", required=False, metavar="[FILE.py:function]")
@click.option("--logits", "source", metavar="A", help="Your logits: numbers (2,1.5,0.1) or a file.")
@click.option("--target", metavar="T", help="Class index from 0, a list (1,0,0), or a file.")
@click.option(
    "-o", "--output", metavar="FILE", default="lesson.html", help="File to write; it ends in .html."
)
@click.option("--title", help="Title of a page about your own graph or numbers.")
@language_option
@traceback_option
def page_command(
    which: str | None,
    source: str | None,
    target: str | None,
    output: str,
    title: str | None,
    lang: str,
    show_all: bool,
) -> None:
    """Write a page that steps through the chain rule, forward and backward, number by number.

    It is one file that needs a browser and nothing else: no network, no server. Without arguments
    it is the lesson about softmax and cross-entropy, with the textbook's example and others. With
    FILE.py:function it steps through a graph of yours: the function takes no arguments and returns
    the output, a Tensor with a single number.

    \b
    Examples:
      tinygrad-sm page
      tinygrad-sm page --lang ko -o lesson.html
      tinygrad-sm page --logits 2,1.5,0.1 --target 1 -o mine.html
      tinygrad-sm page model.py:loss -o model.html
    """
    if Path(output).suffix.lower() != ".html":
        raise InvalidValueError(f"--output must end in .html; got {output!r}")
    given = source is not None or target is not None
    if which is not None and given:
        raise InvalidValueError("--logits and --target are not for FILE.py:function; give one")
    if which is not None and not is_place(which):
        raise InvalidValueError(f"{which!r} is not FILE.py:function, such as model.py:loss")
    with guarded(which, show_all) as stdout:
        shown: Any = None
        if given:
            shown = compare(*read_input(source, target))
        elif which is not None:
            loss = output_of(which)
            if loss.size != 1 or not loss.requires_grad:
                raise InvalidValueError(
                    f"{which} must return a single number that depends on a Tensor; got shape "
                    f"{loss.shape}"
                )
            shown = loss.backward(trace=True)
        import viz  # noqa: PLC0415  after the user's own code, and only where it is needed

        made = viz.page(shown, title=title, lang=lang)
    made.save(output)
    click.echo(output, file=stdout)
