"""linear_cross_entropy is cross_entropy(x @ W.T + b) in every respect but memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_sm as tg
from tinygrad_sm.engine.threads import pool
from tinygrad_sm.loss import linear

RTOL = {np.float64: 1e-11, np.float32: 2e-4}


def tensors(rng, lead, features, classes, dtype=np.float64, wanted=(True, True, True)):
    shapes = (*lead, features), (classes, features), (classes,)
    return [
        tg.Tensor(rng.normal(size=shape), dtype=dtype, requires_grad=wants)
        for shape, wants in zip(shapes, wanted, strict=True)
    ]


def unfused(x, w, target, *, bias=None, class_weight=None, **options):
    logits = x @ w.T if bias is None else x @ w.T + bias
    return tg.cross_entropy(logits, target, weight=class_weight, **options)


def same(found, expected, rtol):
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale / 100)


@settings(max_examples=150)
@given(st.data())
def test_every_option_gives_what_the_two_nodes_give(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    lead = data.draw(st.sampled_from([(), (1,), (7,), (2, 3), (0,), (2, 0)]))
    features, classes = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    dtype = data.draw(st.sampled_from([np.float64, np.float64, np.float32]))
    wanted = data.draw(st.tuples(*[st.booleans()] * 3).filter(any))
    x, w, b = tensors(rng, lead, features, classes, dtype, wanted)
    kind = data.draw(st.sampled_from(["index", "ignored", "distribution"]))
    target = rng.integers(0, classes, lead)
    if kind == "ignored":
        target = np.where(rng.random(lead) < 0.4, -100, target)
    elif kind == "distribution":
        target = rng.random((*lead, classes))
    reduction = data.draw(st.sampled_from(["sum", "none", "mean"]))
    if reduction == "mean" and (kind == "ignored" or 0 in lead):
        reduction = "sum"
    with_bias = data.draw(st.booleans())
    if not with_bias and not any(wanted[:2]):
        with_bias = True
    options = {
        "bias": b if with_bias else None,
        "class_weight": data.draw(st.sampled_from([None, 0.1 + rng.random(classes)])),
        "reduction": reduction,
        "label_smoothing": data.draw(st.sampled_from([0.0, 0.1])),
        "temperature": data.draw(st.sampled_from([1.0, 2.0])),
    }
    chunk_rows = data.draw(st.sampled_from([None, 1, 2, 100]))
    found = tg.linear_cross_entropy(x, w, target, chunk_rows=chunk_rows, **options)
    expected = unfused(x, w, target, **options)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == dtype
    same(found.numpy(), expected.numpy(), RTOL[dtype])
    inputs = [t for t in (x, w, options["bias"]) if t is not None and t.requires_grad]
    for scale in (1.0, -0.5):  # the second sweep has to compute them anew
        g = scale * rng.normal(size=found.shape)
        for ours, theirs in zip(
            tg.grad(found, inputs, g), tg.grad(expected, inputs, g), strict=True
        ):
            assert ours.dtype == dtype
            same(ours, theirs, RTOL[dtype])


@pytest.mark.parametrize("classes", [1, 7, 8, 30])
def test_products_in_parts_add_up(monkeypatch, classes):
    x, w, b = tensors(np.random.default_rng(8), (13,), 3, classes)
    target = np.arange(13) % classes
    expected = tg.grad(unfused(x, w, target, bias=b), [x, w, b])
    monkeypatch.setattr(linear, "PRODUCT_BYTES", 8 * 3 * 4)  # four classes at once
    found = tg.grad(tg.linear_cross_entropy(x, w, target, bias=b, chunk_rows=4), [x, w, b])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_backward_doubles(reduction):
    x, w, b = tensors(np.random.default_rng(0), (5,), 3, 4)
    loss = tg.linear_cross_entropy(x, w, [0, 1, 2, 3, 0], bias=b, reduction=reduction, chunk_rows=2)
    g = np.arange(5.0) if reduction == "none" else None
    loss.backward(g)
    once = [t.grad.copy() for t in (x, w, b)]
    loss.backward(g)
    for t, first in zip((x, w, b), once, strict=True):
        assert t.grad == pytest.approx(2 * first, rel=1e-14)


def test_gradients_wanted_or_not_after_the_forward_pass():
    """requires_grad may change in between; no stale or missing gradient may come of it."""
    x, w, b = tensors(np.random.default_rng(1), (4,), 3, 5, wanted=(True, False, True))
    target = [0, 1, 2, 4]
    loss = tg.linear_cross_entropy(x, w, target, bias=b, reduction="none")
    w.requires_grad = True
    expected = unfused(x, w, target, bias=b, reduction="none")
    for t in (x, b):
        g = np.random.default_rng(2).normal(size=4)
        exact_w, exact_t = tg.grad(expected, w, g), tg.grad(expected, t, -g)
        t.requires_grad = False
        assert tg.grad(loss, w, g) == pytest.approx(exact_w, rel=1e-12)
        t.requires_grad = True
        assert tg.grad(loss, t, -g) == pytest.approx(exact_t, rel=1e-12)


def test_no_grad_and_plain_arrays_compute_the_loss_only():
    x, w, b = tensors(np.random.default_rng(3), (4,), 3, 5)
    target = [0, 1, 2, 4]
    expected = unfused(x, w, target, bias=b).item()
    with tg.no_grad():
        quiet = tg.linear_cross_entropy(x, w, target, bias=b)
    assert not quiet.requires_grad
    plain = tg.linear_cross_entropy(x.numpy(), w.numpy().tolist(), target, bias=b.numpy())
    assert type(plain) is np.ndarray
    assert quiet.item() == pytest.approx(expected)
    assert plain == pytest.approx(expected)


def test_dtypes_mix_as_in_the_two_nodes():
    rng = np.random.default_rng(4)
    for dtypes in (("f4", "f8", "f4"), ("f8", "f4", "f4"), ("f4", "f4", "f8"), ("f2", "f2", "f2")):
        x, w, b = (
            tg.Tensor(rng.normal(size=s).astype(d))
            for s, d in zip(((4, 3), (5, 3), (5,)), dtypes, strict=True)
        )
        found = tg.linear_cross_entropy(x, w, [0, 1, 2, 4], bias=b)
        expected = unfused(x, w, [0, 1, 2, 4], bias=b)
        assert found.dtype == expected.dtype
        rtol = 1e-2 if dtypes[0] == "f2" else 1e-5
        same(found.numpy(), expected.numpy(), rtol)
        for ours, theirs in zip(
            tg.grad(found, [x, w, b]), tg.grad(expected, [x, w, b]), strict=True
        ):
            assert ours.dtype == theirs.dtype
            same(ours.astype(float), theirs.astype(float), rtol)


def test_the_target_may_want_a_gradient():
    x, w, b = tensors(np.random.default_rng(5), (4,), 3, 5)
    y = tg.Tensor(np.random.default_rng(6).random((4, 5)))
    found = tg.grad(tg.linear_cross_entropy(x, w, y, bias=b, temperature=2.0), [y, x])
    expected = tg.grad(unfused(x, w, y, bias=b, temperature=2.0), [y, x])
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs, 1e-12)


def test_one_tensor_in_two_places():
    t = tg.Tensor(np.random.default_rng(7).normal(size=(4, 4)))
    found = tg.grad(tg.linear_cross_entropy(t, t, [0, 1, 2, 3], chunk_rows=2), t)
    assert found == pytest.approx(tg.grad(unfused(t, t, [0, 1, 2, 3]), t), rel=1e-12)


def test_the_chunks_change_only_the_rounding():
    x, w, b = tensors(np.random.default_rng(8), (300,), 6, 11)
    target = np.random.default_rng(9).integers(0, 11, 300)
    whole = tg.grad(tg.linear_cross_entropy(x, w, target, bias=b, chunk_rows=300), [x, w, b])
    for chunk_rows in (1, 7, None):
        loss = tg.linear_cross_entropy(x, w, target, bias=b, chunk_rows=chunk_rows)
        for ours, theirs in zip(tg.grad(loss, [x, w, b]), whole, strict=True):
            same(ours, theirs, 1e-12)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_memory_stays_well_below_the_logits(monkeypatch, reduction):
    monkeypatch.setenv(pool.THREADS_VARIABLE, "1")  # which thread has its scratch space yet is luck
    rows, features, classes = 2000, 16, 2000
    rng = np.random.default_rng(10)
    x, w, b = tensors(rng, (rows,), features, classes, np.float32)
    target = rng.integers(0, classes, rows)
    logits = rows * classes * 4
    g = None if reduction == "mean" else np.ones(rows, np.float32)
    tg.linear_cross_entropy(x, w, target, bias=b, reduction=reduction).backward(g)  # scratch space
    tracemalloc.start()
    try:
        tg.linear_cross_entropy(x, w, target, bias=b, reduction=reduction).backward(g)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.2 * logits, f"{peak / logits:.2f} of the logits matrix"


def test_it_is_one_node():
    x, w, b = tensors(np.random.default_rng(11), (2,), 3, 4)
    graph = tg.graph(tg.linear_cross_entropy(x, w, [0, 1], bias=b))
    assert [n.op for n in graph.nodes if n.inputs] == ["LinearSoftmaxWithLoss"]
    assert len(graph.nodes[-1].inputs) == 4
