"""The forms of softmax-cross-entropy that the lab compares, and how each is run and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine.scopes import group
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.loss.composite import composite_cross_entropy
from tinygrad_sm.loss.fused import cross_entropy
from tinygrad_sm.loss.probabilities import row_maximum
from tinygrad_sm.study.diagnose import Record

FLOOR = 1e-15
"""What the clipped form raises probabilities to, as DeZero does."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to compute the loss and its gradient.

    Attributes:
        name: short, for JSON.
        label: for tables and pictures.
        build: maps logits, a Tensor of shape (rows, classes), and the right class of every row
            to the losses (rows,) and the gradient, or None where `backward` computes it.
    """

    name: str
    label: str
    build: Callable[[Tensor, int], tuple[Tensor, Tensor | None]] = field(repr=False)


def _of_ours(
    loss: Callable[..., Tensor], **options: str
) -> Callable[[Tensor, int], tuple[Tensor, None]]:
    def build(a: Tensor, target: int) -> tuple[Tensor, None]:
        return loss(a, np.full(a.shape[0], target), reduction="none", **options), None

    return build


def _textbook(a: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The fused code of Saito's textbook: p = exp(a) / sum(exp(a)), da = p, da[target] -= 1."""
    prob = (np.exp(a) / np.sum(np.exp(a), axis=-1, keepdims=True)).named("p")
    y = np.zeros(a.shape, a.dtype)
    y[:, target] = 1
    gradient = prob - y  # p − 0 is exact, so this is the same as changing one entry in place
    return -np.log(prob[:, target]), gradient.named("da")


def _clipped(a: Tensor, target: int) -> tuple[Tensor, None]:
    """Probabilities raised to a floor before the logarithm, so that log(0) cannot happen."""
    with group("softmax"):
        e = p.exp(a - row_maximum(a.numpy(), -1)).named("e")
        prob = (e / e.sum(axis=-1, keepdims=True)).named("p")
    clipped = p.maximum(prob, FLOOR).named("clipped")
    return -clipped.log()[:, target], None


FORMS = (
    Form("naive", "naive composite", _of_ours(composite_cross_entropy, form="naive")),
    Form("textbook", "p − y of Saito's textbook", _textbook),
    Form("shifted", "shifted composite", _of_ours(composite_cross_entropy, form="shifted")),
    Form("clipped", "clipped p (1e-15)", _clipped),
    Form("logsumexp", "log-sum-exp composite", _of_ours(composite_cross_entropy, form="logsumexp")),
    Form("fused", "fused node", _of_ours(cross_entropy)),
)


def computed(form: Form, logits: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a form makes of rows of logits: losses (rows,), gradient (rows, classes)."""
    a = Tensor(logits)
    with np.errstate(all="ignore"):  # what breaks is reported, not warned about
        loss, gradient = form.build(a, target)
        if gradient is None:
            loss.backward(np.ones(loss.shape))
    return loss.numpy(), a.grad if gradient is None else gradient.numpy()


def recorded(form: Form, logits: np.ndarray, target: int, what: str) -> Record:
    """Return the record to look in for what is wrong with the "loss" or the "gradient"."""
    with np.errstate(all="ignore"):
        loss, gradient = form.build(Tensor(logits, name="a"), target)
        if what == "loss":
            return loss
        if gradient is not None:
            return gradient
        trace = loss.backward(np.ones(loss.shape), trace=True)
    assert trace is not None
    return trace
