"""Attacks on rendering: forks and threads, a `dot` that hangs or is killed, labels without end."""

import os
import stat
import threading
import time

import numpy as np
import pytest

import tinygrad_sm as tg
import viz
import viz.dot
from viz import rendering

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX's")


def small(name="a"):
    return tg.exp(tg.Tensor([1.0, 2.0], name=name)).sum()


def in_child(function):
    """Run a function in a forked child, at most for half a minute; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    for _ in range(3000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hangs"


# Forks --------------------------------------------------------------------------------------------


@posix
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_while_another_thread_renders():
    stop, drawing = threading.Event(), viz.draw(small())
    expected = drawing.render("svg")

    def child():
        assert "FONTCONFIG_FILE" not in os.environ
        assert drawing.render("svg") == expected
        assert os.fstat(2).st_ino == stderr

    stderr = os.fstat(2).st_ino
    other = threading.Thread(
        target=lambda: [drawing.render("png") for _ in iter(stop.is_set, True)]
    )
    other.start()
    try:
        assert [in_child(child) for _ in range(5)] == [0] * 5
    finally:
        stop.set()
        other.join()


@posix
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_while_another_thread_writes_the_source(monkeypatch):
    """What is computed once needs no lock, which the child would find locked for ever."""
    inside, forked = threading.Event(), threading.Event()

    def held_up(scene, look):
        if threading.current_thread() is other:
            inside.set()
            forked.wait(10)
        return real(scene, look)

    real = viz.dot.dot_source
    monkeypatch.setattr(viz.dot, "dot_source", held_up)
    other = threading.Thread(target=lambda: viz.draw(small()).source)
    other.start()
    inside.wait(10)
    assert in_child(lambda: viz.draw(small()).source) == 0
    forked.set()
    other.join()


def test_threads_that_render_at_once():
    drawings = [viz.draw(small(f"a{i}")) for i in range(4)]
    expected = [drawing.render("svg") for drawing in drawings]
    found = [None] * 4

    def draw(i):
        found[i] = drawings[i].render("svg")

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    assert "FONTCONFIG_FILE" not in os.environ


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def dot(tmp_path, monkeypatch):
    """Write a stand-in for the command, of which only the shell's own commands can be used."""
    command = tmp_path / "dot"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(script):
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)

    return write


@posix
@pytest.mark.parametrize(
    "script",
    ["exec sleep 60", "cat > /dev/null; exec sleep 60", "sleep 3; echo", "exec yes > /dev/null"],
)
def test_a_dot_that_hangs_is_given_up(dot, monkeypatch, tmp_path, script):
    dot(script)
    monkeypatch.setattr(rendering, "_PATIENCE", 0.2)
    path = tmp_path / "x.svg"
    path.write_text("old")
    with pytest.raises(viz.RenderError, match=r"'dot' has not drawn svg within 0.2 seconds"):
        viz.draw(small()).save(path)
    assert path.read_text() == "old"
    assert viz.draw(small()).render("dot").startswith(b"digraph")


@posix
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -9 $$", "no reason given"),
        ("exec 0<&-; kill -11 $$", "no reason given"),
        ("cat > /dev/null; exit 0", "no reason given"),
        ("cat > /dev/null; printf '\\377\\376' >&2; exit 1", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_dot_that_dies(dot, script, said):
    dot(script)
    with pytest.raises(viz.RenderError, match=f"'dot' could not draw png: {said}"):
        viz.draw(small()).render("png")


@posix
def test_a_dot_that_is_no_program(dot, tmp_path):
    dot("")
    (tmp_path / "dot").write_text("#!/no/such/interpreter\n")
    with pytest.raises(viz.RenderError, match="the command 'dot' does not run: No such file"):
        viz.draw(small()).render("png")


@posix
def test_a_dot_gets_the_fonts(dot, monkeypatch):
    monkeypatch.delenv("FONTCONFIG_FILE", raising=False)
    dot('cat > /dev/null; cat "$FONTCONFIG_FILE"')
    assert str(rendering._FONTS).encode() in viz.draw(small()).render("png")
    assert "FONTCONFIG_FILE" not in os.environ
    monkeypatch.setenv("FONTCONFIG_FILE", "/the/users/own")
    dot('cat > /dev/null; echo "$FONTCONFIG_FILE"')
    assert viz.draw(small()).render("png") == b"/the/users/own\n"


# Labels without end -------------------------------------------------------------------------------

LONG = 10**6


def named(x):
    return tg.exp(tg.Tensor([1.0, 2.0], name=x)).sum()


def grouped(x):
    with tg.group(x):
        return named("a")


def exp_called(x):
    return tg.def_primitive(x, np.exp, lambda g, y, x: g * y)


PICTURES = {
    "name of a leaf": lambda x: viz.draw(named(x)),
    "name of a result": lambda x: viz.draw(named("a").named(x)),
    "name in every formula": lambda x: viz.draw(sum(tg.Tensor(1.0, name=x) * k for k in range(9))),
    "note": lambda x: viz.draw(named("a"), notes={0: x}),
    "two notes": lambda x: viz.draw((a := named("a")), notes={2: x, a: x}),
    "group": lambda x: viz.draw(grouped(x)),
    "primitive": lambda x: viz.draw(exp_called(x)(tg.Tensor(1.0))),
    "what broke": lambda x: viz.draw(tg.exp(tg.Tensor(1e4, name=x)).named(x)),
    "levels": lambda x: viz.draw_levels({f"1{x}": (a := named("a")).named(x), f"2{x}": a + 0}),
    "comparison": lambda x: viz.draw_comparison(*traces(x)),
    "fusion": lambda x: viz.draw_fusion(tg.fuse(tg.composite_cross_entropy(
        tg.Tensor([1.0, 2.0], name=x), 0).named(x))),
}  # fmt: skip


def traces(name):
    a = tg.Tensor([1.0, 2.0], name=name)
    losses = tg.composite_cross_entropy(a, 0), tg.cross_entropy(a, 0)
    return [loss.named(name).backward(trace=True) for loss in losses]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("letter", ["x", "x ", "&", "\0", "𝄞", "x\n"], ids=ascii)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_text_of_a_million_characters_is_cut(kind, letter):
    text = letter * (LONG // len(letter))
    drawing = PICTURES[kind](text)
    for format in ("dot", "mmd"):
        content = drawing.render(format).decode()
        assert len(content) < 200_000
        assert f"({len(text)}" in content.replace("#40;", "(")
        assert "characters" in content
    assert len(drawing.render("svg")) < 400_000


def test_a_text_that_just_fits_is_whole():
    content = viz.draw(named("a"), notes={0: "x" * 240}).render("mmd").decode()
    assert "x" * 240 in content
    assert "characters" not in content


# Large graphs -------------------------------------------------------------------------------------


@posix
def test_a_layout_that_takes_long_is_made_again_quickly(dot, monkeypatch):
    monkeypatch.setattr(rendering, "_SOON", 0.5)
    dot('cat > /dev/null; case "$*" in *splines=line*) echo quick;; *) exec sleep 60;; esac')
    assert viz.draw(small()).render("png") == b"quick\n"


def test_a_graph_with_many_long_arrows_is_laid_out_quickly_from_the_start():
    x = tg.Tensor(1.0, name="x")
    y = x
    for _ in range(150):
        y = y * 1.001 + x
    drawing = viz.draw(y, max_nodes=10**4)
    assert len(drawing.scene.boxes) == 301
    assert "splines=line" in drawing.source
    assert len(drawing.render("svg")) > 100_000
    assert "splines" not in viz.draw(y).source
