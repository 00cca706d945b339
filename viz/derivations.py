"""`draw_formulas`: the graph of the naive composite with formulas in the place of numbers."""

from __future__ import annotations

from dataclasses import replace

from tinygrad_sm.engine.view import CONSTANT
from tinygrad_sm.study.derivation import Derivation
from tinygrad_sm.study.equations import Plain
from tinygrad_sm.texts import texts
from viz.drawing import Drawing
from viz.graphs import draw
from viz.scene import Arrow, Box, Row, Tone

_WITH_NAMES = ("s", "p")  # whose titles do not say what they are in terms of a
_TONES: dict[str, Tone] = {"p>e": "numerator", "s>e": "denominator"}


def draw_formulas(derivation: Derivation) -> Drawing:
    """Draw what backward sends along every edge as a formula in a and y.

    The two edges at e = exp(a) read −y and (Σy)·exp(a)/Σexp(a), which are the two terms of the
    gradient. A formula that is not what the graph holds is left out.

    Args:
        derivation: what `derive` returned.
    """
    drawn = draw(derivation.graph)
    name = {f"n{node.id}": node.name or node.op for node in derivation.graph.nodes}
    constants = {f"n{n.id}" for n in derivation.graph.nodes if n.op == CONSTANT}
    writer = Plain(vectors=True)

    def text(place: str) -> str:
        formula = derivation.places.get(place)
        return writer.write(formula) if formula else "?"

    def with_formulas(box: Box) -> Box:
        own = name[box.key]
        if box.key in constants:
            return replace(box, rows=(), subtitle="")
        rows = [Row("grad", ((text(f"∂{own}"),),), "gradient")]
        if own in _WITH_NAMES:
            rows.insert(0, Row("value", ((text(own),),)))
        return replace(box, rows=tuple(rows), subtitle="", remarks=())

    def labelled(arrow: Arrow) -> Arrow:
        if arrow.source in constants:
            return arrow
        place = f"{name[arrow.target]}>{name[arrow.source]}"
        sign = "∂ · exp(a):" if place in _TONES else "∂:"
        tone = _TONES.get(place, arrow.tone)
        return replace(arrow, sign=sign, cells=((text(place),),), tone=tone)

    scene = replace(
        drawn.scene,
        boxes=tuple(map(with_formulas, drawn.scene.boxes)),
        arrows=tuple(map(labelled, drawn.scene.arrows)),
        caption=(*drawn.scene.caption[:1], texts(derivation.lang, "derive")["caption"]),
    )
    return Drawing(scene, drawn.text)
