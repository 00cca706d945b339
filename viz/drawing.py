"""Drawing: the picture of a graph."""

from __future__ import annotations

from typing import ClassVar

from tinygrad_sm.engine.view import computed_once
from viz.mermaid import mermaid_text
from viz.picture import Picture
from viz.rendering import FORMATS, render
from viz.scene import Scene


class Drawing(Picture):
    """A picture of a graph; notebooks show it.

    Attributes:
        scene: what it says, before any format.
        text: the same in plain text.
    """

    formats: ClassVar[tuple[str, ...]] = (*FORMATS, "dot", "mmd")

    def __init__(self, scene: Scene, text: str) -> None:
        self.scene = scene
        self.text = text

    @computed_once
    def source(self) -> str:
        """The Graphviz (DOT) source; the same graph gives the same bytes in every run."""
        from viz.dot import dot_source  # noqa: PLC0415  what is not drawn needs no graphviz

        return str(dot_source(self.scene).source)

    @property
    def mermaid(self) -> str:
        """The picture as a Mermaid flowchart."""
        return mermaid_text(self.scene)

    def render(self, format: str) -> bytes:
        """Return the picture as "svg", "png", "pdf", "dot" or "mmd".

        Raises:
            InvalidValueError: another format.
            RenderError: Graphviz is missing or refuses.
        """
        self.check_format(format)
        if format == "dot":
            return self.source.encode()
        if format == "mmd":
            return self.mermaid.encode()
        return render(self.source, format)

    def __repr__(self) -> str:
        return f"<Drawing of {len(self.scene.boxes)} nodes>"
