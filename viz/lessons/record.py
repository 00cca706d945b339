"""A trace as data for the page: the graph, and every number of its forward and backward pass."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import CONSTANT, Graph, Node
from tinygrad_sm.loss.options import Task
from viz.formula import Formulas, letter, primitive_of
from viz.lessons.layout import grid, title_of
from viz.notation import ACCENTS, SIGNS, Part, in_unicode, split

_LONGEST_SYMBOL = 14  # of a name under ∂L/∂

_ELEMENTS = {"row": "mrow", "sub": "msub", "sup": "msup", "frac": "mfrac", "sqrt": "msqrt"}

Record = dict[str, Any]
"""What `json.dumps` takes."""


def graph_record(graph: Graph) -> Record:
    """The graph as the page interprets it: operation, operands, shape and names of each node."""
    formulas = Formulas(graph)
    return {
        "nodes": [_node_record(node, graph, formulas) for node in graph.nodes],
        "output": graph.output,
    }


def trace_record(trace: BackwardTrace) -> Record:
    """The engine's own numbers: values, gradients, and what went over each edge.

    Where it is all that a node received, it is the node's gradient, and not written twice.
    """
    gradients = {step.node.id: numbers(step.cotangent) for step in trace.steps}
    sent = {
        f"{step.node.id}-{edge.argument}": numbers(edge.value)
        for step in trace.steps
        for edge in step.passed_on
        if numbers(edge.value) != gradients[step.node.inputs[edge.argument]]
    }
    values = {n.id: numbers(n.value) for n in trace.graph.nodes}
    return {"values": values, "gradients": gradients, "sent": sent}


def numbers(x: Any) -> list[float | str]:
    """The elements in one list; JSON has no NaN and no infinities, so that those are text."""
    return [_number(v) for v in np.ravel(np.asarray(x, np.float64)).tolist()]


def _number(v: float) -> float | str:
    if math.isfinite(v):
        return int(v) if v == int(v) and abs(v) < 1e6 and math.copysign(1, v) * v >= 0 else v
    return "NaN" if math.isnan(v) else "Infinity" if v > 0 else "-Infinity"


def _node_record(node: Node, graph: Graph, formulas: Formulas) -> Record:
    written = formulas.name(node) or (title_of(node, formulas) if node.inputs else letter(node))
    name = in_unicode(written)
    found: Record = {"op": node.op, "title": title_of(node, formulas), "shape": list(node.shape)}
    found["name"] = name if len(name) <= _LONGEST_SYMBOL else f"v{node.id}"
    if found["name"] == name and "$" in written:
        found["math"] = ["mrow", *(_math(piece, tree) for piece, tree in split(written))]
    if grid(node.shape) != (1, 1):
        found["grid"] = grid(node.shape)
    if node.inputs:
        found["inputs"] = list(node.inputs)
        params = _params(node, graph)
        if params != {}:
            found["params"] = params
    return found


def _math(text: str, tree: Part | None) -> list[Any]:
    """A part of a name as MathML: an element's tag, and what is in it."""
    if tree is None:
        return ["mtext", text]
    inner = [_math("", part) for part in tree.parts]
    if tree.kind in ACCENTS:
        return ["mover", *inner, ["mo", ACCENTS[tree.kind]]]
    if tree.kind in _ELEMENTS:
        return [_ELEMENTS[tree.kind], *inner]
    text = SIGNS[tree.text] if tree.kind == "sign" else tree.text
    return ["mi" if text.isalpha() else "mn" if text.isdecimal() else "mo", text]


def _params(node: Node, graph: Graph) -> Record | None:
    """What the page's arithmetic needs beside the operands; None if it cannot know it."""
    primitive = primitive_of(node)
    if primitive.kind == "loss":
        return _loss_params(node, graph)
    if primitive.kind in ("view", "move"):
        return {"positions": _positions(node, graph)}
    shapes = [graph.nodes[i].shape for i in node.inputs]
    if primitive.kind == "reduction":
        axis, rank = node.params.get("axis"), len(shapes[0])
        axes = range(rank) if axis is None else np.ravel(axis)
        return {"axes": sorted(int(i) % rank for i in axes)}
    if node.op == "matmul" and max(map(len, shapes)) > 2:
        return None
    return {}


def _positions(node: Node, graph: Graph) -> list[int]:
    """For what only moves elements: which element of its operands, in a row, each one is."""
    primitive = primitive_of(node)
    operands: list[Any] = []
    start = 0
    for vjp, i in zip(primitive.vjps(len(node.inputs)), node.inputs, strict=True):
        operand = graph.nodes[i].value
        if vjp is not None:  # else an index, which picks
            numbered = np.arange(start, start + operand.size, dtype=np.float64)
            operand = numbered.reshape(operand.shape)
            start += operand.size
        operands.append(operand)
    moved = primitive.forward(*operands, **node.params)
    return [int(i) for i in np.ravel(moved)]


def loss_params(trace: BackwardTrace) -> Record | None:
    """The options of a graph that is one fused loss; None if the page does not know them."""
    return _loss_params(trace.graph.nodes[trace.graph.output], trace.graph)


def _loss_params(node: Node, graph: Graph) -> Record | None:
    logits, target = (graph.nodes[i] for i in node.inputs[:2])
    task = node.params.get("task")
    if node.op != "SoftmaxWithLoss" or not isinstance(task, Task):
        return None
    last = task.axis == len(logits.shape) - 1
    dense = target.op == CONSTANT and target.shape == logits.shape
    if task.reduction == "none" or not (last and dense):
        return None
    return {"divisor": task.divisor, "temperature": task.temperature}


def count_of_numbers(traces: Iterable[BackwardTrace]) -> int:
    """How many numbers the records of these traces hold, about."""
    return sum(
        sum(math.prod(n.shape) for n in trace.graph.nodes)
        + sum(step.cotangent.size + sum(e.value.size for e in step.passed_on)
              for step in trace.steps)
        for trace in traces
    )  # fmt: skip
