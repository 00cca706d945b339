"""The second derivative of softmax + cross-entropy: ∂²L/∂a∂aᵀ = Σy·(diag(p) − p pᵀ).

The vjps are made of the same operations as the forward pass, so the gradient is itself a graph that
can be differentiated.

    python examples/07_second_derivative.py
"""

from __future__ import annotations

import numpy as np

import tinygrad_sm as tg

LOGITS = np.array([2.0, 1.0, 0.1])


def main() -> None:
    """Compute the Hessian row by row and in one call, and compare both with the formula."""
    y = np.array([1.0, 0.0, 0.0])
    p = tg.softmax(LOGITS)
    formula = np.diag(p) - np.outer(p, p)

    # by hand: record the backward pass, then go backward from one element of the gradient
    a = tg.Tensor(LOGITS, name="a")
    L = tg.composite_cross_entropy(a, y)
    gradient = tg.grad(L, a, create_graph=True)
    rows = np.array([tg.grad(gradient[i], a) for i in range(3)])
    print("gradient, p − y:", gradient.numpy().round(3))
    print("its derivative, row by row:", rows.round(3), sep="\n")
    np.testing.assert_allclose(rows, formula, rtol=0, atol=1e-14)

    # in one call, for the composite and for the fused node
    for loss in (tg.composite_cross_entropy, tg.cross_entropy):
        hessian = tg.hessian(lambda a, loss=loss: loss(a, y), LOGITS)
        error = np.abs(hessian - formula).max()
        print(f"{loss.__name__}: largest distance from diag(p) − p pᵀ is {error:.1e}")
        assert error < 1e-14

    # no negative eigenvalue: the loss is convex. One is 0: a shift of all logits changes nothing
    eigenvalues = np.linalg.eigvalsh(rows)
    print("eigenvalues:", eigenvalues.round(3) + 0.0)
    np.testing.assert_allclose(rows @ np.ones(3), 0, atol=1e-14)
    assert eigenvalues.min() > -1e-14

    # a target whose sum is not 1 scales it
    soft = np.array([1.0, 1.0, 0.0])
    doubled = tg.hessian(lambda a: tg.cross_entropy(a, soft), LOGITS)
    np.testing.assert_allclose(doubled, soft.sum() * formula, rtol=0, atol=1e-14)
    print("with y = [1, 1, 0] it is twice that:", doubled.round(3), sep="\n")


if __name__ == "__main__":
    main()
