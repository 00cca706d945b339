"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeVar

import click
import numpy as np
from click.core import ParameterSource

from tinygrad_sm.cli.inputs import SEED_LOGITS, read_logits, read_target, read_weight
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.composite import FORMS
from tinygrad_sm.loss.options import DEFAULTS, REDUCTIONS

_Command = TypeVar("_Command", bound=Callable[..., Any])

DTYPES = ("float16", "float32", "float64")

_LOSS_OPTIONS = (
    click.option(
        "--logits", "source", metavar="A",
        help="Logits: numbers (2,1.5,0.1), a file .npy, .npz or .csv (rows of numbers), or - for "
        "standard input.",
    ),
    click.option(
        "--target", metavar="T",
        help="Class index from 0, list (1,0,0: a distribution, or one index per row), or a file.",
    ),
    click.option(
        "--form", type=click.Choice(FORMS), default="naive", help="How the composite is built."
    ),
    click.option("--dtype", type=click.Choice(DTYPES), help="Convert the logits first."),
    click.option("--reduction", type=click.Choice(REDUCTIONS), default=DEFAULTS["reduction"]),
    click.option(
        "--weight", metavar="W", help="One weight per class, such as 1,2,0.5.",
        callback=lambda _, __, value: read_weight(value),
    ),
    click.option(
        "--ignore-index", default=DEFAULTS["ignore_index"],
        help="Class index of rows that do not count.",
    ),
    click.option("--label-smoothing", default=DEFAULTS["label_smoothing"], help="ε in [0, 1]."),
    click.option("--temperature", default=DEFAULTS["temperature"], help="Divides the logits."),
    click.option("--axis", default=DEFAULTS["axis"], help="The class axis."),
)  # fmt: skip


def loss_options(command: _Command) -> _Command:
    """Add the options for logits, target and the loss to a command."""
    for option in reversed(_LOSS_OPTIONS):
        command = option(command)
    return command


def given_options(names: Container[str | None]) -> list[str]:
    """Return those of a command's options that the command line gives, by the names it gets."""
    context = click.get_current_context()
    return [
        option.opts[0]
        for option in context.command.params
        if option.name in names
        and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]


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
