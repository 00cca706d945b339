"""The options that several commands share: those of the loss, and the language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tinygrad_sm.cli.inputs import read_weight
from tinygrad_sm.loss.composite import FORMS
from tinygrad_sm.loss.options import DEFAULTS, REDUCTIONS
from tinygrad_sm.texts import LANGUAGES

_Command = TypeVar("_Command", bound=Callable[..., Any])

DTYPES = ("float16", "float32", "float64")

_SOURCE_OPTIONS = (
    click.option(
        "--logits", "source", metavar="A",
        help="Logits: numbers (2,1.5,0.1), a file .npy, .npz or .csv (rows of numbers), or - for "
        "standard input.",
    ),
    click.option(
        "--target", metavar="T",
        help="Class index from 0, list (1,0,0: a distribution, or one index per row), or a file.",
    ),
)  # fmt: skip
_LOSS_OPTIONS = (
    *_SOURCE_OPTIONS,
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
    return _with(_LOSS_OPTIONS, command)


def source_options(command: _Command) -> _Command:
    """Add the options for logits and target to a command."""
    return _with(_SOURCE_OPTIONS, command)


def _with(options: tuple[Callable[[Any], Any], ...], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


language_option = click.option(
    "--lang", type=click.Choice(LANGUAGES), default="en", help="Language of the texts."
)
