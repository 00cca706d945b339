"""Tensors of exact numbers: what they give, to the last of their digits."""

import pickle
from fractions import Fraction

import numpy as np
import pytest

import tinygrad_sm as tg
import viz
from tinygrad_sm.loss.composite import FORMS

mpmath = pytest.importorskip("mpmath", reason="needs the extra symbolic: mpmath")

LOSSES = {name: lambda a, y, name=name, **options: tg.composite_cross_entropy(
    a, y, form=name, **options) for name in FORMS} | {"fused": tg.cross_entropy}  # fmt: skip


def truth(rows, targets, digits=60):
    """Loss and gradient of rows of floats against distributions, by hand in mpmath."""
    with mpmath.workdps(digits):
        loss, gradients = mpmath.mpf(0), []
        for a, y in zip(rows, targets, strict=True):
            e = [mpmath.exp(mpmath.mpf(float(x))) for x in a]
            p = [x / mpmath.fsum(e) for x in e]
            y = [mpmath.mpf(float(v)) for v in y]
            loss -= mpmath.fsum(yi * mpmath.log(pi) for yi, pi in zip(y, p, strict=True))
            s = mpmath.fsum(y)
            gradients.append([s * pi - yi for yi, pi in zip(y, p, strict=True)])
        return loss, gradients


def assert_digits(found, right, digits):
    assert abs(found - right) <= abs(right) * mpmath.mpf(10) ** -digits


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "rows", [[[2.0, 1.0, 0.1]], [[1000.0, 1.0, 0.1]], [[-745.5, 0.0, 30.0], [0.1, 0.2, 0.3]]]
)
def test_fifty_digits(loss, rows):
    targets = np.array([[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]])[: len(rows)]
    t = tg.Tensor(tg.precise(rows, digits=50))
    value = LOSSES[loss](t, targets, reduction="sum")
    value.backward()
    right, gradients = truth(rows, targets)
    with mpmath.workdps(60):
        assert_digits(value.item(), right, 45)
        for found, exact in zip(t.grad.flat, np.ravel(np.array(gradients, object)), strict=True):
            assert_digits(found, exact, 45)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_far_below_the_smallest_float(loss):
    t = tg.Tensor(tg.precise([1000, 1, 0.1]))
    LOSSES[loss](t, 0).backward()
    assert mpmath.nstr(t.grad[2], 10) == "5.609802155e-435"


@pytest.mark.parametrize("loss", LOSSES)
def test_the_hessian_is_diag_p_minus_ppt(loss):
    found = tg.hessian(lambda x: LOSSES[loss](x, 1), tg.precise([0.5, -1.25, 3.0], digits=40))
    with mpmath.workdps(60):
        e = [mpmath.exp(x) for x in (0.5, -1.25, 3.0)]
        p = [x / mpmath.fsum(e) for x in e]
        for i in range(3):
            for j in range(3):
                assert_digits(found[i, j], (i == j) * p[i] - p[i] * p[j], 36)


def test_a_float_is_what_it_is_and_a_text_what_it_says():
    tenth = tg.precise([0.1, "0.1", Fraction(1, 10)], digits=30)
    assert mpmath.nstr(tenth[0], 30) == "0.100000000000000005551115123126"
    assert mpmath.nstr(tenth[1], 30) == mpmath.nstr(tenth[2], 30) == "0.1"
    assert tg.precise(np.float32(0.1)).item() == float(np.float32(0.1))
    third = np.longdouble(1) / 3
    numerator, denominator = third.as_integer_ratio()
    assert tg.precise(third).item() * denominator == numerator
    assert tg.precise(tg.Tensor([1.5])).shape == (1,)


def test_digits_belong_to_the_numbers_whatever_is_set_elsewhere():
    t = tg.Tensor(tg.precise([2.0], digits=40))
    with mpmath.workdps(5):
        third = (1 / (t + 1)).item()
    assert mpmath.nstr(third, 40) == "0." + "3" * 40


def test_numbers_of_mpmath_itself_are_taken():
    with mpmath.workdps(30):
        t = tg.Tensor([mpmath.mpf(1), mpmath.mpf(2)])
        tg.exp(t).sum().backward()
        assert t.grad[1] == mpmath.exp(2)


def test_a_thousand_classes():
    a = np.random.default_rng(3).normal(size=1000) * 50
    t = tg.Tensor(tg.precise(a))
    tg.cross_entropy(t, 7).backward()
    plain = tg.Tensor(a)
    tg.cross_entropy(plain, 7).backward()
    np.testing.assert_allclose(t.grad.astype(float), plain.grad, rtol=2e-15, atol=5e-324)


@pytest.mark.parametrize("f", [tg.relu, tg.abs, tg.max, tg.min, lambda x: tg.maximum(x, 0.5)])
def test_choices_are_made(f):
    a = np.array([0.25, -2.0, 3.0])
    t, plain = tg.Tensor(tg.precise(a)), tg.Tensor(a)
    f(t).sum().backward()
    f(plain).sum().backward()
    assert list(t.grad.astype(float)) == list(plain.grad)


@pytest.mark.parametrize(
    ("x", "digits", "error", "words"),
    [
        ("one", 50, ValueError, "x must be numbers; got 'one'"),
        ([None], 50, TypeError, "x must be real numbers; got None"),
        (1.0, 0, ValueError, "digits must be at least 1; got 0"),
        (1.0, 2.5, TypeError, "digits must be an integer; got 2.5"),
    ],
)
def test_what_is_refused_is_one_sentence(x, digits, error, words):
    with pytest.raises(error, match=words) as caught:
        tg.precise(x, digits=digits)
    assert isinstance(caught.value, tg.TinygradError)


def test_they_are_pickled_and_formatted():
    t = tg.Tensor(tg.precise([1 / 3, 2], digits=40), name="x")
    copy = pickle.loads(pickle.dumps(t))
    assert list(copy.data) == list(t.data)
    assert copy.data[0].context.dps == 40
    assert f"{t[0].detach():.3f}" == "0.333"
    assert t.tolist()[1] == 2
    assert tg.precise([1.5]).astype(float).tolist() == [1.5]
    assert type(tg.precise([1.5]).astype(float)) is np.ndarray


def test_pictures_show_a_few_digits():
    t = tg.Tensor(tg.precise([1000, 1, 0.1], digits=30), name="a")
    trace = tg.composite_cross_entropy(t, [1, 0, 0]).backward(trace=True)
    svg = viz.draw(trace).render("svg").decode()
    for shown in ("(3,) 30 digits", "1.9700711e+434", "5.6098022e−435"):
        assert shown in svg
