"""Pictures of recorded computations: what was computed, and what backward sent along each edge."""

from viz.compare import draw_comparison
from viz.draw import draw
from viz.drawing import Drawing
from viz.picture import Picture, SaveError
from viz.render import RenderError

__all__ = ["Drawing", "Picture", "RenderError", "SaveError", "draw", "draw_comparison"]
