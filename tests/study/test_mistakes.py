"""Each mistake gives the wrong gradient that it gives on paper, where it should, and is told."""

import threading

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.study.mistakes import MISTAKES, break_it, faults, mistaken, recognised
from tinygrad_sm.texts import LANGUAGES

A = np.array([2.0, 1.0, 0.1])
ONE_HOT, SOFT = np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0])
P = np.exp(A) / np.exp(A).sum()
ROWS, LABELS = np.array([[2.0, 1.0, 0.1], [0.0, 1.0, 2.0]]), np.array([0, 1])
P_ROWS = np.exp(ROWS) / np.exp(ROWS).sum(axis=1, keepdims=True)
RIGHT_ROWS = (P_ROWS - np.eye(3)[LABELS]) / 2


def jacobian(p):
    return np.diag(p) - np.outer(p, p)


def twice(y):
    q = np.exp(P) / np.exp(P).sum()
    return jacobian(P) @ (y.sum() * q - y)


ON_PAPER = [
    ("diagonal", A, ONE_HOT, ONE_HOT * (P - 1)),
    ("diagonal", A, SOFT, SOFT * (P - 1)),
    ("diagonal", ROWS, LABELS, np.eye(3)[LABELS] * (P_ROWS - 1) / 2),
    ("overwritten", A, ONE_HOT, P),
    ("overwritten", A, SOFT, 2 * P),
    ("overwritten", ROWS, LABELS, P_ROWS / 2),
    ("mean-forgotten", ROWS, LABELS, RIGHT_ROWS * 2),
    ("mean-twice", ROWS, LABELS, RIGHT_ROWS / 2),
    ("softmax-twice", A, ONE_HOT, twice(ONE_HOT)),
    ("softmax-twice", A, SOFT, twice(SOFT)),
    ("p-minus-y", A, SOFT, P - SOFT),
]


def where(broken):
    """Operations that something wrong leaves, and those that go wrong themselves."""
    nodes = broken.trace.graph.nodes
    return [nodes[i].op for i, _ in broken.edges], [nodes[i].op for i in broken.nodes]


@pytest.mark.parametrize(("name", "logits", "target", "expected"), ON_PAPER)
def test_the_wrong_gradient_is_the_one_on_paper(name, logits, target, expected):
    broken = break_it(name, logits, target)
    np.testing.assert_allclose(broken.gradient, expected, rtol=1e-13, atol=1e-15)
    assert broken.shows


def test_the_textbooks_numbers():
    assert (break_it("diagonal", A, 0).gradient.round(3) + 0.0).tolist() == [-0.341, 0, 0]


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_right_is_known_beside_it(name):
    broken = break_it(name, A, SOFT)
    np.testing.assert_allclose(broken.right, 2 * P - SOFT, rtol=1e-13)
    assert faults(broken.right_trace) == ((), ())


@pytest.mark.parametrize(
    ("name", "target", "edges", "nodes"),
    [
        ("diagonal", ONE_HOT, ["sum"], []),
        ("overwritten", ONE_HOT, [], ["exp"]),
        ("softmax-twice", ONE_HOT, [], ["softmax"]),
        ("p-minus-y", SOFT, ["SoftmaxWithLoss"], []),
    ],
)
def test_where_it_goes_wrong(name, target, edges, nodes):
    assert where(break_it(name, A, target)) == (edges, nodes)


@pytest.mark.parametrize("name", ["mean-forgotten", "mean-twice"])
@pytest.mark.parametrize(("form", "op"), [("naive", "div"), ("fused", "SoftmaxWithLoss")])
def test_a_mean_goes_wrong_where_it_divides(name, form, op):
    assert where(break_it(name, ROWS, LABELS, form=form)) == ([op], [])


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"label_smoothing": 0.1}])
def test_the_diagonal_alone_is_the_same_in_the_closed_form(options):
    composite = break_it("diagonal", ROWS, LABELS, form="naive", **options)
    fused = break_it("diagonal", ROWS, LABELS, form="fused", **options)
    np.testing.assert_allclose(composite.gradient, fused.gradient, rtol=1e-12)
    assert where(fused) == (["SoftmaxWithLoss"], [])


@pytest.mark.parametrize("name", [name for name in MISTAKES if name != "softmax-twice"])
def test_gradcheck_catches_it_where_it_shows_and_only_there(name):
    caught = 0
    for logits, target in ((A, ONE_HOT), (A, SOFT), (ROWS, LABELS)):
        broken = break_it(name, logits, target)
        assert broken.report.ok != broken.shows
        caught += broken.shows
    assert caught > 0


def test_gradcheck_passes_a_second_softmax_whose_loss_has_a_floor():
    broken = break_it("softmax-twice", A, 0)
    assert broken.report.ok
    sure = tg.composite_cross_entropy(tg.softmax(np.array([50.0, 0.0, 0.0])), 0)
    assert sure == pytest.approx(np.log(1 + 2 / np.e))


@pytest.mark.parametrize(
    ("name", "target"), [("mean-forgotten", ONE_HOT), ("mean-twice", 0), ("p-minus-y", ONE_HOT)]
)
def test_it_can_hide(name, target):
    assert not break_it(name, A, target).shows


def test_where_a_form_does_not_do_it_nothing_is_wrong():
    for name, form in (("overwritten", "fused"), ("p-minus-y", "naive"), ("diagonal", "logsumexp")):
        broken = break_it(name, A, SOFT, form=form)
        assert (broken.shows, broken.edges, broken.nodes) == (False, (), ())


def test_printed_it_says_what_came_out_where_and_how_it_is_caught():
    said = str(break_it("diagonal", A, ONE_HOT)).splitlines()
    assert said[1:4] == [
        "wrong: [-0.341  0.     0.   ]",
        "right: [-0.341  0.242  0.099]",
        "where: on the edge from s (sum) back to e (exp)",
    ]
    hidden = str(break_it("mean-twice", A, ONE_HOT)).splitlines()
    assert hidden[3:] == [
        "where: nowhere in this graph",
        "With a single row, N = 1, and nothing shows.",
    ]


# The switch ---------------------------------------------------------------------------------------


def slope(f, x):
    t = tg.Tensor(x)
    return tg.grad(f(t), t)


def test_it_is_a_switch_for_any_program():
    with mistaken("overwritten"):
        assert slope(lambda x: x * 3 + x * 5, 2.0) == 3  # newest first: 5 comes, then 3
    assert slope(lambda x: x * 3 + x * 5, 2.0) == 8


def test_softmax_as_one_operation_goes_wrong_too():
    with mistaken("diagonal"):
        found = slope(lambda a: -(ONE_HOT * tg.log(tg.softmax(a))).sum(), A)
    np.testing.assert_allclose(found, ONE_HOT * (P - 1), atol=1e-15)


def test_a_mean_of_ones_own_goes_wrong_too():
    with mistaken("mean-forgotten"):
        assert slope(tg.mean, [1.0, 2.0, 3.0]).tolist() == [1, 1, 1]


def test_backward_and_its_trace_show_it():
    a = tg.Tensor(A)
    loss = tg.composite_cross_entropy(a, ONE_HOT)
    with mistaken("overwritten"):
        trace = loss.backward(trace=True)
    np.testing.assert_allclose(a.grad, P, rtol=1e-13)
    assert len(trace.contributions(a)) == 1


def test_an_error_inside_turns_it_off():
    with pytest.raises(ZeroDivisionError), mistaken("overwritten"):
        raise ZeroDivisionError
    assert slope(lambda x: x + x, 1.0) == 2


def test_one_inside_another():
    with mistaken("mean-twice"):
        with mistaken("overwritten"):
            assert slope(lambda x: x + x, 1.0) == 1
        assert slope(tg.mean, [1.0, 1.0]).tolist() == [0.25, 0.25]


def test_another_thread_stays_right():
    found = []
    with mistaken("overwritten"):
        other = threading.Thread(target=lambda: found.append(slope(lambda x: x + x, 1.0)))
        other.start()
        other.join()
    assert found == [2]


def test_it_can_be_differentiated_again():
    a = tg.Tensor(A)
    with mistaken("diagonal"):
        first = tg.grad(tg.composite_cross_entropy(a, ONE_HOT), a, create_graph=True)
    np.testing.assert_allclose(first.numpy(), ONE_HOT * (P - 1), atol=1e-15)
    second = tg.grad(first[0], a)  # by the right rules: the derivative of p_0 − 1
    np.testing.assert_allclose(second, jacobian(P)[0], rtol=1e-12)


# Answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "logits", "target", "expected"), ON_PAPER)
def test_an_answer_is_recognised(name, logits, target, expected):
    assert name in [m.name for m in recognised(expected.round(3), logits, target)]


def test_a_right_answer_and_an_unheard_of_one_are_no_mistake_of_these():
    assert recognised((P - ONE_HOT).round(3), A, 0) == []
    assert recognised([1.0, 2.0, 3.0], A, 0) == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_mistake_is_explained(lang):
    for mistake in MISTAKES.values():
        assert set(mistake.says(lang)) == {"title", "what", "why", "caught", "hides"}


def test_what_cannot_be_is_one_sentence():
    with pytest.raises(ValueError, match=r"name must be one of diagonal, .*; got 'typo'"):
        break_it("typo", A, 0)
    with pytest.raises(ValueError, match=r"form must be one of fused, naive, .*; got 'x'"):
        break_it("diagonal", A, 0, form="x")
    with (
        pytest.raises(ValueError, match=r"softmax-twice is a mistake of the program"),
        mistaken("softmax-twice"),
    ):
        pass
    with pytest.raises(ValueError, match=r"gradient must have the logits' shape \(3,\); got \(2,"):
        recognised([0.0, 0.0], A, 0)
    with pytest.raises(tg.TinygradError, match="target must be class indices from 0 to 2"):
        break_it("diagonal", A, 7)
