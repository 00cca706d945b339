"""A rule of your own, from nothing: write it, see it applied, and see what it cannot do.

Two classes with logits [0, x] have the loss log(1 + exp(x)) for class 0: softplus(x). Written
like that it overflows from x = 710 on, and its gradient with it. A primitive and a rule cure both.

    python examples/09_write_a_rule.py
"""

from __future__ import annotations

import numpy as np

import tinygrad_sm as tg
from tinygrad_sm.engine.rules import sigmoid
from tinygrad_sm.fusion import RULES, Number, Op, Rule, Var
from tinygrad_sm.fusion.vocabulary import exp, log

# 1. What the rule shall make: a primitive that is accurate everywhere.
softplus = tg.def_primitive(
    "softplus_of_a_rule", lambda x: np.logaddexp(0, x), lambda g, y, x: g * sigmoid(x)
)


# 2. The rule: what to look for, what to put in its place, and why that is the same. Names stand for
#    parts of a graph, operators and functions of them for operations.
x, one = Var("x"), Number("one")
rule = Rule(
    name="softplus",
    because="log(1 + exp(x)) is softplus(x), which cannot overflow.",
    pattern=log(one + exp(x)),
    becomes=Op(softplus.name, x),
    only_if=((lambda one: one == 1, "the added number is not 1"),),
)


def naive(a: tg.Tensor) -> tg.Tensor:
    """The loss as one writes it down; exp and log may be spelled in any way that records them."""
    return (1 + (3 * a).exp()).log().sum()


def main() -> None:
    """Apply the rule, compare, meet a near miss, and let the search refuse a rule without end."""
    a = tg.Tensor([-2.0, 0.5, 300.0], name="a")
    with np.errstate(over="ignore", invalid="ignore"):
        loss = naive(a)
        wrong = tg.grad(loss, a)
    print("as written:", loss.item(), "with the gradient", wrong)

    # 3. See it applied, together with the rules that are there.
    result = tg.fuse(loss, rules=[*RULES, rule])
    print(f"\n{result}\n")
    result.output.backward()
    print("fused:", result.output.item(), "with the gradient", a.grad)
    assert [rewrite.rule for rewrite in result.rewrites] == ["softplus"]
    np.testing.assert_allclose(a.grad, 3 / (1 + np.exp(-3 * a.numpy())))

    # 4. The same without touching the code that computes the loss.
    a.zero_grad()
    with np.errstate(over="ignore"), tg.fusing(rules=[*RULES, rule]):
        naive(a).backward()
    assert np.isfinite(a.grad).all()

    # 5. A near miss is named, with what is missing.
    b = tg.Tensor([0.5, 2.0], name="b")
    near = tg.fuse(np.log(2 + np.exp(b)).sum(), rules=[rule])
    print(f"\nlog(2 + exp(b)): {near}")
    assert [miss.missing for miss in near.near_misses] == ["the added number is not 1"]

    # 6. A rule that could be applied forever is refused: each step must lower the cost.
    back = Rule(
        name="and back",
        because="softplus(x) is log(1 + exp(x)).",
        pattern=Op(softplus.name, x),
        becomes=log(1 + exp(x)),
    )
    try:
        tg.fuse(softplus(b).sum(), rules=[rule, back])
    except tg.TinygradError as error:
        print("\nrefused:", error)
    else:
        raise AssertionError("a rule without end was let through")


if __name__ == "__main__":
    main()
