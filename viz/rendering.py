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
from contextlib import contextmanager, suppress
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
_SOON: Final = 5.0  # seconds for the best layout; what `draw` makes mostly takes less than one
_PATIENCE: Final = 60.0  # seconds for the quick one
QUICKLY: Final = {"splines": "line", "nslimit": "2", "nslimit1": "2", "mclimit": "0.3"}
"""Graphviz's settings for a layout in seconds where its best one takes minutes."""
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
    command += [f"-T{format}", *([f"-Gdpi={dpi:g}"] if format == "png" else [])]
    quickly = [f"-G{key}={value}" for key, value in QUICKLY.items()]
    try:
        done = _run(command, source, min(_SOON, _PATIENCE))
        done = done or _run([*command, *quickly], source, _PATIENCE)
    except OSError as error:
        raise RenderError(f"the command {name} does not run: {error.strerror}") from error
    if done is None:
        raise RenderError(
            f"{name} has not drawn {format} within {_PATIENCE:g} seconds and was given up; "
            "draw fewer nodes, or save as .dot or .mmd"
        )
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        kind, _, missing = said[-1].partition("Error: ")
        if kind in ("Import", "ModuleNotFound"):  # such as an image of a system without X
            raise RenderError(
                f"to draw {format}, install Graphviz's 'dot' (Debian, Ubuntu: apt install "
                f"graphviz); pygraphviz cannot be loaded here: {missing}; .dot and .mmd need "
                "neither"
            )
        raise RenderError(f"{name} could not draw {format}: {said[-1]}")
    return done.stdout


def _run(
    command: list[str], source: str, seconds: float
) -> subprocess.CompletedProcess[bytes] | None:
    """Run Graphviz on a source; None if it did not come to an end in time."""
    with _fonts_known() as settings, suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            command, input=source.encode(), capture_output=True, check=False, env=settings,
            timeout=seconds,
        )  # fmt: skip
    return None


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
