"""The page as a live widget: the engine in Python answers each change of a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_sm.errors import TinygradError
from viz.lessons.presets import Lesson
from viz.lessons.record import Record
from viz.lessons.replay import replayed
from viz.picture import loaded


class WidgetError(TinygradError, ImportError):
    """anywidget is not installed."""


def live_widget(html: str, title: str, height: int, script: str, lessons: list[Lesson]) -> Any:
    """Return an anywidget that shows the page and answers it.

    Raises:
        WidgetError: anywidget is not installed.
    """
    need = "a live page needs anywidget"
    anywidget = loaded("anywidget", WidgetError, need, "'anywidget>=0.9'", "widget")
    import traitlets  # noqa: PLC0415  it comes with anywidget

    traits: dict[str, Any] = {
        "html": traitlets.Unicode(),
        "title": traitlets.Unicode(),
        "height": traitlets.Int(),
    }
    synced = {name: trait.tag(sync=True) for name, trait in traits.items()}
    made: Any = type("LivePage", (anywidget.AnyWidget,), {"_esm": script, **synced})(
        html=html, title=title, height=height
    )

    def hear(widget: Any, asked: Any, _: Any) -> None:
        found = answer(lessons, asked)
        if found is not None:
            widget.send(found)

    made.on_msg(hear)
    return made


def answer(lessons: list[Lesson], asked: Any) -> Record | None:
    """The engine's numbers for what a page asks; None for what is no question of ours.

    Args:
        lessons: those of the page.
        asked: ``{"key": …, "lesson": …, "inputs": {id: [numbers]}}``; the key comes back.
    """
    if not isinstance(asked, Mapping) or not isinstance(asked.get("inputs"), Mapping):
        return None
    one = next((x for x in lessons if x.key == asked.get("lesson")), None)
    if one is None:
        return None
    try:
        inputs = {int(i): [float(v) for v in x] for i, x in asked["inputs"].items()}
        return _answered(one, inputs) | {"key": asked.get("key")}
    except (TypeError, ValueError):  # not numbers, or not so many
        return None


def _answered(one: Lesson, inputs: dict[int, list[float]]) -> Record:
    roles = one.roles
    nodes = one.trace.graph.nodes
    if "m" in roles:  # the largest logit of each row, which the shifted forms take off
        given = nodes[roles["d"]].inputs[0]
        logits = np.reshape(inputs.get(given, nodes[given].value), nodes[given].shape)
        among = tuple(i for i, n in enumerate(nodes[roles["m"]].shape) if n == 1)
        inputs = inputs | {roles["m"]: logits.max(axis=among).ravel().tolist()}
    found = {"composite": replayed(one.trace, inputs)}
    if one.fused is None or not {"a", "y"} <= roles.keys():
        return found
    logits_id, target_id = one.fused.graph.nodes[one.fused.graph.output].inputs[:2]
    same = {logits_id: roles["a"], target_id: roles["y"]}
    fused = {i: inputs[other] for i, other in same.items() if other in inputs}
    [temperature] = inputs.get(roles.get("temperature", -1), [None])
    return found | {"fused": replayed(one.fused, fused, temperature=temperature)}
