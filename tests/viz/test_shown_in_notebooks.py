"""What Jupyter, VS Code and marimo show, and what is left where nothing can be drawn."""

import base64
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from seed_graph import seed, traced

import tinygrad_sm as tg
import viz
from viz.drawing import Drawing

A = [2.0, 1.0, 0.1]


SQUARE = tg.def_primitive("square_for_notebooks", np.square, lambda g, y, x: g * x)  # not 2x


def wrong():
    report = tg.gradcheck(lambda x: SQUARE(x).sum(), np.arange(1.0, 20.0), raise_on_failure=False)
    assert not report
    return report


RESULTS = {
    "trace": lambda: traced(seed()[1]),
    "graph": lambda: tg.graph(seed()[1]),
    "fusion": lambda: tg.fuse(seed()[1]),
    "drawing": lambda: viz.draw(seed()[1]),
    "comparison of graphs": lambda: viz.draw_comparison(tg.compare(A, 0)),
    "frames": lambda: viz.frames(traced(seed()[1])),
}
TABLES = {
    "comparison": lambda: tg.compare(A, 0),
    "gradient check": lambda: tg.gradcheck(lambda a: tg.cross_entropy(a, 0), np.array(A)),
    "failed check": wrong,
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_picture_is_as_wide_as_its_cell_at_most(kind):
    result = RESULTS[kind]()
    bundle = result._repr_mimebundle_()
    assert bundle["image/svg+xml"].startswith("<?xml")
    assert 'style="max-width:100%" src="data:image/svg+xml;base64,' in bundle["text/html"]
    assert bundle["text/plain"] == str(result)


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_html(kind):
    result = TABLES[kind]()
    bundle = result._repr_mimebundle_(include=None, exclude=None)
    assert "<table" in bundle["text/html"]
    assert bundle["text/plain"] == str(result)


def test_a_comparison_shows_its_picture_below_its_tables():
    shown = tg.compare(A, 0)._repr_mimebundle_()["text/html"]
    (data,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", shown)
    assert "what the one node below replaces" in base64.b64decode(data).decode()


def test_a_failed_check_shows_the_worst_derivatives():
    shown = wrong()._repr_mimebundle_()["text/html"]
    assert shown.count("✗ wrong") == 12
    assert "and 7 more" in shown
    assert "gradcheck failed: 19 derivatives compared, 19 wrong" in shown


@pytest.mark.parametrize("kind", ["trace", "graph", "fusion", "comparison"])
def test_the_text_is_left_where_nothing_can_be_drawn(kind, monkeypatch):
    result = (RESULTS | TABLES)[kind]()

    def refuse(*_):
        raise viz.RenderError("no Graphviz")

    monkeypatch.setattr(Drawing, "render", refuse)
    bundle = result._repr_mimebundle_()
    assert list(bundle) == ["text/plain"]
    assert bundle["text/plain"] == f"{result}\n(no picture: no Graphviz)"


def test_names_are_text_in_the_html_too():
    a = tg.Tensor(A, name='"><script>alert(1)</script>')
    trace = traced(tg.exp(a))
    for bundle in (
        trace._repr_mimebundle_(),
        viz.draw(trace)._repr_mimebundle_(),
        tg.gradcheck(tg.exp, a)._repr_mimebundle_(),
    ):
        assert "<script" not in bundle["text/html"]


def test_frames_rest_where_the_reader_wants_no_motion():
    shown = viz.frames(traced(seed()[1]))._repr_mimebundle_()["text/html"]
    still, playing = re.findall(r"base64,([^\"]+)", shown)
    assert '<source media="(prefers-reduced-motion: reduce)"' in shown
    assert b"keyframes" not in base64.b64decode(still)
    assert b"keyframes" in base64.b64decode(playing)


def test_the_engine_loads_no_pictures_until_a_notebook_asks():
    program = (
        "import sys, tinygrad_sm as tg\n"
        "graph = tg.graph(tg.exp(tg.Tensor(1.0)))\n"
        "assert 'viz' not in sys.modules\n"
        "assert 'image/svg+xml' in graph._repr_mimebundle_()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=env, check=True)


# Executed -----------------------------------------------------------------------------------------

CELLS = [
    "import tinygrad_sm as tg, viz\n"
    "a = tg.Tensor([2.0, 1.0, 0.1], name='a')\n"
    "trace = tg.composite_cross_entropy(a, 0).backward(trace=True)\n"
    "trace",
    "trace.graph",
    "tg.fuse(tg.composite_cross_entropy(a, 0))",
    "tg.gradcheck(lambda x: tg.cross_entropy(x, 0), a)",
    "tg.compare([2.0, 1.0, 0.1], 0)",
    "viz.frames(trace)",
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_jupyter_executes_and_shows_them(monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="Jupyter is not installed")
    nbclient = pytest.importorskip("nbclient", reason="Jupyter is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(x) for x in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in notebook.cells:
        (shown,) = (x for x in cell.outputs if x.output_type == "execute_result")
        assert "text/html" in shown.data


@pytest.mark.slow
def test_marimo_executes_and_shows_them(tmp_path):
    pytest.importorskip("marimo", reason="marimo is not installed")
    given = ["", "trace", "tg, a", "tg, a", "tg", "viz, trace"]
    made = ["return a, tg, trace, viz", *["return"] * 5]
    cells = [
        f"@app.cell\ndef _({needs}):\n"
        + "".join(f"    {line}\n" for line in [*cell.split("\n"), end])
        for needs, cell, end in zip(given, CELLS, made, strict=True)
    ]
    path = tmp_path / "lesson.py"
    path.write_text("\n".join(["import marimo\napp = marimo.App()\n", *cells]))
    done = subprocess.run(
        [sys.executable, "-m", "marimo", "export", "html", path, "-o", tmp_path / "x.html"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    exported = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert exported.count("image/svg+xml") >= 6
