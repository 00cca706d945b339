"""DOT source to svg, png or pdf: by `dot` if there is one, else by pygraphviz's own Graphviz.

The package brings a font along, so that png and pdf have letters on a machine without any, and so
that boxes fit their text alike everywhere. Fontconfig is told of it while Graphviz runs.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
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
_PATIENCE: Final = 60.0  # seconds for the command 'dot'; what `draw` makes takes it a few

_graphviz_is_running = threading.RLock()  # its library keeps global state, as do the two below
if hasattr(os, "register_at_fork"):  # and a fork waits, so that a child is not born amid all that
    os.register_at_fork(
        before=_graphviz_is_running.acquire,
        after_in_parent=_graphviz_is_running.release,
        after_in_child=_graphviz_is_running.release,
    )


class RenderError(TinygradError, RuntimeError):
    """Graphviz could not turn a picture's source into the wanted format."""


def render(source: str, format: str) -> bytes:
    """Lay out DOT source and return it as "svg", "png" or "pdf".

    Raises:
        RenderError: Graphviz is missing, refuses or does not come to an end.
    """
    if shutil.which("dot"):
        image = _by_command(source, format)
    else:
        with _graphviz_is_running, _fonts_known(os.environ), _fontconfig_silenced():
            image = _in_process(source, format)
    if format != "svg":
        return image
    # the document type refers to elsewhere, and comments change with Graphviz's version
    bare = re.sub(rb"(<!DOCTYPE.*?>|<!--.*?-->)\s*", b"", image, flags=re.DOTALL)
    return bare.replace(b"&#45;", b"-")


def _by_command(source: str, format: str) -> bytes:
    settings = dict(os.environ)
    try:
        with _fonts_known(settings):
            done = subprocess.run(
                ["dot", f"-T{format}"], input=source.encode(), capture_output=True, check=False,
                env=settings, timeout=_PATIENCE,
            )  # fmt: skip
    except OSError as error:
        raise RenderError(f"the command 'dot' does not run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise RenderError(
            f"'dot' has not drawn {format} within {_PATIENCE:g} seconds and was given up; "
            "draw fewer nodes, or save as .dot or .mmd"
        ) from None
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = said[0] if said else "no reason given"
        raise RenderError(f"'dot' could not draw {format}: {reason}")
    return done.stdout


def _in_process(source: str, format: str) -> bytes:
    try:
        from pygraphviz import AGraph  # noqa: PLC0415  it loads Graphviz, which only this needs
    except ImportError as error:
        raise RenderError(
            f"to draw {format}, install pygraphviz (pip install 'pygraphviz>=2.0.4') or Graphviz's "
            "'dot'; .dot and .mmd need neither"
        ) from error
    try:
        image = AGraph(string=source).draw(format=format, prog="dot")
    except Exception as error:  # whatever the library raises, the caller gets one kind
        raise RenderError(f"Graphviz could not draw {format}: {error}") from error
    if not image:
        raise RenderError(f"Graphviz could not draw {format}")
    return bytes(image)


@contextmanager
def _fonts_known(settings: MutableMapping[str, str]) -> Iterator[None]:
    """Show Fontconfig the machine's fonts and ours, unless the user has configured it."""
    if settings.get("FONTCONFIG_FILE"):
        yield
        return
    with tempfile.NamedTemporaryFile("w", suffix=".conf", encoding="utf-8") as file:
        file.write(_font_configuration())
        file.flush()
        settings["FONTCONFIG_FILE"] = file.name
        try:
            yield
        finally:
            del settings["FONTCONFIG_FILE"]


@contextmanager
def _fontconfig_silenced() -> Iterator[None]:
    """Hold back what the bundled Fontconfig says on stderr of newer versions' settings."""
    try:
        stderr = os.dup(2)
    except OSError:  # there is no stderr, so nothing can appear on it
        yield
        return
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            for line in said:
                if not line.startswith(b"Fontconfig warning"):
                    os.write(2, line)


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
