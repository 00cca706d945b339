"""SoftmaxWithLoss, the textbook's layer, without the textbook's defects."""

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.loss import fused

A, P = np.array([2.0, 1.0, 0.1]), np.exp([2.0, 1.0, 0.1]) / np.exp([2.0, 1.0, 0.1]).sum()


def test_forward_and_backward_of_the_article():
    layer = tg.SoftmaxWithLoss()
    assert layer.loss is layer.y is layer.t is None
    loss = layer.forward(A, [1, 0, 0])
    assert loss == layer.loss == pytest.approx(-np.log(P[0]), rel=1e-14)
    assert layer.y == pytest.approx(P, rel=1e-14)
    assert layer.t == [1, 0, 0]
    assert layer.backward() == pytest.approx(P - [1, 0, 0], rel=1e-14)


@pytest.mark.parametrize("dout", [1, 0.25, -3, np.float32(2), np.array(0.5)])
def test_dout_is_honoured(dout):
    layer = tg.SoftmaxWithLoss()
    layer.forward(A, 0)
    assert layer.backward(dout) == pytest.approx(float(dout) * (P - [1, 0, 0]), rel=1e-14)
    assert layer.backward(dout=2 * dout) == pytest.approx(2 * float(dout) * (P - [1, 0, 0]))


def test_soft_targets_of_any_row_sum():
    layer = tg.SoftmaxWithLoss()
    layer.forward(A, [1, 1, 0])
    assert layer.backward() == pytest.approx(2 * P - [1, 1, 0], rel=1e-13)


def test_a_batch_is_averaged_and_one_row_is_not_divided():
    x, t = np.stack([A, A[::-1]]), np.array([0, 1])
    layer = tg.SoftmaxWithLoss()
    layer.forward(x, t)
    p = np.stack([P, P[::-1]])
    assert layer.backward() == pytest.approx((p - np.eye(3)[t]) / 2, rel=1e-14)
    assert layer.y == pytest.approx(p, rel=1e-14)
    layer.forward(A[None], np.array([0]))  # another forward, another shape
    assert layer.backward().shape == (1, 3)


def test_backward_twice_is_the_same_and_the_callers_own():
    layer = tg.SoftmaxWithLoss()
    layer.forward(A, 0)
    first = layer.backward()
    kept = first.copy()
    first += 1
    assert (layer.backward() == kept).all()


def test_options_are_those_of_cross_entropy():
    x, t = np.random.default_rng(0).normal(size=(2, 4, 3)), np.array([[0, 3, 1], [2, -100, 0]])
    options = {"axis": 1, "weight": [1, 2, 3, 4], "label_smoothing": 0.1, "temperature": 2.0}
    for reduction in ("sum", "none"):
        layer = tg.SoftmaxWithLoss(reduction=reduction, **options)
        a = tg.Tensor(x)
        expected = tg.cross_entropy(a, t, reduction=reduction, **options)
        assert (layer.forward(x, t) == expected.numpy()).all()
        dout = np.random.default_rng(1).normal(size=expected.shape)
        assert (layer.backward(dout) == tg.grad(expected, a, dout)).all()
        assert layer.y == pytest.approx(tg.softmax(x / 2, axis=1))


def test_called_on_tensors_it_is_a_node():
    a = tg.Tensor(A, name="a")
    layer = tg.SoftmaxWithLoss()
    loss = layer(a, [1, 0, 0])
    (loss * 2).backward()
    assert loss.op == "SoftmaxWithLoss"
    assert a.grad == pytest.approx(2 * (P - [1, 0, 0]))
    assert layer.loss == loss.item()
    assert layer.y == pytest.approx(P)


def test_forward_takes_tensors_and_leaves_them_alone():
    a = tg.Tensor(A)
    layer = tg.SoftmaxWithLoss()
    layer.forward(a, tg.Tensor([1.0, 0, 0], requires_grad=False))
    layer.backward()
    assert a.grad is None


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(dtype):
    layer = tg.SoftmaxWithLoss()
    assert layer.forward(A.astype(dtype), 0).dtype == dtype
    assert layer.y.dtype == layer.backward().dtype == dtype


def test_backward_before_forward_and_a_dout_that_does_not_fit():
    layer = tg.SoftmaxWithLoss()
    with pytest.raises(TypeError, match="backward needs a forward before it") as caught:
        layer.backward()
    assert isinstance(caught.value, tg.TinygradError)
    layer.forward(A, 0)
    with pytest.raises(ValueError, match=r"gradient must have the output's shape \(\); got \(2,\)"):
        layer.backward([1, 2])


def test_a_forward_that_fails_leaves_no_half_state():
    layer = tg.SoftmaxWithLoss()
    layer.forward(A, 0)
    with pytest.raises(IndexError, match="target must be class indices from 0 to 2"):
        layer.forward([5.0, 5.0, 5.0], 7)
    assert layer.backward() == pytest.approx(P - [1, 0, 0])
    assert layer.y == pytest.approx(P)


def test_a_call_on_tensors_ends_what_backward_belongs_to():
    layer = tg.SoftmaxWithLoss()
    layer.forward([2.0, 1.0, 0.1], 0)
    layer(tg.Tensor([1.0, 2.0]), 1)
    with pytest.raises(TypeError, match="needs a forward before it"):
        layer.backward()


def test_longdouble_logits_are_computed_in_float64():
    """More than 128 classes, where the kernel has another path, had raised a KeyError."""
    logits = np.random.default_rng(0).normal(size=(3, 300))
    wide = tg.Tensor(logits.astype(np.longdouble))
    loss = tg.cross_entropy(wide, [0, 1, 2])
    loss.backward()
    double = tg.Tensor(logits)
    tg.cross_entropy(double, [0, 1, 2]).backward()
    assert loss.dtype == wide.grad.dtype == np.longdouble
    assert (wide.grad == double.grad).all()


def test_the_probabilities_are_found_only_if_they_are_asked_for(monkeypatch):
    found = []

    def counted(*args, **options):
        found.append(1)
        return tg.softmax(*args, **options)

    monkeypatch.setattr(fused, "softmax", counted)
    layer = tg.SoftmaxWithLoss()
    layer.forward(A, 0)
    layer.backward()
    assert not found
    assert layer.y == pytest.approx(P)
    assert layer.y is layer.y
    assert len(found) == 1


def test_the_probabilities_are_those_of_the_call_whatever_becomes_of_the_logits():
    a = tg.Tensor(A)
    layer = tg.SoftmaxWithLoss()
    layer(a, 0)
    a.data[...] = 0.0
    assert layer.y == pytest.approx(P)
    x = A.copy()
    layer.forward(x, 0)
    x[...] = 0.0
    assert layer.y == pytest.approx(P)
