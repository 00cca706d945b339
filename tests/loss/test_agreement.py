"""Composite and fused are one function: every option, every form, against independent oracles."""

import finite_differences as fd
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import EVERY_FORM, REDUCTIONS, cases, composite, run

import tinygrad_sm as tg
from tinygrad_sm.loss.composite import FORMS

# The property -------------------------------------------------------------------------------------


@settings(max_examples=max(1000, settings.default.max_examples))
@given(cases(), st.sampled_from(FORMS))
def test_composite_fused_and_closed_form_agree(case, form):
    """To 1e-12 of the terms' size in float64, in 1000 cases."""
    logits, target, options, cotangent = case
    exact, exact_grad, size, grad_size = oracle.loss_and_gradient(
        logits, target, cotangent=cotangent, **options
    )
    both = {}
    for name, function in (("composite", composite(form)), ("fused", tg.cross_entropy)):
        loss, grad = both[name] = run(function, logits, target, cotangent, **options)
        assert loss.dtype == grad.dtype == logits.dtype
        oracle.check_loss(loss, exact, size)
        oracle.check_gradient(grad, exact_grad, grad_size)
    oracle.check_loss(both["composite"][0], both["fused"][0], size)
    oracle.check_gradient(both["composite"][1], both["fused"][1], grad_size)


@settings(max_examples=max(250, settings.default.max_examples))
@given(cases(), st.sampled_from(FORMS), st.integers(0, 2**32 - 1))
def test_both_agree_with_finite_differences(case, form, seed):
    """Along a random direction, of a loss that has no code in common with the package."""
    logits, target, options, cotangent = case
    logits = logits.astype(np.float64)
    direction = np.random.default_rng(seed).normal(size=logits.shape).astype(fd.LONG)

    def weighed(a):
        return (oracle.loss_and_gradient(a, target, **options)[0] * cotangent).sum()

    slope = fd.along(weighed, [logits], [direction])
    *_, grad_size = oracle.loss_and_gradient(logits, target, cotangent=cotangent, **options)
    loss_size = oracle.loss_and_gradient(logits, target, **options)[2]
    allowed = 1e-11 * float((grad_size * np.abs(direction)).sum())
    allowed += fd.NOISE * float((loss_size * np.abs(cotangent)).sum())
    for function in (composite(form), tg.cross_entropy):
        _, grad = run(function, logits, target, cotangent, **options)
        assert abs(float((grad * direction).sum()) - slope) <= allowed


def test_smoothing_around_a_class_of_little_weight_keeps_its_digits():
    """There the gradient is Σq·p_t − q_t of two small terms, not −Σq·(1 − p_t) + (Σq − q_t)."""
    logits = np.array([[0.0, 26.0, 1.0]])
    options = {"weight": [0.0, 0.0, 1.0], "label_smoothing": 0.1, "reduction": "sum"}
    exact, exact_grad, size, grad_size = oracle.loss_and_gradient(logits, [0], **options)
    for function in (composite("logsumexp"), tg.cross_entropy):
        loss, grad = run(function, logits, [0], **options)
        oracle.check_loss(loss, exact, size)
        oracle.check_gradient(grad, exact_grad, grad_size)


# Figures on paper ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_the_figures_of_the_article(loss_function):
    loss, grad = run(loss_function, [2.0, 1.0, 0.1], [1, 0, 0])
    e = np.exp([2.0, 1.0, 0.1])
    assert loss == pytest.approx(-np.log(e[0] / e.sum()), rel=1e-14)
    assert grad.round(3).tolist() == [-0.341, 0.242, 0.099]
    assert grad == pytest.approx(e / e.sum() - [1, 0, 0], rel=1e-14)


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_soft_labels_that_do_not_sum_to_1_have_the_true_gradient(loss_function):
    loss, grad = run(loss_function, [2.0, 1.0, 0.1], [1, 1, 0])
    assert grad.round(3).tolist() == [0.318, -0.515, 0.197]  # p − y would be [-0.341, -0.758, …]
    lse = np.log(np.exp([2.0, 1.0, 0.1]).sum())
    assert loss == pytest.approx(2 * lse - 3, rel=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_the_two_edges_at_exp_are_the_two_terms_of_the_proof(form):
    a = tg.Tensor([2.0, 1.0, 0.1])
    loss = tg.composite_cross_entropy(a, [1, 0, 0], form=form)
    trace = loss.backward(trace=True)
    e = next(node for node in trace.graph.nodes if node.name == "e")
    at_e = {edge.consumer.op: edge.value * e.value for edge in trace.contributions(e.tensor)}
    assert at_e["sum"].round(3).tolist() == [0.659, 0.242, 0.099]
    if form != "logsumexp":  # there the numerator's way never passes exp
        assert at_e["div"].round(3).tolist() == [-1, 0, 0]


def test_a_sure_prediction_keeps_its_digits_in_the_fused_node_only():
    loss, grad = run(tg.cross_entropy, [37.43, 0.0], 0)
    tail = np.exp(-37.43)
    assert loss == pytest.approx(np.log1p(tail), rel=1e-15)
    assert grad.tolist() == pytest.approx([-tail / (1 + tail), tail / (1 + tail)], rel=1e-15)
    for form in ("naive", "shifted"):
        assert run(composite(form), [37.43, 0.0], 0)[1][0] == 0  # p rounded to 1


def test_the_naive_form_overflows_and_the_others_do_not():
    with np.errstate(all="ignore"):
        _, grad = run(composite("naive"), [1000.0, 0.0], 1)
    assert np.isnan(grad).any()
    for function in (tg.cross_entropy, composite("logsumexp")):
        loss, grad = run(function, [1000.0, 0.0], 1)
        assert (loss, grad.tolist()) == (1000, [1, -1])


def test_the_graphs_are_what_they_say():
    a = tg.Tensor([2.0, 1.0, 0.1], name="a")
    naive = tg.graph(tg.composite_cross_entropy(a, [1, 0, 0]))
    assert [n.op for n in naive.nodes if n.op not in ("leaf", "constant")] == [
        "exp", "sum", "div", "log", "mul", "sum", "neg",
    ]  # fmt: skip
    assert {n.name: n.groups for n in naive.nodes if n.name in ("e", "s", "p", "L")} == {
        "e": ("softmax",), "s": ("softmax",), "p": ("softmax",), "L": ("cross-entropy",),
    }  # fmt: skip
    fused = tg.graph(tg.cross_entropy(a, [1, 0, 0]))
    assert [n.op for n in fused.nodes] == ["leaf", "constant", "SoftmaxWithLoss"]
    assert "where" not in [n.op for n in naive.nodes]


# Cotangents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_function", EVERY_FORM)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_upstream_cotangent_is_honoured(loss_function, reduction):
    rng = np.random.default_rng(1)
    logits, target = rng.normal(size=(4, 3)), np.array([0, 2, 1, 1])
    shape = (4,) if reduction == "none" else ()
    g = rng.normal(size=shape)
    _, plain = run(loss_function, logits, target, np.ones(shape), reduction=reduction)
    _, scaled = run(loss_function, logits, target, g, reduction=reduction)
    assert scaled == pytest.approx(plain * (g[:, None] if g.ndim else g), rel=1e-14, abs=1e-16)
    # and when something comes after the loss
    a = tg.Tensor(logits)
    (tg.exp(loss_function(a, target, reduction=reduction)) * 3).sum().backward()
    loss = loss_function(logits, target, reduction=reduction)
    _, chained = run(loss_function, logits, target, 3 * np.exp(loss), reduction=reduction)
    assert a.grad == pytest.approx(chained, rel=1e-14, abs=1e-16)


@pytest.mark.parametrize("loss_function", EVERY_FORM)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_second_backward_doubles(loss_function, reduction):
    a = tg.Tensor(np.random.default_rng(2).normal(size=(3, 4)))
    loss = loss_function(a, np.array([1, 0, 3]), reduction=reduction)
    gradient = np.array([1.0, -2.0, 0.5]) if reduction == "none" else None
    loss.backward(gradient)
    first = a.grad.copy()
    loss.backward(gradient)
    assert (a.grad == 2 * first).all()
    first *= 0  # what was handed out is the user's own
    a.zero_grad()
    loss.backward(None if gradient is None else 3 * gradient)
    assert a.grad.any()


def test_another_cotangent_the_second_time():
    a = tg.Tensor(np.random.default_rng(3).normal(size=(3, 4)))
    target = np.array([1, 0, 3])
    loss = tg.cross_entropy(a, target, reduction="none")
    for g in (np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.0, 0.5])):
        expected = tg.grad(tg.composite_cross_entropy(a, target, reduction="none"), a, g)
        assert tg.grad(loss, a, g) == pytest.approx(expected, rel=1e-14, abs=1e-16)


# Kinds of input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_targets_by_class_one_hot_and_list_are_the_same(loss_function):
    logits = np.random.default_rng(4).normal(size=(4, 3))
    index = [2, 0, 1, 1]
    expected = run(loss_function, logits, np.array(index))
    for target in (index, tuple(index), np.array(index, np.uint8), np.eye(3)[index],
                   np.eye(3, dtype=bool)[index], np.eye(3, dtype=np.int8)[index].tolist(),
                   tg.Tensor(np.eye(3)[index], requires_grad=False)):  # fmt: skip
        loss, grad = run(loss_function, logits, target)
        assert loss == pytest.approx(expected[0], rel=1e-14)
        assert grad == pytest.approx(expected[1], rel=1e-13, abs=1e-16)


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_only_the_shape_decides_what_a_target_is(loss_function):
    square = np.array([[0, 1], [1, 0]])  # of the logits' shape: a distribution, though integers
    loss = loss_function(np.array([[3.0, 1.0], [1.0, 5.0]]), square, reduction="sum")
    assert loss == pytest.approx(2 + np.log1p(np.exp(-2)) + 4 + np.log1p(np.exp(-4)))
    one = loss_function(np.array([[3.0, 1.0]]), np.array([1]))  # one row, one index
    assert one == pytest.approx(2 + np.log1p(np.exp(-2)))


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_non_contiguous_logits_and_targets(loss_function):
    rng = np.random.default_rng(5)
    base, index = rng.normal(size=(6, 8)), rng.integers(0, 4, 12)
    for logits in (base[::2, ::-2], base.T[1:5, ::3].T[:, ::-1], np.asfortranarray(base)[:, :4]):
        target = index[::2][: len(logits)]
        got = run(loss_function, logits, target)
        expected = run(loss_function, logits.copy(), target.copy())
        assert got[0] == expected[0]
        assert (got[1] == expected[1]).all()


@pytest.mark.parametrize("loss_function", EVERY_FORM)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_no_rows(loss_function, reduction, shape):
    a = tg.Tensor(np.zeros(shape))
    for target in (np.zeros(shape[:-1], int), np.zeros(shape)):
        if reduction == "mean":
            with pytest.warns(tg.LossWarning, match="no row counts towards the mean"):
                loss = loss_function(a, target, reduction=reduction)
        else:
            loss = loss_function(a, target, reduction=reduction)
        assert loss.shape == (shape[:-1] if reduction == "none" else ())
        assert loss.numpy().sum() == 0
        assert tg.grad(loss, a, np.ones(loss.shape)).shape == shape


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_a_mean_over_no_rows_is_0_with_a_warning_at_the_callers_line(loss_function):
    a = tg.Tensor([[1.0, 2.0], [3.0, 4.0]])
    for target, options in (
        ([-100, -100], {}), ([7, 7], {"ignore_index": 7}), ([0, 0], {"weight": [0, 1]}),
        ([1, 1], {"weight": [0, 0], "label_smoothing": 0.1}),
    ):  # fmt: skip
        with pytest.warns(tg.LossWarning, match="the loss and its gradient are 0") as caught:
            loss = loss_function(a, np.array(target), **options)
        assert [w.filename for w in caught] == [__file__]
        assert loss.item() == 0
        assert (tg.grad(loss, a) == 0).all()


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_plain_arrays_in_plain_arrays_out(loss_function):
    loss = loss_function(np.array([[2.0, 1.0]], np.float32), [0])
    assert type(loss) is np.ndarray
    assert loss.dtype == np.float32
    with tg.no_grad():
        quiet = loss_function(tg.Tensor([[2.0, 1.0]]), [0])
    assert not quiet.requires_grad
    assert quiet.item() == pytest.approx(float(loss))


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_targets_may_be_tensors_that_want_a_gradient(loss_function):
    """∂L/∂y_j = lse − a_j, and the effective target passes it on through smoothing and weight."""
    rng = np.random.default_rng(6)
    logits, y = rng.normal(size=(3, 4)), rng.random((3, 4))
    weight = np.array([1.0, 2.0, 0.5, 0.0])
    for options in ({}, {"temperature": 2.0, "reduction": "sum"},
                    {"label_smoothing": 0.2, "weight": weight}):  # fmt: skip
        target = tg.Tensor(y)
        loss = loss_function(logits, target, **options)
        z = logits / options.get("temperature", 1)
        lse = np.log(np.exp(z).sum(axis=1, keepdims=True))
        expected = (lse - z) / (1 if options.get("reduction") == "sum" else 3)
        if "weight" in options:
            expected = expected * weight * 0.8
        assert tg.grad(loss, target) == pytest.approx(expected, rel=1e-13, abs=1e-15)


def test_changing_the_target_after_the_forward_pass_changes_nothing():
    for target in (np.array([0, 1]), np.eye(2)):
        a = tg.Tensor([[1.0, 2.0], [0.5, 0.0]])
        loss = tg.cross_entropy(a, target)
        loss.backward()
        expected = a.grad.copy()
        a.zero_grad()
        target[...] = target[::-1].copy()
        loss.backward()
        assert (a.grad == expected).all()


@pytest.mark.parametrize("loss_function", EVERY_FORM)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_are_kept(loss_function, dtype):
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(3, 5)).astype(dtype)
    for target in ([1, 4, 0], rng.random((3, 5)), rng.random((3, 5)).astype(np.float16)):
        loss, grad = run(loss_function, logits, np.array(target), label_smoothing=0.1)
        assert loss.dtype == grad.dtype == dtype


@pytest.mark.parametrize("loss_function", EVERY_FORM)
def test_float16_is_computed_in_float32(loss_function):
    logits = np.array([[12.0, 0.0, -12.0]], np.float16)  # exp(12) is beyond float16
    loss, grad = run(loss_function, logits, [1])
    e = np.exp(logits.astype(float))
    assert loss == np.float16(np.log(e.sum()))
    exact = e / e.sum() - [[0, 1, 0]]
    assert grad.astype(float) == pytest.approx(exact, rel=1e-3, abs=1e-7)


@settings(max_examples=50)
@given(st.integers(1, 4), st.integers(0, 3), st.data())
def test_the_class_axis_may_stand_anywhere(ndim, at, data):
    """The same numbers with the class axis moved: the same loss, the gradient moved alike."""
    at %= ndim
    shape = data.draw(st.tuples(*[st.integers(1, 3)] * ndim))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    logits = rng.normal(size=shape)
    target = rng.integers(0, shape[at], shape[:at] + shape[at + 1 :])
    for function in (tg.cross_entropy, composite("naive")):
        loss, grad = run(function, logits, target, axis=at)
        moved_loss, moved = run(function, np.moveaxis(logits, at, -1), target)
        assert loss == pytest.approx(moved_loss, rel=1e-14)
        assert grad == pytest.approx(np.moveaxis(moved, -1, at), rel=1e-13, abs=1e-16)


def test_wide_and_tall_inputs_agree_too():
    """Sizes that take the kernel's other paths: tiles, several threads, one wide row."""
    rng = np.random.default_rng(8)
    for shape in ((500, 100), (3, 40_000), (70, 1)):
        logits = rng.normal(size=shape) * 5
        target = rng.integers(0, shape[1], shape[0])
        exact, exact_grad, size, grad_size = oracle.loss_and_gradient(logits, target)
        for function in (tg.cross_entropy, composite("logsumexp")):
            loss, grad = run(function, logits, target)
            oracle.check_loss(loss, exact, size)
            oracle.check_gradient(grad, exact_grad, grad_size)
