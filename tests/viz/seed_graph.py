"""The seed's example, for the tests of the pictures."""

import numpy as np

import tinygrad_sm as tg
from tinygrad_sm.engine.trace import BackwardTrace


def seed() -> tuple[tg.Tensor, tg.Tensor]:
    """The logits and the loss of the composite built by hand."""
    a = tg.Tensor([2.0, 1.0, 0.1], name="a")
    y = np.array([1, 0, 0])
    with tg.group("softmax"):
        e = tg.exp(a)
        s = tg.sum(e, axis=-1, keepdims=True)
        p = e / s
    with tg.group("cross-entropy"):
        loss = -tg.sum(y * tg.log(p))
    e.name, s.name, p.name, loss.name = "e", "s", "p", "L"
    return a, loss


def traced(loss: tg.Tensor) -> BackwardTrace:
    trace = loss.backward(np.ones(loss.shape), trace=True)
    assert trace is not None
    return trace
