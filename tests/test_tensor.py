"""Tensor: what it holds, its dtypes, its methods, and that nobody changes it unnoticed."""

import contextlib
import copy
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import tinygrad_sm as tg

FLOATS = [np.float16, np.float32, np.float64, np.longdouble]

# Making one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_floating_dtypes_are_kept(dtype):
    assert tg.Tensor(np.ones(2, dtype)).dtype == dtype


@pytest.mark.parametrize("data", [1, True, [1, 2], np.ones(2, np.int8), np.ones(2, bool), [[]]])
def test_everything_else_becomes_float64(data):
    assert tg.Tensor(data).dtype == np.float64


def test_dtype_converts():
    assert tg.Tensor([1, 2], dtype="float32").dtype == np.float32
    assert tg.Tensor(np.ones(2), dtype=np.float16).dtype == np.float16


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (2, 3)])
def test_facts(shape):
    a = np.arange(float(np.prod(shape))).reshape(shape)
    t = tg.Tensor(a, name="t")
    assert (t.shape, t.ndim, t.size, t.name) == (a.shape, a.ndim, a.size, "t")
    assert t.T.shape == a.T.shape
    assert (t.op, t.grad, t.requires_grad) == (None, None, True)
    np.testing.assert_array_equal(t.data, a)


def test_the_given_array_is_copied():
    a = np.ones(3)
    t = tg.Tensor(a)
    a[:] = 9
    np.testing.assert_array_equal(t.data, [1, 1, 1])


def test_item_and_float():
    assert tg.Tensor([[2.5]]).item() == float(tg.Tensor(2.5)) == 2.5
    assert isinstance(tg.Tensor(np.float32(2.5)).item(), float)


def test_repr_shows_data_shape_dtype_name_and_op():
    a = tg.Tensor([1.0, 2.0], name="a", dtype=np.float32)
    assert repr(a) == "Tensor([1., 2.], shape=(2,), dtype=float32, name='a')"
    assert repr(a * a) == "Tensor([1., 4.], shape=(2,), dtype=float32, op='mul')"
    assert "requires_grad=False" in repr(a.detach())
    assert len(repr(tg.Tensor(np.zeros((100, 100))))) < 1000


def test_length_and_iteration():
    t = tg.Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(t) == 2
    first, second = t
    (first * second).sum().backward()
    np.testing.assert_array_equal(t.grad, [[3, 4], [1, 2]])


# Copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
def test_a_copy_is_another_tensor(copied):
    a = tg.Tensor([1.0, 2.0], name="a")
    b = copied(a)
    (a * b * b).sum().backward()
    np.testing.assert_array_equal(a.grad, [1, 4])
    np.testing.assert_array_equal(b.grad, [2, 8])
    assert b.name == "a"
    b.data[0] = 7
    assert a.data[0] == 1


def test_detach_and_numpy_carry_no_gradient():
    a = tg.Tensor([1.0, 2.0])
    y = (a * a).detach() * a
    y.sum().backward()
    np.testing.assert_array_equal(a.grad, [1, 4])
    assert not a.detach().requires_grad
    view = a.numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 5


def test_changing_a_detached_tensor_changes_nobody_else():
    a = tg.Tensor([1.0, 2.0])
    y = a * a
    for t in (a, y):
        d = t.detach()
        d.data[:] = 99
    y.sum().backward()
    np.testing.assert_array_equal(a.grad, [2, 4])
    np.testing.assert_array_equal(y.data, [1, 4])


# Arithmetic against NumPy -------------------------------------------------------------------------

OPERATORS = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "**": lambda x, y: x**y,
}


@given(mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=0), st.data())
def test_broadcasting_of_every_kind(shapes, data):
    shape_x, shape_y = shapes.input_shapes
    op = OPERATORS[data.draw(st.sampled_from(sorted(OPERATORS)))]
    kind = data.draw(st.sampled_from(["both", "left", "right"]))
    x = np.linspace(0.5, 2.0, int(np.prod(shape_x))).reshape(shape_x)
    y = np.linspace(2.5, 1.1, int(np.prod(shape_y))).reshape(shape_y)
    tx = x if kind == "right" else tg.Tensor(x)
    ty = y if kind == "left" else tg.Tensor(y)
    z = op(tx, ty)
    np.testing.assert_array_equal(z.numpy(), op(x, y))
    assert z.shape == shapes.result_shape
    g = np.linspace(-1, 1, z.size).reshape(z.shape)
    z.backward(g)
    # broadcasting is repeating: the gradient of the repeated arguments, summed over the repeats
    h = 1e-6
    for t, up, down in [(tx, op(x + h, y), op(x - h, y)), (ty, op(x, y + h), op(x, y - h))]:
        if isinstance(t, tg.Tensor):
            per_element = g * (up - down) / (2 * h)
            assert t.grad.shape == t.shape
            np.testing.assert_allclose(t.grad.sum(), per_element.sum(), rtol=1e-7, atol=1e-7)
            lead = per_element.sum(axis=tuple(range(z.ndim - t.ndim)))
            axes = tuple(i for i, n in enumerate(t.shape) if n == 1)
            np.testing.assert_allclose(
                t.grad, lead.sum(axis=axes, keepdims=True), rtol=1e-7, atol=1e-7
            )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "constant",
    [2, 2.5, True, np.arange(1, 4), np.array([1, 2, 3], np.uint8), np.array([1, 0, 1], bool),
     np.ones(3, np.float16), np.float16(2), [1, 2, 3], np.int64(3), np.bool_(True)],
    ids=lambda c: f"{type(c).__name__}-{getattr(c, 'dtype', '')}",
)  # fmt: skip
@pytest.mark.parametrize("op", [o for n, o in OPERATORS.items() if n != "/"])
def test_constants_do_not_raise_the_dtype(dtype, constant, op):
    x = tg.Tensor(np.array([1.0, 2.0, 3.0]), dtype=dtype)
    for y in (op(x, constant), op(constant, x)):
        assert y.dtype == dtype
        (g,) = tg.grad(y, [x], np.ones(3))
        assert g.dtype == dtype


def test_a_wider_float_constant_raises_the_dtype_but_not_the_gradients():
    x = tg.Tensor([1.0, 2.0], dtype=np.float32)
    for y in (x * np.ones(2), np.float64(2) * x):
        assert y.dtype == np.float64
        y.backward(np.ones(2))
    assert x.grad.dtype == np.float32


COMPARISONS = [
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
]


@pytest.mark.parametrize("compare", COMPARISONS)
def test_comparisons_give_plain_booleans(compare):
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])
    expected = compare(a, b)
    for x, y in [(tg.Tensor(a), tg.Tensor(b)), (tg.Tensor(a), b), (a, tg.Tensor(b))]:
        found = compare(x, y)
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected)


def test_tensors_are_keys():
    a, b = tg.Tensor([1.0]), tg.Tensor([1.0])
    assert len({a: 1, b: 2}) == 2


METHODS = {
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "tanh": np.tanh,
    "abs": np.abs, "relu": lambda x: np.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sum": np.sum, "mean": np.mean, "max": np.max, "transpose": np.transpose,
    "__neg__": np.negative, "__abs__": np.abs, "__pos__": np.positive,
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    x = np.array([[0.5, 1.5, 2.0], [1.0, 3.0, 0.1]])
    np.testing.assert_allclose(getattr(tg.Tensor(x), name)().numpy(), METHODS[name](x), rtol=1e-15)


def test_methods_with_arguments():
    x = np.arange(24.0).reshape(2, 3, 4)
    t = tg.Tensor(x)
    for name in ("sum", "mean", "max"):
        np.testing.assert_array_equal(
            getattr(t, name)(axis=(0, -1), keepdims=True).numpy(),
            getattr(x, name)(axis=(0, -1), keepdims=True),
        )
        np.testing.assert_array_equal(getattr(t, name)(1).numpy(), getattr(x, name)(1))
    assert t.reshape(4, 6).shape == t.reshape((4, 6)).shape == t.reshape([4, -1]).shape == (4, 6)
    assert t.transpose(1, 2, 0).shape == t.transpose((1, 2, 0)).shape == (3, 4, 2)
    assert t.transpose(None).shape == t.T.shape == (4, 3, 2)
    assert t.astype("float32").dtype == np.float32
    np.testing.assert_array_equal((t @ np.ones(4)).numpy(), x @ np.ones(4))
    np.testing.assert_array_equal((np.ones((5, 3)) @ t).numpy(), np.ones((5, 3)) @ x)


# In-place changes: refused, detected, or without effect -------------------------------------------


def product():
    x = tg.Tensor([1.0, 2.0, 3.0], name="x")
    return x, (x * x).sum()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.data.__setitem__(0, 9.0),
        lambda x: x.data.sort(axis=0) or x.data.__imul__(2),
        lambda x: setattr(x, "data", x.data * 2),
        lambda x: setattr(x, "data", [7, 8, 9]),
        lambda x: x.data.reshape(3, 1)[1].fill(5),
        lambda x: np.copyto(x.data, 0),
    ],
)
def test_changed_data_is_detected(change):
    x, y = product()
    change(x)
    with pytest.raises(RuntimeError, match=r"the data of the Tensor 'x' of shape \(3,\) was chan"):
        y.backward()
    with pytest.raises(tg.TinygradError):
        tg.grad(y, x)
    assert x.grad is None
    (x * x).sum().backward()  # a new forward pass is fine
    np.testing.assert_array_equal(x.grad, 2 * x.data)


def test_augmented_assignment_is_detected():
    x, y = product()
    x.data -= 0.5
    with pytest.raises(RuntimeError):
        y.backward()


def test_a_view_held_since_before_the_forward_pass():
    x = tg.Tensor([1.0, 2.0, 3.0])
    held = x.data[1:]
    y = (x * x).sum()
    held[0] = 5
    with pytest.raises(RuntimeError):
        y.backward()


def test_changed_after_the_first_of_two_uses():
    x = tg.Tensor([1.0, 2.0, 3.0])
    y = x * x
    x.data[0] = 7
    z = (y * x).sum()
    with pytest.raises(RuntimeError):
        z.backward()


def test_a_constant_tensor_that_was_changed_is_detected():
    x, c = tg.Tensor([1.0, 2.0]), tg.Tensor([3.0, 4.0], requires_grad=False)
    y = (x * c).sum()
    c.data[0] = 0
    with pytest.raises(RuntimeError):
        y.backward()


def test_changed_and_changed_back_is_fine():
    x, y = product()
    x.data[0] += 1
    x.data[0] -= 1
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 4, 6])


@pytest.mark.parametrize("position", [1, 2])
def test_the_changed_one_among_several_operands_is_named(position):
    a, b = tg.Tensor([1.0, 2.0], name="a"), tg.Tensor([3.0, 4.0], name="b")
    y = tg.where(np.array([True, False]), *((a, b) if position == 1 else (b, a)))
    z = tg.concatenate([b, b, a, a]) * 2
    for t in (a, b):
        t.data  # noqa: B018  gives the array away
    a.data[0] = 7
    for out in (y, z):
        with pytest.raises(RuntimeError, match="'a'"):
            out.backward(np.ones(out.shape))


@pytest.mark.parametrize("op", OPERATORS.values())
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, bool])
def test_an_operand_changed_after_any_operator_does_not_matter(op, dtype):
    x, c = tg.Tensor([1.0, 2.0]), np.array([1, 1], dtype)
    y = op(x, c)
    expected = tg.grad(y, x, np.ones(2))
    c[:] = 0
    np.testing.assert_array_equal(tg.grad(y, x, np.ones(2)), expected)
    np.testing.assert_array_equal(tg.graph(y).nodes[1].value, [1, 1])


def test_nan_is_not_a_change():
    x = tg.Tensor([np.nan, 2.0])
    x.data  # noqa: B018  gives the array away
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 2])


def test_data_of_a_computed_tensor_is_read_only():
    x = tg.Tensor([1.0, 2.0])
    for y in (x * x, x.reshape(2, 1), x[...], tg.broadcast_to(x, (3, 2))):
        with pytest.raises(ValueError, match="read-only"):
            y.data[0] = 5


@pytest.mark.parametrize("make", ["array", "view", "read-only view", "broadcast", "list"])
def test_constants_changed_after_the_forward_pass_do_not_matter(make):
    base = np.array([2.0, 3.0])
    c = {
        "array": base, "view": base[::-1][::-1], "read-only view": base.view(),
        "broadcast": np.broadcast_to(base, (2, 2)), "list": base,
    }[make]  # fmt: skip
    if make == "read-only view":
        c.flags.writeable = False
    if make == "list":
        c = [2.0, 3.0]
    x = tg.Tensor([1.0, 2.0])
    y = (x * c).sum()
    expected = tg.grad(y, x)
    if make == "list":
        c[0] = 99.0
    base[:] = 99
    np.testing.assert_array_equal(tg.grad(y, x), expected)


@pytest.mark.parametrize(
    "pick",
    [
        lambda x, i: x[i],
        lambda x, i: x[(i,)],
        lambda x, i: tg.getitem(x, i),
        lambda x, i: tg.getitem(x, index=(i,)),
        lambda x, i: tg.take_along_axis(x, i),
        lambda x, i: tg.where(i == 1, x[:2], 0),
    ],
)
def test_an_index_changed_after_the_forward_pass_does_not_matter(pick):
    x, i = tg.Tensor([1.0, 2.0, 3.0]), np.array([0, 1])
    y = pick(x, i).sum()
    expected = tg.grad(y, x)
    i[:] = 2
    np.testing.assert_array_equal(tg.grad(y, x), expected)


def test_a_list_index_changed_after_the_forward_pass_does_not_matter():
    x, i = tg.Tensor([1.0, 2.0, 3.0]), [0, 1]
    y, z = x[i].sum(), tg.getitem(x, i).sum()
    i[:] = [2, 2]
    for out in (y, z):
        np.testing.assert_array_equal(tg.grad(out, x), [1, 1, 0])


def test_data_set_from_another_tensor_is_a_copy():
    a, b = tg.Tensor([1.0, 2.0]), tg.Tensor([3.0, 4.0])
    y = (b * b).sum()
    a.data = b
    a.data[...] = 0
    y.backward()
    np.testing.assert_array_equal(b.grad, [6, 8])


def test_data_set_from_a_result_can_be_changed():
    w = tg.Tensor([1.0, 2.0])
    w.data = (w * 3).data
    w.data -= 1
    np.testing.assert_array_equal(w.data, [2, 5])
    w.data = np.float32([7, 8])
    assert w.dtype == np.float64


READERS = {
    "data": lambda x: x.data,
    "numpy": lambda x: x.numpy(),
    "detach": lambda x: x.detach().numpy(),
    "copy": lambda x: copy.deepcopy(x).numpy(),
    "pickle": lambda x: pickle.loads(pickle.dumps(x)).numpy(),
    "Tensor": lambda x: tg.Tensor(x).numpy(),
    "operation": lambda x: (x * 1).numpy(),
    "view": lambda x: x.reshape(2).numpy(),
    "iteration": lambda x: [t.item() for t in x],
    "comparison": lambda x: np.where(x == 5, 5, 2),
    "graph": lambda x: tg.graph(x * 1).nodes[0].value,
    "graph of a leaf": lambda x: tg.graph(x).nodes[0].value,
    "gradient": lambda x: tg.grad(y := tg.Tensor([0.0, 0.0]), y, x),
    "data of another": lambda x: _data_set_to(x),
    "constant of another": lambda x: (np.ones(2) * x.detach()).numpy(),
    "repr": lambda x: [5, 2] if "[5., 2.]" in repr(x) else repr(x),
}


def _data_set_to(x):
    t = tg.Tensor([0.0, 0.0])
    t.data = x
    return t.numpy()


@pytest.mark.parametrize("no_grad", [False, True])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_sees_a_change(reader, no_grad):
    x = tg.Tensor([1.0, 2.0])
    x * 2
    x.data[0] = 5
    if no_grad:
        with tg.no_grad():
            found = READERS[reader](x)
    else:
        found = READERS[reader](x)
    np.testing.assert_array_equal(found, [5, 2])


def test_a_result_does_not_follow_a_later_change():
    x = tg.Tensor([1.0, 2.0])
    x.data  # noqa: B018  gives the array away
    for y in (x.reshape(2, 1), x[:], x.T, x.detach().reshape(2, 1)):
        before = y.numpy().copy()
        x.data[0] += 1
        np.testing.assert_array_equal(y.numpy(), before)


def test_a_training_loop_in_place():
    w = tg.Tensor([5.0, -3.0])
    for _ in range(100):
        w.zero_grad()
        (w * w).sum().backward()
        w.data -= 0.1 * w.grad
    np.testing.assert_allclose(w.data, 0, atol=1e-8)


def test_a_group_also_marks_the_calls_of_a_function():
    @tg.group("stage")
    def stage(x):
        """Its text."""
        return x * 2.0 if x.ndim else stage(x.reshape(1))

    x = tg.Tensor(1.0)
    assert stage.__doc__ == "Its text."
    assert stage(x)._groups == ("stage", "stage")
    assert (x * 2.0)._groups == ()
    twice = tg.group("a")
    with twice, twice:
        assert (x * 2.0)._groups == ("a", "a")
    assert (x * 2.0)._groups == ()


def test_masked_arrays_find_no_door_to_the_private_array():
    t = tg.Tensor([1.0, 2.0])
    loss = (t * t).sum()
    with contextlib.suppress(TypeError):
        np.ma.getdata(t)[...] = 9.0
    loss.backward()
    assert t.grad.tolist() == [2.0, 4.0]
