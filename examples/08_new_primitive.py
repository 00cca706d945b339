"""A primitive of your own: a name, a forward function, one vjp per argument; then a check.

softplus(x) = log(1 + exp(x)) is what softmax + cross-entropy becomes for two classes.

    python examples/08_new_primitive.py
"""

from __future__ import annotations

import numpy as np

import tinygrad_sm as tg

softplus = tg.def_primitive(
    "softplus",
    lambda x: np.logaddexp(0, x),
    lambda g, y, x: g * tg.sigmoid(x),  # g is the cotangent of y = softplus(x)
)

# the same with a slip: the slope of softplus is not softplus
slipped = tg.def_primitive("slipped", lambda x: np.logaddexp(0, x), lambda g, y, x: g * y)


def main() -> None:
    """Use the primitive, check it to second order, and see the slip found."""
    x = tg.Tensor([-3.0, 0.0, 800.0], name="x")
    softplus(x).sum().backward()
    print("softplus :", softplus(x).numpy())
    print("its slope:", x.grad)

    # its vjp is made of the package's operations, so second derivatives come with it
    report = tg.gradcheck(softplus, np.array([-3.0, 0.0, 2.0]), order=2)
    print("checked  :", report)
    assert report.ok

    # of two classes with logits [a, b], the loss of class 0 is softplus(b − a)
    logits = tg.Tensor([0.5, 2.0])
    by_hand, fused = softplus(logits[1] - logits[0]), tg.cross_entropy(logits, 0)
    print(f"two classes: softplus {by_hand.item():.12f}, cross-entropy {fused.item():.12f}")
    np.testing.assert_allclose(by_hand.item(), fused.item(), rtol=1e-15)
    np.testing.assert_allclose(tg.grad(by_hand, logits), tg.grad(fused, logits), rtol=1e-14)

    try:
        tg.gradcheck(slipped, np.array([-3.0, 2.0]))
    except tg.TinygradError as error:
        print("the slip is found:", error, sep="\n")
    else:
        raise AssertionError("gradcheck let a wrong vjp pass")


if __name__ == "__main__":
    main()
