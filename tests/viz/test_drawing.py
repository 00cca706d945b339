import os
import re
import stat
import subprocess
import sys

import pytest
from pygraphviz import AGraph
from seed_graph import seed

import tinygrad_sm as tg
import viz
from viz import rendering
from viz.drawing import Drawing


@pytest.fixture
def drawing():
    _, loss = seed()
    return viz.draw(loss)


@pytest.mark.parametrize(
    ("suffix", "start"),
    [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".dot", b"digraph"),
     (".mmd", b"flowchart TB"), (".SVG", b"<?xml")],
)  # fmt: skip
def test_every_format_is_written(drawing, tmp_path, suffix, start):
    path = tmp_path / f"picture{suffix}"
    assert drawing.save(path) == path
    assert path.read_bytes().startswith(start)
    assert os.listdir(tmp_path) == [path.name]
    drawing.save(str(path))


def test_the_formats_need_no_command_and_no_font(drawing, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rendering, "_SYSTEM_FONTS", ())
    for format in rendering.FORMATS:
        assert len(drawing.render(format)) > 1000


def test_letters_are_drawn_where_no_font_is_installed(tmp_path):
    """A picture with other letters is another picture; boxes for missing letters look alike."""
    program = (
        "import sys, tinygrad_sm as tg, viz; from viz import rendering;"
        "rendering._SYSTEM_FONTS = ('/nowhere',);"
        "png = [viz.draw(tg.Tensor([1.0], name=n)).render('png') for n in ('Σabc', '∂xyz')];"
        "sys.exit(png[0] == png[1])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=env, check=True)


def test_the_svg_refers_to_nothing_outside(drawing):
    svg = drawing.render("svg").decode()
    addresses = set(re.findall(r'https?://[^"\s]+', svg))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "DOCTYPE" not in svg
    assert "href=" not in svg


def test_the_source_is_dot(drawing):
    graph = AGraph(string=drawing.source)
    assert graph.directed
    assert {"n0", "n8"} <= set(graph.nodes())


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.svg.bak", ".svg"])
def test_an_unknown_format_names_the_known_ones(drawing, tmp_path, name):
    with pytest.raises(ValueError, match="a picture can be saved as") as caught:
        drawing.save(tmp_path / name)
    assert isinstance(caught.value, tg.TinygradError)
    assert all(suffix in str(caught.value) for suffix in Drawing.formats)
    assert os.listdir(tmp_path) == []


def test_a_path_that_is_none(drawing):
    with pytest.raises(tg.TinygradError, match="save needs a path; got int"):
        drawing.save(3)


def test_a_folder_that_is_not_there_or_is_a_file(drawing, tmp_path):
    (tmp_path / "file").write_text("kept")
    for target in (tmp_path / "none" / "x.svg", tmp_path / "file" / "x.svg"):
        with pytest.raises(OSError, match=r"x\.svg cannot be written") as caught:
            drawing.save(target)
        assert isinstance(caught.value, tg.TinygradError)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file(drawing, tmp_path, monkeypatch, failure):
    path = tmp_path / "x.dot"
    path.write_text("old")

    def fail(source, target):
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((viz.SaveError, KeyboardInterrupt)):
        drawing.save(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.dot"]


def test_a_render_that_fails_leaves_the_old_file(drawing, tmp_path, monkeypatch):
    path = tmp_path / "x.svg"
    path.write_text("old")
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(viz.RenderError, match="install pygraphviz"):
        drawing.save(path)
    assert path.read_text() == "old"


def test_a_library_that_the_system_lacks_is_named(drawing, tmp_path, monkeypatch):
    package = tmp_path / "pygraphviz"
    package.mkdir()
    lacking = "libX11.so.6: cannot open shared object file"
    (package / "__init__.py").write_text(f"raise ImportError({lacking!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pygraphviz", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(viz.RenderError, match=r"apt install graphviz.*libX11\.so\.6"):
        drawing.render("svg")


def test_a_dot_command_is_preferred_and_its_failure_is_told(drawing, tmp_path, monkeypatch):
    command = tmp_path / "dot"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    command.write_text('#!/bin/sh\ncat > /dev/null; echo "by dot $1"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    assert drawing.render("png") == b"by dot -Tpng\n"
    command.write_text("#!/bin/sh\ncat > /dev/null; echo broken >&2; exit 1\n")
    with pytest.raises(viz.RenderError, match="'dot' could not draw png: broken"):
        drawing.render("png")


def test_a_notebook_shows_the_picture_or_else_the_text(drawing, tmp_path, monkeypatch):
    bundle = drawing._repr_mimebundle_()
    assert bundle["image/svg+xml"].startswith("<?xml")
    assert "exp(0)" in bundle["text/plain"]
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    bundle = drawing._repr_mimebundle_()
    assert list(bundle) == ["text/plain"]
    assert "exp(0)" in bundle["text/plain"]
    assert "no picture" in bundle["text/plain"]


def test_rendering_leaves_the_environment_alone(drawing, monkeypatch):
    monkeypatch.delenv("FONTCONFIG_FILE", raising=False)
    drawing.render("svg")
    assert "FONTCONFIG_FILE" not in os.environ


def test_importing_viz_loads_no_graphviz():
    program = "import sys, viz; sys.exit('graphviz' in sys.modules or 'pygraphviz' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=env, check=True)


def test_boxes_and_arrows_of_an_svg_have_ids(drawing):
    x = tg.Tensor(3.0, name="x")
    found = re.findall(r'<g id="((?:node|edge)-[^"]*)"', viz.draw(x * x).render("svg").decode())
    assert sorted(found) == ["edge-n0-n1-0", "edge-n0-n1-1", "node-n0", "node-n1"]
    for which in (drawing, viz.draw_comparison(tg.compare([2.0, 1.0, 0.1], [1, 0, 0]))):
        ids = re.findall(r' id="([^"]*)"', which.render("svg").decode())
        assert len(set(ids)) == len(ids)
        assert {f"node-{box.key}" for box in which.scene.boxes} <= set(ids)
        assert {arrow.id for arrow in which.scene.arrows} <= set(ids)
