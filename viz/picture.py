"""What every picture can do: show itself in a notebook, and reach a file."""

from __future__ import annotations

import base64
import html
import os
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown
from tinygrad_sm.notebook import Shown
from viz.files import write_whole


def loaded(module: str, error: type[ImportError], need: str, package: str, extra: str) -> Any:
    """Import a package that only some need, or raise this error, which says how to install it."""
    try:
        return import_module(module)
    except ImportError:
        raise error(
            f"{need}, which is not installed: "
            f"python -m pip install {package}, or the extra {extra} of this project"
        ) from None


def svg_uri(svg: bytes) -> str:
    """An address that holds a picture itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


class Picture(Shown, ABC):
    """Something that renders to one of several formats.

    Attributes:
        formats: the formats that it renders to, such as "svg"; as suffixes, what `save` takes.
        dpi: dots per inch of a png, if nothing else is asked for.
        text: the same in plain text.
    """

    formats: ClassVar[tuple[str, ...]]
    dpi: ClassVar[float] = 96
    text: str

    @abstractmethod
    def render(self, format: str) -> bytes:
        """Return the picture in one of its formats.

        Raises:
            InvalidValueError: another format.
        """

    def save(
        self, path: str | os.PathLike[str], *, scale: float | None = None, dpi: float | None = None
    ) -> Path:
        """Write the picture to a file and return its path; the suffix decides the format.

        The file is complete or not there: if anything fails, an older file of that name stays.
        Its mode and owner stay in any case; a read-only one, or what is no file, is refused.

        Args:
            path: of the file.
            scale: how many times larger than usual a png or gif is; or
            dpi: its dots per inch.

        Raises:
            InvalidTypeError: `path` is not a path.
            InvalidValueError: its suffix is none of `formats`, or `scale` or `dpi` is not possible.
            RenderError: what draws the picture is missing or refuses.
            SaveError: the file cannot be written there.
        """
        target, dots = self.checked_target(path, scale, dpi)
        write_whole(target, self.render(target.suffix.lower().removeprefix("."), **dots))
        return target

    @classmethod
    def checked_target(
        cls, path: str | os.PathLike[str], scale: float | None, dpi: float | None
    ) -> tuple[Path, dict[str, Any]]:
        """Check what `save` is given; return the path, and dots per inch for `render`, if any."""
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidTypeError(f"save needs a path; got {type(path).__name__}")
        target = Path(path)
        cls.check_format(target.suffix.lower().removeprefix("."), target.name)
        if scale is None and dpi is None:
            return target, {}
        if target.suffix.lower() not in (".png", ".gif") or None not in (scale, dpi):
            raise InvalidValueError("scale or dpi, one of them, is for .png and .gif")
        name, value, unit = ("scale", scale, cls.dpi) if dpi is None else ("dpi", dpi, 1)
        if not isinstance(value, (int, float)) or not 10 <= value * unit <= 1200:
            raise InvalidValueError(
                f"{name} must make from 10 to 1200 dots per inch; got {shown(value)}"
            )
        return target, {"dpi": value * unit}

    @classmethod
    def check_format(cls, format: str, given: str | None = None) -> None:
        """Raise InvalidValueError if the picture does not have this format."""
        if format not in cls.formats:
            raise InvalidValueError(
                f"a picture can be saved as {', '.join('.' + name for name in cls.formats)}; "
                f"got {format if given is None else given!r}"
            )

    def __str__(self) -> str:
        return self.text

    def media(self) -> dict[str, str]:
        """The picture as svg, and as HTML with an image that is never wider than its place.

        In an image the picture keeps its rules of CSS to itself.
        """
        svg = self.render("svg")
        text = html.escape(self.text, quote=True)
        image = f'<img alt="{text}" style="max-width:100%" src="{svg_uri(svg)}">'
        return {"text/html": image, "image/svg+xml": svg.decode()}
