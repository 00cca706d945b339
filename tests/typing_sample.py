"""What a user's script may look like under a strict type checker; `test_typing.py` has it checked.

Nothing here is run.
"""

from typing import assert_type

import numpy as np
import numpy.typing as npt

import tinygrad_sm as tg
import viz

a = tg.Tensor([[2.0, 1.0, 0.1]], name="a")
array = np.ones((1, 3))

# operations of the table give a Tensor for a Tensor, an array for an array
assert_type(tg.exp(a), tg.Tensor)
assert_type(tg.exp(array), np.ndarray)
assert_type(tg.sum(a, axis=-1, keepdims=True), tg.Tensor)
assert_type(tg.sum(array, axis=(0, 1)), np.ndarray)
assert_type(tg.maximum(0.0, a), tg.Tensor)
assert_type(tg.maximum(a, 0.0), tg.Tensor)
assert_type(tg.maximum(array, 0.0), np.ndarray)
assert_type(tg.matmul(a, array.T), tg.Tensor)
assert_type(tg.where(array > 0, a, 0.0), tg.Tensor)
assert_type(tg.where(array > 0, 0.0, a), tg.Tensor)
assert_type(tg.reshape(a, (3, 1)), tg.Tensor)
assert_type(tg.transpose(a), tg.Tensor)
assert_type(tg.take_along_axis(a, np.array([[0]]), axis=1), tg.Tensor)
assert_type(tg.concatenate([a, a], axis=0), tg.Tensor)
assert_type(tg.stack([a, a]), tg.Tensor)
assert_type(tg.expand_dims(a, 0), tg.Tensor)
assert_type(tg.softmax(a), tg.Tensor)
assert_type(tg.softmax(array, axis=0), np.ndarray)
assert_type(tg.log_softmax(a, axis=-1), tg.Tensor)
assert_type(tg.logsumexp(a, axis=-1, keepdims=True), tg.Tensor)
assert_type(a.exp().sum(axis=0) / (a @ array.T) + 1, tg.Tensor)
assert_type(tg.square(a), tg.Tensor)
assert_type(tg.var(array, axis=0, ddof=1), np.ndarray)
assert_type(tg.dot(array, a.T), tg.Tensor)
assert_type(tg.flip(a, axis=0), tg.Tensor)

tg.sum(a, axes=0)  # type: ignore[call-overload]
tg.exp(a, 2)  # type: ignore[call-overload]
tg.reshape(a)  # type: ignore[call-overload]

# the losses
loss = tg.cross_entropy(a, 0, reduction="mean", label_smoothing=0.1)
assert_type(loss, tg.Tensor)
assert_type(tg.composite_cross_entropy(a, 0, form="shifted"), tg.Tensor)
assert_type(tg.linear_cross_entropy(array, a, 0, chunk_rows=2), tg.Tensor)
assert_type(tg.SoftmaxWithLoss()(a, 0), tg.Tensor)
loss.backward()
print(loss.item(), a.grad, tg.compare(array, 0).verdict, viz.draw(loss).source)

# a primitive of one's own, and a model
softplus = tg.def_primitive(
    "softplus_of_the_sample", lambda x: np.logaddexp(0, x), lambda g, y, x: g * tg.sigmoid(x)
)
assert_type(softplus(a), tg.Tensor)
own_exp = tg.def_primitive("own_exp_of_the_sample", np.exp, lambda g, y, x: g * y, notation="e^{}")
assert_type(own_exp(a), tg.Tensor)


def model(x: npt.NDArray[np.float64], weight: tg.Tensor, bias: tg.Tensor) -> tg.Tensor:
    """One layer."""
    hidden = tg.relu(x @ weight + bias)
    return tg.where(hidden > 3, 3.0, hidden)


with tg.no_grad(), tg.group("stage"):
    print(tg.graph(model(array, a.T, tg.Tensor(0.0))).nodes[0].name)
