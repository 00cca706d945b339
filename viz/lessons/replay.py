"""A recorded graph computed once more by the engine, on other inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import LEAF, Graph, Node
from tinygrad_sm.loss.options import Task
from viz.formula import primitive_of
from viz.lessons.record import Record, numbers

Inputs = Mapping[int, Sequence[float]]
"""The elements of leaves and constants, by the id of the node."""


def replayed(trace: BackwardTrace, inputs: Inputs, *, temperature: float | None = None) -> Record:
    """Run the operations of a trace forward and backward on other inputs.

    Args:
        trace: what was recorded; its graph and the cotangent of its output are kept.
        inputs: of the leaves and constants that have changed.
        temperature: of a fused loss, if it has changed.

    Returns:
        The engine's numbers as `trace_record` gives them, by the ids of the trace.
    """
    graph = trace.graph
    made: dict[int, Any] = {}
    with np.errstate(all="ignore"):  # the page says where it overflows
        for node in graph.nodes:
            made[node.id] = _computed(node, made, inputs, temperature)
        fresh = made[graph.output].backward(np.array(trace.steps[0].cotangent), trace=True)
    return _record(graph, made, fresh)


def _computed(
    node: Node, made: Mapping[int, Any], inputs: Inputs, temperature: float | None
) -> Any:
    """One node: an input with its new elements, or the operation on what was made so far."""
    if node.inputs:
        params = dict(node.params)
        if temperature is not None and isinstance(params.get("task"), Task):
            params["task"] = replace(params["task"], temperature=temperature)
        return primitive_of(node)(*(made[i] for i in node.inputs), **params)
    value = node.value
    if node.id in inputs:
        value = np.reshape(np.asarray(inputs[node.id], value.dtype), value.shape)
    if node.op == LEAF:
        return Tensor(value, name=node.name)
    return value.item() if node.weak else np.array(value)


def _record(graph: Graph, made: Mapping[int, Any], trace: BackwardTrace) -> Record:
    ids = {tensor._id: i for i, tensor in made.items() if isinstance(tensor, Tensor)}
    gradients, sent = {}, {}
    for node, cotangent, passed_on in trace.steps:
        mine = ids[node.tensor._id]
        gradients[mine] = numbers(cotangent)
        for edge in passed_on:
            sent[f"{mine}-{edge.argument}"] = numbers(edge.value)
    values = {i: numbers(x.numpy() if isinstance(x, Tensor) else x) for i, x in made.items()}
    return {"values": values, "gradients": gradients, "sent": sent}
