"""Pictures for LaTeX, compiled where it is there."""

import re
import shutil
import subprocess

import pytest
from seed_graph import seed, traced

import tinygrad_sm as tg
import viz


def document():
    _, loss = seed()
    labels = {0: r"$\hat{a}_1$ & 50% \input{x} #1", 2: "이름 → ∞ _x_ ~^{}"}
    return viz.draw(traced(loss), title=r"From $e^{a_j}$ to $\sum_j e^{a_j}$", labels=labels)


def test_the_numbers_stand_where_graphviz_put_them():
    text = document().render("tex").decode()
    assert text.startswith("\\documentclass")
    number = r"\\written\{base east\}\{c00664B\}\{11\}\{\}\{\((.*),(.*)\)\}\{(.*)\}"
    found = {value: (float(x), y) for x, y, value in re.findall(number, text)}
    assert found["${}-$0.341"][1] == found["0.2424"][1] == found["0.09857"][1]
    assert found["${}-$0.341"][0] < found["0.2424"][0] < found["0.09857"][0]


def test_formulas_are_formulas_and_the_rest_is_text():
    text = document().render("tex").decode()
    assert r"From $e^{a_{j}}$ to $\sum_{j} e^{a_{j}}$" in text
    assert r"${\hat{a}}_{1}$ \& 50\% \textbackslash{}input\{x\} \#1" in text
    assert r"\DeclareUnicodeCharacter{C774}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
@pytest.mark.parametrize("kind", ["graph", "comparison", "fusion", "last frame"])
def test_it_compiles(tmp_path, kind):
    drawing = {
        "graph": document,
        "comparison": lambda: viz.draw_comparison(tg.compare([2.0, 1.0, 0.1], [1, 0, 0])),
        "fusion": lambda: viz.draw_fusion(tg.fuse(seed()[1])),
        "last frame": lambda: viz.frames(traced(seed()[1]))[-1],
    }[kind]()
    drawing.save(tmp_path / "picture.tex")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "picture.tex"],
        cwd=tmp_path, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    assert "1 page" in said
