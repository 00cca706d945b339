"""Several levels of one loss in one picture, with the bytes that each keeps."""

import numpy as np
import pytest
from picture_text import svg_text

import tinygrad_sm as tg
import viz
from tinygrad_sm.study.kept import kept_for_backward

N, D, V = 32, 4, 100
LOGITS = N * V * 8


@pytest.fixture(scope="module")
def levels():
    random = np.random.default_rng(0)
    x = tg.Tensor(random.normal(size=(N, D)), name="x")
    w = tg.Tensor(random.normal(size=(V, D)), name="W")
    t = random.integers(0, V, N)
    return {
        "primitives": tg.composite_cross_entropy((x @ w.T).named("a"), t),
        "SoftmaxWithLoss": tg.cross_entropy((x @ w.T).named("a"), t),
        "LinearSoftmaxWithLoss": tg.linear_cross_entropy(x, w, t),
    }


def test_each_level_says_what_it_keeps(levels):
    drawing = viz.draw_levels(levels)
    titles = [cluster.title for cluster in drawing.scene.clusters.values()]
    assert [title.split(": ")[0] for title in titles] == [
        "1. primitives", "2. SoftmaxWithLoss", "3. LinearSoftmaxWithLoss"
    ]  # fmt: skip
    rows = {row.label: row.cells[0][0] for box in drawing.scene.boxes for row in box.rows}
    assert rows[f"gradient ({N}, {V})"] == "25 KiB"
    assert rows[f"gradient of weight ({V}, {D})"] == "3.125 KiB"
    assert f"An array of shape ({N}, {V}) is kept by 1 and 2, never by 3." in svg_text(drawing)


def test_the_linear_node_is_alone_and_holds_no_logits(levels):
    drawing = viz.draw_levels(levels)
    third = [box for box in drawing.scene.boxes if box.path == ("level2",)]
    assert [box.kind for box in third] == ["fused"]
    assert not any(f"({N}, {V})" in row.label for row in third[0].rows)


def test_same_inputs_on_the_left_same_output_on_the_right(levels):
    drawing = viz.draw_levels(levels)
    first, *_, last = drawing.scene.boxes
    assert [row.label for row in first.rows] == ["x", "W", "t"]
    assert sum(arrow.source == first.key for arrow in drawing.scene.arrows) == 3
    assert sum(arrow.target == last.key for arrow in drawing.scene.arrows) == 3
    assert last.output
    assert len({row.cells for row in last.rows}) == 1
    drawing.render("svg")


def test_what_a_graph_keeps_is_its_memory_and_no_view(levels):
    view = tg.graph(levels["primitives"])
    kept = kept_for_backward(view)
    by_op = {node.op: sum(k.bytes for k in kept[node.id]) for node in view.nodes}
    assert by_op["leaf"] == by_op["constant"] == by_op["transpose"] == by_op["reshape"] == 0
    assert by_op["matmul"] == by_op["exp"] == by_op["log"] == LOGITS


def test_a_gradient_that_backward_took_is_kept_no_more():
    a = tg.Tensor(np.zeros((N, V)))
    loss = tg.cross_entropy(a, np.zeros(N, int))
    assert [k.what for k in kept_for_backward(tg.graph(loss))[-1]] == ["result", "gradient"]
    loss.backward()
    assert [k.what for k in kept_for_backward(tg.graph(loss))[-1]] == ["result"]


def test_a_level_that_keeps_nothing_is_its_input():
    x = tg.Tensor([1.0, 2.0], name="x")
    drawing = viz.draw_levels({"nothing": x, "exp": tg.exp(x)})
    assert drawing.scene.clusters["level0"].title == "1. nothing: 0 B kept"
    ends = [(arrow.source, arrow.target) for arrow in drawing.scene.arrows]
    keys = [box.key for box in drawing.scene.boxes]
    assert keys == ["inputs", "l1n1", "output"]
    assert ends == [("inputs", "l1n1"), ("inputs", "output"), ("l1n1", "output")]
    drawing.render("svg")


def test_deterministic(levels):
    assert viz.draw_levels(levels).source == viz.draw_levels(levels).source


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda x: viz.draw_levels([x]), TypeError, "needs a dictionary from titles to output"),
        (lambda x: viz.draw_levels({"x": 3}), TypeError, "needs a dictionary from titles"),
        (lambda x: viz.draw_levels({"x": x}), ValueError, "at least two outputs; got 1"),
        (
            lambda x: viz.draw_levels({"x": tg.exp(x), "y": tg.exp(tg.Tensor(2.0))}),
            ValueError,
            "graphs of the same leaves",
        ),
    ],
)
def test_what_is_no_set_of_levels(call, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        call(tg.Tensor(1.0))
    assert isinstance(caught.value, tg.TinygradError)
