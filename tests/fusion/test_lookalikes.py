"""What looks like softmax-cross-entropy and is not: it never becomes the fused loss."""

import numpy as np
import pytest

import tinygrad_sm as tg

N, C = 4, 4  # square, so that a forgotten keepdims broadcasts all the same
RNG = np.random.default_rng(1)
LOGITS = RNG.normal(size=(N, C))
Y = np.eye(C)[[2, 0, 3, 1]]
T = np.array([2, 0, 3, 1])
ROWS = np.arange(N)
MASK = np.where(np.eye(C)[[0, 1, 2, 2]] == 1, 0.0, 1.0)


def softmax(a, axis=1):
    e = a.exp()
    return e / e.sum(axis=axis, keepdims=True)


def of(log_p):
    return -(Y * log_p).sum()


# name → function of the logits a and of another leaf b of the same shape
LOOKALIKES = {
    "denominator over another axis than the pick": lambda a, b: -softmax(a, 0).log()[ROWS, T].sum(),
    "summed over another axis": lambda a, b: (-((Y * softmax(a, 0).log()).sum(1) ** 2)).sum(),
    "sum keeps no axis": lambda a, b: of(np.log(a.exp() / a.exp().sum(axis=1))),
    "sum over everything": lambda a, b: of(np.log(a.exp() / a.exp().sum())),
    "another exp in the denominator": lambda a, b: of(np.log(a.exp() / b.exp().sum(1, True))),
    "scaled exp in the denominator": lambda a, b: of(np.log(a.exp() / (2 * a).exp().sum(1, True))),
    "negative in the numerator": lambda a, b: of(np.log((-a).exp() / a.exp().sum(1, True))),
    "shift in the numerator only": lambda a, b: of(np.log((a - 1).exp() / a.exp().sum(1, True))),
    "shift in the denominator only": lambda a, b: of(np.log(a.exp() / (a - 1).exp().sum(1, True))),
    "two different shifts": lambda a, b: of(np.log((a - 1).exp() / (a - 2).exp().sum(1, True))),
    "log of p + 1e-7": lambda a, b: of(np.log(softmax(a) + 1e-7)),
    "log of clipped p": lambda a, b: of(np.log(np.maximum(softmax(a), 1e-7))),
    "log of p clipped on both sides": lambda a, b: of(
        np.log(np.minimum(np.maximum(softmax(a), 1e-7), 1 - 1e-7))
    ),
    "log of np.clip(p)": lambda a, b: of(np.log(np.clip(softmax(a), 1e-7, 1 - 1e-7))),
    "p clipped and picked": lambda a, b: -np.log(np.clip(softmax(a), 1e-7, 1)[ROWS, T]).mean(),
    "p picked and bounded": lambda a, b: -np.log(np.maximum(softmax(a)[ROWS, T], 1e-7)).mean(),
    "mask after exp": lambda a, b: of(
        np.log((a.exp() * MASK) / (a.exp() * MASK).sum(1, True) + (1 - MASK))
    ),
    "mask after exp, chosen": lambda a, b: (
        (e := np.where(MASK == 1, a.exp(), 0)) / e.sum(1, True) * Y
    ).sum(),
    "denominator + 1e-7": lambda a, b: of(np.log(a.exp() / (a.exp().sum(1, True) + 1e-7))),
    "numerator + 1": lambda a, b: of(np.log((a.exp() + 1) / a.exp().sum(1, True))),
    "maximum for a sum": lambda a, b: of(np.log(a.exp() / a.exp().max(1, True))),
    "mean for a sum": lambda a, b: of(np.log(a.exp() / a.exp().mean(1, True))),
    "y requires a gradient": lambda a, b: -(b * softmax(a).log()).sum(),
    "y is p: the entropy": lambda a, b: -(softmax(a) * softmax(a).log()).sum(),
    "p in the weight: focal loss": lambda a, b: -((1 - softmax(a)) * Y * softmax(a).log()).sum(),
    "weights with a gradient": lambda a, b: -(b * Y * softmax(a).log()).sum(),
    "softmax twice": lambda a, b: of(softmax(softmax(a)).log()),
    "softmax twice, picked": lambda a, b: -softmax(softmax(a)).log()[ROWS, T].mean(),
    "no logarithm": lambda a, b: -(Y * softmax(a)).sum(),
    "log1p for log": lambda a, b: of(np.log1p(softmax(a))),
    "log of the sum": lambda a, b: -np.log((Y * softmax(a)).sum(1)).sum(),
    "squared error": lambda a, b: ((softmax(a) - Y) ** 2).sum(),
    "sigmoid": lambda a, b: of(np.log(tg.sigmoid(a))),
    "log p not summed over classes": lambda a, b: ((Y * softmax(a).log()).sum(0) ** 2).sum(),
    "rows in another order": lambda a, b: -softmax(a).log()[ROWS[::-1].copy(), T].mean(),
    "every row against every class": lambda a, b: (softmax(a).log()[:, T] ** 2).mean(),
    "target larger than the logits": lambda a, b: -(np.stack([Y, 2 * Y]) * softmax(a).log()).sum(),
    "logits minus their own target": lambda a, b: (
        tg.logsumexp(a) - (Y * a).sum(1)
    ).mean(),  # the loss only where every Σy is 1
    "quotient of squares": lambda a, b: of(np.log(a**2 / (a**2).sum(1, True))),
    "power of 2": lambda a, b: of(np.log(2.0**a / (2.0**a).sum(1, True))),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_no_lookalike_becomes_the_loss(name):
    a, b = tg.Tensor(LOGITS, name="a"), tg.Tensor(RNG.random((N, C)), name="b")
    output = LOOKALIKES[name](a, b)
    result = tg.fuse(output)
    assert all(node.op != "SoftmaxWithLoss" for node in result.after.nodes), str(result)
    np.testing.assert_allclose(result.output.numpy(), output.numpy(), rtol=1e-12)
    for leaf in (a, b):
        np.testing.assert_allclose(
            tg.grad(result.output, leaf, allow_unused=True),
            tg.grad(output, leaf, allow_unused=True),
            rtol=1e-10,
            atol=1e-14,
        )


def test_the_list_is_long_enough():
    assert len(LOOKALIKES) >= 20


# name of a look-alike → what its near miss says is missing
MISSES = {
    "log of p + 1e-7": "a number is added to p",
    "log of clipped p": "p is clipped",
    "log of p clipped on both sides": "p is clipped",
    "log of np.clip(p)": "p is clipped",
    "p clipped and picked": "p is clipped",
    "p picked and bounded": "p is clipped",
    "mask after exp": "a mask multiplies the exponentials",
    "mask after exp, chosen": "a mask multiplies the exponentials",
    "log of the sum": "the logarithm is taken of the sum",
    "denominator + 1e-7": "something is added to it",
    "another exp in the denominator": "x is not the same in both places",
    "sum keeps no axis": "keepdims=True is missing",
    "sum over everything": "the sum runs over more than the one class axis",
    "y requires a gradient": "the target requires a gradient",
    "y is p: the entropy": "the target requires a gradient",
    "softmax twice": "softmax is applied twice",
    "softmax twice, picked": "softmax is applied twice",
    "no logarithm": "the logarithm is missing",
    "denominator over another axis than the pick": "along another axis",
    "target larger than the logits": "the target is larger than the logits",
}


@pytest.mark.parametrize("name", MISSES)
def test_a_near_miss_says_what_is_missing(name):
    a, b = tg.Tensor(LOGITS), tg.Tensor(RNG.random((N, C)))
    result = tg.fuse(LOOKALIKES[name](a, b))
    assert any(MISSES[name] in miss.missing for miss in result.near_misses), str(result)
    assert MISSES[name] in str(result)


# name of a graph → what no near miss says of it
NEVER = {
    "log of the sum": "the logarithm is missing",
    "another axis of a square": "another axis",
    "a target with an axis in front": "larger than the logits",
}
FOUND = {
    "another axis of a square": lambda a, b: -tg.log_softmax(a, axis=0)[ROWS, ROWS].sum(),
    "a target with an axis in front": lambda a, b: -(Y[None] * softmax(a).log()).sum(),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_near_miss_says_nothing_false(name):
    a, b = tg.Tensor(LOGITS), tg.Tensor(RNG.random((N, C)))
    result = tg.fuse((LOOKALIKES | FOUND)[name](a, b))
    assert all(NEVER[name] not in miss.missing for miss in result.near_misses), str(result)


@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_near_miss_is_told_once(name):
    a, b = tg.Tensor(LOGITS), tg.Tensor(RNG.random((N, C)))
    told = [miss.missing for miss in tg.fuse(LOOKALIKES[name](a, b)).near_misses]
    assert len(told) == len(set(told)), told
