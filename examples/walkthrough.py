"""The gradient of softmax + cross-entropy, derived step by step, each figure computed and checked.

It follows the article "Softmax-with-Loss 계층" on ratsgo's blog, about a layer of Saito's textbook
"Deep Learning from Scratch": the forward pass, the derivative of each operation, the Jacobian of
softmax, the chain rule with its cases i = j and i ≠ j, and the result p − y. Every figure that is
printed was computed just before, and compared with what the derivation says; a wrong one ends the
program with an AssertionError.

    python examples/walkthrough.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_sm as tg

LOGITS = np.array([2.0, 1.0, 0.1])
TARGET = np.array([1.0, 0.0, 0.0])  # three classes; class 0 is right


def main() -> None:
    """Walk through the derivation from top to bottom."""
    p = forward()
    local_rules(p)
    jacobian(p)
    backward_edge_by_edge(p)
    chain_rule(p)
    fused_node(p)
    soft_labels(p)
    fused_code()
    print("\nEvery figure above was computed, and is what the derivation says.")


def forward() -> np.ndarray:
    """Compute the loss as the textbook writes it, and return p."""
    heading("1  Forward: exp, sum, div, log")
    a, y = tg.Tensor(LOGITS, name="a"), TARGET
    e = tg.exp(a)
    s = tg.sum(e, axis=-1, keepdims=True)
    p = e / s
    L = -tg.sum(y * tg.log(p))

    show("logits a", a, [2, 1, 0.1])
    show("target y", y, [1, 0, 0])
    show("e = exp(a)", e, [7.389, 2.718, 1.105])
    show("s = Σ e_k", s, [11.213])
    show("p = e / s", p, [0.659, 0.242, 0.099])
    show("L = −Σ y_j log p_j", L, 0.417)
    say("The probabilities sum to 1, and of log p only the right class counts: L = −log p_0.")
    same(p.numpy().sum(), 1.0)
    same(L.item(), -np.log(p.numpy()[0]))
    return p.numpy()


def local_rules(p: np.ndarray) -> None:
    """Check the four derivatives that the chain rule will multiply."""
    heading("2  The local rules: one derivative for each edge into an operation")
    e, s = np.exp(LOGITS), np.exp(LOGITS).sum()
    # at the numbers of the example: exp at a_1, log at p_1, div at e_1 / s
    rule("y = exp(x)", "∂y/∂x = exp(x)", tg.exp, [LOGITS[0]], [np.exp(LOGITS[0])])
    rule("y = log(x)", "∂y/∂x = 1/x", tg.log, [p[0]], [1 / p[0]])
    rule("y = f/g", "∂y/∂f = 1/g, ∂y/∂g = −f/g²", tg.div, [e[0], s], [1 / s, -e[0] / s**2])
    rule("y = Σ x_k", "∂y/∂x_k = 1", tg.sum, [e], [np.ones(3)])
    say("Each was also compared with the function's own values (tg.gradcheck).")


def jacobian(p: np.ndarray) -> None:
    """Check ∂p_i/∂a_j: p_i (1 − p_i) on the diagonal, −p_i p_j elsewhere."""
    heading("3  The Jacobian of softmax: ∂p_i/∂a_j")
    J = tg.jacobian(tg.softmax, LOGITS)
    show(
        "J",
        J,
        [[0.225, -0.160, -0.065], [-0.160, 0.184, -0.024], [-0.065, -0.024, 0.089]],
    )
    for i in range(3):
        for j in range(3):
            same(J[i, j], p[i] * (1 - p[i]) if i == j else -p[i] * p[j])
    show("i = j:  J_11 =  p_1 (1 − p_1)", J[0, 0], 0.225)
    show("i ≠ j:  J_12 = −p_1 p_2", J[0, 1], -0.160)
    say("All nine at once: J = diag(p) − p pᵀ.")
    same(J, np.diag(p) - np.outer(p, p))


def backward_edge_by_edge(p: np.ndarray) -> None:
    """Follow the reverse sweep, and take apart what meets at e = exp(a)."""
    heading("4  Backward, edge by edge")
    a = tg.Tensor(LOGITS, name="a")
    e = named("e", tg.exp(a))
    s = named("s", tg.sum(e, axis=-1, keepdims=True))
    q = named("p", e / s)
    logp = named("log p", tg.log(q))
    product = named("y log p", TARGET * logp)
    total = named("Σ", tg.sum(product))
    L = named("L", -total)
    trace = L.backward(trace=True)
    assert trace is not None

    # what each edge must carry, from the local rules alone: (from, to) → formula and its value
    y, ones = TARGET, np.ones(3)
    formulas = {
        ("L", "Σ"): ("−1", -1),
        ("Σ", "y log p"): ("−1", -ones),
        ("y log p", "log p"): ("−y", -y),
        ("log p", "p"): ("−y/p", -y / p),
        ("p", "e"): ("−y/e", -y / e.numpy()),
        ("p", "s"): ("Σy/s", y.sum() / s.numpy()),
        ("s", "e"): ("Σy/s", y.sum() / s.numpy() * ones),
        ("e", "a"): ("Σy·p − y", p * y.sum() - y),
    }
    nodes = trace.graph.nodes
    for step in trace.steps:
        for edge in step.passed_on:
            giver, taker = step.node.name, nodes[step.node.inputs[edge.argument]].name
            formula, value = formulas.pop((giver, taker))
            same(edge.value, value)
            say(f"{step.node.op:<5}{giver:>7} → {taker:<8} {formula:<12} {text(edge.value)}")
    assert not formulas, "every edge was walked"

    print()
    say("e has two consumers: it is the numerator of p = e/s, and it is summed up in s.")
    say("So two contributions meet there. Times exp(a), the last local rule, they are:")
    sent = {edge.consumer.name: edge.value for edge in trace.contributions(e)}
    assert list(sent) == ["p", "s"], "exactly two edges lead back to e"
    numerator, denominator = sent["p"] * e.numpy(), sent["s"] * e.numpy()
    show("through the numerator:    −y", numerator, [-1, 0, 0])
    show("through the denominator:  +p·Σy", denominator, [0.659, 0.242, 0.099])
    show("their sum, ∂L/∂a:         p − y", a.grad, [-0.341, 0.242, 0.099])
    same(numerator, -y)
    same(denominator, p * y.sum())
    same(a.grad, numerator + denominator)
    same(a.grad, p - y)


def chain_rule(p: np.ndarray) -> None:
    """Split the sum over j as the proof does, and find the same two terms."""
    heading("5  The same on paper: the cases i = j and i ≠ j")
    y = TARGET
    J = tg.jacobian(tg.softmax, LOGITS)
    # terms[j, i] = −y_j (1/p_j) ∂p_j/∂a_i, to be summed over j
    terms = -(y / p)[:, np.newaxis] * J
    equal = np.diag(terms)
    unequal = terms.sum(axis=0) - equal
    say("∂L/∂a_i = −Σ_j y_j (1/p_j) ∂p_j/∂a_i, the sum split into")
    show("i = j:  −y_i (1 − p_i)", equal, [-0.341, 0, 0])
    show("i ≠ j:  Σ_j≠i y_j p_i", unequal, [0, 0.242, 0.099])
    same(equal, -y * (1 - p))
    same(unequal, p * (y.sum() - y))
    say("Move y_i p_i from the first to the second and they are the two contributions of step 4:")
    show("−y_i", equal - y * p, [-1, 0, 0])
    show("p_i Σ_j y_j", unequal + y * p, [0.659, 0.242, 0.099])
    say("The fork at e in the graph is the split of the sum in the proof.")
    show("∂L/∂a = p − y", terms.sum(axis=0), [-0.341, 0.242, 0.099])
    same(terms.sum(axis=0), p - y)


def fused_node(p: np.ndarray) -> None:
    """Get the same loss and gradient from one node."""
    heading("6  The fused node: all of it as one operation")
    a = tg.Tensor(LOGITS, name="a")
    L = tg.cross_entropy(a, TARGET)
    L.backward()
    say(f"the graph: {', '.join(node.op for node in tg.graph(L).nodes if node.inputs)}")
    show("L", L, 0.417)
    show("∂L/∂a", a.grad, [-0.341, 0.242, 0.099])
    same(a.grad, p - TARGET)


def soft_labels(p: np.ndarray) -> None:
    """Let the row sum of the target be 2: the gradient is Σy·p − y."""
    heading("7  Where p − y is wrong: a target whose sum Σy is not 1")
    y = np.array([1.0, 1.0, 0.0])
    show("target y", y, [1, 1, 0])
    a = tg.Tensor(LOGITS)
    composite = tg.grad(tg.composite_cross_entropy(a, y), a)
    fused = tg.grad(tg.cross_entropy(a, y), a)
    show("p − y", p - y, [-0.341, -0.758, 0.099])
    show("Σy·p − y", y.sum() * p - y, [0.318, -0.515, 0.197])
    show("from exp, sum, div, log", composite, [0.318, -0.515, 0.197])
    show("from the fused node", fused, [0.318, -0.515, 0.197])
    same(composite, y.sum() * p - y)
    same(fused, y.sum() * p - y)

    h = 1e-5
    steps = h * np.eye(3)
    slopes = [(loss_of(LOGITS + d, y) - loss_of(LOGITS - d, y)) / (2 * h) for d in steps]
    show("from differences of L", slopes, [0.318, -0.515, 0.197])
    say("The last step of the proof, p_i Σ_j y_j = p_i, needs Σ_j y_j = 1; the loss does not.")


def fused_code() -> None:
    """Run the three lines that the textbook gives, and say what they are for."""
    heading("8  The fused code, as the textbook writes it")
    a, target = LOGITS, 0
    p = np.exp(a) / np.sum(np.exp(a))
    da = np.copy(p)
    da[target] -= 1
    say("p = np.exp(a) / np.sum(np.exp(a));  da = np.copy(p);  da[target] -= 1")
    show("da", da, [-0.341, 0.242, 0.099])
    logits = tg.Tensor(LOGITS)
    tg.cross_entropy(logits, target).backward()
    same(da, logits.grad)
    say("Right for one class index and no upstream factor, which is all that it is meant for.")


# What prints and what checks ----------------------------------------------------------------------


def heading(title: str) -> None:
    """Print a section's title."""
    print(f"\n{title}\n{'-' * len(title)}")


def say(sentence: str) -> None:
    """Print a sentence of the narrative."""
    print(f"  {sentence}")


def show(label: str, value: Any, expected: Any) -> None:
    """Print a computed figure, after checking it against the derivation's, given to 3 digits."""
    array = value.numpy() if isinstance(value, tg.Tensor) else np.asarray(value)
    np.testing.assert_allclose(array, expected, rtol=0, atol=5.1e-4, err_msg=label)
    print(f"    {label:<32}{text(array)}")


def same(value: Any, formula: Any) -> None:
    """Check that a value is what a formula gives, up to rounding."""
    np.testing.assert_allclose(value, formula, rtol=1e-13, atol=1e-15)


def rule(
    operation: str, formula: str, f: Callable[..., tg.Tensor], at: list[Any], expected: list[Any]
) -> None:
    """Check an operation's vjps: against the formula's values, and against f itself."""
    inputs = [tg.Tensor(x) for x in at]
    slopes = tg.grad(f(*inputs), inputs)
    same(np.hstack(slopes), np.hstack(expected))
    tg.gradcheck(f, at)
    point = ", ".join(text(x) for x in at)
    say(f"{operation:<11} {formula:<29} at {point}: {', '.join(text(x) for x in slopes)}")


def named(name: str, tensor: tg.Tensor) -> tg.Tensor:
    """Give a Tensor the name that the derivation has for it."""
    tensor.name = name
    return tensor


def loss_of(logits: np.ndarray, target: np.ndarray) -> float:
    """Return the loss itself, for differences."""
    return float(tg.composite_cross_entropy(logits, target))


def text(array: Any) -> str:
    """Format numbers with three decimals; adding 0 turns −0 into 0."""
    return np.array2string(
        np.round(array, 3) + 0.0, separator=", ", floatmode="fixed", precision=3
    ).replace("\n", f"\n{' ' * 36}")


if __name__ == "__main__":
    main()
