"""Drawing: the picture of a graph."""

from __future__ import annotations

from typing import ClassVar

from tinygrad_sm.engine.view import computed_once
from viz.mermaid import mermaid_text
from viz.picture import Picture
from viz.rendering import FORMATS, render
from viz.scene import Scene
from viz.style import Look
from viz.svg import standalone
from viz.tikz import tikz_document

_USUAL = Look()


class Drawing(Picture):
    """A picture of a graph; notebooks show it.

    Attributes:
        scene: what it says, before any format.
        text: the same in plain text.
        look: theme and font size.
    """

    formats: ClassVar[tuple[str, ...]] = (*FORMATS, "tex", "dot", "mmd")

    def __init__(self, scene: Scene, text: str, look: Look = _USUAL) -> None:
        self.scene = scene
        self.text = text
        self.look = look

    @computed_once
    def source(self) -> str:
        """The Graphviz (DOT) source; the same graph gives the same bytes in every run."""
        from viz.dot import dot_source  # noqa: PLC0415  what is not drawn needs no graphviz

        return dot_source(self.scene, self.look)

    @property
    def mermaid(self) -> str:
        """The picture as a Mermaid flowchart."""
        return mermaid_text(self.scene, self.look)

    def render(self, format: str, dpi: float | None = None) -> bytes:
        """Return the picture as "svg", "png", "pdf", "tex" (TikZ), "dot" or "mmd".

        Raises:
            InvalidValueError: another format.
            RenderError: Graphviz is missing or refuses.
        """
        self.check_format(format)
        if format == "dot":
            return self.source.encode()
        if format == "mmd":
            return self.mermaid.encode()
        if format == "tex":
            return tikz_document(render(self.source, "json"), self.scene).encode()
        image = render(self.source, format, dpi or self.dpi)
        if format == "svg":
            return standalone(image.decode(), self.scene.name, self.look).encode()
        return image

    def __repr__(self) -> str:
        return f"<Drawing of {len(self.scene.boxes)} nodes>"
