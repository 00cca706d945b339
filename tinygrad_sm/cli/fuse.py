"""`tinygrad-sm fuse`: find softmax-cross-entropy in a graph, rewrite it, and tell the story."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TextIO

import click
import numpy as np

from tinygrad_sm import FuseResult, Tensor, fuse
from tinygrad_sm.cli.examples import SPELLINGS, spelled
from tinygrad_sm.cli.json_text import print_json
from tinygrad_sm.cli.looks import look_options
from tinygrad_sm.cli.pictures import NamedPictures, picture_options, write_pictures
from tinygrad_sm.cli.printing import console, print_written
from tinygrad_sm.cli.user_code import guarded, output_of, traceback_option

FUSED, NOTHING = 0, 1


@click.command("fuse", short_help="Find the loss in any graph and make it one node.")
@click.argument("place", required=False, metavar="[FILE.py:function]")
@picture_options("before and after")
@look_options()
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON instead.")
@traceback_option
def fuse_command(
    place: str | None,
    folder: Path | None,
    formats: tuple[str, ...],
    as_json: bool,
    show_all: bool,
    look: dict[str, Any],
) -> int:
    """Find softmax-cross-entropy in a graph, however it is written, and make it one node.

    FILE.py:function names a function of yours that takes no arguments and returns the output, a
    Tensor (such as the loss of a batch). The file is run. Without it: the three forms of the
    composite, three more spellings, and a look-alike.

    Says which operations were found, by which rule and why it holds, and what that saves; or which
    part of a near match is missing.

    Exit status: 0 if something was fused, 1 if nothing was, 2 on bad input.

    \b
    Examples:
      tinygrad-sm fuse
      tinygrad-sm fuse model.py:loss
      tinygrad-sm fuse model.py:loss -o out --format svg,png
    """
    with guarded(place, show_all) as stdout:
        if place is None:
            outputs = {name: spelled(name) for name in SPELLINGS}
        else:
            outputs = {place: output_of(place)}
        results = {name: fuse(given) for name, given in outputs.items()}
    written = write_pictures(_pictures(results, look), folder, formats)
    if as_json:
        found = {name: _figures(result, outputs[name]) for name, result in results.items()}
        print_json(found if place is None else found[place], stdout)
    else:
        _print(results, outputs, written, stdout)
    return FUSED if any(result.rewrites for result in results.values()) else NOTHING


def _pictures(results: dict[str, FuseResult], look: dict[str, Any]) -> NamedPictures:
    import viz  # noqa: PLC0415  not needed, and not loaded, without pictures

    for number, (name, result) in enumerate(results.items(), 1):
        last = name.rpartition(":")[2]  # the function's name or the form's; a spelling has none
        stem = last if re.fullmatch(r"\w+", last) else f"spelling-{number}"
        yield f"{stem}-fusion", viz.draw_fusion(result, **look)


def _print(
    results: dict[str, FuseResult],
    outputs: dict[str, Tensor],
    written: list[Path],
    stdout: TextIO | None,
) -> None:
    out = console(stdout)
    for name, result in results.items():
        out.print(name, style="bold", markup=False)
        out.print(str(result), markup=False)
        if result.rewrites and outputs[name].size == 1:
            values = f"{outputs[name].item():.17g} before, {result.output.item():.17g} after"
            out.print(f"The output is {values}.", markup=False)
        out.print()
    print_written(out, written)


def _figures(result: FuseResult, given: Tensor) -> dict[str, Any]:
    return {
        "rewrites": result.rewrites,
        "near_misses": result.near_misses,
        "before": result.before.to_dict(),
        "after": result.after.to_dict(),
        "output_before": _value(given),
        "output_after": _value(result.output),
    }


def _value(output: Tensor) -> float | str | None:
    """A single number, as text if it is not finite; None for an array."""
    if output.size != 1:
        return None
    value = output.item()
    return value if np.isfinite(value) else str(value)
