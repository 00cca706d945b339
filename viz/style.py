"""Themes, shapes and lines: Okabe and Ito's palette, which is safe for the colour-blind.

Nothing is told by colour alone: each kind has its own border, each tone its own line and words.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from viz.scene import Kind, Tone

FONT: Final = "DejaVu Sans,Verdana,Arial,sans-serif"
SIZE: Final = 11

ThemeName = Literal["auto", "light", "dark", "mono"]
Colours: TypeAlias = dict[str, str]
"""Colours by what they are for: a kind of box, a tone, or a part of the picture."""

LIGHT: Final[Colours] = {
    "paper": "#FFFFFF", "ink": "#1A1A1A", "faint": "#555555", "frame": "#999999",
    "alarm": "#B34700", "alarm fill": "#FFE3D1",
    "leaf": "#DDF0FB", "constant": "#FFFFFF", "operation": "#FAFAFA", "fused": "#FFF0CC",
    "group": "#FAFAFA", "cut": "#FFFFFF",
    "plain": "#333333", "numerator": "#0065A3", "denominator": "#B34700", "gradient": "#00664B",
    "rewrite": "#1A1A1A",
}  # fmt: skip
DARK: Final[Colours] = {
    "paper": "#14171C", "ink": "#F0F0F0", "faint": "#B4B8BF", "frame": "#7A808A",
    "alarm": "#FFA56B", "alarm fill": "#5A2A10",
    "leaf": "#173A52", "constant": "#14171C", "operation": "#23272E", "fused": "#4A3A10",
    "group": "#23272E", "cut": "#14171C",
    "plain": "#C8CCD2", "numerator": "#7CC4F5", "denominator": "#FFA56B", "gradient": "#5FD8AE",
    "rewrite": "#F0F0F0",
}  # fmt: skip
_FILLS = {"paper", "alarm fill", "leaf", "constant", "operation", "fused", "group", "cut"}
MONO: Final[Colours] = {role: "#FFFFFF" if role in _FILLS else "#000000" for role in LIGHT}
THEMES: Final[dict[ThemeName, Colours]] = {
    "auto": LIGHT,  # an svg turns dark where its reader prefers that
    "light": LIGHT,
    "dark": DARK,
    "mono": MONO,
}


class Look(NamedTuple):
    """How a picture looks, whatever it says."""

    theme: ThemeName = "auto"
    size: int = SIZE


BOXES: Final[dict[Kind, dict[str, str]]] = {
    "leaf": {"shape": "box", "style": "rounded,filled", "penwidth": "1.6"},
    "constant": {"shape": "box", "style": "dashed,filled"},
    "operation": {"shape": "box", "style": "filled"},
    "fused": {"shape": "box3d", "style": "filled", "penwidth": "1.6", "margin": "0.12,0.1"},
    "group": {"shape": "folder", "style": "filled", "margin": "0.12,0.1"},
    "cut": {"shape": "box", "style": "dotted,filled", "penwidth": "1.6"},
}

CLUSTERS: Final[dict[bool, dict[str, str]]] = {  # whether it is marked
    False: {"style": "rounded", "penwidth": "1"},
    True: {"style": "rounded,dashed", "penwidth": "2"},
}

LINES: Final[dict[Tone, dict[str, str]]] = {
    "plain": {"style": "solid"},
    "numerator": {"style": "bold"},
    "denominator": {"style": "bold,dashed"},
    "gradient": {"style": "bold"},
    "rewrite": {"style": "dashed", "penwidth": "2"},
}
