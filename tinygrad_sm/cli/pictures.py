"""The pictures of a command: its options, and files of which a run leaves all or none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from tinygrad_sm import BackwardTrace, Comparison
from tinygrad_sm.cli.inputs import dangling
from tinygrad_sm.cli.looks import for_graph
from tinygrad_sm.cli.options import Adds, all_of
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.study.diagnose import graph_of

if TYPE_CHECKING:
    from viz import Drawing, Picture

NamedPictures: TypeAlias = "Iterator[tuple[str, Picture]]"

FORMATS = ("svg", "png", "pdf", "tex", "dot", "mmd")
OF_A_LOSS = ("composite", "fused", "comparison")


def picture_options(what: str, formats: tuple[str, ...] = FORMATS) -> Adds:
    """Add the options for a folder of pictures to a command; `what` is drawn into it.

    The command gets `folder`, None without the option, and `formats`.
    """
    said = f"Picture formats: {', '.join(formats)}; several with commas."
    return all_of(
        folder_option(f"Draw {what} into this folder."),
        list_option("--format", formats, said, default="svg"),
    )


def folder_option(help: str, default: str | None = None) -> Adds:
    """Add the option for a folder to write to, which the command gets as `folder`."""
    return click.option(
        "-o", "--output", "folder", default=default, metavar="DIR", help=help,
        callback=lambda _, __, value: None if value is None else output_folder(value),
    )  # fmt: skip


def list_option(
    option: str, allowed: tuple[str, ...], help: str, default: str | None = None
) -> Adds:
    """Add an option that takes words with commas between them, by default all that are allowed.

    The command gets them as a tuple, by the option's name in the plural.
    """
    return click.option(
        option, f"{option[2:]}s", default=default or ",".join(allowed), metavar="LIST", help=help,
        callback=lambda _, __, value: _chosen(option, value, allowed),
    )  # fmt: skip


def _chosen(option: str, value: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The words in a list such as "svg,png", each of them once."""
    words = tuple(dict.fromkeys(value.lower().replace(",", " ").split()))
    wrong = [word for word in words if word not in allowed]
    if wrong or not words:
        raise InvalidValueError(
            f"{option} must be among {', '.join(allowed)}; got {wrong[0] if wrong else value!r}"
        )
    return words


def check_picture(path: str, formats: tuple[str, ...] = FORMATS) -> None:
    """Raise InvalidValueError unless the suffix of a picture's path is one of the formats."""
    if Path(path).suffix.lower()[1:] not in formats:
        allowed = ", ".join(f".{name}" for name in formats)
        raise InvalidValueError(f"--output must end in one of {allowed}; got {path!r}")


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


def part_of(comparison: Comparison, which: str) -> Comparison | BackwardTrace:
    """Return what one of the pictures in OF_A_LOSS shows: the whole, or one backward sweep."""
    if which == "comparison":
        return comparison
    return comparison.composite_trace if which == "composite" else comparison.fused_trace


def drawn(shown: Any, look: Mapping[str, Any]) -> Drawing:
    """Draw levels, a comparison, a sweep or a Tensor, with the options of how it looks."""
    import viz  # noqa: PLC0415  Graphviz is loaded only to draw, and after the user's own code

    if isinstance(shown, dict):
        return viz.draw_levels(shown, **look)
    if isinstance(shown, Comparison):
        return viz.draw_comparison(shown, **look)
    return viz.draw(shown, **for_graph(look, graph_of(shown)))


def write_pictures(
    pictures: NamedPictures, folder: Path | None, formats: tuple[str, ...]
) -> list[Path]:
    """Render every picture in every format, and only then put the files in place.

    Returns their paths: the pictures come with their names. The folder is made if need be;
    without one nothing is drawn.

    Raises:
        RenderError: a picture cannot be drawn; nothing was written.
        InvalidValueError: a file cannot be written.
    """
    if folder is None:
        return []
    rendered = {
        f"{name}.{suffix}": picture.render(suffix)
        for name, picture in pictures
        for suffix in formats
    }
    return write_into(folder, rendered)


def write_into(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files, by name, into a folder that is made if need be: all of them or none.

    Raises:
        InvalidValueError: a file cannot be written.
    """
    from viz.files import SaveError, write_all  # noqa: PLC0415  only where something is written

    placed = {folder / name: content for name, content in files.items()}
    missing: list[Path] = []
    try:
        missing += (place for place in (folder, *folder.parents) if not place.exists())
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
        write_all(placed)
    except OSError as error:  # a SaveError is one, too
        why = error.__cause__ if isinstance(error, SaveError) else error
        raise InvalidValueError(
            f"--output {folder}: cannot be written to ({getattr(why, 'strerror', None) or why})"
        ) from None
    finally:
        for place in missing:
            with suppress(OSError):  # what holds files stays
                place.rmdir()
    return list(placed)
