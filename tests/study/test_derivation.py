"""derive: the lines of the textbook, checked; in two languages, three formats, and a picture."""

import ast
import re
import shutil
import subprocess

import numpy as np
import pytest

from tinygrad_sm.cli.entry import run
from tinygrad_sm.study.equations import Formula, Latex, Plain

pytest.importorskip("sympy", reason="needs the extra symbolic: SymPy")
pytest.importorskip("mpmath", reason="needs the extra symbolic: mpmath")

import viz
from tinygrad_sm.arrays import elements
from tinygrad_sm.engine import rules
from tinygrad_sm.study import derivation as module
from tinygrad_sm.study.derivation import LINES, PLACES, derive
from tinygrad_sm.study.transcripts import FORMATS, as_latex, as_text
from tinygrad_sm.texts import texts

A, Y = [2.0, 1.0, 0.1], [1, 0, 0]
P = np.exp(A) / np.exp(A).sum()


# Formulas -----------------------------------------------------------------------------------------

NAMES = {
    "classes": range(3), "i": 0, "j": 1, "s": 11.0, "y": np.array([1.0, 0.0, 0.0]),
    "p": np.array([0.5, 0.25, -0.25]), "dp_da": np.eye(3), "log": np.log, "exp": np.exp,
}  # fmt: skip
WRITTEN = [
    ("-y[i] / p[i]", "−yᵢ / pᵢ", r"-\frac{y_i}{p_i}", "−y / p", "−1 / 0.5"),
    ("p[i] * (1 - p[i])", "pᵢ · (1 − pᵢ)", r"p_i \, \left(1 - p_i\right)", "p · (1 − p)",
     "0.5·(1 − 0.5)"),
    ("-p[j] / s ** 2", "−pⱼ / s²", r"-\frac{p_j}{s^{2}}", "−p / s²", "−0.25 / 11²"),
    ("sum(y[j] for j in classes) * p[i]", "(Σⱼ yⱼ) · pᵢ", r"\left(\sum_j y_j\right) \, p_i",
     "(Σy) · p", "(1 + 0 + 0)·0.5"),
    ("p[i] * sum(y[j] for j in classes)", "pᵢ · Σⱼ yⱼ", r"p_i \, \sum_j y_j", "p · Σy",
     "0.5·(1 + 0 + 0)"),
    ("sum(y[j] * p[j] for j in classes if j != i)", "Σⱼ≠ᵢ yⱼ · pⱼ",
     r"\sum_{j \ne i} y_j \, p_j", "Σ(y · p)", "0·0.25 + 0·(−0.25)"),
    ("-sum(y[j] for j in classes) / s", "−(Σⱼ yⱼ) / s", r"-\frac{\sum_j y_j}{s}", "−(Σy) / s",
     "−(1 + 0 + 0) / 11"),
    ("1 - (p[i] - y[i])", "1 − (pᵢ − yᵢ)", r"1 - \left(p_i - y_i\right)", "1 − (p − y)",
     "1 − (0.5 − 1)"),
    ("log(p[i])", "log pᵢ", r"\log p_i", "log p", "log 0.5"),
    ("exp(p[i] - 1)", "exp(pᵢ − 1)", r"\exp\left(p_i - 1\right)", "exp(p − 1)", "exp(0.5 − 1)"),
    ("dp_da[j, i]", "∂pⱼ/∂aᵢ", r"\frac{\partial p_j}{\partial a_i}", "∂p/∂a", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "plain", "latex", "vectors", "numbers"), WRITTEN)
def test_a_formula_is_written_as_it_is_computed(source, plain, latex, vectors, numbers):
    formula = Formula(source)
    assert Plain().write(formula) == plain
    assert Latex().write(formula) == latex
    assert Plain(vectors=True).write(formula) == vectors
    filled = Plain(NAMES).write(formula)
    assert filled == numbers
    python = filled.translate(str.maketrans({"−": "-", "·": "*"})).replace("²", "**2")
    if not re.search("[a-z]", python):  # read back, it is the formula's value
        assert eval(python) == pytest.approx(formula.value(NAMES), rel=1e-12)


@pytest.mark.parametrize(("source", "plain"), [
    ("dL_ds", "∂L/∂s"), ("ds_de[i]", "∂s/∂eᵢ"), ("dp_ds[j]", "∂pⱼ/∂s"),
    ("dlogp_dp[j, j]", "∂log pⱼ/∂pⱼ"), ("dL_de_via_p[i]", "∂L/∂eᵢ|p"), ("dL_da[i]", "∂L/∂aᵢ"),
])  # fmt: skip
def test_names_of_derivatives(source, plain):
    assert Plain().write(Formula(source)) == plain


def test_free_indices():
    assert Formula("sum(y[j] * p[i] for j in classes)").free == ("i",)
    assert Formula("-p[j] * p[i]").free == ("i", "j")
    assert Formula("s").free == ()


# The derivation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("logits", "target"), [
    (A, Y), (A, 1), ([A], [2]), (A, [0.2, 0.3, 0.5]), ([0.0, 0.0], 0), ([1000.0, 1.0, 0.1], 0),
    ([-800.0, 3.0], 0), (np.linspace(-3, 3, 9), 4), (A, [0, 0, 0]), (A, [0.5, -0.25, 2.0]),
])  # fmt: skip
def test_every_line_holds(logits, target):
    found = derive(logits, target)
    assert found.holds
    assert len(found.lines) == len(LINES)
    for line in found.lines:
        assert line.by_formula
        one = line.name == "textbook"
        assert line.by_number is (True if abs(found.target.sum() - 1) < 1e-9 or not one else None)


def test_the_numbers_are_the_users():
    found = {(line.section, line.name): line for line in derive(A, 1).lines}
    chain = found["one", "textbook"]
    assert chain.classes() == "i = 1"
    assert chain.in_numbers(Plain) == f"{P[1]:.4g} − 1 = −{1 - P[1]:.4g}"
    assert chain.listed(Plain) == f"({P[0]:.4g}, −{1 - P[1]:.4g}, {P[2]:.4g})"
    other = found["jacobian", "other"]
    assert other.classes() == "i = 1, j = 0"
    assert other.in_numbers(Plain).endswith(f"= −{P[0] * P[1]:.4g}")


def test_digits_that_a_double_does_not_have():
    assert "−1.941e−434" in as_text(derive([1000.0, 1.0, 0.1], 0))


def test_a_target_with_another_sum():
    found = next(line for line in derive(A, [1, 1, 0]).lines if line.name == "textbook")
    assert found.in_numbers(Plain) == f"{P[0]:.4g} − 1 = −{1 - P[0]:.4g} ≠ {2 * P[0] - 1:.4g}"
    text = as_text(derive(A, [1, 1, 0]))
    assert f"since their y sums to 2: p − y would be off by up to {P[0]:.3g}" in text


def test_each_line_names_places_of_the_graph():
    found = derive(A, Y)
    nodes = {node.name or node.op: node.id for node in found.graph.nodes}
    for line in found.lines[:-1]:
        for source, target, by, name in re.findall(
            r"edge (\d+) → (\d+) \((\w+) → (\w+)\)", line.about
        ):
            assert (nodes[by], nodes[name]) == (int(source), int(target))
            assert nodes[by] in found.graph.nodes[nodes[name]].inputs
        for number, name in re.findall(r"node (\d+) (\w+)", line.about):
            assert nodes[name] == int(number)
        assert line.about


def test_a_wrong_line_is_seen_by_formula_and_by_number(monkeypatch):
    wrong = [(s, n, e.replace("1 - p[i])", "1 + p[i])") if n == "same" else e, about)
             for s, n, e, about in LINES]  # fmt: skip
    monkeypatch.setattr(module, "LINES", wrong)
    found = derive(A, Y)
    assert [line.name for line in found.lines if not line.holds] == ["same"]
    assert not found.holds
    line = next(line for line in found.lines if line.name == "same")
    assert (line.by_formula, line.by_number) == (False, False)
    assert "1 of 25 lines do not hold; the first is (11)." in as_text(found)


def test_a_wrong_rule_is_seen(monkeypatch):
    monkeypatch.setattr(elements.KIND, "rows", {}, raising=False)
    monkeypatch.setattr(rules.div, "_vjps", (rules.div._vjps[0], lambda g, q, f, d: g * q / d))
    found = derive(A, Y)
    assert not found.holds
    wrong = {line.name for line in found.lines if not line.holds}
    assert {"denominator", "same", "other", "split"} <= wrong
    assert not {"exp", "log", "arrives"} & wrong


@pytest.mark.parametrize("logits", [[1.0], [[1.0, 2.0], [3.0, 4.0]], [1.0, -np.inf], np.zeros(51)])
def test_what_is_no_row(logits, capsys):
    with pytest.raises(ValueError, match="logits must be one row of 2 to 50 finite numbers; got"):
        derive(logits, 0)


# Written out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_command_in_each_format_and_language(capsys, format_, lang):
    status = run(["derive", "--format", format_, "--lang", lang, "--logits", "2,1.5,0.1",
                  "--target", "1"])  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    words = texts(lang, "derive")
    mark = r"$\checkmark$" if format_ == "latex" else "✓"
    assert out.count(mark) == 2 * len(LINES)
    for title in words["sections"].values():
        assert title in out
    said = " ".join(out.split())
    for section, name, *_ in LINES:
        assert words["lines"][section][name] in said
    assert "✗" not in out
    assert (r"\frac{\partial L}{\partial a_i} = p_i - y_i" in out) == (format_ != "text")
    assert ("∂L/∂aᵢ = pᵢ − yᵢ" in out) == (format_ == "text")


def test_every_text_is_used():
    words = texts("ko", "derive")
    assert {(s, n) for s, lines in words["lines"].items() for n in lines} == {
        line[:2] for line in LINES
    }


@pytest.mark.parametrize("width", ["80", "60"])
def test_formulas_fit_a_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    run(["derive"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(width)
    equation = "      ∂L/∂aᵢ = −yᵢ · (1 − pᵢ) + Σⱼ≠ᵢ yⱼ · pᵢ"
    assert equation in lines


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_latex_has_no_sign_that_pdflatex_does_not_know(lang):
    allowed = {c for c in as_latex(derive(A, Y, lang=lang)) if not c.isascii()}
    assert not any(ord(c) < 0xAC00 or ord(c) > 0xD7A3 for c in allowed)
    assert lang == "ko" or not allowed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_compiles(tmp_path):
    (tmp_path / "d.tex").write_text(as_latex(derive(A, Y)), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "d.tex"],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert b"Overfull" not in done.stdout


# The picture --------------------------------------------------------------------------------------


def test_the_two_edges_at_e_read_the_two_terms():
    scene = viz.draw_formulas(derive(A, Y)).scene
    titles = {box.key: box.title for box in scene.boxes}
    labels = {
        (titles[a.source], titles[a.target]): (f"{a.label} {a.sign}".strip(), a.cells)
        for a in scene.arrows
    }
    assert labels["e = exp(a)", "p = e / s"] == ("numerator ∂ · exp(a):", (("−y",),))
    second = "(Σy) · exp(a) / Σexp(a)"
    assert labels["e = exp(a)", "s = Σ(e)"] == ("∂ · exp(a):", ((second,),))
    grads = {box.title: row.cells[0][0] for box in scene.boxes for row in box.rows
             if row.label == "grad"}  # fmt: skip
    assert grads["a"] == f"−y + {second}"
    assert grads["e = exp(a)"] == "−y / exp(a) + (Σy) / Σexp(a)"
    assert not any(re.search(r"\d\.\d|not run", str(box)) for box in scene.boxes)


def test_a_formula_that_the_graph_does_not_hold_is_left_out(monkeypatch):
    monkeypatch.setitem(PLACES, "p>e", "y[i]")
    found = derive(A, Y)
    assert not found.holds
    cells = {arrow.cells for arrow in viz.draw_formulas(found).scene.arrows}
    assert (("?",),) in cells


def test_the_command_draws_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["derive", "-o", "f.dot", "--lang", "ko"]) == 0
    assert "(Σy) · exp(a) / Σexp(a)" in (tmp_path / "f.dot").read_text(encoding="utf-8")
    assert capsys.readouterr().out.splitlines()[-1] == "f.dot"
    assert run(["derive", "-o", "f.gif"]) == 2
    assert "--output must end in one of .svg" in capsys.readouterr().err
    assert run(["derive", "--format", "latex", "-o", "g.dot"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\\end{document}\n")
    assert err == "g.dot\n"


def test_equations_are_plain_python():
    for _, _, equation, _ in LINES:
        for side in equation.split(" = "):
            ast.parse(side, mode="eval")
