"""What the tests of the losses share: every form of them, and small cases with every option."""

from functools import partial

import numpy as np
import oracle
import pytest
from hypothesis import strategies as st

import tinygrad_sm as tg
from tinygrad_sm.loss.composite import FORMS

REDUCTIONS = ["mean", "sum", "none"]


def composite(form):
    return partial(tg.composite_cross_entropy, form=form)


EVERY_FORM = [
    pytest.param(tg.cross_entropy, id="fused"),
    *(pytest.param(composite(form), id=form) for form in FORMS),
]


def run(loss_function, logits, target, cotangent=None, **options):
    """Loss and gradient as plain arrays."""
    a = tg.Tensor(logits)
    loss = loss_function(a, target, **options)
    return loss.numpy(), tg.grad(loss, a, None if cotangent is None else np.asarray(cotangent))


def _values(rng, family, shape):
    if family == "ties":
        return rng.integers(-2, 3, shape).astype(float)
    if family == "equal":
        return np.full(shape, rng.normal())
    if family == "sure":
        return rng.normal(size=shape) + 25 * (rng.random(shape) < 0.3)
    return rng.normal(size=shape) * {"normal": 1, "wide": 8}[family]


def _target(rng, kind, shape, axis):
    n, rest = shape[axis], shape[:axis] + shape[axis + 1 :]
    index = rng.integers(0, n, rest)
    if kind == "index":
        return index
    if kind == "some ignored":
        return np.where(rng.random(rest) < 0.4, -100, index)
    if kind == "one-hot":
        return np.moveaxis(np.eye(n, dtype=int)[index], -1, axis)
    y = rng.random(shape)
    if kind == "sparse":
        return y * (rng.random(shape) < 0.5)
    return y / y.sum(axis=axis, keepdims=True) if kind == "distribution" else y


def _weight(rng, classes):
    weight = 0.05 + rng.random(classes)
    return weight * (weight > 0.5) if rng.random() < 0.3 else weight


@st.composite
def cases(draw):
    """(logits, target, options, cotangent) of a small case, with every option at times."""
    batch = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    axis = draw(st.integers(0, len(batch)))
    shape = (*batch[:axis], draw(st.integers(1, 6)), *batch[axis:])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(["float64", "float64", "float64", "float32", "float16"]))
    logits = _values(rng, draw(st.sampled_from(["normal", "wide", "ties", "equal", "sure"])), shape)
    if dtype != "float64":  # so that 1/p of the naive form fits float32 at T = 0.5, too
        logits = np.clip(logits, -18, 18)
    kind = draw(
        st.sampled_from(
            ["index", "some ignored", "one-hot", "distribution", "any weights", "sparse"]
        )
    )
    target = _target(rng, kind, shape, axis)
    options = {"axis": axis - draw(st.sampled_from([0, len(shape)]))}
    options["reduction"] = draw(st.sampled_from(REDUCTIONS))
    options["label_smoothing"] = draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]))
    options["temperature"] = draw(st.sampled_from([1.0, 1.0, 0.5, 3.0]))
    if draw(st.booleans()):
        options["weight"] = _weight(rng, shape[axis])
    rest = shape[:axis] + shape[axis + 1 :]
    cotangent = rng.normal(size=rest if options["reduction"] == "none" else ())
    _, counts = oracle.target_rows(
        target, shape, axis, weight=options.get("weight"), label_smoothing=0.0
    )
    if options["reduction"] == "mean" and not counts.sum():  # tested apart: it warns
        options["reduction"] = "sum"
    return logits.astype(dtype), target, options, cotangent
