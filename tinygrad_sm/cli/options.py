"""The options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from click.core import ParameterSource

from tinygrad_sm.cli.inputs import (
    SEED_LOGITS,
    dangling,
    read_logits,
    read_target,
    read_weight,
)
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.composite import FORMS
from tinygrad_sm.loss.options import REDUCTIONS

_Command = TypeVar("_Command", bound=Callable[..., Any])

DTYPES = ("float16", "float32", "float64")

_LOSS_OPTIONS = (
    click.option(
        "--logits",
        "source",
        metavar="A",
        help="Logits: numbers (2,1.5,0.1), a file .npy, .npz or .csv (rows of numbers), or - for "
        "standard input.",
    ),
    click.option(
        "--target",
        metavar="T",
        help="Class index from 0, list (1,0,0: a distribution, or one index per row), or a file.",
    ),
    click.option(
        "--form",
        type=click.Choice(FORMS),
        default="naive",
        show_default=True,
        help="How the composite is built.",
    ),
    click.option("--dtype", type=click.Choice(DTYPES), help="Convert the logits first."),
    click.option(
        "--reduction", type=click.Choice(REDUCTIONS), default="mean", show_default=True
    ),
    click.option("--weight", metavar="W", help="One weight per class, such as 1,2,0.5."),
    click.option("--ignore-index", type=int, default=-100, show_default=True,
                 help="Class index of rows that do not count."),
    click.option("--label-smoothing", type=float, default=0.0, show_default=True,
                 help="ε in [0, 1]."),
    click.option("--temperature", type=float, default=1.0, show_default=True,
                 help="Divides the logits."),
    click.option("--axis", type=int, default=-1, show_default=True, help="The class axis."),
)  # fmt: skip

LOSS_KEYS = (
    "form", "reduction", "weight", "ignore_index", "label_smoothing", "temperature", "axis",
)  # fmt: skip


def loss_options(command: _Command) -> _Command:
    """Add the options for logits, target and the loss to a command."""
    for option in reversed(_LOSS_OPTIONS):
        command = option(command)
    return command


def given_loss_options() -> list[str]:
    """Return those of the options that `loss_options` adds which the command line gives."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in ("source", "target", "dtype", *LOSS_KEYS)
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def picture_options(what: str, formats: tuple[str, ...]) -> Callable[[_Command], _Command]:
    """Add the options for a folder of pictures to a command; `what` is drawn into it."""

    def add(command: _Command) -> _Command:
        command = click.option(
            "--format",
            "formats",
            default="svg",
            show_default=True,
            metavar="LIST",
            help=f"Picture formats: {', '.join(formats)}; several with commas.",
        )(command)
        return click.option("-o", "--output", metavar="DIR", help=f"Draw {what} into this folder.")(
            command
        )

    return add


def read_input(source: str | None, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and the target that `--logits` and `--target` name.

    Without the first, the logits are those of the article's example. The label of a single row
    may be a number or a list of one.

    Raises:
        InvalidValueError: something cannot be read, or there is no target.
    """
    if source == "-" and target == "-":
        raise InvalidValueError("--logits and --target cannot both be read from standard input")
    if source is None:
        logits, beside = SEED_LOGITS, None
    else:
        logits, beside = read_logits(source, with_target=target is None)
    found = beside if target is None else read_target(target)
    if found is None:
        raise InvalidValueError("--logits needs --target: a class index, a list or a file")
    one_row = logits.size == max(logits.shape, default=0)
    if one_row and found.size == 1 and found.shape != logits.shape:
        found = found.reshape((1,) * (logits.ndim - 1))
    return logits, found


def loss_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments for the loss out of a command's options."""
    chosen = {key: options[key] for key in LOSS_KEYS}
    chosen["weight"] = read_weight(options["weight"])
    return chosen


def output_folder(path: str) -> Path:
    """Return the path of a folder that can be written to; it need not exist yet.

    Raises:
        InvalidValueError: it is empty, or it (or what it would be made in) is a file or cannot
            be written to.
    """
    if not path:
        raise InvalidValueError("--output is empty; give the path of a folder")
    folder = Path(path)
    try:
        around = folder.absolute().parents
    except OSError as error:  # the current folder is gone
        raise InvalidValueError(f"--output {path}: cannot be made ({error.strerror})") from None
    nearest = next(p for p in (folder, *around) if os.path.lexists(p))
    if not nearest.is_dir():
        what = dangling(nearest) or "is a file"
        what = what if nearest == folder else f"{nearest}: {what}"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        what = "no permission"
    else:
        return folder
    raise InvalidValueError(f"--output {path}: is not a folder to write to ({what})")
