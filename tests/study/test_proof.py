"""prove: right rules are proved, wrong ones are named, and equality is not a matter of luck."""

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.cli.entry import run
from tinygrad_sm.engine import rules
from tinygrad_sm.loss.composite import FORMS
from tinygrad_sm.study.mistakes import MISTAKES, mistaken
from tinygrad_sm.study.proof import CHAPTERS, prove

sympy = pytest.importorskip("sympy", reason="needs the extra symbolic: SymPy")
from tinygrad_sm.arrays import elements  # noqa: E402
from tinygrad_sm.study.symbolic import in_lowest_terms, same_formulas  # noqa: E402


@pytest.fixture
def broken(monkeypatch):
    """Put a wrong vjp into the table; rows for formulas are made of it anew."""

    def breaks(primitive, argument, vjp):
        monkeypatch.setattr(elements.KIND, "rows", {}, raising=False)
        vjps = list(primitive._vjps)
        vjps[argument] = vjp
        monkeypatch.setattr(primitive, "_vjps", tuple(vjps))

    return breaks


# What is right ------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 2, 3, pytest.param(6, marks=pytest.mark.slow)])
def test_composite_and_fused_are_one_function(classes):
    proof = prove(classes)
    assert proof.holds, proof.verdict()
    assert proof.verdict().startswith(f"proved for N = {classes}: ")
    assert {claim.chapter for claim in proof.claims} == set(CHAPTERS)
    for chapter, each in (("loss", 1), ("gradient", classes), ("Hessian", classes**2)):
        found = {c.about: c.count for c in proof.claims if c.chapter == chapter}
        assert set(found) >= set(FORMS)
        assert set(found.values()) == {each}
    rule = {claim.about.partition(",")[0] for claim in proof.claims if claim.chapter == "rules"}
    assert rule >= {"exp", "sum", "div", "log", "mul", "neg", "sub", "add"}


def test_the_command_says_each_step(capsys):
    assert run(["prove", "--classes", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("✓") > 25
    assert "✗" not in out
    assert "vjp = Σ g · ∂out/∂u = g0*exp(u0)" in out
    assert "∂L/∂a0, naive: (-y0*exp(-a0) + (y0 + y1)/(exp(a0) + exp(a1)))*exp(a0)" in out
    assert "proved for N = 2" in out


@pytest.mark.parametrize("classes", ["0", "7", "-1"])
def test_another_number_of_classes(classes, capsys):
    assert run(["prove", "--classes", classes]) == 2
    assert f"classes must be an integer from 1 to 6; got {classes}" in capsys.readouterr().err


# What is wrong ------------------------------------------------------------------------------------

WRONG = {
    "exp": (rules.exp, 0, lambda g, y, x: g * x, "exp, argument 0", "node 1 'e' (exp)"),
    "denominator": (rules.div, 1, lambda g, q, f, d: rules.sum_to(g * q, d) / d,
                    "div, argument 1", "node 3 'p' (div)"),
    "log": (rules.log, 0, lambda g, y, x: g / (x + 1), "log, argument 0", "node 4 log"),
    "sub": (rules.sub, 1, lambda g, z, x, y: g, "sub, argument 1", "logsumexp, node 7 sub"),
    "mul": (rules.mul, 1, lambda g, z, x, y: g * y, "mul, argument 1", "naive, node 6 mul"),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "argument", "vjp", "about", "where"), WRONG.values(), ids=WRONG)
def test_a_wrong_rule_is_named_with_its_place(broken, rule, argument, vjp, about, where, capsys):
    broken(rule, argument, vjp)
    proof = prove(2)
    assert not proof.holds
    wrong = [claim for claim in proof.claims if not claim.holds]
    assert {claim.about for claim in wrong if claim.chapter == "rules"} == {about}
    assert where in wrong[0].amiss
    assert f"the first in the rules at {about}: " in proof.verdict()
    assert run(["prove", "--classes", "2"]) == 1
    assert f"✗  {about}" in capsys.readouterr().out


def test_a_rule_that_is_wrong_in_the_second_derivative_alone(broken):
    """A vjp that hides a part of itself from the sweep: right once, constant when derived again."""

    def vjp(g, y, x):
        return g * (y.detach() if isinstance(y, tg.Tensor) else y)

    broken(rules.exp, 0, vjp)
    wrong = [claim for claim in prove(2).claims if not claim.holds]
    assert {claim.chapter for claim in wrong} == {"Hessian"}
    assert {claim.about for claim in wrong} == {"naive", "shifted", "logsumexp"}


def test_a_rule_whose_shape_does_not_fit(broken):
    broken(rules.log, 0, lambda g, y, x: np.ones(5))
    proof = prove(2)
    assert not proof.holds
    assert "the vjp of 'log' for argument 0 returned shape (5,)" in proof.verdict()


ELSEWHERE = {"mean-forgotten", "mean-twice", "softmax-twice"}  # the proof is of one row's loss


@pytest.mark.parametrize("name", sorted(set(MISTAKES) - ELSEWHERE))
def test_the_mistakes_of_learners_are_no_proof(name):
    with mistaken(name):
        assert not prove(2).holds


# When formulas are equal --------------------------------------------------------------------------


def test_what_is_equal():
    a, b, m = (sympy.Symbol(name, real=True) for name in "abm")
    exp, log = sympy.exp, sympy.log
    equal = [
        (exp(a) / (exp(a) + exp(b)), 1 - exp(b) / (exp(a) + exp(b))),
        (exp(a - m) / (exp(a - m) + exp(b - m)), 1 / (1 + exp(b - a))),
        (log(exp(a) / (exp(a) + exp(b))), a - log(exp(a) + exp(b))),
        (log(exp(a - m) + exp(b - m)) + m, log(exp(a) + exp(b))),
        (exp(2 * a) - exp(2 * b), (exp(a) - exp(b)) * (exp(a) + exp(b))),
    ]
    assert same_formulas(*np.array(equal, object).T).all()
    assert not same_formulas(*np.array([(x, y + exp(a) / 10**9) for x, y in equal]).T).any()
    assert str(in_lowest_terms((exp(2 * a) - 1) / (exp(a) - 1))) == "E_a + 1"
