"""Shapes, borders and colours: Okabe and Ito's palette, which is safe for the colour-blind.

Nothing is told by colour alone: each kind has its own border, each tone its own line and words.
"""

from __future__ import annotations

from typing import Final

from viz.scene import Kind, Tone

FONT: Final = "DejaVu Sans,Verdana,Arial,sans-serif"
SIZE: Final = 11
SMALL: Final = 10
INK: Final = "#1A1A1A"
FAINT: Final = "#555555"
ALARM: Final = "#B34700"
ALARM_FILL: Final = "#FFE3D1"

BOXES: Final[dict[Kind, dict[str, str]]] = {
    "leaf": {"shape": "box", "style": "rounded,filled", "fillcolor": "#DDF0FB", "penwidth": "1.6"},
    "constant": {"shape": "box", "style": "dashed,filled", "fillcolor": "#FFFFFF"},
    "operation": {"shape": "box", "style": "filled", "fillcolor": "#FAFAFA"},
    "fused": {
        "shape": "box3d",
        "style": "filled",
        "fillcolor": "#FFF0CC",
        "penwidth": "1.6",
        "margin": "0.12,0.1",
    },
    "cut": {"shape": "box", "style": "dotted", "penwidth": "1.6"},
}

CLUSTERS: Final[dict[bool, dict[str, str]]] = {  # whether it is marked
    False: {"color": "#999999", "style": "rounded", "penwidth": "1"},
    True: {"color": INK, "style": "rounded,dashed", "penwidth": "2"},
}

TONES: Final[dict[Tone, dict[str, str]]] = {
    "plain": {"color": "#333333", "style": "solid"},
    "numerator": {"color": "#0065A3", "style": "bold"},
    "denominator": {"color": "#B34700", "style": "bold,dashed"},
    "gradient": {"color": "#00664B", "style": "bold"},
    "rewrite": {"color": "#1A1A1A", "style": "dashed", "penwidth": "2"},
}
"""The line of each tone. Darker than the palette where text has its colour."""
