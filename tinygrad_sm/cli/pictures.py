"""Writing several pictures so that a run leaves all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tinygrad_sm.errors import InvalidValueError

if TYPE_CHECKING:
    from viz import Picture

FORMATS = ("svg", "png", "pdf", "dot", "mmd")


def chosen_formats(value: str, allowed: tuple[str, ...] = FORMATS) -> tuple[str, ...]:
    """Return the formats in a list such as "svg,png".

    Raises:
        InvalidValueError: the list is empty or names a format that does not exist.
    """
    chosen = tuple(dict.fromkeys(word for word in value.lower().replace(",", " ").split()))
    wrong = [word for word in chosen if word not in allowed]
    if wrong or not chosen:
        raise InvalidValueError(
            f"--format must be among {', '.join(allowed)}; got {wrong[0] if wrong else value!r}"
        )
    return chosen


def write_pictures(
    drawings: Mapping[str, Picture], folder: Path, formats: tuple[str, ...]
) -> list[Path]:
    """Render every drawing in every format, and only then put the files in place.

    Returns their paths. The folder is made if need be.

    Raises:
        RenderError: a picture cannot be drawn; nothing was written.
        InvalidValueError: a file cannot be written.
    """
    from viz.files import SaveError, write_all  # noqa: PLC0415  only for pictures

    rendered = {
        folder / f"{name}.{suffix}": drawing.render(suffix)
        for name, drawing in drawings.items()
        for suffix in formats
    }
    try:
        with _made(folder):
            write_all(rendered)
    except OSError as error:  # a SaveError is one, too
        why = error.__cause__ if isinstance(error, SaveError) else error
        raise InvalidValueError(
            f"--output {folder}: cannot be written to ({getattr(why, 'strerror', None) or why})"
        ) from None
    return list(rendered)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder, however deep, and take it away again if what is to go there fails."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
        raise
