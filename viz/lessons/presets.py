"""What the page teaches with: graphs of the loss, and inputs that show something in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_sm.engine import rules
from tinygrad_sm.engine.scopes import group
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import CONSTANT, Graph
from tinygrad_sm.loss.composite import composite_cross_entropy
from tinygrad_sm.loss.fused import cross_entropy
from tinygrad_sm.study.comparison import Comparison
from viz.formula import is_number

TEXTBOOK = ([2.0, 1.0, 0.1], [1.0, 0.0, 0.0])
"""Logits and target of the article "Softmax-with-Loss 계층" on ratsgo's blog."""
_TEN = [1.2, -0.3, 2.4, 0.0, -1.1, 0.7, 3.1, -2.0, 0.4, 1.6]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One graph that the page steps through, with the fused node beside it.

    Attributes:
        key: its name in the page.
        trace: of the composite, or of a user's graph.
        fused: of the fused node, on the same inputs; None for a user's graph.
        roles: the ids of nodes of the composite by their part in the proof: the names that the
            composite gives them, "temperature", and "mean" for what the loss is divided by.
        terms: what the two addends at the fork are called, numerator first.
    """

    key: str
    trace: BackwardTrace
    fused: BackwardTrace | None = None
    roles: Mapping[str, int] = field(default_factory=dict)
    terms: tuple[str, str] = ("−y", "+p·Σy")


@dataclass(frozen=True, slots=True)
class Preset:
    """Inputs for a lesson; `forms` are lessons that show the same inputs in another form."""

    key: str
    lesson: str
    logits: Sequence[Any]
    target: Sequence[Any]
    temperature: float = 1.0
    forms: tuple[str, ...] = ()


PRESETS = (
    Preset("textbook", "naive", *TEXTBOOK),
    Preset(
        "overflow", "naive", [1000.0, 0.0, 0.0], [1.0, 0.0, 0.0],
        forms=("naive", "logsumexp"),
    ),
    Preset("soft", "naive", [2.0, 1.0, 0.1], [1.0, 1.0, 0.0]),
    Preset("batch", "batch", [[2.0, 1.0, 0.1], [0.5, 2.0, 1.0]], [[1, 0, 0], [0, 0, 1]]),
    Preset("temperature", "temperature", *TEXTBOOK, temperature=2.0),
    Preset("twice", "twice", *TEXTBOOK),
    Preset("ten", "ten", _TEN, np.eye(10)[2].tolist()),
)  # fmt: skip


def lesson(preset: Preset, key: str) -> Lesson:
    """Run the engine on a preset's inputs, through the graph of this name."""
    logits = Tensor(preset.logits, name="a")
    target = np.asarray(preset.target, np.float64)
    temperature = preset.temperature
    with np.errstate(all="ignore"):  # that is what some of them are about
        if key == "twice":
            output = _twice(logits, target)
        else:
            form = key if key == "logsumexp" else "naive"
            output = composite_cross_entropy(logits, target, form=form, temperature=temperature)
        fused = cross_entropy(logits, target, temperature=temperature)
        return _lesson(key, _swept(output), _swept(fused))


def lesson_of_comparison(comparison: Comparison) -> Lesson:
    """The lesson about logits and target of a user's own.

    A class index is shown as the distribution that it stands for, so that it can be changed.
    """
    fused = comparison.fused_trace.graph
    task = fused.nodes[fused.output].params["task"]
    if task.index is None or task.coefficient is not None or task.smooth is not None:
        return _lesson("yours", comparison.composite_trace, comparison.fused_trace)
    logits = Tensor(comparison.logits, name="a")
    options: dict[str, Any] = {
        "temperature": task.temperature, "reduction": task.reduction, "axis": task.axis,
    }  # fmt: skip
    with np.errstate(all="ignore"):
        target = comparison.target
        output = composite_cross_entropy(logits, target, form=comparison.form, **options)
        return _lesson("yours", _swept(output), _swept(cross_entropy(logits, target, **options)))


def _lesson(key: str, trace: BackwardTrace, fused: BackwardTrace) -> Lesson:
    roles = roles_of(trace.graph)
    divided = "mean" in roles
    n = trace.graph.nodes[roles["mean"]].value.item() if divided else 1
    terms = (f"−y/{n:g}", f"+p·Σy/{n:g}") if divided else ("−y", "+p·Σy")
    return Lesson(key, trace, fused, roles, terms)


def _twice(logits: Tensor, target: np.ndarray) -> Tensor:
    """The loss of softmax's softmax, as a model gives it that ends in a softmax of its own."""
    with group("softmax"):
        e = rules.exp(logits).named("e")
        q = (e / e.sum(axis=-1, keepdims=True).named("s")).named("q")
    output: Tensor = composite_cross_entropy(q, target)
    return output


def _swept(output: Tensor) -> BackwardTrace:
    trace = output.backward(np.ones(output.shape), trace=True)
    assert trace is not None
    return trace


def roles_of(graph: Graph) -> dict[str, int]:
    """Find the parts of the last softmax and of the loss in a graph that the composite recorded."""
    nodes = graph.nodes
    roles: dict[str, int] = {}
    for node in nodes:
        computed = node.name in ("a", "e", "s", "p", "q", "z", "d", "lse")
        if node.name and (computed or (node.name in ("y", "m") and node.op == CONSTANT)):
            roles[node.name] = node.id
    if "z" in roles:
        roles["temperature"] = nodes[roles["z"]].inputs[1]
    output = nodes[graph.output]
    if output.op == "div" and is_number(nodes[output.inputs[1]]):
        roles["mean"] = output.inputs[1]
    return roles
