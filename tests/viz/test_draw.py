import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_text import attributes, edges, svg_text
from pygraphviz import AGraph
from seed_graph import seed, traced

import tinygrad_sm as tg
import viz


def test_formulas_values_and_gradients_of_the_seed():
    _, loss = seed()
    text = svg_text(viz.draw(traced(loss)))
    for line in ("a", "e = exp(a)", "s = Σ(e)", "p = e / s", "log(p)", "(3,) float64"):
        assert line in text.splitlines()
    assert "L = −Σ" in text
    for number in ("7.389", "0.659", "11.21", "−0.341", "0.2424", "0.09857"):
        assert number in text.splitlines()


def test_arrows_say_what_backward_sent_back():
    _, loss = seed()
    text = svg_text(viz.draw(traced(loss)))
    assert {"numerator", "denominator"} <= {line.strip() for line in text.splitlines()}
    assert "∂: −0.1353  0  0" in text
    assert "∂: 0.08919" in text
    assert "∂ on an arrow: what backward sent back along it;" in text


def test_a_tensor_before_and_after_backward():
    _, loss = seed()
    before = svg_text(viz.draw(loss))
    assert "backward" not in before  # a picture of the forward pass does not complain
    assert "grad" not in before.splitlines()
    loss.backward()
    after = svg_text(viz.draw(loss))
    assert "−0.341" in after
    assert "∂" not in after


def test_a_leaf_that_no_gradient_reached():
    a, reached = tg.Tensor([1.0], name="a"), tg.Tensor([2.0], name="b")
    pick = tg.def_primitive("pick_second", lambda x, y: y.copy(), None, lambda g, z, x, y: g)
    drawing = viz.draw(traced(pick(a, reached)))
    assert [box.remarks for box in drawing.scene.boxes] == [("no gradient reached it",), (), ()]


def test_a_primitive_of_ones_own_is_written_as_it_says():
    ratio = tg.def_primitive(
        "ratio", np.divide, lambda g, q, f, d: g / d, lambda g, q, f, d: -g * q / d,
        notation="{} / {}",
    )  # fmt: skip
    norm = tg.def_primitive("norm", lambda x: x * x, lambda g, y, x: 2 * g * x, notation="‖{}‖²")
    a, b = tg.Tensor([1.0], name="a"), tg.Tensor([2.0], name="b")
    drawing = viz.draw(norm(ratio(a + b, ratio(a, b))))
    assert drawing.scene.boxes[-1].title == "‖((a + b) / (a / b))‖²"
    assert {"numerator", "denominator"} <= {arrow.label for arrow in drawing.scene.arrows}
    assert viz.draw(tg.exp(-(a + b))).scene.boxes[-1].title == "exp(−(a + b))"


def test_stages_are_nested_clusters_and_a_stage_entered_twice_is_two():
    x = tg.Tensor(1.0, name="x")
    with tg.group("outer"):
        with tg.group("inner"):
            y = tg.exp(x)
        y = y * y
    with tg.group("inner"):
        y = tg.log(y)
    graph = AGraph(string=viz.draw(y).source)
    outer, inner = sorted(graph.subgraphs(), key=lambda c: c.name)
    assert set(outer.nodes()) >= {"n1", "n2"}
    assert [c.nodes() for c in outer.subgraphs()] == [["n1"]]
    assert inner.nodes() == ["n3"]


def test_a_square_has_two_arrows():
    x = tg.Tensor(3.0, name="x")
    drawing = viz.draw(traced(x * x))
    assert edges(drawing) == [("n0", "n1"), ("n0", "n1")]
    assert svg_text(drawing).count("∂: 3") == 2
    assert drawing.mermaid.count("n0 -->") == 2


def test_numbers_stand_in_formulas_and_need_no_box():
    x = tg.Tensor([1.0, 2.0], name="x")
    drawing = viz.draw((2 * x - 1) ** 2 / -3)
    assert "(2 · x − 1)^2 / (−3)" in svg_text(drawing)
    assert "constant" not in svg_text(drawing)


@pytest.mark.parametrize(
    ("build", "formula"),
    [
        (lambda a, b: a - (b - a), "a − (b − a)"),
        (lambda a, b: a / (b * a), "a / (b · a)"),
        (lambda a, b: (a + b) * a, "(a + b) · a"),
        (lambda a, b: -(a + b), "−(a + b)"),
        (lambda a, b: a - (-b), "a − (−b)"),
        (lambda a, b: a**2, "a^2"),
        (lambda a, b: (a @ b).sum(axis=0), "Σ(a @ b, axis=0)"),
        (lambda a, b: abs(a.T), "|aᵀ|"),
        (lambda a, b: a.transpose(1, -2), "aᵀ"),
        (lambda a, b: a[0, 1:], "a[0, 1:]"),
        (lambda a, b: tg.maximum(a, 0), "maximum(a, 0)"),
        (lambda a, b: tg.take_along_axis(a, np.array([[0], [1]]), axis=1), "a[t]"),
        (lambda a, b: a[np.arange(2), [1, 0]], "a[0…1, [1 0]]"),
        (lambda a, b: np.einsum("ij,jk->ik", a, b), "einsum(a, b, subscripts=ij,jk->ik)"),
        (lambda a, b: np.cumsum(a, axis=1), "cumsum(a, axis=1)"),
        (lambda a, b: np.clip(a, 0, None), "clip(a, 0, ∞)"),
        (lambda a, b: np.dot(a, b), "a @ b"),
        (lambda a, b: np.trace(a), "Σ(diagonal(a))"),
        (lambda a, b: np.diagonal(a, 1), "diagonal(a, offset=1)"),
        (lambda a, b: np.linalg.norm(a), "√(Σ(a · a))"),
        (lambda a, b: np.linalg.norm(a, 3, 0), "√(Σ(|a|^3, axis=0), n=3)"),
        (lambda a, b: np.prod(np.flip(a, 0)), "Π(flip(a, axis=0))"),
    ],
)
def test_formulas(build, formula):
    a = tg.Tensor([[1.0, 2.0], [3.0, 4.0]], name="a")
    b = tg.Tensor([[1.0, 0.5], [0.5, 1.0]], name="b")
    assert formula in svg_text(viz.draw(build(a, b))).splitlines()


def test_formulas_of_unnamed_nodes_stay_short():
    x = tg.Tensor(1.0)
    for _ in range(60):
        x = x * x
    titles = [box.title for box in viz.draw(x).scene.boxes]
    assert max(map(len, titles)) < 80


def test_what_a_formula_has_no_room_for_still_says_what_it_does():
    a, b = tg.Tensor([1.0], name="a" * 20), tg.Tensor([1.0], name="b" * 20)
    assert titles(tg.exp((a + b) * 2.0))[-1] == "exp((… + …) · 2)"
    assert titles((a / b) ** 2.0)[-1] == "(… / …)^2"
    assert titles(tg.tanh(tg.exp(a) @ b))[-1] == "tanh(… @ …)"


def test_kinds_differ_without_colour():
    a = tg.Tensor([[1.0, 2.0]], name="a")
    drawing = viz.draw(tg.cross_entropy(a, [1]) + tg.exp(a).sum())
    nodes = [attributes(drawing, box.key) for box in drawing.scene.boxes]
    borders = {
        box.kind: (node["shape"], node["style"], node["peripheries"])
        for box, node in zip(drawing.scene.boxes, nodes, strict=True)
        if not box.output
    }
    assert set(borders) == {"leaf", "constant", "fused", "operation"}
    assert len(set(borders.values())) == 4
    assert [node["peripheries"] for node in nodes if node["peripheries"]] == ["2"]


def test_what_is_not_finite_stands_out():
    with np.errstate(all="ignore"):
        a = tg.Tensor([1000.0, 0.0], name="a")
        loss = tg.exp(a) / tg.exp(a).sum()
    drawing = viz.draw(loss)
    assert {"∞", "NaN"} <= set(svg_text(drawing).splitlines())
    assert attributes(drawing, "n1")["penwidth"] == "4"
    assert attributes(drawing, "n0")["penwidth"] != "4"
    large = np.where(np.arange(400) % 2, np.inf, 1.0)
    assert "⚠ value: 200 × ∞ of 400" in svg_text(viz.draw(tg.Tensor(large)))


def overflowing():
    a = tg.Tensor([1000.0, 0.0], name="a")
    with np.errstate(all="ignore"):
        e = tg.exp(a)
        loss = -tg.log(e / e.sum())[1]
        return a, loss, traced(loss)


def test_the_node_where_a_graph_broke_is_marked_with_the_cause():
    _, loss, trace = overflowing()
    for source in (loss, tg.graph(loss), trace):
        drawing = viz.draw(source)
        assert "⚠ broke: exp overflowed: exp(1000) is above" in svg_text(drawing)
        assert [box.title for box in drawing.scene.boxes if box.alarming] == ["exp(a)"]
        assert "class n1 warning" in drawing.mermaid


def test_a_vjp_that_broke_is_marked_on_the_way_back():
    a = tg.Tensor([0.0, 1.0], name="a")
    with np.errstate(all="ignore"):
        drawing = viz.draw(traced(tg.sqrt(a).sum()))
    marked = [box for box in drawing.scene.boxes if box.alarming]
    assert [box.title for box in marked] == ["√(a)"]
    assert marked[0].warnings[0].startswith("broke on the way back: ")


def test_a_note_and_the_mark_of_what_broke_stand_together():
    _, loss, _ = overflowing()
    drawing = viz.draw(loss, warnings={1: "look here"})
    box = next(box for box in drawing.scene.boxes if box.key == "n1")
    assert [text.split(":")[0] for text in box.warnings] == ["broke", "look here"]


def test_warnings_mark_nodes_and_notes_do_not():
    a, loss = seed()
    node = tg.graph(loss).nodes[1]
    drawing = viz.draw(loss, warnings={node: "this node broke", a: "here \\N <x>", 2: "by id"})
    text = svg_text(drawing)
    assert all(f"⚠ {note}" in text for note in ("this node broke", "here \\N <x>", "by id"))
    assert attributes(drawing, "n1")["penwidth"] == "4"
    quiet = viz.draw(loss, notes={node: "remember e", a: "given"})
    assert {"remember e", "given"} <= set(svg_text(quiet).splitlines())
    assert "⚠" not in svg_text(quiet)
    assert attributes(quiet, "n1")["penwidth"] != "4"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(dtype):
    assert f"(2,) {dtype}" in svg_text(viz.draw(tg.exp(tg.Tensor([1.0, 2.0], dtype=dtype))))


def test_large_arrays_are_summed_up_and_empty_ones_said():
    x = tg.Tensor(np.arange(1000.0).reshape(100, 10), name="x")
    shown = svg_text(viz.draw(x)).splitlines()
    assert {"min", "mean", "max", "0", "999"} <= set(shown)
    assert "500" in shown  # three digits of a summary
    assert "no elements" in svg_text(viz.draw(tg.Tensor(np.zeros((0, 3)))))


def test_an_arrow_has_two_lines_of_a_large_array_and_one_figure_of_equal_elements():
    x = tg.Tensor(np.arange(100.0).reshape(50, 2), name="x")
    text = svg_text(viz.draw(traced((x * x).sum())))
    assert "∂: 0 … 99" in text
    assert "mean 49.5" in text
    assert "∂: all 1" in text


def test_what_rounding_leaves_of_a_mean_is_called_so():
    x = tg.Tensor([0.1, 0.2, -0.3] * 100, name="x")
    assert "≈ 0" in svg_text(viz.draw(x))


def test_constants_that_only_pick_are_called_so():
    a = tg.Tensor([[1.0, 2.0], [3.0, 4.0]], name="a")
    t, u = np.array([[0], [1]]), np.array([[1], [1]])
    one = tg.take_along_axis(a, t, axis=1)
    assert [box.title for box in viz.draw(one).scene.boxes] == ["a", "t", "a[t]"]
    two = one + tg.take_along_axis(a, u, axis=1)
    assert {"a[index 1]", "a[index 3]"} <= {box.title for box in viz.draw(two).scene.boxes}
    used = one * np.array([[1.0], [2.0]])
    assert "constant c3" in {box.title for box in viz.draw(used).scene.boxes}


def test_a_label_of_an_arrow_that_passes_a_box_stays_inside_its_cluster():
    _, loss = seed()
    graph = AGraph(string=viz.draw(traced(loss)).source)
    softmax = next(c for c in graph.subgraphs() if set(c.nodes()) >= {"n1", "n2", "n3"})
    label = next(node for node in softmax.nodes() if node.startswith("label"))
    assert "numerator" in label.attr["label"]
    assert "∂: −0.1353" in label.attr["label"]
    assert {("n1", label), (label, "n3")} <= set(graph.edges())


def test_second_order_graph():
    x = tg.Tensor([1.0, 2.0], name="x")
    g = tg.grad((x * x * x).sum(), x, create_graph=True)
    g.name = "g"
    assert "g = " in svg_text(viz.draw(traced(g)))
    loss = (x * x).sum()
    loss.backward(create_graph=True)  # gradients are Tensors then
    assert "grad" in svg_text(viz.draw(loss)).splitlines()
    x.zero_grad()


def test_a_large_graph_is_cut_with_a_note_in_seconds():
    x = tg.Tensor(1.0, name="x")
    y = x
    for _ in range(1000):
        y = y * 1.001 + x
    started = time.perf_counter()
    drawing = viz.draw(traced(y))
    text = svg_text(drawing)
    assert time.perf_counter() - started < 10
    assert "… 1941 nodes left out …" in text
    assert "This graph has 2001 nodes" in text
    assert len(AGraph(string=drawing.source).nodes()) == 61
    assert "… 1941 nodes left out …" in drawing.mermaid
    assert all(arrow.source != arrow.target for arrow in drawing.scene.arrows)


def test_max_nodes():
    x = tg.Tensor([2.0, 1.0, 0.1])
    drawing = viz.draw(((x + 1) * 2).exp().sum(), max_nodes=3)
    assert [box.key for box in drawing.scene.boxes] == ["n0", "cut", "n5", "n6"]
    _, loss = seed()
    assert len(viz.draw(loss, max_nodes=9).scene.boxes) == 9


def test_groups_are_drawn_as_one_box_before_anything_is_cut():
    _, loss = seed()
    trace = traced(loss)
    drawing = viz.draw(trace, max_nodes=3)
    assert [(box.title, box.kind) for box in drawing.scene.boxes] == [
        ("a", "leaf"), ("softmax", "group"), ("cross-entropy", "group")
    ]  # fmt: skip
    assert "3 nodes · (3,)" in svg_text(drawing)
    assert "This graph has 9 nodes: groups are drawn as one box each." in svg_text(drawing)
    assert edges(drawing) == [("n0", "n3"), ("n3", "n8")]
    cut = viz.draw(trace, max_nodes=2).scene.boxes
    assert [box.key for box in cut] == ["n0", "cut", "n8"]


def test_the_innermost_groups_are_drawn_as_one_box_first():
    x = tg.Tensor([1.0, 2.0], name="x")
    with tg.group("network"):
        for i in range(3):
            with tg.group(f"layer {i}"):
                x = tg.tanh(tg.exp(-x))
        x = x.sum()
    titles = [[b.title for b in viz.draw(x, max_nodes=n).scene.boxes] for n in (11, 8, 4)]
    assert titles[0] != titles[1]
    assert titles[1] == ["x", "layer 0", "layer 1", "layer 2", "Σ(tanh(exp(−tanh(…))))"]
    assert titles[2] == ["x", "network"]
    single = tg.Tensor([1.0], name="x")
    with tg.group("alone"):
        y = tg.exp(single)
    titles = [b.title for b in viz.draw(tg.exp(tg.exp(-y)).sum(), max_nodes=3).scene.boxes]
    assert titles == ["x", "… 3 nodes left out …", "exp(exp(−exp(x)))", "Σ(exp(exp(−exp(…))))"]
    broken = tg.Tensor([1000.0], name="a")
    with np.errstate(all="ignore"), tg.group("stage"):
        y = -tg.exp(broken)
    (_, stage) = viz.draw(y, max_nodes=2).scene.boxes
    assert "broke: exp overflowed" in stage.warnings[0]


# Text ---------------------------------------------------------------------------------------------


def titles(output):
    return [box.title for box in viz.draw(output).scene.boxes]


@pytest.mark.parametrize("name", ["x−μ", "x-y", "x·y", "a+b", "−x", "Σx", "a/b", "W@h", "f(x)+1"])
def test_a_name_that_is_a_formula_is_put_in_parentheses(name):
    x = tg.Tensor([1.0, 2.0], name=name)
    assert titles(x**2)[-1] == f"({name})^2"
    assert titles(3 / x)[-1] == f"3 / ({name})"
    assert titles(tg.exp(x))[-1] == f"exp({name})"
    assert titles(x + 1)[0] == name


@pytest.mark.parametrize(
    "name", ["x", "σ²", "x'", "W_1", "f(x−μ)", "x[i+1]", "hidden layer", "이름", "L₁"]
)
def test_a_name_that_is_none_stands_alone(name):
    assert titles(tg.Tensor([1.0], name=name) ** 2)[-1] == f"{name}^2"


def test_names_that_several_nodes_have_are_numbered():
    """L + L would be 2L."""
    a = tg.Tensor([2.0, 1.0, 0.1], name="a")
    total = tg.cross_entropy(a, 0) + tg.cross_entropy(a * 2, 1)
    found = titles(total)
    assert found[-1] == "L₁ + L₂"
    assert "L₁ = SoftmaxWithLoss(a, 0)" in found
    assert "L₂ = SoftmaxWithLoss(a · 2, 1)" in found
    assert "a" in found
    assert viz.draw(total).text == str(tg.graph(total))  # the graph's own names stay


HOSTILE = [
    'quote " and \'', "back\\slash \\N \\G \\n \\\\", "<b>bold</b>", "a|b{c}", "&amp; &#65; &",
    "]]> -->", "이름", "emoji 😀", "two\nlines", "  spaces  within ", "%%", "\\", ";}]", "end",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_drawn_as_themselves(name):
    with tg.group(name):
        x = tg.Tensor([1.0, 2.0], name=name)
        y = tg.exp(x)
    lines = svg_text(viz.draw(y)).splitlines()
    x.name, y.name = None, name
    lines += svg_text(viz.draw(y)).splitlines()
    shown = [" ".join(line.split()) for line in lines]
    for part in name.split("\n"):
        assert shown.count(" ".join(part.split())) >= 2  # the leaf and the cluster
    last = " ".join(name.split("\n")[-1].split())
    assert any(line.startswith(f"{last} = exp(") for line in shown)


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_any_name_comes_back_from_the_svg(name):
    text = svg_text(viz.draw(tg.Tensor([1.0], name=name)))
    shown = viz.formula.legible(name).replace("\N{NO-BREAK SPACE}", " ")
    assert "".join(shown.split()) in "".join(text.split())


def test_names_too_long_are_cut_and_say_so():
    text = svg_text(viz.draw(tg.Tensor([1.0], name="w" * 5000)))
    assert "(5000 characters)" in text
    assert text.count("w") < 300


def test_control_characters_become_visible():
    assert "␀␛x\N{REPLACEMENT CHARACTER}" in svg_text(
        viz.draw(tg.Tensor([1.0], name="\0\x1bx\ud800"))
    )


def test_no_name_turns_the_direction_of_what_follows():
    drawing = viz.draw(tg.Tensor([1.0], name="a\u202eb\u2066c"))
    for text in (drawing.source, drawing.mermaid, drawing.render("svg").decode()):
        assert not {"\u202e", "\u2066"} & set(text)
    assert "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c" in drawing.source


# Sameness -----------------------------------------------------------------------------------------

_PROGRAM = """
import sys
import tinygrad_sm as tg
import viz
from seed_graph import seed, traced
from tinygrad_sm.cli.examples import linear_levels
for drawing in (
    viz.draw(traced(seed()[1])),
    viz.draw_comparison(tg.compare([2.0, 1.0, 0.1], [1, 0, 0])),
    viz.draw_fusion(tg.fuse(seed()[1])),
    viz.draw_levels(linear_levels()),
):
    for format in ("dot", "mmd", "svg"):
        sys.stdout.buffer.write(drawing.render(format))
"""


def test_the_same_program_gives_the_same_bytes():
    def run(hash_seed: str) -> bytes:
        folders = [str(Path(__file__).parent), *sys.path]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(folders)},
            capture_output=True,
            check=True,
        )
        assert done.stderr == b""
        return done.stdout

    assert run("1") == run("2")


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda t: viz.draw(3), TypeError, "draw needs a Tensor"),
        (lambda t: viz.draw(t, direction="up"), ValueError, "direction must be 'TB' or 'LR'"),
        (lambda t: viz.draw(t, max_nodes=1), ValueError, "max_nodes must be an integer"),
        (lambda t: viz.draw(t, notes={99: "x"}), ValueError, "there is no node 99"),
        (
            lambda t: viz.draw(t, notes={"a": "x"}),
            TypeError,
            "notes must belong to a Node, a Tensor",
        ),
        (lambda t: viz.draw(t, notes={0: 1}), TypeError, "notes must be text; got int"),
        (lambda t: viz.draw(t, notes={tg.Tensor(1.0): "x"}), ValueError, "took no part"),
    ],
)
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        call(tg.exp(tg.Tensor(1.0)))
    assert isinstance(caught.value, tg.TinygradError)
    assert "\n" not in str(caught.value)


def test_groups_nested_out_of_sight_are_told_not_drawn():
    x = tg.Tensor([1.0, 2.0])
    with ExitStack() as nested:
        for i in range(3000):
            nested.enter_context(tg.group(f"stage {i}"))
        y = (x * 2.0).sum()
    drawing = viz.draw(y)
    for text in (drawing.source, drawing.render("mmd").decode()):
        words = re.sub(r"<[^>]*>|#\d+;|\s+", " ", text)
        assert re.search(r"stage 31 .?groups inside are left out", words)
        assert text.count("subgraph g") + text.count("subgraph cluster_g") == 32
