"""gradcheck: it passes what is right and catches every way of being wrong."""

import itertools
import re

import numpy as np
import pytest

import tinygrad_sm as tg

X = np.array([[0.5, -1.5, 2.5], [-0.25, 1.25, 0.75]])
_number = itertools.count()


def primitive(forward, *vjps):
    return tg.def_primitive(f"checked_{next(_number)}", forward, *vjps)


def failed(f, inputs, **options):
    """The report of a check that must fail, which must also raise with its text."""
    with pytest.raises(AssertionError) as caught:
        tg.gradcheck(f, inputs, **options)
    assert isinstance(caught.value, tg.TinygradError)
    report = tg.gradcheck(f, inputs, raise_on_failure=False, **options)
    assert not report
    assert not report.ok
    assert str(report) == str(caught.value)
    return report


# What is right ------------------------------------------------------------------------------------

RIGHT = {
    "product": lambda x: x * x,
    "softmax": lambda x: tg.exp(x) / tg.exp(x).sum(axis=-1, keepdims=True),
    "sigmoid": tg.sigmoid,
    "linear": lambda x: 3 * x + 1,
    "kinks": lambda x: tg.maximum(tg.relu(x), tg.abs(x) * 0.5),
    "cancelling": lambda x: (x + 1000.0) - 1000.0,
    "constant in total": lambda x: (tg.exp(x) / tg.exp(x).sum()).sum(),
    "large values": lambda x: tg.exp(x * 20) * 1e3,
    "small values": lambda x: tg.exp(-x * x) * 1e-3,
    "loss": lambda x: tg.composite_cross_entropy(x, np.array([0, 2])),
    "fused loss": lambda x: tg.cross_entropy(x, np.array([0, 2])),
    "unused input": lambda x: x[0],
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("name", RIGHT)
def test_right_functions_pass(name, dtype):
    if dtype == np.float16 and name == "large values":
        pytest.skip("overflows")
    if dtype == np.float16 and name == "fused loss":
        pytest.skip("the loss has its own tests")
    report = tg.gradcheck(RIGHT[name], X.astype(dtype), order=2)
    assert report.ok
    assert report.problems == report.failures == []
    assert {e.order for e in report.entries} == {1, 2}
    assert {e.index for e in report.entries} == set(np.ndindex(X.shape))
    assert str(report).startswith("gradcheck passed: 12 derivatives compared")


def test_shapes_sizes_and_several_inputs():
    assert tg.gradcheck(lambda x: x**3, 2.0, order=2).entries[0].index == ()
    assert tg.gradcheck(tg.exp, np.zeros((0, 3)), order=2).entries == []
    report = tg.gradcheck(lambda x, w: tg.tanh(x @ w), [X, X.T], order=2)
    assert {e.input for e in report.entries} == {0, 1}
    assert tg.gradcheck(tg.take_along_axis, (X, np.array([[2], [0]]))).ok
    assert tg.gradcheck(lambda x, flag: x * 2 if flag else x, [X, True]).ok


def test_tensors_keep_their_names_gradients_and_data():
    x, c = tg.Tensor(X, name="x"), tg.Tensor(X, requires_grad=False)
    report = tg.gradcheck(lambda x, c: x * c, [x, c], order=2)
    assert {(e.input, e.name) for e in report.entries} == {(0, "x")}
    assert x.grad is None
    np.testing.assert_array_equal(x.data, X)


def test_large_inputs_are_checked_along_random_directions():
    x = np.linspace(-2, 2, 1000)
    report = tg.gradcheck(tg.tanh, x, order=2, directions=3)
    assert len(report.entries) == 6
    assert {e.index for e in report.entries} == {None}
    wrong = primitive(np.tanh, lambda g, y, x: g * (1 - y * y) * np.where(x > 1.99, 1.01, 1))
    found = failed(wrong, x)
    assert "input 0 along a random direction" in str(found)
    one = tg.gradcheck(wrong, x, seed=1, raise_on_failure=False).entries
    two = tg.gradcheck(wrong, x, seed=1, raise_on_failure=False).entries
    assert one == two


def test_methods():
    methods = {e.method for e in tg.gradcheck(lambda x: tg.exp(x) * x, X).entries}
    assert methods == {"complex step"}
    methods = {e.method for e in tg.gradcheck(tg.sigmoid, X).entries}
    assert methods == {"central difference"}
    assert tg.gradcheck(tg.relu, [np.array([0.0])]).entries[0].method == "one-sided slopes"


@pytest.mark.parametrize(
    ("f", "at"),
    [
        (tg.log, [1e-9, 1e-3, 1e9]),
        (tg.sqrt, [1e-9, 1e-3, 1e9]),
        (lambda x: 1 / x, [1e-9, 1e9]),
        (lambda x: tg.sigmoid(1e6 * x), [1e-7, 0.0]),
        (lambda x: tg.log(tg.sigmoid(x)), [30.0, -30.0]),
    ],
)
def test_the_step_fits_the_element(f, at):
    assert tg.gradcheck(f, np.array(at), order=2)


def test_slopes_at_kinks():
    at = np.array([0.0, 1.0, -1.0])
    for f in (tg.relu, tg.abs, lambda x: tg.maximum(x, 0), lambda x: tg.max(x * [1, 1, -1])):
        assert tg.gradcheck(f, at, order=2)
    steep = primitive(lambda x: np.maximum(x, 0), lambda g, y, x: 1.5 * g * (x >= 0))
    assert "at (0,): vjp 1.5" in str(failed(steep, np.array([0.0])))


NEAR = [sign * 10.0**-k for k in range(1, 11) for sign in (1, -1)]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("off", NEAR)
def test_a_kink_near_the_point_is_no_evidence_against_a_right_gradient(off, order):
    functions = [
        tg.relu,
        lambda x: tg.relu(x) * 3 + 50,
        lambda x: tg.max(x * [1, 1, -1] + [0, off - 1, 0]),
        lambda x: tg.abs(x) * tg.exp(x),
        lambda x: tg.maximum(x, x * x),
    ]
    for f in functions:
        report = tg.gradcheck(f, np.array([off, 1 + off, -1.0]), order=order)
        assert all(e.ok for e in report.entries if e.order == 1)


def test_the_reported_points_near_kinks():
    assert tg.gradcheck(lambda x: x.relu(), np.array([-2e-5, 1.0]))
    assert tg.gradcheck(tg.max, np.array([0.25, 0.25 - 1.6e-5, -1]))


@pytest.mark.parametrize("factor", [0.5, 1.5, 0.0, -1.0, 1.01])
@pytest.mark.parametrize("off", [1.0, *NEAR[::2]])
def test_a_wrong_gradient_is_found_however_near_a_kink_is(off, factor):
    """Half the slope is what a difference across the kink would say."""
    wrong = primitive(
        lambda x: np.maximum(x, 0), lambda g, y, x: g * (x > 0) * np.where(x < 2, factor, 1)
    )
    for f in (wrong, lambda x: tg.sum(wrong(x) * 3 + 50)):
        (entry,) = failed(f, np.array([off, 3.0, -1.0])).failures
        assert entry.index == (0,)


def test_a_slope_where_there_is_none_is_found_near_a_kink():
    wrong = primitive(lambda x: np.maximum(x, 0), lambda g, y, x: g * (x > -1e-3))
    failed(wrong, np.array([-2e-5, 1.0]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_kink_that_the_dtype_cannot_tell_from_the_point(dtype):
    """1 − exp(−x) rounds to 0 there, so that relu is at its kink; in float64 it is not."""
    x = np.array([1e-4 if dtype == np.float16 else 2e-8, 0.5, 1.0], dtype)
    report = tg.gradcheck(lambda x: tg.relu(1 - tg.exp(-x)), x, order=2)
    assert report.entries[0].method == "one-sided slopes"


def test_small_kinks_of_many_elements_along_a_direction():
    x = np.random.default_rng(0).normal(size=100_000)
    assert tg.gradcheck(lambda x: tg.relu(x).sum(), x)
    failed(lambda x: tg.relu(x).sum() * 1.01 - tg.relu(x).sum().numpy() * 0.01, x)


def test_what_was_not_checked_is_counted_and_nothing_checked_is_a_failure():
    report = tg.gradcheck(tg.relu, np.array([0.0, 1.0]), order=2)
    assert str(report).startswith(
        "gradcheck passed: 3 derivatives compared, 1 not checked (at a kink), largest error"
    )
    (unknown,) = [e for e in report.entries if e.ok is None]
    assert (unknown.order, unknown.index, unknown.method) == (2, (0,), "not checked: kink")
    report = failed(tg.relu, np.array([0.0]), order=2)
    assert report.unseen == [2]
    assert "no derivative of order 2 could be checked" in str(report)
    report = failed(lambda x: tg.relu(x) * 3 + 50, np.array([1e-11]))
    assert report.entries[0].method == "not checked: kink"


def test_a_masked_class_is_not_checked_and_the_others_are():
    report = tg.gradcheck(lambda a: tg.cross_entropy(a, [0]), np.array([[1.0, -np.inf, 0.5]]))
    assert str(report).startswith(
        "gradcheck passed: 2 derivatives compared, 1 not checked (at infinity), largest error"
    )
    (masked,) = [e for e in report.entries if e.ok is None]
    assert (masked.index, masked.method, masked.analytic) == ((0, 1), "not checked: infinite", 0.0)
    many = np.random.default_rng(0).normal(size=(30, 20))
    many[3, 4] = -np.inf
    labels = np.zeros(30, int)
    assert tg.gradcheck(lambda a: tg.cross_entropy(a, labels), many)  # along random directions


# What is wrong ------------------------------------------------------------------------------------


def test_a_wrong_vjp_is_named_with_both_values():
    cube = primitive(lambda x: x**3, lambda g, y, x: 2 * g * x * x)
    report = failed(lambda x: cube(x).sum(), tg.Tensor([1.0, 0.0, 2.0], name="x"))
    first, second = report.failures
    assert (first.order, first.input, first.name, first.index) == (1, 0, "x", (0,))
    assert first.analytic == 2
    assert first.numeric == pytest.approx(3)
    assert first.error == pytest.approx(1)
    assert first.tolerance < 1e-6
    assert second.index == (2,)
    assert "order 1, input 0 'x' at (0,): vjp 2, central difference 3, error 1" in str(report)


@pytest.mark.parametrize("factor", [1 + 1e-6, 0, -1, np.nan, np.inf])
def test_factors(factor):
    with np.errstate(invalid="ignore"):
        failed(primitive(lambda x: np.exp(x), lambda g, y, x: g * y * factor), X)


def test_one_wrong_element():
    def vjp(g, y, x):
        c = g * y
        c[1, 2] *= 1.001
        return c

    (entry,) = failed(primitive(lambda x: np.exp(x), vjp), X).failures
    assert entry.index == (1, 2)


def test_a_wrong_second_derivative():
    op = primitive(
        lambda x: x**3,
        lambda g, y, x: g * 3 * (x.numpy() if isinstance(x, tg.Tensor) else x) ** 2,
    )
    assert tg.gradcheck(op, X)
    assert {e.order for e in failed(op, X, order=2).failures} == {2}


@pytest.mark.parametrize(
    "undo",
    [
        lambda g: g.mean(axis=0),
        lambda g: g[0],
        lambda g: g.sum(axis=0)[::-1],
        lambda g: g.sum(axis=1),
        lambda g: g.sum(),
        lambda g: g.sum(axis=0)[None, None, :] * np.ones((2, 1, 1)),
    ],
)
def test_a_wrong_unbroadcast(undo):
    op = primitive(lambda x, b: x + b, lambda g, y, x, b: g, lambda g, y, x, b: undo(g))
    report = failed(op, [X, np.ones(3)])
    assert all(e.input == 1 for e in report.failures)


def test_a_vjp_for_the_wrong_argument():
    op = primitive(lambda x, y: x * y, lambda g, z, x, y: g * x, lambda g, z, x, y: g * y)
    failed(op, [X, X + 1])


@pytest.mark.parametrize(
    ("forward", "vjp", "given", "sentence"),
    [
        (np.square, lambda g, y, x: (2 * g * x).astype("f4"), "f8", "vjp .* returns float32"),
        (np.square, lambda g, y, x: (2 * g * x).astype("f2"), "f4", "vjp .* returns float16"),
        (np.square, lambda g, y, x: np.round(2 * g * x).astype(int), "f8", "vjp .* returns int64"),
        (np.square, lambda g, y, x: 2 * g * x + 0j, "f4", "vjp .* returns complex"),
        (lambda x: np.square(x).astype("f4"), lambda g, y, x: 2 * g * x, "f8", "float64 into"),
        (lambda x: x * np.float64(2), lambda g, y, x: 2 * g, "f4", "float32 into float64"),
        (lambda x: np.sign(x).astype(int), lambda g, y, x: 0 * g, "f8", "dtype int64, which"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_a_wrong_dtype(forward, vjp, given, sentence):
    op = primitive(lambda x: forward(x), vjp)
    report = failed(op, X.astype(given))
    assert any(re.search(sentence, problem) for problem in report.problems)


def _in_place(which, keep):
    def vjp(g, y, x):
        arrays = {"its cotangent": g, "the output": y, "argument 0": x}
        if keep:  # a change that a second time would not show
            arrays[which][arrays[which] < 0] = 0
        else:
            arrays[which][...] *= 2
        return g * 1.0

    return vjp


@pytest.mark.parametrize("which", ["its cotangent", "the output", "argument 0"])
@pytest.mark.parametrize("keep", [True, False])
def test_a_vjp_that_changes_what_it_is_given(which, keep):
    report = failed(primitive(lambda x: x + 0, _in_place(which, keep)), X)
    assert any(f"for argument 0 changes {which}" in problem for problem in report.problems)


@pytest.mark.parametrize(
    "change", [lambda x: np.multiply(x, 2, out=x), lambda x: np.maximum(x, 0, out=x)]
)
def test_a_forward_that_changes_its_argument(change):
    op = primitive(change, lambda g, y, x: g * 2)
    assert any("changes its" in s for s in failed(op, X).problems)
    # in the middle of a graph, also where a second time would show nothing
    assert failed(lambda x: op(x * 3), X).problems


def test_a_detached_part():
    failed(lambda x: x * x.numpy(), X)


def test_a_random_function():
    random = np.random.default_rng(0)
    report = failed(lambda x: x * random.random(), X)
    assert "different results for the same inputs" in str(report)


def test_a_step_has_no_slope():
    step = primitive(lambda x: np.where(x > 0, 1.0, 0.0), lambda g, y, x: g * 0)
    assert tg.gradcheck(step, np.array([1.0, -1.0]))
    failed(step, np.array([0.0]))


def test_a_sweep_that_raises():
    op = primitive(lambda x: x + 0, lambda g, y, x: g[0])
    assert "the backward sweep raised InvalidValueError" in str(failed(op, np.ones((2, 3, 1))))


def test_long_reports_are_cut():
    wrong = primitive(lambda x: np.exp(x), lambda g, y, x: g)
    lines = str(failed(wrong, np.ones(30))).splitlines()
    assert lines[0] == "gradcheck failed: 30 derivatives compared, 30 wrong"
    assert lines[-1] == "  and 20 more"


def test_tolerances():
    slightly = primitive(lambda x: np.exp(x), lambda g, y, x: g * y * (1 + 1e-6))
    assert tg.gradcheck(slightly, X, rtol=1e-5)
    assert tg.gradcheck(slightly, X, atol=1e-4)
    failed(slightly, X, rtol=1e-8, atol=0.0)


def test_errors_of_the_function_itself_pass_through():
    with pytest.raises(ZeroDivisionError):
        tg.gradcheck(lambda x: x / (1 // 0), X)
    assert "f raised InvalidValueError" in str(failed(lambda x: x + np.ones(7), X))


def test_an_only_input_of_integers_becomes_float64():
    assert tg.gradcheck(lambda x: (x * x).sum(), np.array([1, 2, 3])).ok
    assert tg.gradcheck(tg.cross_entropy, [np.array([1.0, 2.0, 3.0]), np.array(1)]).ok
    with pytest.raises(tg.TinygradError, match="no input can be differentiated"):
        tg.gradcheck(lambda x, y: x + y, [np.array([1, 2]), np.array([1, 2])])


def test_many_elements_at_kinks_are_no_evidence_against_a_right_gradient():
    x = np.random.default_rng(0).integers(-3, 4, 2000).astype(float)  # every seventh is 0
    assert tg.gradcheck(lambda t: t.relu() * t, x, order=2).ok
    assert tg.gradcheck(abs, x, order=2).ok
    half = primitive(lambda x: np.maximum(x, 0), lambda g, y, x: g * (x > 0) / 2)
    assert "wrong" in str(failed(half, x))
