"""Formulas between dollar signs, in plain characters and in LaTeX."""

import pytest

from viz.notation import in_latex, in_unicode, parsed, split

CASES = [
    (r"$\hat{y}_1$", "y\u0302₁", r"${\hat{y}}_{1}$"),
    (r"a $\sum_j e^{a_j}$ b", "a Σⱼe^(aⱼ) b", r"a $\sum_{j} e^{a_{j}}$ b"),
    (r"$\frac{\partial L}{\partial a}$", "∂L / ∂a", r"$\frac{\partial L}{\partial a}$"),
    (r"$W^{(1)}$", "W⁽¹⁾", "$W^{( 1 )}$"),
    (r"$\sigma(x+1)$", "σ(x + 1)", r"$\sigma ( x + 1 )$"),
    (r"$\log p_{ij}$", "log pᵢⱼ", r"$\log p_{i j}$"),
    (r"$\mathrm{softmax}(a)_i$", "softmax(a)ᵢ", r"$\mathrm{softmax} ( a )_{i}$"),
    (r"$x^\top$", "xᵀ", r"$x^{\top}$"),
    (r"$\sqrt{x}$", "√x", r"$\sqrt{x}$"),
    ("$_1$", "₁", "$_{1}$"),
]


@pytest.mark.parametrize(("text", "plain", "latex"), CASES)
def test_formulas(text, plain, latex):
    assert in_unicode(text) == plain
    assert in_latex(text) == latex


@pytest.mark.parametrize("text", ["", "$", "$$", "cost $5", "x_1 ^2", "이름"])
def test_what_is_no_formula_stays(text):
    assert in_unicode(text) == text
    assert all(tree is None for _, tree in split(text))


@pytest.mark.parametrize("text", [r"$\input{/etc/passwd}$", r"$\write18{ls}$", r"$}{\end{x}$"])
def test_no_command_of_tex_gets_through(text):
    written = in_latex(text)
    assert not any(word in written for word in (r"\input", r"\write", r"\end"))
    assert written.count("{") - written.count(r"\{") == written.count("}") - written.count(r"\}")


@pytest.mark.parametrize("formula", ["{" * 50, "_", "^", r"\frac", r"\sqrt{", "a_", "}", "a__b"])
def test_half_a_formula_is_read_too(formula):
    parsed(formula)
    assert in_latex(f"${formula}$").startswith("$")


def test_text_is_escaped_and_signs_in_it_are_formulas():
    assert in_latex("50% & a_b → −1") == r"50\% \& a\_b ${}\to$ ${}-$1"
