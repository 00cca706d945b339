"""DOT source to svg, png, pdf or json: by `dot` if there is one, else by pygraphviz's Graphviz.

Either runs in a process of its own, which can be stopped, and which leaves ours as it is. The
package brings a font along, so that png and pdf have letters on a machine without any, and so that
boxes fit their text alike everywhere. Fontconfig is told of it while Graphviz runs.
"""

from __future__ import annotations

import html
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tinygrad_sm.errors import TinygradError

FORMATS: Final = ("svg", "png", "pdf")

_FONTS = Path(__file__).parent / "fonts"
_SYSTEM_FONTS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "~/Library/Fonts",
)
_PATIENCE: Final = 60.0  # seconds; what `draw` makes takes a few
_PROGRAM: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from pygraphviz import AGraph
graph = AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(graph.draw(format=sys.argv[2][2:], prog="dot", args=" ".join(sys.argv[3:])))
"""


class RenderError(TinygradError, RuntimeError):
    """Graphviz could not turn a picture's source into the wanted format."""


def render(source: str, format: str, dpi: float = 96) -> bytes:
    """Lay out DOT source and return it as "svg", "png", "pdf" or "json".

    Raises:
        RenderError: Graphviz is missing, refuses or does not come to an end.
    """
    name, command = _graphviz(format)
    options = [f"-T{format}", *([f"-Gdpi={dpi:g}"] if format == "png" else [])]
    try:
        with _fonts_known() as settings:
            done = subprocess.run(
                [*command, *options], input=source.encode(), capture_output=True, check=False,
                env=settings, timeout=_PATIENCE,
            )  # fmt: skip
    except OSError as error:
        raise RenderError(f"the command {name} does not run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise RenderError(
            f"{name} has not drawn {format} within {_PATIENCE:g} seconds and was given up; "
            "draw fewer nodes, or save as .dot or .mmd"
        ) from None
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RenderError(f"{name} could not draw {format}: {(said or ['no reason given'])[-1]}")
    return done.stdout


def _graphviz(format: str) -> tuple[str, list[str]]:
    """What a sentence calls the program that draws, and how it is started."""
    if dot := shutil.which("dot"):
        return "'dot'", [dot]
    package = find_spec("pygraphviz")
    if package is None or package.origin is None:
        raise RenderError(
            f"to draw {format}, install pygraphviz (pip install 'pygraphviz>=2.0.4') or Graphviz's "
            "'dot'; .dot and .mmd need neither"
        )
    return "Graphviz", [sys.executable, "-ISc", _PROGRAM, str(Path(package.origin).parents[1])]


@contextmanager
def _fonts_known() -> Iterator[dict[str, str]]:
    """An environment that shows Fontconfig our fonts, unless the user has configured it."""
    settings = dict(os.environ)
    if settings.get("FONTCONFIG_FILE"):
        yield settings
        return
    with tempfile.NamedTemporaryFile("w", suffix=".conf", encoding="utf-8") as file:
        file.write(_font_configuration())
        file.flush()
        yield settings | {"FONTCONFIG_FILE": file.name}


def _font_configuration() -> str:
    ours, *others = (html.escape(os.path.expanduser(x)) for x in (str(_FONTS), *_SYSTEM_FONTS))
    folders = "".join(f"<dir>{folder}</dir>" for folder in (ours, *others))
    places = ("/var/cache/fontconfig", os.path.join(tempfile.gettempdir(), "fontconfig"))
    caches = "".join(f"<cachedir>{html.escape(place)}</cachedir>" for place in places)
    # another version of our font has other widths
    rejected = "".join(f"<glob>{folder}/*DejaVuSans*</glob>" for folder in others)
    return (
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        f"{folders}{caches}<selectfont><rejectfont>{rejected}</rejectfont></selectfont></fontconfig>"
    )
