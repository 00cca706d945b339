"""The options that several commands share: those of the loss, and the language."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

from tinygrad_sm.cli.inputs import read_weight
from tinygrad_sm.loss.composite import FORMS
from tinygrad_sm.loss.options import DEFAULTS, REDUCTIONS
from tinygrad_sm.texts import LANGUAGES

Adds: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
"""A decorator that adds options to a command."""

DTYPES = ("float16", "float32", "float64")


def all_of(*options: Adds) -> Adds:
    """Return the decorator that adds all these options, in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def given(names: Collection[str]) -> list[str]:
    """Return which options the command line gives, of those that set these arguments."""
    context = click.get_current_context()
    return [
        option.opts[0]
        for option in context.command.params
        if option.name in names
        and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]


source_options = all_of(
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
loss_options = all_of(
    source_options,
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
language_option = click.option(
    "--lang", type=click.Choice(LANGUAGES), default="en", help="Language of the texts."
)
