"""The sweep: every edge, every pass, what is kept, what is let go."""

import gc
import time
import weakref

import numpy as np
import pytest

import tinygrad_sm as tg

# Every edge counts --------------------------------------------------------------------------------


def test_a_tensor_times_itself():
    x = tg.Tensor([1.0, -2.0])
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, -4])


def test_a_diamond():
    x = tg.Tensor(3.0)
    a = x * 2
    y = a * x + a * a  # 2x² + 4x²
    y.backward()
    assert x.grad == 12 * 3
    assert a.grad == 3 + 12


def test_a_tensor_used_three_times():
    x = tg.Tensor([2.0])
    y = x * x * x
    y.backward()
    np.testing.assert_array_equal(x.grad, [12])


def test_many_paths():
    """Thirty diamonds in a row have 2³⁰ paths and thirty nodes."""
    x = tg.Tensor(1.0)
    y = x
    for _ in range(30):
        y = y + y
    y.backward()
    assert x.grad == 2.0**30


def test_one_argument_twice_in_a_variadic_primitive():
    x = tg.Tensor([1.0, 2.0])
    tg.concatenate([x, x * 2, x]).sum().backward()
    np.testing.assert_array_equal(x.grad, [4, 4])


def test_an_unused_branch_receives_nothing():
    x = tg.Tensor(2.0)
    unused = x * 100
    (x * 3).backward()
    assert x.grad == 3
    assert unused.grad is None


def test_a_leaf_by_itself():
    x = tg.Tensor(2.0)
    x.backward()
    assert x.grad == 1


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element_starts_from_one(shape):
    x = tg.Tensor(np.full(shape, 3.0))
    (x * x).backward()
    np.testing.assert_array_equal(x.grad, np.full(shape, 6.0))
    assert type(x.grad) is np.ndarray


@pytest.mark.parametrize("gradient", [[1, 2], np.array([1, 2], np.int8), tg.Tensor([1.0, 2.0])])
def test_a_gradient_to_start_from(gradient):
    x = tg.Tensor([1.0, 1.0])
    (x * 3).backward(gradient)
    np.testing.assert_array_equal(x.grad, [3, 6])


# Long chains --------------------------------------------------------------------------------------


def test_a_hundred_thousand_operations_in_a_row():
    x = tg.Tensor([1.0, 2.0, 3.0])
    y = x
    for _ in range(50_000):
        y = y * 1.0
        y = y + 0.5
    y.backward(np.ones(3))
    np.testing.assert_array_equal(x.grad, [1, 1, 1])
    gone = weakref.ref(y)
    del y  # must not recurse either
    assert gone() is None


def test_a_deep_graph_built_by_a_vjp():
    x = tg.Tensor(1.1)
    y = x
    for _ in range(3000):
        y = y * 1.0001
    first = tg.grad(y * y, x, create_graph=True)
    assert tg.grad(first, x) == pytest.approx(2 * 1.0001**6000)


# Second passes ------------------------------------------------------------------------------------


def composite(x, w):
    h = tg.tanh(x @ w)
    e = tg.exp(h - h.max(axis=1, keepdims=True))
    return -tg.sum(tg.log(e / e.sum(axis=1, keepdims=True)) * h)


def test_a_second_backward_doubles_every_gradient_exactly():
    rng = np.random.default_rng(0)
    x, w = tg.Tensor(rng.normal(size=(4, 3))), tg.Tensor(rng.normal(size=(3, 5)))
    y = composite(x, w)
    y.backward()
    tensors = [n.tensor for n in tg.graph(y).nodes if n.tensor is not None]
    once = [t.grad.copy() for t in tensors]
    y.backward()
    for t, g in zip(tensors, once, strict=True):
        np.testing.assert_array_equal(t.grad, 2 * g)
    y.backward()
    for t, g in zip(tensors, once, strict=True):
        np.testing.assert_array_equal(t.grad, g + g + g)


def test_zero_grad_starts_anew():
    x = tg.Tensor([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    x.zero_grad()
    assert x.grad is None
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 4])


def test_two_outputs_add_up():
    x = tg.Tensor(2.0)
    h = x * x
    (h * 3).backward()
    (h * 5).backward()
    assert x.grad == 8 * 4
    assert h.grad == 8


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y: x + y,
        lambda x, y: (x + y).reshape(2, 1),
        lambda x, y: tg.concatenate([x, y]),
        lambda x, y: x * 1 + y.T,
        lambda x, y: tg.broadcast_to(x, (3, 2)) + y[::-1],
        lambda x, y: tg.sum(x) + tg.sum(y),
    ],
)
def test_changing_one_gradient_in_place_changes_no_other(f):
    x, y = tg.Tensor([1.0, 2.0]), tg.Tensor([3.0, 4.0])
    out = f(x, y)
    seed = np.ones(out.shape)
    out.backward(seed)
    expected = y.grad.copy(), out.grad.copy()
    x.grad *= 100
    x.grad[0] = -1
    np.testing.assert_array_equal(y.grad, expected[0])
    np.testing.assert_array_equal(out.grad, expected[1])
    np.testing.assert_array_equal(seed, 1)
    out.grad[...] = 7
    np.testing.assert_array_equal(y.grad, expected[0])


@pytest.mark.parametrize("f", [tg.exp, lambda x: tg.cross_entropy(x, [0, 1]), lambda x: x * 2.0])
def test_a_gradient_that_nobody_else_holds_is_given_out_without_a_copy(f):
    x = tg.Tensor([[1.0, 2.0, 3.0], [0.5, 0.1, -2.0]])
    f(x).sum().backward()
    held = x._grad
    assert x.grad is held


def test_a_gradient_changed_in_place_counts_as_changed_and_no_more():
    x = tg.Tensor([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    x.grad[:] = 0
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 4])
    held = x.grad
    y.backward()
    np.testing.assert_array_equal(held, [2, 4])


def test_a_vjp_that_hands_out_what_it_was_given():
    """Its output, its argument and its cotangent stay what they are when `grad` is changed."""
    for name, vjp in [
        ("output", lambda g, y, x: y),
        ("argument", lambda g, y, x: x),
        ("cotangent", lambda g, y, x: g),
    ]:
        op = tg.def_primitive(f"hands_out_its_{name}", lambda x: np.exp(x), vjp)
        x = tg.Tensor([1.0, 2.0])
        y = op(x)
        y.backward(np.ones(2))
        value, cotangent = y.numpy().copy(), y.grad.copy()
        x.grad[:] = 0
        np.testing.assert_array_equal(y.numpy(), value)
        np.testing.assert_array_equal(x.numpy(), [1, 2])
        np.testing.assert_array_equal(y.grad, cotangent)


def test_grad_can_be_set():
    x = tg.Tensor([1.0, 2.0], dtype=np.float32)
    x.grad = [1, 2]
    assert x.grad.dtype == np.float32
    (x * 1).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 3])
    x.grad = None
    assert x.grad is None


# What takes part ----------------------------------------------------------------------------------


def test_no_grad_records_nothing():
    x = tg.Tensor([1.0, 2.0])
    with tg.no_grad():
        y = x * 2
    assert y.op is None
    assert not y.requires_grad
    z = (x * y).sum()
    z.backward()
    np.testing.assert_array_equal(x.grad, [2, 4])
    assert (x * 2).requires_grad


def test_no_grad_ends_with_an_error_and_nests():
    x = tg.Tensor(1.0)
    with pytest.raises(KeyError), tg.no_grad(), tg.no_grad():
        raise KeyError
    assert (x * 2).requires_grad


def test_constants_receive_no_gradient():
    x, c = tg.Tensor([1.0, 2.0]), tg.Tensor([3.0, 4.0], requires_grad=False)
    (x * c).sum().backward()
    assert c.grad is None
    np.testing.assert_array_equal(x.grad, [3, 4])
    assert not (c * c).requires_grad


def test_errors_leave_every_gradient_untouched():
    fails = {"now": False}

    def vjp(g, y, x):
        if fails["now"]:
            raise ZeroDivisionError
        return g

    op = tg.def_primitive("fails_on_demand", lambda x: x + 0, vjp)
    x = tg.Tensor([1.0, 2.0])
    y = op(x * 2) * x
    y.backward(np.ones(2))
    before = [t.grad.copy() for t in (x, y)]
    fails["now"] = True
    with pytest.raises(ZeroDivisionError):
        y.backward(np.ones(2))
    with pytest.raises(ValueError, match="shape"):
        y.backward(np.ones(3))
    with pytest.raises(ValueError, match="needs gradient"):
        y.backward()
    for t, g in zip((x, y), before, strict=True):
        np.testing.assert_array_equal(t.grad, g)


@pytest.mark.parametrize("shape", [(), (3,), (1, 2), (2, 1), (3, 2, 2)])
def test_a_vjp_of_a_shape_that_does_not_fit(shape):
    op = tg.def_primitive(f"vjp_of_shape_{shape}", lambda x: x + 0, lambda g, y, x: np.ones(shape))
    x = tg.Tensor(np.ones((2, 2)))
    y = op(x).sum()
    if shape == (3, 2, 2):  # a broadcast of the argument is summed down to it
        y.backward()
        np.testing.assert_array_equal(x.grad, np.full((2, 2), 3))
        return
    with pytest.raises(ValueError, match=r"returned shape .*; the argument's shape is \(2, 2\)"):
        y.backward()
    assert x.grad is None


def test_a_vjp_may_return_none_or_a_number():
    nothing = tg.def_primitive("passes_nothing", lambda x: x + 0, lambda g, y, x: None)
    number = tg.def_primitive("passes_a_number", lambda x: x * 3, lambda g, y, x: 3.0)
    x = tg.Tensor(1.0)
    nothing(x).backward()
    assert x.grad is None
    number(x).backward()
    assert x.grad == 3
    assert isinstance(tg.grad(number(x), x, create_graph=True), tg.Tensor)


# grad() -------------------------------------------------------------------------------------------


def test_grad_touches_no_grad():
    x = tg.Tensor([1.0, 2.0])
    h = x * x
    y = h.sum()
    np.testing.assert_array_equal(tg.grad(y, x), [2, 4])
    assert x.grad is None
    assert h.grad is None
    assert y.grad is None


def test_grad_of_leaves_intermediates_the_output_and_strangers():
    x, stranger = tg.Tensor([1.0, 2.0]), tg.Tensor(np.ones((3, 2)), dtype=np.float32)
    h = x * 3
    y = (h * h).sum()
    with pytest.raises(ValueError, match=r"not depend on input 4, of shape \(3, 2\).*allow_unused"):
        tg.grad(y, [x, h, y, stranger])
    dx, dh, dy, ds = tg.grad(y, [x, h, y, stranger], allow_unused=True)
    np.testing.assert_array_equal(dx, [18, 36])
    np.testing.assert_array_equal(dh, [6, 12])
    assert dy == 1
    np.testing.assert_array_equal(ds, np.zeros((3, 2)))
    assert ds.dtype == np.float32


@pytest.mark.parametrize("inputs", [tuple, list, iter])
def test_grad_of_any_sequence(inputs):
    x, y = tg.Tensor(2.0), tg.Tensor(3.0)
    assert tg.grad(x * y, inputs([x, y])) == [3, 2]


def test_what_grad_returns_is_the_callers():
    x, y = tg.Tensor([1.0, 2.0]), tg.Tensor([1.0, 2.0])
    z = x + y
    seed = np.ones(2)
    found = tg.grad(z, [x, y, z, x], seed)
    for g in found:
        before = [other.copy() for other in found if other is not g]
        g[:] = 5
        after = [other for other in found if other is not g]
        for b, a in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(seed, 1)


# Higher derivatives -------------------------------------------------------------------------------


def test_derivatives_of_a_polynomial():
    x = tg.Tensor(2.0)
    y = x**4 - 2 * x**3 + x
    for expected in (4 * 8 - 6 * 4 + 1, 12 * 4 - 12 * 2, 24 * 2 - 12, 24, 0):
        y = tg.grad(y, x, create_graph=True)
        assert y.item() == expected


@pytest.mark.parametrize("form", ["naive", "shifted", "logsumexp"])
def test_hessian_of_the_loss(form):
    a = np.array([2.0, 1.0, 0.1])
    y = np.array([0.2, 0.5, 0.6])
    p = np.exp(a) / np.exp(a).sum()
    h = tg.hessian(lambda t: tg.composite_cross_entropy(t, y, form=form, reduction="sum"), a)
    np.testing.assert_allclose(h, y.sum() * (np.diag(p) - np.outer(p, p)), atol=1e-15)


def test_jacobian_of_softmax():
    a = np.array([2.0, 1.0, 0.1])
    p = np.exp(a) / np.exp(a).sum()
    np.testing.assert_allclose(
        tg.jacobian(lambda t: tg.exp(t) / tg.sum(tg.exp(t)), a),
        np.diag(p) - np.outer(p, p),
        atol=1e-15,
    )


def test_shapes_of_jacobian_and_hessian():
    x = np.ones((2, 3), np.float32)
    assert tg.jacobian(lambda t: t.sum(axis=0, keepdims=True), x).shape == (1, 3, 2, 3)
    assert tg.jacobian(lambda t: t * t, x).dtype == np.float32
    assert tg.jacobian(lambda t: t * t, 2.0) == 4
    assert tg.jacobian(lambda t: t[:0], np.ones(3)).shape == (0, 3)
    assert tg.hessian(lambda t: (t * t).sum(), x).shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(tg.hessian(lambda t: t.sum(), x), np.zeros((2, 3, 2, 3)))


def test_create_graph_leaves_tensors_as_gradients():
    x = tg.Tensor([1.0, 2.0])
    y = (x**3).sum()
    y.backward(create_graph=True)
    assert isinstance(x.grad, tg.Tensor)
    np.testing.assert_array_equal(tg.grad(x.grad.sum(), x), [6, 12])
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [6, 24])
    x.zero_grad()


def test_gradient_penalty():
    """A function of the gradient, differentiated by what it is made of."""
    x, w = tg.Tensor([1.0, 2.0]), tg.Tensor([3.0, -1.0])
    g = tg.grad((w * x * x).sum(), x, create_graph=True)  # 2wx
    (g * g).sum().backward()
    np.testing.assert_array_equal(w.grad, 8 * w.numpy() * x.numpy() ** 2)


# The trace ----------------------------------------------------------------------------------------


def test_contributions_of_the_article():
    """exp's two consumers are the two terms of the proof: −y and +p Σy."""
    y = np.array([1.0, 0.0, 0.0])
    a = tg.Tensor([2.0, 1.0, 0.1], name="a")
    e = tg.exp(a)
    s = tg.sum(e)
    p = e / s
    loss = -tg.sum(y * tg.log(p))
    trace = loss.backward(trace=True)
    through = {c.consumer.op: c.value * e.numpy() for c in trace.contributions(e)}
    np.testing.assert_allclose(through["div"], -y, atol=1e-15)
    np.testing.assert_allclose(through["sum"], p.numpy(), atol=1e-15)
    np.testing.assert_allclose(a.grad, p.numpy() - y, atol=1e-15)


def test_steps_go_from_the_output_to_the_leaves():
    x = tg.Tensor(2.0, name="x")
    y = (x * x + x) * x
    trace = y.backward(trace=True)
    ids = [step.node.id for step in trace.steps]
    assert ids == sorted(ids, reverse=True)
    assert trace.steps[0].node.id == trace.graph.output
    assert trace.steps[-1].node.name == "x"
    assert trace.contributions(y) == []
    assert [c.argument for c in trace.contributions(x)] == [1, 1, 0, 1]
    assert trace.cotangent(x) == x.grad


def test_the_record_stays_when_gradients_are_changed():
    x = tg.Tensor([1.0, 2.0])
    trace = (x * 3).sum().backward(trace=True)
    x.grad[:] = 0
    np.testing.assert_array_equal(trace.contributions(x)[0].value, [3, 3])
    np.testing.assert_array_equal(trace.cotangent(x), [3, 3])
    with pytest.raises(ValueError, match="read-only"):
        trace.steps[0].cotangent[...] = 1


def test_a_trace_with_create_graph_holds_arrays():
    x = tg.Tensor([1.0, 2.0])
    trace = (x * x).sum().backward(create_graph=True, trace=True)
    assert all(type(step.cotangent) is np.ndarray for step in trace.steps)
    x.zero_grad()


# Memory -------------------------------------------------------------------------------------------


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("trace", [False, True])
def test_a_graph_dies_with_its_output(trace):
    x = tg.Tensor(np.ones(5))
    h = tg.exp(x)
    y = (h / h.sum()).max()
    record = y.backward(trace=trace)
    view = tg.graph(y)
    gone = [weakref.ref(t) for t in (h, y)]
    del h, y, record, view
    assert [r() for r in gone] == [None, None]
    assert x.grad is not None


@pytest.mark.usefixtures("no_collector")
def test_a_second_derivative_leaves_no_cycle():
    x = tg.Tensor([1.0, 2.0])
    y = (x**3).sum()
    g = tg.grad(y, x, create_graph=True)
    tg.grad(g.sum(), x)
    gone = [weakref.ref(t) for t in (y, g)]
    del y, g
    assert [r() for r in gone] == [None, None]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("operand", [2.0, np.ones(3), tg.Tensor(np.ones(3))], ids=type)
def test_a_node_is_one_object_to_the_garbage_collector(operand):
    """Its full collections visit every object, so that long chains cost what these are in number.

    A node of one operand or two counts here; parameters make one with more.
    """
    x = tg.Tensor(np.ones(3))
    y = tg.tanh(x * operand)
    before = len(gc.get_objects())
    for _ in range(500):
        y = tg.tanh(y * operand)
    assert len(gc.get_objects()) - before < 1010
    y.backward(np.ones(3))
    assert len(gc.get_objects()) - before < 1010


@pytest.mark.usefixtures("no_collector")
def test_no_grad_keeps_no_inputs():
    x = tg.Tensor([1.0, 2.0])
    with tg.no_grad():
        h = x * 2
        y = h + 1
    gone = weakref.ref(h)
    del h
    assert gone() is None
    assert y.shape == (2,)


def test_cost_per_operation_does_not_grow_with_the_chain():
    """A generous factor, for machines that do other things as well."""

    def cost(n):
        best = np.inf
        for _ in range(3):
            start = time.perf_counter()
            y = tg.Tensor([1.0, 2.0, 3.0])
            for _ in range(n):
                y = y * 1.0
            y.backward(np.ones(3))
            best = min(best, (time.perf_counter() - start) / n)
        return best

    cost(100)
    assert cost(20_000) < 5 * cost(1000)


def test_an_input_that_is_asked_for_twice_has_two_gradients():
    x = tg.Tensor([1.0, 2.0])
    first, second = tg.grad((x * x).sum(), [x, x])
    first += 1.0
    assert second.tolist() == [2.0, 4.0]


# What is likely a mistake -------------------------------------------------------------------------


def gradient_by_backward(loss, w):
    loss.backward()
    return w.grad


@pytest.mark.parametrize("gradient", [gradient_by_backward, tg.grad])
def test_parameters_that_are_rebound_for_ever_are_told(gradient):
    def steps(count, w):
        for _ in range(count):
            w = w - 0.01 * gradient((w * w).sum(), w)
        return w

    w = steps(10, tg.Tensor([1.0, 2.0]))  # a few are nobody's business
    with pytest.warns(tg.GradientWarning, match=r"no_grad\(\): w -= step") as caught:
        steps(100, w)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_passes_that_are_no_mistake_are_not_told():
    x = tg.Tensor([1.0, 2.0])
    h = (x * x).exp()
    for i in range(60):  # many losses over one trunk, also made after the first passes
        (h * float(i)).sum().backward()
    y = (h * 2.0).sum()
    for _ in range(60):  # one loss again and again
        y.backward()
    w = x
    for _ in range(60):  # steps that are to be differentiated themselves
        w = w - 0.01 * tg.grad((w * w).sum(), w, create_graph=True)
    for n in range(1, 60):  # graphs of growing size, each twice
        z = x
        for _ in range(n):
            z = z * 1.0
        z.sum().backward()
        z.sum().backward()
    for _ in range(60):  # a usual training loop
        loss = (x * x).sum()
        loss.backward()
        with tg.no_grad():
            x -= 0.01 * x.grad
            x.zero_grad()


@pytest.mark.parametrize("name", [None, "b"])
def test_an_unused_input_is_told(name):
    x, b = tg.Tensor([1.0, 2.0]), tg.Tensor([[3.0]], name=name)
    y = (x * b.detach()).sum() + tg.where(b > 0, x, 0.0).sum()
    with pytest.raises(
        ValueError, match=rf"input 2,.*{name or ''}.* shape \(1, 1\).*allow_unused=T"
    ):
        tg.grad(y, [x, b])
    for create_graph in (False, True):
        found = tg.grad(y, [x, b], create_graph=create_graph, allow_unused=True)
        assert isinstance(found[1], tg.Tensor) is create_graph
        assert [g.shape for g in found] == [(2,), (1, 1)]
        assert float(found[1].item()) == 0
    with pytest.raises(ValueError, match="input 1"):
        tg.grad(y, b)


def test_derivatives_of_what_does_not_depend_on_x_are_zeros():
    w = tg.Tensor([3.0])
    np.testing.assert_array_equal(tg.jacobian(lambda x: w * 2, [1.0, 2.0]), np.zeros((1, 2)))
    np.testing.assert_array_equal(tg.hessian(lambda x: (w * w).sum(), [1.0]), [[0.0]])
    np.testing.assert_array_equal(tg.hessian(lambda x: x.sum(), [1.0]), [[0.0]])
    np.testing.assert_array_equal(tg.hessian(lambda x: (x * w).sum(), [1.0]), [[0.0]])


def test_a_given_cotangent_may_change_later():
    x, g = tg.Tensor([1.0, 2.0]), np.ones(2)
    y = x + 1.0
    trace = y.backward(g, trace=True)
    x.backward(g)
    g[:] = 9
    np.testing.assert_array_equal(y.grad, [1, 1])
    np.testing.assert_array_equal(x.grad, [2, 2])
    np.testing.assert_array_equal(trace.cotangent(y), [1, 1])
