"""Pictures of recorded computations: what was computed, and what backward sent along each edge."""

from viz.compare import draw_comparison
from viz.draw import draw
from viz.drawing import Drawing
from viz.fusion import draw_fusion
from viz.levels import draw_levels
from viz.picture import Picture, SaveError
from viz.render import RenderError

__all__ = [
    "Drawing",
    "Picture",
    "RenderError",
    "SaveError",
    "draw",
    "draw_comparison",
    "draw_fusion",
    "draw_levels",
]
