"""The gradient seldom dies: a confidently wrong prediction under two losses.

The right class falls behind by a margin m. Behind the same softmax, the squared error's gradient
at its logit vanishes with the Jacobian, whose entries are −p_i p_j; the cross-entropy's tends to
−1, however wrong the prediction is. The numbers are printed, and the limits asserted.

    python examples/06_confidently_wrong.py
    python examples/06_confidently_wrong.py -o confidently-wrong.svg    (needs matplotlib)
"""

import argparse
import sys

import numpy as np

import tinygrad_sm as tg
from tinygrad_sm.study.stability.two_losses import confidently_wrong

Y = np.array([1.0, 0.0, 0.0])
MARGINS = (-4.0, 0.0, 2.0, 5.0, 10.0, 20.0, 40.0, 100.0, 700.0, 750.0)


def gradients(margin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return p, and the gradients at the logits of ½ Σ (p − y)² and of −Σ y log p; shape (3,)."""
    a = tg.Tensor([0.0, margin, margin - 1.0], name="a")
    p = tg.softmax(a)
    squared = 0.5 * tg.sum((p - Y) ** 2)
    cross = tg.cross_entropy(a, Y)
    return p.numpy(), tg.grad(squared, a), tg.grad(cross, a)


def naive_gradient(margin: float) -> tuple[np.ndarray, tg.Breakdown | None]:
    """Return the cross-entropy's gradient by exp, sum, div and log, and where that broke."""
    a = tg.Tensor([0.0, margin, margin - 1.0], name="a")
    with np.errstate(all="ignore"):
        trace = tg.composite_cross_entropy(a, Y, form="naive").backward(trace=True)
    return a.grad, tg.first_breakdown(trace)


def show() -> None:
    """Print the gradients at the right class, each checked against the closed form."""
    print("the right class t is behind by m; gradients at its logit\n")
    print(f"{'m':>6}  {'p_t':>9}  {'squared error':>13}  {'÷ p_t(1 − p_t)':>14}  cross-entropy")
    for margin in MARGINS:
        p, squared, cross = gradients(margin)
        p_t, rivals = p[0], p[1:]
        jacobian = p_t * (1 - p_t)  # the sum of the entries p_t p_j over the rivals j
        ratio = f"{squared[0] / jacobian:.4f}" if jacobian else "0/0"
        print(f"{margin:6g}  {p_t:9.2e}  {squared[0]:13.2e}  {ratio:>14}  {cross[0]:13.10f}")
        closed_form = -p_t * ((1 - p_t) ** 2 + (rivals**2).sum())
        np.testing.assert_allclose(squared[0], closed_form, rtol=1e-12)
        np.testing.assert_allclose(cross, p - Y, rtol=1e-12)


def check_limits() -> None:
    """Assert what the two gradients tend to as m grows."""
    ratios = []
    for margin in (50.0, 700.0):
        p, squared, cross = gradients(margin)
        ratios.append(squared[0] / (p[0] * (1 - p[0])))
        assert cross[0] == -1.0, "cross-entropy: it pulls with all its strength"
    assert abs(ratios[0] - ratios[1]) < 1e-12, "squared error: it falls like p_i p_j …"
    assert abs(squared[0]) < 1e-300, "… which leaves next to nothing,"
    assert gradients(750.0)[1][0] == 0.0, "and in floating point then nothing at all"
    assert gradients(750.0)[2][0] == -1.0


def show_what_precision_kills() -> None:
    """Print where the naive composite dies although the mathematics does not."""
    print("\nthe same cross-entropy, naively from exp, sum, div and log:")
    for margin in (700.0, 750.0):
        grad, broke = naive_gradient(margin)
        print(f"{margin:6g}  {grad}  {broke or 'nothing broke'}")
    assert np.isfinite(naive_gradient(700.0)[0]).all()
    grad, broke = naive_gradient(750.0)
    assert np.isnan(grad).any()
    assert broke is not None
    assert broke.node.op == "exp"


def main(arguments: list[str]) -> None:
    """Print everything, and save the picture where `-o` says."""
    parser = argparse.ArgumentParser(description="Gradients of a confidently wrong prediction.")
    parser.add_argument("-o", "--output", metavar="FILE", help="picture: .svg, .png or .pdf")
    output = parser.parse_args(arguments).output
    show()
    check_limits()
    show_what_precision_kills()
    if output is not None:
        from viz.lab import draw_confidently_wrong  # noqa: PLC0415  only for the picture

        try:
            print(f"\n{draw_confidently_wrong(confidently_wrong()).save(output)}")
        except tg.TinygradError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
