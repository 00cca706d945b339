"""The gradient of softmax + cross-entropy, derived step by step, each figure computed and checked.

It follows the article "Softmax-with-Loss 계층" on ratsgo's blog, about a layer of Saito's textbook
"Deep Learning from Scratch": the forward pass, the derivative of each operation, the Jacobian of
softmax, the chain rule with its cases i = j and i ≠ j, and the result p − y. Every figure that is
printed was computed just before, and compared with what the derivation says; a wrong one ends the
program with an AssertionError.

    python examples/04_walkthrough.py
    python examples/04_walkthrough.py --logits 2,1.5,0.1,-1 --target 1
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_sm as tg

ARTICLE = "2,1,0.1"  # three classes, of which class 0 is right


def main() -> None:
    """Walk through the derivation from top to bottom."""
    logits, right = arguments()
    y = np.eye(logits.size)[right]
    p = forward(logits, y)
    local_rules(logits, p, right)
    jacobian(logits, p)
    backward_edge_by_edge(logits, y, p)
    chain_rule(logits, y, p)
    fused_node(logits, y, p)
    soft_labels(logits, y, p)
    fused_code(logits, right)
    print("\nEvery figure above was computed, and is what the derivation says.")


def arguments() -> tuple[np.ndarray, int]:
    """Return the logits and the right class, or end with one sentence."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--logits", default=ARTICLE, help="with commas; --logits=-1,2 if need be")
    parser.add_argument("--target", type=int, default=0, help="the right class, from 0")
    given = parser.parse_args()
    try:
        logits = np.array([float(word) for word in given.logits.split(",")])
    except ValueError:
        parser.error(f"--logits must be numbers with commas, such as 2,1,0.1; got {given.logits!r}")
    if logits.size < 2:
        parser.error("--logits must be at least two, since one class is always right")
    if not 0 <= given.target < logits.size:
        parser.error(f"--target must be from 0 to {logits.size - 1}; got {given.target}")
    with np.errstate(all="ignore"):
        e = np.exp(logits)
        found = np.array([*e, e.sum(), *(e / e.sum())])
    if not ((found > 1e-300) & (found < 1e300)).all():
        parser.error(
            "--logits must lie nearer to 0 and to each other: here exp overflows, or a probability "
            "becomes 0; 03_where_numbers_break.ipynb says what is done about that"
        )
    return logits, given.target


def forward(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Compute the loss as the textbook writes it, and return p."""
    heading("1  Forward: exp, sum, div, log")
    a, y = tg.Tensor(logits, name="a"), target
    e = tg.exp(a)
    s = tg.sum(e, axis=-1, keepdims=True)
    p = e / s
    L = -tg.sum(y * tg.log(p))

    show("logits a", a, logits)
    show("target y", y, target)
    show("e = exp(a)", e, np.exp(logits))
    show("s = Σ e_k", s, [np.exp(logits).sum()])
    show("p = e / s", p, tg.softmax(logits))
    show("L = −Σ y_j log p_j", L, -np.log(p.numpy()[y == 1][0]))
    say("The probabilities sum to 1, and of log p only the right class counts.")
    same(p.numpy().sum(), 1.0)
    return p.numpy()


def local_rules(logits: np.ndarray, p: np.ndarray, right: int) -> None:
    """Check the four derivatives that the chain rule will multiply."""
    heading("2  The local rules: one derivative for each edge into an operation")
    a, e, s = logits[right], np.exp(logits), np.exp(logits).sum()
    f, p = e[right], p[right]  # at the numbers of the right class
    rule("y = exp(x)", "∂y/∂x = exp(x)", tg.exp, [a], [f])
    rule("y = log(x)", "∂y/∂x = 1/x", tg.log, [p], [1 / p])
    rule("y = f/g", "∂y/∂f = 1/g, ∂y/∂g = −f/g²", tg.div, [f, s], [1 / s, -f / s / s])
    rule("y = Σ x_k", "∂y/∂x_k = 1", tg.sum, [e], [np.ones_like(e)])
    say("Each was also compared with the function's own values (tg.gradcheck).")


def jacobian(logits: np.ndarray, p: np.ndarray) -> None:
    """Check ∂p_i/∂a_j: p_i (1 − p_i) on the diagonal, −p_i p_j elsewhere."""
    heading("3  The Jacobian of softmax: ∂p_i/∂a_j")
    J = tg.jacobian(tg.softmax, logits)
    show("J", J, np.diag(p) - np.outer(p, p))
    for i, j in np.ndindex(J.shape):
        same(J[i, j], p[i] * (1 - p[i]) if i == j else -p[i] * p[j])
    show("i = j:  J_11 =  p_1 (1 − p_1)", J[0, 0], p[0] * (1 - p[0]))
    show("i ≠ j:  J_12 = −p_1 p_2", J[0, 1], -p[0] * p[1])
    say("All at once: J = diag(p) − p pᵀ.")


def backward_edge_by_edge(logits: np.ndarray, y: np.ndarray, p: np.ndarray) -> None:
    """Follow the reverse sweep, and take apart what meets at e = exp(a)."""
    heading("4  Backward, edge by edge")
    a = tg.Tensor(logits, name="a")
    e = named("e", tg.exp(a))
    s = named("s", tg.sum(e, axis=-1, keepdims=True))
    q = named("p", e / s)
    logp = named("log p", tg.log(q))
    product = named("y log p", y * logp)
    total = named("Σ", tg.sum(product))
    L = named("L", -total)
    trace = L.backward(trace=True)
    assert trace is not None

    # what each edge must carry, from the local rules alone: (from, to) → formula and its value
    ones = np.ones_like(y)
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
    show("through the numerator:    −y", numerator, -y)
    show("through the denominator:  +p·Σy", denominator, p * y.sum())
    show("their sum, ∂L/∂a:         p − y", a.grad, p - y)
    same(a.grad, numerator + denominator)


def chain_rule(logits: np.ndarray, y: np.ndarray, p: np.ndarray) -> None:
    """Split the sum over j as the proof does, and find the same two terms."""
    heading("5  The same on paper: the cases i = j and i ≠ j")
    J = tg.jacobian(tg.softmax, logits)
    # terms[j, i] = −y_j (1/p_j) ∂p_j/∂a_i, to be summed over j
    terms = -(y / p)[:, np.newaxis] * J
    equal = np.diag(terms)
    unequal = terms.sum(axis=0) - equal
    say("∂L/∂a_i = −Σ_j y_j (1/p_j) ∂p_j/∂a_i, the sum split into")
    show("i = j:  −y_i (1 − p_i)", equal, -y * (1 - p))
    show("i ≠ j:  Σ_j≠i y_j p_i", unequal, p * (y.sum() - y))
    say("Move y_i p_i from the first to the second and they are the two contributions of step 4:")
    show("−y_i", equal - y * p, -y)
    show("p_i Σ_j y_j", unequal + y * p, p * y.sum())
    say("The fork at e in the graph is the split of the sum in the proof.")
    show("∂L/∂a = p − y", terms.sum(axis=0), p - y)


def fused_node(logits: np.ndarray, y: np.ndarray, p: np.ndarray) -> None:
    """Get the same loss and gradient from one node."""
    heading("6  The fused node: all of it as one operation")
    a = tg.Tensor(logits, name="a")
    L = tg.cross_entropy(a, y)
    L.backward()
    say(f"the graph: {', '.join(node.op for node in tg.graph(L).nodes if node.inputs)}")
    show("L", L, -np.log(p[y == 1][0]))
    show("∂L/∂a", a.grad, p - y)


def soft_labels(logits: np.ndarray, one_hot: np.ndarray, p: np.ndarray) -> None:
    """Let the row sum of the target be 2: the gradient is Σy·p − y."""
    heading("7  Where p − y is wrong: a target whose sum Σy is not 1")
    y = np.maximum(one_hot, np.roll(one_hot, 1))
    show("target y", y, one_hot + np.roll(one_hot, 1))
    a = tg.Tensor(logits)
    show("p − y", p - y, tg.softmax(logits) - y)
    gradient = y.sum() * p - y
    show("Σy·p − y", gradient, 2 * p - y)
    show("from exp, sum, div, log", tg.grad(tg.composite_cross_entropy(a, y), a), gradient)
    show("from the fused node", tg.grad(tg.cross_entropy(a, y), a), gradient)

    h = 1e-5
    steps = h * np.eye(y.size)
    slopes = [(loss_of(logits + d, y) - loss_of(logits - d, y)) / (2 * h) for d in steps]
    show("from differences of L", slopes, gradient, tolerance=1e-6)
    say("The last step of the proof, p_i Σ_j y_j = p_i, needs Σ_j y_j = 1; the loss does not.")


def fused_code(logits: np.ndarray, target: int) -> None:
    """Run the three lines that the textbook gives, and say what they are for."""
    heading("8  The fused code, as the textbook writes it")
    a = logits
    p = np.exp(a) / np.sum(np.exp(a))
    da = np.copy(p)
    da[target] -= 1
    say("p = np.exp(a) / np.sum(np.exp(a));  da = np.copy(p);  da[target] -= 1")
    x = tg.Tensor(logits)
    tg.cross_entropy(x, target).backward()
    show("da", da, x.grad)
    say("Right for one class index and no upstream factor, which is all that it is meant for.")


# What prints and what checks ----------------------------------------------------------------------


def heading(title: str) -> None:
    """Print a section's title."""
    print(f"\n{title}\n{'-' * len(title)}")


def say(sentence: str) -> None:
    """Print a sentence of the narrative."""
    print(f"  {sentence}")


def show(label: str, value: Any, formula: Any, tolerance: float = 1e-12) -> None:
    """Print a computed figure, after checking it against what the derivation says it is."""
    array = value.numpy() if isinstance(value, tg.Tensor) else np.asarray(value)
    same(array, formula, tolerance)
    print(f"    {label:<32}{text(array)}")


def same(value: Any, formula: Any, tolerance: float = 1e-12) -> None:
    """Check that a value is what a formula gives, up to rounding."""
    np.testing.assert_allclose(value, formula, rtol=tolerance, atol=tolerance)


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
