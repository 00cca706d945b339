"""The reverse sweep: from an output back to all that it was computed from.

By the chain rule the cotangent of a node, ∂L/∂node, is the sum of what its consumers contribute:
over each edge, from a consumer back to an operand, goes what the vjp of the consumer's operation
makes of the consumer's own cotangent. When nodes are visited from the newest to the oldest, each
cotangent is complete before it is passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any

from tinygrad_sm.arrays.kinds import as_array
from tinygrad_sm.engine.node import Recorded, leaf
from tinygrad_sm.engine.rules import sum_to
from tinygrad_sm.engine.shapes import astype
from tinygrad_sm.errors import InvalidValueError

Cotangents = dict[Any, Any]
"""The cotangent of each node: an array, or a node where the sweep itself is recorded."""
Pulled = tuple[int, Any, Any]
"""What goes over an edge: the operand's position, the operand, and the contribution to it."""


def newest_first(output: Any) -> list[Any]:
    """Return the output and all nodes behind it, each before those that it was made of."""
    found, seen = [output], {output}
    for node in found:  # grows while it is walked
        for x in (node._first, node._second, *node._operation.more):
            if isinstance(x, Recorded) and x not in seen:
                seen.add(x)
                found.append(x)
    found.sort(key=attrgetter("_id"), reverse=True)
    return found


def pull(node: Any, g: Any) -> Iterator[Pulled]:
    """Yield what the cotangent `g` of a node contributes to each of its operands."""
    operation, operands = node._operation, node._operands
    given = (g, node._array, *node._values)
    if isinstance(g, Recorded):  # then the vjps are recorded, to be differentiated again
        given = (g, node, *operands)
    vjps = operation.primitive.vjps(len(operands)) if operands else ()  # a leaf has neither
    for i, (operand, vjp) in enumerate(zip(operands, vjps, strict=True)):
        if vjp is not None and isinstance(operand, Recorded) and operand.requires_grad:
            contribution = vjp(*given, **operation.params)
            if contribution is not None:  # None: it passes nothing on
                yield i, operand, fitted(contribution, node, i, operand, like=g)


def add(cotangents: Cotangents, node: Any, contribution: Any) -> None:
    """Add a contribution to the cotangent of a node: where edges meet, they add up."""
    known = cotangents.get(node)
    cotangents[node] = contribution if known is None else known + contribution


def sweep_back(
    nodes: Iterable[Any],
    cotangents: Cotangents,
    pull: Callable[[Any, Any], Iterable[Pulled]] = pull,
    add: Callable[[Cotangents, Any, Any], None] = add,
) -> None:
    """Complete the cotangents, of which the output's is known; `nodes` come newest first.

    Another `pull` or `add` may stand in for those above, if it does the same.
    """
    for node in nodes:
        g = cotangents.get(node)
        if g is None:
            continue
        for _, operand, contribution in pull(node, g):
            add(cotangents, operand, contribution)


def fitted(contribution: Any, node: Any, argument: int, operand: Any, like: Any) -> Any:
    """Return a contribution in its operand's shape and dtype; as a node, if `like` is one.

    Where the operand was broadcast, it is summed. Raises InvalidValueError if its shape is not a
    broadcast of the operand's.
    """
    c = contribution
    if not isinstance(c, Recorded):
        c = as_array(c)
        if isinstance(like, Recorded):  # the vjp did not use it, and gave a constant
            c = leaf(like._kind, c)
    shape = operand.shape
    if c.shape != shape:
        if not is_repeated(c.shape, shape):
            raise InvalidValueError(
                f"the vjp of {node._operation.primitive.name!r} for argument {argument} returned "
                f"shape {c.shape}; the argument's shape is {shape}"
            )
        c = sum_to(c, operand)
    if c.dtype != operand.dtype:
        c = astype(c, dtype=operand.dtype)
    return c if isinstance(c, Recorded) else as_array(c)


def is_repeated(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Return whether broadcasting can make an array of `shape` of one of the shape `given`."""
    extra = len(shape) - len(given)
    return extra >= 0 and all(n in (1, m) for n, m in zip(given, shape[extra:], strict=True))
