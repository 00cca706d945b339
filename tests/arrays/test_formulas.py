"""Tensors of formulas: what the engine derives is what SymPy derives by itself."""

from fractions import Fraction

import numpy as np
import pytest

import tinygrad_sm as tg
import viz
from tinygrad_sm.loss.composite import FORMS

sympy = pytest.importorskip("sympy", reason="needs the extra symbolic: SymPy")

FUSED = tg.cross_entropy


def form(name):
    def loss(a, y, **options):
        return tg.composite_cross_entropy(a, y, form=name, **options)

    return loss


LOSSES = [pytest.param(form(name), id=name) for name in FORMS] + [pytest.param(FUSED, id="fused")]


def is_zero(formula):
    """Whether a rational function of exponentials is 0, for all values of its symbols."""
    atoms = sorted(formula.atoms(sympy.exp), key=str)
    rational = sympy.expand(formula, power_exp=True)
    bases = {s: sympy.Symbol(f"E{i}", positive=True) for i, s in
             enumerate(sorted({s for e in atoms for s in e.free_symbols}, key=str))}  # fmt: skip
    rational = rational.subs({sympy.exp(s): e for s, e in bases.items()}, simultaneous=True)
    return sympy.cancel(sympy.together(rational)) == 0


def textbook(a, y):
    """−Σ y log p by hand, and its derivatives by SymPy."""
    total = sum(map(sympy.exp, a))
    return -sum(yi * (ai - sympy.log(total)) for ai, yi in zip(a, y, strict=True))


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_sympys_for_any_target(loss, n):
    a, y = tg.symbols("a", n), tg.symbols("y", n)
    t = tg.Tensor(a)
    loss(t, y).backward()
    for found, ai in zip(t.grad, a, strict=True):
        assert is_zero(found - sympy.diff(textbook(a, y), ai))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_value_is_sympys(loss):
    a, y = tg.symbols("a", 3), tg.symbols("y", 3)
    at = dict(zip((*a, *y, sympy.Symbol("m", real=True)), np.linspace(-1, 1, 7), strict=True))
    found = loss(tg.Tensor(a), y).item().subs(at)
    assert abs(found - textbook(a, y).subs(at)) < 1e-13


@pytest.mark.parametrize("loss", LOSSES)
def test_the_hessian_is_sympys(loss):
    a, y = tg.symbols("a", 3), tg.symbols("y", 3)
    found = tg.hessian(lambda x: loss(x, y), a)
    assert found.shape == (3, 3)
    right = sympy.hessian(textbook(a, y), list(a))
    for i in range(3):
        for j in range(3):
            assert is_zero(found[i, j] - right[i, j])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"reduction": "sum"}, {"temperature": 2.0}, {"weight": [1.0, 2.0, 3.0]},
        {"label_smoothing": 0.1}, {"ignore_index": 1},
        {"weight": [3.0, 1.0, 2.0], "label_smoothing": 0.25, "temperature": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_options_and_labels_give_numpys_numbers(loss, options):
    """The formula with numbers put in is what NumPy computes of these numbers."""
    a, labels = tg.symbols("a", (2, 3)), np.array([2, 1])
    t = tg.Tensor(a)
    loss(t, labels, **options).backward()
    numbers = np.array([[0.3, -1.2, 0.5], [1.5, 0.25, -0.75]])
    at = dict(zip(a.flat, numbers.flat, strict=True))
    at |= {s: 0.5 for g in t.grad.flat for s in g.free_symbols if s.name.startswith("m")}
    found = t.grad.each(lambda g: g.subs(at)).astype(float)
    plain = tg.Tensor(numbers)
    FUSED(plain, labels, **options).backward()
    np.testing.assert_allclose(found, plain.grad, rtol=1e-12, atol=1e-15)


def test_the_two_edges_at_the_exponential():
    """−y by way of the numerator and +Σy·p by way of the denominator, both times exp(a)."""
    a, y = tg.symbols("a", 3), tg.symbols("y", 3)
    t = tg.Tensor(a)
    trace = tg.composite_cross_entropy(t, y).backward(trace=True)
    e = next(node for node in trace.graph.nodes if node.name == "e")
    edges = {c.consumer.op: c.value * e.value for c in trace.contributions(e.tensor)}
    assert list(edges["div"]) == list(-y)
    total = sum(map(sympy.exp, a))
    assert list(edges["sum"]) == [sum(y) * sympy.exp(x) / total for x in a]


def test_numbers_beside_formulas_are_read_as_they_are_written():
    t = tg.Tensor(tg.symbols("x", 1))
    x = sympy.Symbol("x0", real=True)
    assert list((t * 1.0 / 3.0).data) == [x / 3]
    assert list((t + 0.1).data) == [x + sympy.Rational(1, 10)]
    assert list((t * np.array([0.5, 2.0])).data) == [x / 2, 2 * x]


@pytest.mark.parametrize(
    "f",
    [
        tg.exp, tg.log, tg.sqrt, tg.tanh, tg.sigmoid, tg.log1p, tg.expm1, tg.sin, tg.arctan,
        lambda x: x**3, lambda x: 1 / x, lambda x: x[::-1] * x, lambda x: x.reshape(3, 1) @ x[None],
        lambda x: tg.softmax(x) * x, lambda x: tg.log_softmax(x) * x, tg.logsumexp, tg.mean,
        lambda x: tg.concatenate([x, 2 * x]), lambda x: x[np.array([0, 0, 2])] ** 2, tg.cumsum,
    ],
)  # fmt: skip
def test_operations_have_sympys_derivative(f):
    a = tg.symbols("a", 3, positive=True)
    t = tg.Tensor(a)
    y = f(t).sum()
    y.backward()
    at = dict(zip(a, (sympy.Rational(1, 3), sympy.Rational(3, 2), 2), strict=True))
    for found, ai in zip(t.grad, a, strict=True):
        assert abs(sympy.N((found - sympy.diff(y.item(), ai)).subs(at), 30)) < 1e-25


@pytest.mark.parametrize("f", [tg.relu, tg.abs, lambda x: tg.maximum(x, 0.5), tg.max, tg.min])
def test_choices_become_cases(f):
    """Where numbers decide, the formula keeps all cases, and any numbers may be put in."""
    a = tg.symbols("a", 3)
    t = tg.Tensor(a)
    f(t).sum().backward()
    numbers = np.array([0.25, -2.0, 3.0])
    plain = tg.Tensor(numbers)
    f(plain).sum().backward()
    at = dict(zip(a, map(sympy.Rational, numbers), strict=True))
    assert [float(g.subs(at)) for g in t.grad] == list(plain.grad)


@pytest.mark.parametrize(
    "data",
    [
        lambda: sympy.symbols("a0:3"), lambda: list(sympy.symbols("a0:3")),
        lambda: np.array(sympy.symbols("a0:3")), lambda: sympy.Array(sympy.symbols("a0:3")),
        lambda: tg.symbols("a", 3),
    ],
)  # fmt: skip
def test_a_tensor_of_whatever_sympy_has(data):
    t = tg.Tensor(data())
    assert t.shape == (3,)
    (t * t).sum().backward()
    assert list(t.grad) == [2 * x for x in t.data]


def test_a_matrix_and_a_single_symbol():
    x = sympy.Symbol("x")
    t = tg.Tensor(sympy.Matrix([[x, 2 * x]]))
    assert t.shape == (1, 2)
    single = tg.Tensor(x)
    (tg.exp(single) * x).backward()
    assert single.grad.item() == x * sympy.exp(x)


def test_numpys_parameters_beside_formulas():
    w, x = tg.Tensor([2.0, -1.0], name="w"), tg.symbols("x", 2)
    (w * x).sum().backward()
    assert list(w.grad) == list(x)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_target_may_be_the_formula(loss):
    y = tg.symbols("y", 2)
    t = tg.Tensor([1.0, 2.0])
    loss(t, y).backward()
    p = tg.softmax(np.array([1.0, 2.0]))
    for i, g in enumerate(t.grad):
        assert sympy.N(g.subs({y[0]: 0.25, y[1]: 0.5})) == pytest.approx(
            0.75 * p[i] - (0.25, 0.5)[i]
        )
    q = tg.Tensor(y)
    loss(tg.Tensor(tg.symbols("a", 2)), q).backward()
    a = sympy.symbols("a0:2", real=True)
    for found, ai in zip(q.grad, a, strict=True):
        right = sympy.log(sum(map(sympy.exp, a))) - ai
        at = {a[0]: 0.5, a[1]: -1.25, sympy.Symbol("m", real=True): 0.75}
        assert sympy.N((found - right).subs(at)) == pytest.approx(0, abs=1e-14)


def test_options_may_be_fractions():
    t = tg.Tensor(tg.symbols("a", 2))
    a = t.data
    found = tg.cross_entropy(t, 0, label_smoothing=Fraction(1, 10)).item()
    assert sympy.expand(found - (sympy.log(sympy.exp(a[0]) + sympy.exp(a[1]))
                                 - 19 * a[0] / 20 - a[1] / 20)) == 0  # fmt: skip


def test_its_text_is_the_formula():
    t = tg.Tensor(tg.symbols("a", 2), name="a")
    assert repr(t) == "Tensor([a0, a1], shape=(2,), dtype=object, name='a')"
    assert repr(tg.exp(t)) == "Tensor([exp(a0), exp(a1)], shape=(2,), dtype=object, op='exp')"
    assert tg.exp(t)[0].item() == sympy.exp(t.data[0])


def test_names_of_symbols():
    assert [s.name for s in tg.symbols("w", (2, 2)).flat] == ["w00", "w01", "w10", "w11"]
    assert tg.symbols("w", (11, 2))[10, 1].name == "w10_1"
    assert tg.symbols("b").item() == sympy.Symbol("b", real=True)
    assert tg.symbols("y", 1, positive=True)[0].is_positive


def test_the_shift_is_a_symbol_that_is_not_there_yet():
    t = tg.Tensor(list(sympy.symbols("m n")))
    y = tg.symbols("y", 2)
    shifts = tg.composite_cross_entropy(t, y, form="shifted").item().free_symbols
    assert {s.name for s in shifts} - {"m", "n", "y0", "y1"} == {"m_0"}


def test_pictures_show_formulas():
    t = tg.Tensor(tg.symbols("a", 3), name="a")
    trace = tg.composite_cross_entropy(t, tg.symbols("y", 3)).backward(trace=True)

    svg = viz.draw(trace).render("svg").decode()
    for shown in (
        "(3,) formulas",
        "−y0",
        "exp(a0)",
        "(y0 + y1 + y2)/(exp(a0) + exp(a1) + exp(a2))",
    ):
        assert shown in svg


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: tg.symbols(3), TypeError, "name must be text"),
        (lambda: tg.symbols("a", -1), ValueError, "shape must be a shape; got -1"),
        (lambda: tg.Tensor(tg.symbols("a", 2), dtype="float32"), TypeError, "dtype is for numbers"),
        (lambda: tg.Tensor([sympy.I]), TypeError, "real numbers or formulas of them; got I"),
        (
            lambda: setattr(tg.Tensor(tg.symbols("a", 2)), "data", [1, 2]),
            TypeError,
            "cannot be changed",
        ),
    ],
)
def test_what_is_refused_is_one_sentence(wrong, error, words):
    with pytest.raises(error, match=words) as caught:
        wrong()
    assert isinstance(caught.value, tg.TinygradError)


@pytest.mark.parametrize("name", FORMS)
def test_the_loss_of_formulas_is_found_and_fused(name):
    t, y = tg.Tensor(tg.symbols("a", 3)), tg.symbols("y", 3)
    found = tg.fuse(form(name)(t, y)).output
    assert found.op == "SoftmaxWithLoss"
    found.backward()
    for g, ai in zip(t.grad, t.data, strict=True):
        assert is_zero(g - sympy.diff(textbook(t.data, y), ai))
