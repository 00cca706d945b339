"""How results show themselves in a notebook: as pictures and tables, or else as text.

Who computes a result knows no pictures, and who draws them stands above it. So a result asks here
for whoever said that it draws; the package's front page names `viz`, which is loaded then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Bundle = dict[str, str]
"""What a notebook may choose from, by media type, such as "image/svg+xml"."""

_drawers: list[Callable[[Any], Bundle]] = []


def shown_by(drawer: Callable[[Any], Bundle]) -> None:
    """Let a function draw what is shown from now on; its bundles need no text."""
    _drawers[:] = [drawer]


class Shown:
    """Something that Jupyter, VS Code and marimo show as more than its text."""

    __slots__ = ()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        """What a notebook may show; the text alone where the rest cannot be made."""
        text = str(self)
        try:
            drawn = [drawer(self) for drawer in _drawers]
        except Exception as error:  # a notebook must show something, whatever is missing
            return {"text/plain": f"{text}\n(no picture: {error})"}
        return {"text/plain": text} | {kind: x for one in drawn for kind, x in one.items()}
