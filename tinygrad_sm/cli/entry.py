"""The entry point: the group of commands, and what each kind of failure prints and returns."""

from __future__ import annotations

import io
import os
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import metadata
from typing import Any

import click

from tinygrad_sm.cli.compare import compare_command
from tinygrad_sm.cli.derive import derive_command
from tinygrad_sm.cli.draw import draw_command
from tinygrad_sm.cli.fuse import fuse_command
from tinygrad_sm.cli.page import page_command
from tinygrad_sm.cli.printing import console
from tinygrad_sm.cli.prove import prove_command
from tinygrad_sm.cli.stability import stability_command
from tinygrad_sm.cli.worksheet import worksheet_command
from tinygrad_sm.errors import LossWarning, TinygradError
from tinygrad_sm.loss.kernels.choosing import announce_with

BAD_INPUT = 2
INTERRUPTED = 130  # like the shell: 128 and the number of the signal
CLOSED_PIPE = 141


def _version() -> str:
    try:
        return metadata.version("tinygrad_sm")
    except metadata.PackageNotFoundError:
        return "not installed, run from its source"


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
    invoke_without_command=True,
    commands=(
        compare_command,
        derive_command,
        draw_command,
        fuse_command,
        page_command,
        prove_command,
        stability_command,
        worksheet_command,
    ),
)
@click.version_option(_version())
@click.pass_context
def commands(context: click.Context) -> int:
    """The gradient of softmax + cross-entropy: built from primitives, fused, compared, drawn."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return BAD_INPUT  # unless there is a command, whose own status counts


def main() -> None:
    """Run the command line: exit 0 when all is well, 1 on a difference, 2 on bad input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Σ and − must not end a run in an old code page
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line on `arguments` and return the exit status; print, never raise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once", LossWarning)
            warnings.showwarning = _warn
            announce_with(_compiling)
            status = commands.main(arguments, prog_name="tinygrad-sm", standalone_mode=False)
        if sys.stdout is not None:  # None where the shell closed it
            sys.stdout.flush()
        return int(status or 0)
    except click.ClickException as error:
        return _refuse(error.format_message())
    except TinygradError as error:
        return _refuse(str(error))
    except MemoryError:
        return _refuse("there is not enough memory for an input of this size")
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click and rich make the second of the first
        # whoever read the output has gone; there is nobody to tell
        _silence()
        return CLOSED_PIPE
    except OSError as error:
        _silence()
        return _refuse(f"the output cannot be written ({error.strerror or error})")


def _compiling() -> AbstractContextManager[object]:
    """A line for as long as the loss is compiled, on a terminal; nothing where that is no one's."""
    if sys.stderr is None or not sys.stderr.isatty():
        return nullcontext()
    return console(sys.stderr).status("the loss is being compiled; later runs take it from a cache")


def _refuse(sentence: str) -> int:
    _say(sentence)
    return BAD_INPUT


def _warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    ours = category.__module__ == LossWarning.__module__
    _say(f"{message}" if ours else f"{filename}:{lineno}: {category.__name__}: {message}")


def _say(sentence: str) -> None:
    with suppress(OSError):  # where stderr is full or gone, the status has to say it
        click.echo(f"tinygrad-sm: {_visible(' '.join(sentence.split()))}", err=True)


def _visible(text: str) -> str:
    """With what steers a terminal, or turns the direction of writing, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _silence() -> None:
    """Let what is still to be printed, also at exit, go nowhere."""
    with suppress(OSError, AttributeError):  # there may be no such stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
