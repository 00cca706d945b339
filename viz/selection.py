"""Which nodes of a graph get a box, and which nodes of two graphs are the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from tinygrad_sm.engine.view import LEAF, Graph, Node
from viz.formula import is_number


def is_view(node: Node) -> bool:
    """Whether a node only looks at the same numbers in another shape."""
    return node.primitive is not None and node.primitive.kind == "view"


def is_drawn(node: Node) -> bool:
    """Whether a node has a box of its own; plain numbers stand in the formulas."""
    return not is_number(node)


def folded(view: Graph, kind: Callable[[Node], bool]) -> dict[int, int]:
    """Nodes of this kind that stand in the formula of their only consumer.

    Returns for each the node that the consumer's arrow comes from. What has a name, or is the
    output, keeps its box.
    """
    uses = [0] * len(view.nodes)
    for edge in view.edges:
        uses[edge.source] += 1
    found: dict[int, int] = {}
    for node in view.nodes:
        alone = uses[node.id] == 1 and node.name is None and node.id != view.output
        if kind(node) and alone:
            found[node.id] = found.get(node.inputs[0], node.inputs[0])
    return found


def same_inputs(reference: Graph, other: Graph) -> dict[int, int]:
    """The inputs of `other` that `reference` has too: the same Tensor, or an equal constant.

    Returns their ids in `other`, with those in `reference`.
    """
    known: dict[Hashable, int] = {}
    for node in reference.nodes:
        if not node.inputs:
            known.setdefault(_identity(node), node.id)
    found = {node.id: known.get(_identity(node)) for node in other.nodes if not node.inputs}
    return {mine: theirs for mine, theirs in found.items() if theirs is not None}


def _identity(node: Node) -> Hashable:
    """What is the same for the same leaf, and for constants with equal elements."""
    if node.op == LEAF:
        return id(node.tensor)
    return node.op, node.value.size, (node.value.astype(np.float64) + 0.0).tobytes()
