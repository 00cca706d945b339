"""The graphs that the commands show when they are given none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import tinygrad_sm as tg
from tinygrad_sm import Tensor

_LOGITS = np.array([[2.0, 1.0, 0.1], [0.5, -1.0, 3.0]])
_T = np.array([0, 2])
_Y = np.eye(3)[_T]


def _softmax(a: Tensor) -> Tensor:
    e = a.exp()
    return e / e.sum(axis=1, keepdims=True)


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "naive": lambda a: tg.composite_cross_entropy(a, _T, form="naive"),
    "shifted": lambda a: tg.composite_cross_entropy(a, _T, form="shifted"),
    "logsumexp": lambda a: tg.composite_cross_entropy(a, _T, form="logsumexp"),
    "−Σ y·log(softmax(a)) / N": lambda a: -(_Y * _softmax(a).log()).sum() / len(_T),
    "−mean(log(softmax(a)[rows, t]))": lambda a: -_softmax(a)[[0, 1], _T].log().mean(),
    "mean(log Σ exp(a) − a[rows, t])": lambda a: (
        np.log(np.exp(a).sum(axis=1)) - a[[0, 1], _T]
    ).mean(),
    "a look-alike: −mean(log(softmax(a)[rows, t] + 1e-7))": lambda a: (
        -(_softmax(a)[[0, 1], _T] + 1e-7).log().mean()
    ),
}
"""Ways to write softmax-cross-entropy of two rows, by what they are called; one is none."""


def spelled(name: str) -> Tensor:
    """Return the loss in one of the spellings."""
    return SPELLINGS[name](Tensor(_LOGITS, name="a"))


def linear_levels() -> dict[str, Tensor]:
    """Return a linear classifier's loss from primitives, with the fused loss, and as one node."""
    random = np.random.default_rng(0)
    rows, features, classes = 128, 16, 1000
    x = Tensor(random.normal(size=(rows, features)), name="x")
    w = Tensor(random.normal(size=(classes, features)) / features, name="W")
    b = Tensor(np.zeros(classes), name="b")
    t = random.integers(0, classes, rows)
    return {
        "primitives": _from_primitives((x @ w.T + b).named("a"), t),
        "SoftmaxWithLoss": tg.cross_entropy((x @ w.T + b).named("a"), t),
        "LinearSoftmaxWithLoss": tg.linear_cross_entropy(x, w, t, bias=b),
    }


def _from_primitives(a: Tensor, t: np.ndarray) -> Tensor:
    e = a.exp().named("e")
    s = e.sum(axis=1, keepdims=True).named("s")
    p = (e / s).named("p")
    picked = tg.take_along_axis(p.log(), t[:, None], axis=1)
    assert isinstance(picked, Tensor)
    return (-picked.named("l").mean()).named("L")
