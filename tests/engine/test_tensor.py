"""Tensor: what it holds, its dtypes, its methods, and that nobody changes it unnoticed."""

import asyncio
import contextlib
import copy
import io
import math
import operator
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

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
    assert tg.Tensor([[2.5]]).item() == float(tg.Tensor(2.5).detach()) == 2.5
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
    assert stage(x)._operation.groups == ("stage", "stage")
    assert (x * 2.0)._operation.groups == ()
    twice = tg.group("a")
    with twice, twice:
        assert (x * 2.0)._operation.groups == ("a", "a")
    assert (x * 2.0)._operation.groups == ()


def test_masked_arrays_find_no_door_to_the_private_array():
    t = tg.Tensor([1.0, 2.0])
    loss = (t * t).sum()
    with contextlib.suppress(TypeError):
        np.ma.getdata(t)[...] = 9.0
    loss.backward()
    assert t.grad.tolist() == [2.0, 4.0]


# Ways out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leave",
    [
        float,
        int,
        math.exp,
        lambda t: np.zeros(3).__setitem__(0, t),
        lambda t: np.zeros(3).fill(t),
        lambda t: "%.4f" % t,  # noqa: UP031
        lambda t: [1.5 + float(x) for x in (t * t).reshape(1)],
    ],
)
def test_no_gradient_is_lost_without_a_word(leave):
    w = tg.Tensor([2.0, 3.0])
    with pytest.warns(tg.GradientWarning, match=r"write t\.item\(\) .* tg\.stack") as caught:
        leave(w[0] * w[0])
    assert caught[0].filename == __file__
    with tg.no_grad():
        leave(w[0] * w[0])
    leave(tg.Tensor(2.0, requires_grad=False))


def test_logging_a_loss_just_works(capsys):
    loss = (tg.Tensor([1.0, 2.0]) ** 2).mean()
    assert f"{loss:.4f}" == f"{loss:8.4f}".strip() == "2.5000"
    assert (round(loss, 1), round(loss), type(round(loss))) == (2.5, 2, int)
    assert f"{loss}" == str(loss) == repr(loss)
    print(loss, loss.item())
    assert capsys.readouterr().out == f"{loss!r} 2.5\n"
    assert [loss.item()] == [2.5]
    with pytest.raises(ValueError, match="exactly one element"):
        f"{tg.Tensor([1.0, 2.0]):.2f}"


@pytest.mark.parametrize(
    "leave",
    [
        np.asarray,
        lambda w: np.testing.assert_allclose(w, [1.0, 2.0]),
        lambda w: np.savez(io.BytesIO(), **{"w": w}),
        lambda w: np.zeros(2).__setitem__(slice(None), w),
        lambda w: np.array([w, w]),
    ],
)
def test_a_tensor_turns_into_an_array_where_no_gradient_can_be_lost(leave):
    w = tg.Tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"(use|take) t\.numpy\(\)"):
        leave(w)
    with tg.no_grad():
        leave(w)
    leave(w.detach())
    leave(w.numpy())


def test_matplotlib_plots_a_parameter():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    w = tg.Tensor([1.0, 3.0, 2.0])
    with tg.no_grad():
        (line,) = figure.subplots().plot(w)
    np.testing.assert_array_equal(line.get_ydata(), [1, 3, 2])
    with pytest.raises(tg.TinygradError, match=r"numpy\(\)"), pytest.warns(tg.GradientWarning):
        figure.subplots().plot(w)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_keeps_the_gradient_as_its_own(copied):
    w = tg.Tensor([1.0, 2.0])
    (w * w).sum().backward()
    again = copied(w)
    np.testing.assert_array_equal(again.grad, [2, 4])
    again.grad[:] = 9
    np.testing.assert_array_equal(w.grad, [2, 4])
    w.zero_grad()
    (w * w).sum().backward(create_graph=True)
    np.testing.assert_array_equal(copied(w).grad, [2, 4])  # a graph is not copied


# Augmented assignment -----------------------------------------------------------------------------

AUGMENTED = [
    (operator.iadd, operator.add), (operator.isub, operator.sub), (operator.imul, operator.mul),
    (operator.itruediv, operator.truediv), (operator.ipow, operator.pow),
    (operator.imatmul, operator.matmul),
]  # fmt: skip


@pytest.mark.parametrize(("augmented", "plain"), AUGMENTED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_augmented_assignment_to_a_leaf(augmented, plain, dtype):
    values = np.array([[1.0, 2.0], [3.0, 4.0]], dtype)
    step = np.array([[0.5, 1.0], [2.0, 0.25]])
    w = held = tg.Tensor(values)
    y = (w * w).sum()
    with pytest.raises(TypeError, match=r"w .?.?= … changes a leaf.*with tg.no_grad\(\):.*w = w"):
        augmented(w, step)
    np.testing.assert_array_equal(w.numpy(), values)
    for other in (step, tg.Tensor(step)):
        w.data = values.copy()
        with tg.no_grad():
            w = augmented(w, other)
        assert w is held
        assert w.dtype == dtype
        np.testing.assert_array_equal(w.numpy(), plain(values, step).astype(dtype))
    with pytest.raises(RuntimeError, match="was changed after"):
        y.backward()


@pytest.mark.parametrize(("augmented", "plain"), AUGMENTED)
def test_augmented_assignment_to_what_was_computed_is_recorded(augmented, plain):
    x, c = tg.Tensor([[1.0, 2.0], [3.0, 4.0]]), tg.Tensor(np.ones((2, 2)), requires_grad=False)
    for start in (x * 1, c):
        y = augmented(start, x)
        assert y is not start
        expected = tg.grad(plain(start, x).sum(), x)
        np.testing.assert_array_equal(tg.grad(y.sum(), x), expected)
    np.testing.assert_array_equal(c.numpy(), np.ones((2, 2)))


@pytest.mark.parametrize("step", [np.ones(3), np.ones((2, 2)), "a", 1j, 10**400])
def test_augmented_assignment_that_does_not_fit(step):
    w = tg.Tensor([1.0, 2.0])
    with tg.no_grad(), pytest.raises(tg.TinygradError):
        w -= step
    np.testing.assert_array_equal(w.numpy(), [1, 2])


def test_a_training_loop_by_augmented_assignment():
    params = [tg.Tensor([5.0, -3.0]), tg.Tensor(2.0)]
    for _ in range(100):
        loss = sum((q * q).sum() for q in params)
        loss.backward()
        with tg.no_grad():
            for q in params:
                q -= 0.1 * q.grad
                q.zero_grad()
    for q in params:
        np.testing.assert_allclose(q.numpy(), 0, atol=1e-8)


# Groups and no_grad where functions wait ----------------------------------------------------------


def test_a_group_marks_what_coroutines_compute():
    stage = tg.group("stage")

    @stage
    async def computed(x):
        y = x * 2.0
        await asyncio.sleep(0)
        return y._operation.groups, (x * 3.0)._operation.groups

    @tg.no_grad()
    async def unrecorded(x):
        await asyncio.sleep(0)
        return (x * 2.0).requires_grad

    async def plain(x):
        await asyncio.sleep(0)
        return (x * 2.0)._operation.groups

    async def entered(x):
        with stage:  # one object in two tasks
            await asyncio.sleep(0)
            return (x * 2.0)._operation.groups

    async def main(x):
        jobs = [computed(x), computed(x), unrecorded(x), plain(x), entered(x), entered(x)]
        return await asyncio.gather(*jobs)

    x = tg.Tensor([1.0])
    inside = ("stage",)
    found = asyncio.run(main(x))
    assert found == [(inside, inside)] * 2 + [False, (), inside, inside]
    assert (x * 2.0)._operation.groups == ()
    assert (x * 2.0).requires_grad


@pytest.mark.parametrize("scope", [tg.group("stage"), tg.no_grad()])
def test_generators_are_refused_by_scopes(scope):
    def steps():
        yield 1

    async def async_steps():
        yield 1

    for function in (steps, async_steps):
        with pytest.raises(TypeError, match=rf"{function.__name__}.*around no yield"):
            scope(function)
    with pytest.raises(TypeError, match="decorates a function; got int 3"):
        scope(3)


def test_no_grad_is_a_decorator():
    @tg.no_grad()
    def f(x):
        return x * 2

    x = tg.Tensor(1.0)
    assert not f(x).requires_grad
    assert (x * 2).requires_grad


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_a_group_needs_a_name(name):
    with pytest.raises(ValueError, match="must not be blank"):
        tg.group(name)


# No door to the private array ---------------------------------------------------------------------


def doors(x, y):
    loss = (x * y).sum()
    trace = loss.backward(trace=True)
    view = tg.graph(loss)
    yield from (x.numpy(), y.numpy(), y.data, x.detach().numpy(), y.reshape(-1).numpy())
    yield from (node.value for node in view.nodes)
    yield from (trace.cotangent(x), trace.cotangent(y))
    for step in trace.steps:
        yield step.cotangent
        yield from (edge.value for edge in step.passed_on)
    yield np.asarray(memoryview(x.numpy()))
    with tg.no_grad():
        yield from (np.ma.getdata(x), np.asarray(x), np.asarray(y))


def test_no_array_that_is_handed_out_leads_to_the_private_one():
    x = tg.Tensor([1.0, 2.0, 3.0])
    y = (x * 2).reshape(3)
    for array in doors(x, y):
        while isinstance(array, np.ndarray):
            with contextlib.suppress(ValueError):
                array[...] = 99.0
            with contextlib.suppress(ValueError):  # a view cannot be unlocked
                if array.base is not None:
                    array.flags.writeable = True
                    array[...] = 99.0
            array = array.base
    x.zero_grad()
    (x * y).sum().backward()
    np.testing.assert_array_equal(x.numpy(), [1, 2, 3])
    np.testing.assert_array_equal(x.grad, [4, 8, 12])


# Threads ------------------------------------------------------------------------------------------


def in_threads(job, count=4):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(job, range(count)))
    finally:
        sys.setswitchinterval(interval)


def test_no_addition_to_a_shared_leaf_is_lost():
    def job(_):
        for _ in range(2000):
            (w * 1.0).sum().backward()

    for _ in range(3):
        w = tg.Tensor(np.ones(10))
        in_threads(job)
        np.testing.assert_array_equal(w.grad, np.full(10, 8000.0))


def test_threads_see_one_array_of_data_and_one_gradient():
    for _ in range(100):
        x = tg.Tensor(np.ones(1000))
        y = x * 2
        y.backward(np.ones(1000))
        start = threading.Barrier(4)

        def job(_, x=x, y=y, start=start):
            start.wait()
            return id(x.data), id(y.grad), id(x.grad)

        assert len(set(in_threads(job))) == 1
