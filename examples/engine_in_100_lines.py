"""The whole idea in a hundred lines: exp, sum, div, log, and the sweep back through them.

    python examples/engine_in_100_lines.py

A `Node` is a value, and a memory of how it was made. The table says of each operation what it
computes, and what it passes back to each operand: the cotangent from above times the derivative.
"""

import numpy as np

# The table: name: (forward, [a vjp for each operand]) ---------------------------------------------
#
# g is ∂L/∂(result), the cotangent from above; then the result; then the operands.

TABLE = {
    "exp": (np.exp, [lambda g, y, x: g * y]),
    "log": (np.log, [lambda g, y, x: g / x]),
    "sum": (np.sum, [lambda g, y, x: g * np.ones_like(x)]),
    "neg": (np.negative, [lambda g, y, x: -g]),
    "mul": (np.multiply, [lambda g, z, x, y: g * y, lambda g, z, x, y: g * x]),
    "div": (np.divide, [lambda g, q, f, d: g / d, lambda g, q, f, d: -g * q / d]),
}


class Node:
    """A value, and how it was made: an operation of the table, and its operands."""

    count = 0

    def __init__(self, value, op=None, operands=()):
        self.value = np.asarray(value, dtype=float)
        self.op, self.operands = op, operands
        self.number = Node.count = Node.count + 1  # what a node is made of has smaller numbers

    def __mul__(self, other):
        return apply("mul", self, other)

    def __truediv__(self, other):
        return apply("div", self, other)

    def __neg__(self):
        return apply("neg", self)


def apply(op, *operands):
    """Compute, and remember how."""
    forward, _ = TABLE[op]
    return Node(forward(*[x.value for x in operands]), op, operands)


def newest_first(output):
    """Return the output and all that it was made of, each once, the newest first."""
    found, waiting = set(), [output]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.operands)
    return sorted(found, key=lambda node: node.number, reverse=True)


def pull(node, g):
    """Yield each operand with what the node passes back to it."""
    if node.op is None:  # a leaf: nothing made it
        return
    _, vjps = TABLE[node.op]
    for operand, vjp in zip(node.operands, vjps, strict=True):
        back = vjp(g, node.value, *[x.value for x in node.operands])
        while back.ndim > operand.value.ndim:  # one number was used for a whole array
            back = back.sum(axis=0)
        yield operand, back


def gradients(output):
    """Return ∂output/∂node for every node: the chain rule, from the output back."""
    cotangents = {output: np.ones_like(output.value)}
    for node in newest_first(output):
        for operand, contribution in pull(node, cotangents[node]):
            cotangents[operand] = cotangents.get(operand, 0) + contribution  # where edges meet: add
    return cotangents


# Softmax and cross-entropy, built from the table --------------------------------------------------

if __name__ == "__main__":
    a, y = Node([2.0, 1.0, 0.1]), Node([1, 0, 0])
    e = apply("exp", a)
    p = e / apply("sum", e)
    loss = -apply("sum", y * apply("log", p))
    print("p     ", p.value.round(3))
    print("loss  ", loss.value.round(4))
    print("∂L/∂a ", gradients(loss)[a].round(3))
    print("p − y ", (p.value - y.value).round(3))
