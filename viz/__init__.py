"""Pictures of recorded computations: what was computed, and what backward sent along each edge."""

from viz.comparisons import draw_comparison
from viz.derivations import draw_formulas
from viz.drawing import Drawing
from viz.files import SaveError
from viz.fusion import draw_fusion
from viz.graphs import draw
from viz.lessons.pages import Page, page
from viz.levels import draw_levels
from viz.picture import Picture
from viz.rendering import RenderError
from viz.slides import Frames, FramesError, frames

__all__ = [
    "Drawing",
    "Frames",
    "FramesError",
    "Page",
    "Picture",
    "RenderError",
    "SaveError",
    "draw",
    "draw_comparison",
    "draw_formulas",
    "draw_fusion",
    "draw_levels",
    "frames",
    "page",
]
