"""`frames`: the forward pass, then backward, one picture a step, all laid out alike."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, TypeVar, Unpack

from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, TinygradError, shown
from viz.drawing import Drawing
from viz.files import write_all
from viz.graphs import Course
from viz.notation import in_unicode
from viz.options import DrawOptions, chosen, takes
from viz.picture import Picture, loaded, svg_uri
from viz.rendering import render
from viz.svg import AT_REST, played

T = TypeVar("T")

_MOST_SAID = 72  # characters of a step's sentence


class FramesError(TinygradError, ImportError):
    """A package that joins pictures into one file is not installed."""


@takes(DrawOptions)
def frames(trace: BackwardTrace, *, seconds: float = 1.5, **options: Unpack[DrawOptions]) -> Frames:
    """Draw the forward pass, then backward, one picture a step; nothing moves between them.

    Args:
        trace: what ``backward(trace=True)`` returned.
        seconds: how long each picture is seen, where they play by themselves.
        **options: see below.

    Raises:
        InvalidTypeError: `trace` is no trace, or an option is of a wrong type.
        InvalidValueError: `seconds` or an option is not possible, or its node is not in the graph.
    """
    if not isinstance(seconds, (int, float)) or not 0.05 <= seconds <= 600:
        raise InvalidValueError(f"seconds must be from 0.05 to 600; got {shown(seconds)}")
    choice = chosen(frames, options)
    if not isinstance(trace, BackwardTrace):
        raise InvalidTypeError(
            "frames needs the BackwardTrace that backward(trace=True) returns; "
            f"got {type(trace).__name__}"
        )
    course = Course(trace, choice)
    steps = [_short(in_unicode(step)) for step in course.steps()]
    room = max(map(len, steps))
    pictures = [
        Drawing(course.scene(time, step, room), step, choice.look)
        for time, step in enumerate(steps)
    ]
    return Frames(pictures, seconds)


def _short(step: str) -> str:
    flat = " ".join(step.split())
    return flat if len(flat) <= _MOST_SAID else f"{flat[: _MOST_SAID - 1]}…"


class Frames(Picture):
    """Pictures that follow each other, to be saved in one file or in many.

    Attributes:
        pictures: a Drawing for each step.
        seconds: how long each is seen, where they play by themselves.
        text: what happens, step by step.
    """

    formats: ClassVar[tuple[str, ...]] = ("svg", "pdf", "gif")

    def __init__(self, pictures: Sequence[Drawing], seconds: float) -> None:
        self.pictures = tuple(pictures)
        self.seconds = seconds
        self.text = "\n".join(picture.text for picture in pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Drawing:
        return self.pictures[index]

    def __iter__(self) -> Iterator[Drawing]:
        return iter(self.pictures)

    def render(self, format: str, dpi: float | None = None) -> bytes:
        """Return all in one file: an svg or a gif that plays by itself, or a pdf of many pages.

        Raises:
            InvalidValueError: another format.
            FramesError: pdf needs pypdf, gif needs Pillow.
            RenderError: Graphviz is missing or refuses.
        """
        self.check_format(format)
        if format == "svg":
            svgs = self._each(lambda picture: render(picture.source, "svg").decode())
            return played(svgs, self[0].scene.name, self[0].look, self.seconds).encode()
        if format == "pdf":
            return _pages(self._each(lambda picture: picture.render("pdf")))
        return _animation(self._each(lambda picture: picture.render("png", dpi)), self.seconds)

    def _each(self, rendered: Callable[[Drawing], T]) -> list[T]:
        """Render every picture, several at once: Graphviz runs in processes of its own."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(rendered, self))

    def media(self) -> dict[str, str]:
        """The svg that plays; in HTML the last picture instead, if the reader wants no motion."""
        still = svg_uri(self[-1].render("svg"))
        playing = super().media()
        image = (
            f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
            f"{playing['text/html']}</picture>"
        )
        return playing | {"text/html": image}

    def save_each(
        self, path: str | os.PathLike[str], *, scale: float | None = None, dpi: float | None = None
    ) -> list[Path]:
        """Write a file for each step, numbered: "step.png" gives "step-01.png" and so on.

        All are written or none; the arguments are those of `save`, with a Drawing's formats.

        Returns:
            The paths, in order.
        """
        target, dots = Drawing.checked_target(path, scale, dpi)
        digits = max(2, len(str(len(self))))
        paths = [
            target.with_name(f"{target.stem}-{i:0{digits}}{target.suffix}")
            for i in range(1, len(self) + 1)
        ]
        format = target.suffix.lower().removeprefix(".")
        contents = self._each(lambda picture: picture.render(format, **dots))
        write_all(dict(zip(paths, contents, strict=True)))
        return paths


def _pages(pictures: list[bytes]) -> bytes:
    """One pdf of several."""
    pypdf = loaded("pypdf", FramesError, "frames in one pdf need pypdf", "pypdf", "slides")
    joined, content = pypdf.PdfWriter(), io.BytesIO()
    for picture in pictures:
        joined.append(io.BytesIO(picture))
    joined.metadata = None  # which says when it was made
    joined.write(content)
    return content.getvalue()


def _animation(pictures: list[bytes], seconds: float) -> bytes:
    loaded("PIL", FramesError, "frames in one gif need Pillow", "Pillow", "slides")
    from PIL import Image  # noqa: PLC0415  of the extra `slides`

    first, *others = [Image.open(io.BytesIO(x)).convert("RGB").quantize(64) for x in pictures]
    turns = [seconds * 1000] * len(others) + [seconds * 1000 * AT_REST]
    content = io.BytesIO()
    first.save(content, "gif", save_all=True, append_images=others, duration=turns, loop=0)
    return content.getvalue()
