"""What both command lines share: bad arguments are one sentence, files appear whole or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

BAD_INPUT = 2
INTERRUPTED = 130
DEFAULT_FOLDER = "out/benchmarks"


def run(command: click.Command, name: str, arguments: list[str]) -> int:
    """Run a command on `arguments` and return the exit status; print, never raise."""
    try:
        return int(command.main(arguments, prog_name=name, standalone_mode=False) or 0)
    except click.ClickException as error:
        click.echo(f"{name}: {' '.join(error.format_message().split())}", err=True)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        click.echo(
            f"{name}: {error.name} is not installed; pip install 'tinygrad_sm[bench]' has it all",
            err=True,
        )
        return BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED


def folder_for_output(context: click.Context, parameter: click.Parameter, value: str) -> Path:
    """Return a folder that can be written to, before minutes are spent on what goes in there."""
    folder = Path(value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RecursionError) as error:  # the latter a thousand folders deep
        said = getattr(error, "strerror", None) or "it cannot be made"
        why = "it is a file" if folder.is_file() else said
        raise click.ClickException(f"-o {value} is not a folder to write to: {why}") from None
    if not os.access(folder, os.W_OK):
        raise click.ClickException(f"-o {value} is not a folder to write to: permission denied")
    return folder


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write every file beside its place, then move all into place; return their paths.

    Raises:
        click.ClickException: one cannot be written; what stood there before still does.
    """
    from viz.files import SaveError, write_all  # noqa: PLC0415  it brings NumPy, which has to wait

    paths = {folder / name: content for name, content in files.items()}
    try:
        write_all(paths)
    except SaveError as error:
        why = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise click.ClickException(f"{folder} cannot be written to: {why}") from None
    return list(paths)


output_option = click.option(
    "-o",
    "--output",
    "folder",
    default=DEFAULT_FOLDER,
    show_default=True,
    metavar="DIR",
    callback=folder_for_output,
    help="Where the files go.",
)
"""Where a run leaves its files, for both command lines."""
