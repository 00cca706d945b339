"""What users give: every kind of index and of array, and masks."""

import array
import builtins

import numpy as np
import pytest

import tinygrad_sm as tg


class Foreign:
    """An array of another library: only `__array__`."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


class Place:
    def __index__(self):
        return 1


REPEATED = {
    "list": [1, 1, 3, 1],
    "tuple in a tuple": ((1, 1, 3, 1),),
    "list in a list": [[1, 1], [3, 1]],
    "range": range(1, 4),
    "foreign": Foreign([1, 1, 3, 1]),
    "foreign, in a tuple": (Foreign([1, 1, 3, 1]), slice(0, 2)),
    "foreign, twice": (Foreign([1, 1, 3, 1]), Foreign([0, 0, 1, 2])),
    "buffer": array.array("q", [1, 1, 3, 1]),
    "memory": memoryview(np.array([1, 1, 3, 1])),
    "bytes to change": bytearray([1, 1, 3, 1]),
    "mask": Foreign([True, False, True, True]),
    "place": Place(),
    "place in a tuple": (Place(), Ellipsis, 0),
    "unmasked": np.ma.masked_array([1, 1, 3, 1]),
    "empty": (),
    "empty list": [],
}


def counted(index):
    """How often NumPy reads each element at an index: what the gradient of a sum has to be."""
    read = np.arange(12).reshape(4, 3)[index]
    return np.bincount(np.ravel(read), minlength=12).reshape(4, 3)


def check_index(index):
    W = tg.Tensor(np.arange(12.0).reshape(4, 3))
    expected = counted(index)
    for pick in (lambda: W[index], lambda: tg.getitem(W, index)):
        W.zero_grad()
        picked = pick()
        np.testing.assert_array_equal(picked.numpy(), W.numpy()[index])
        picked.sum().backward()
        np.testing.assert_array_equal(W.grad, expected)
    z = tg.scatter(np.ones(picked.shape), index=index, shape=(4, 3))
    np.testing.assert_array_equal(z, expected)


@pytest.mark.parametrize("index", REPEATED.values(), ids=REPEATED)
def test_an_index_of_any_kind_counts_repeats(index):
    check_index(index)


def test_an_index_from_pandas():
    pd = pytest.importorskip("pandas")
    check_index(pd.Series([1, 1, 3, 1]))
    check_index(pd.Index([1, 1, 3, 1]))
    check_index((pd.Series([1, 1]), pd.Index([2, 2])))
    check_index(pd.Series([True, False, True, True]))


def test_an_index_from_torch():
    torch = pytest.importorskip("torch")
    check_index(torch.tensor([1, 1, 3, 1]))
    check_index((torch.tensor([1, 1]), 2))
    check_index(torch.tensor(1))


@pytest.mark.parametrize("indices", [[[1], [1]], Foreign([[1, 1, 1], [0, 0, 2]])])
def test_positions_along_an_axis(indices):
    W = tg.Tensor(np.arange(6.0).reshape(2, 3))
    plain = np.asarray(indices)
    expected = np.zeros((2, 3))
    np.add.at(expected, (np.arange(2)[:, None], plain), 1)
    tg.take_along_axis(W, indices, 1).sum().backward()
    np.testing.assert_array_equal(W.grad, expected)
    np.testing.assert_array_equal(
        tg.take_along_axis(W.numpy(), indices, 1), np.take_along_axis(W.numpy(), plain, 1)
    )


@pytest.mark.parametrize("make", [np.array, lambda v: array.array("q", v), bytearray])
def test_whoever_gave_an_index_may_change_it_later(make):
    W, index = tg.Tensor(np.arange(4.0)), make([1, 1])
    y = W[index].sum() + W[index,].sum()
    index[0] = index[1] = 3
    np.testing.assert_array_equal(tg.grad(y, W), [0, 4, 0, 0])


def test_a_bound_of_a_slice_may_change_later():
    W, start = tg.Tensor(np.arange(4.0)), np.array(2)
    y = W[start:].sum()
    start[...] = 0
    np.testing.assert_array_equal(tg.grad(y, W), [0, 0, 1, 1])


# Masks: refused if they hide anything -------------------------------------------------------------

MASKED = np.ma.masked_array([1.0, 0.0], [False, True])
X = tg.Tensor([1.0, 2.0])
TAKERS = {
    "Tensor": tg.Tensor,
    "Tensor of a list": lambda m: tg.Tensor([m, m]),
    "operator": lambda m: X * m,
    "operator, from the left": lambda m: m * X,
    "primitive": tg.exp,
    "softmax": tg.softmax,
    "condition": lambda m: tg.where(m, X, 0.0),
    "index": lambda m: X[m.astype(int)],
    "data": lambda m: setattr(tg.Tensor([1.0, 2.0]), "data", m),
    "grad": lambda m: setattr(tg.Tensor([1.0, 2.0]), "grad", m),
    "cotangent": lambda m: (X * 1).backward(m),
    "augmented": lambda m: augmented(m),
    "logits": lambda m: tg.cross_entropy(m, 0),
    "logits, composite": lambda m: tg.composite_cross_entropy(m, 0),
    "logits, with gradient": lambda m: tg.cross_entropy_with_gradient(m, 0),
    "logits, layer": lambda m: tg.SoftmaxWithLoss().forward(m, 0),
    "logits, compare": lambda m: tg.compare(m, 0),
    "rows": lambda m: tg.linear_cross_entropy(m[None], np.ones((3, 2)), [0]),
    "target": lambda m: tg.cross_entropy(X, m),
    "target, composite": lambda m: tg.composite_cross_entropy(X, m),
    "target, classes": lambda m: tg.cross_entropy(tg.Tensor(np.eye(2)), m.astype(int)),
    "class weights": lambda m: tg.cross_entropy(X, 0, weight=m),
    "gradcheck": lambda m: tg.gradcheck(tg.exp, m),
}


def augmented(m):
    with tg.no_grad():
        w = tg.Tensor([1.0, 2.0])
        w += m


@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
def test_masked_elements_are_refused(taker):
    with pytest.raises(tg.TinygradError, match=r"masked elements|plain array") as caught:
        taker(MASKED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [n for n in TAKERS if n != "operator, from the left"])
def test_a_mask_that_hides_nothing_is_taken(name):
    TAKERS[name](np.ma.masked_array([1.0, 0.0], False))


def test_what_another_library_says_of_its_arrays_is_told():
    class Remote:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("it is on another device")

    with pytest.raises(tg.TinygradError, match=r"data cannot be read .* on another device"):
        tg.Tensor(Remote())


# Plain integers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, bool])
@pytest.mark.parametrize(
    "f",
    [
        tg.exp, tg.softmax, tg.log_softmax, tg.logsumexp, tg.relu, tg.abs, tg.neg, tg.sum, tg.mean,
        tg.max, tg.sigmoid, tg.square, tg.var, tg.cumsum, tg.prod,
        lambda x: tg.add(x, x), lambda x: tg.mul(x, 2), lambda x: tg.sub(0, x),
        lambda x: tg.pow(2, tg.neg(x)), lambda x: tg.dot(x, x),
        lambda x: tg.where(x > 0, x, tg.neg(x)),
        lambda x: tg.reshape(x, (3, 1)), lambda x: tg.concatenate([x, x]), lambda x: tg.stack([x]),
        lambda x: tg.take_along_axis(x, np.array([2, 0]), 0), lambda x: tg.getitem(x, [0, 0]),
        lambda x: tg.maximum(x, 1), lambda x: tg.clip(x, 1, 2),
        lambda x: tg.cross_entropy(x, 1), lambda x: tg.composite_cross_entropy(x, 1),
        lambda x: tg.cross_entropy_with_gradient(x, 1)[1], lambda x: tg.jacobian(tg.exp, x),
    ],
)  # fmt: skip
def test_integers_are_computed_with_as_float64(f, dtype):
    x = np.array([0, 3, 1]).astype(dtype)
    found, expected = f(x), f(x.astype(np.float64))
    assert np.asarray(found).dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_softmax_of_bytes():
    found = tg.softmax(np.uint8([0, 3, 1]))
    np.testing.assert_allclose(found, [0.04201, 0.84379, 0.1142], atol=1e-5)


def test_numbers_alone_are_floats_too():
    assert tg.pow(2, -1) == 0.5
    assert tg.relu(True) == 1.0
    assert tg.exp(np.int8(100)) == np.exp(100.0)


def test_integers_take_the_precision_of_what_stands_beside_them():
    found = tg.mul(np.float32([1, 2]), np.array([3, 4]))
    assert found.dtype == np.float32
    assert tg.mul(tg.Tensor([1.0], dtype="float32"), np.array([3])).dtype == np.float32


@pytest.mark.parametrize(
    "call",
    [
        lambda: X * 10**400, lambda: 10**400 + X, lambda: X**10**400, lambda: tg.Tensor(10**400),
        lambda: tg.mul(np.ones(2), 10**400), lambda: tg.exp(10**400),
        lambda: tg.exp("a"), lambda: tg.exp(None), lambda: tg.add(np.ones(2), np.ones(3)),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_one_sentence(call):
    with pytest.raises(tg.TinygradError) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_star_exports_shadow_nothing():
    names = {}
    exec("from tinygrad_sm import *", names)
    ours = {n for n in names if not n.startswith("__")}
    assert not ours & set(dir(builtins))
    assert {"exp", "log", "softmax", "Tensor", "matmul"} <= ours
    assert tg.sum([1, 2]) == tg.max([1, 3]) == tg.abs(-3) == tg.add(1, 2) == tg.pow(3, 1)
