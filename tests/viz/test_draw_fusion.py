"""Before and after `fuse` in one picture."""

import cProfile
import pstats

import numpy as np
import pytest
from picture_text import attributes, edges, svg_text
from pygraphviz import AGraph
from seed_graph import seed

import tinygrad_sm as tg
import viz

RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(4, 5)), np.array([0, 2, 1, 1])
W1, W2 = RNG.normal(size=(5, 8)), RNG.normal(size=(8, 3))


def hidden():
    w1 = tg.Tensor(W1, name="W1")
    return w1, tg.tanh(X @ w1).named("h")


def loss_of(logits, t):
    e = tg.exp(logits)
    p = e / e.sum(axis=1, keepdims=True)
    return -(np.eye(logits.shape[1])[t] * tg.log(p)).sum()


def boxes(drawing):
    return {box.key: box for box in drawing.scene.boxes}


def positions(drawing):
    """The centre of each box in the rendered picture, by key."""
    graph = AGraph(string=drawing.source)
    graph.layout(prog="dot")
    return {
        node: tuple(map(float, node.attr["pos"].split(",")))
        for node in graph.nodes()
        if node in boxes(drawing)
    }


@pytest.fixture(scope="module")
def of_seed():
    return viz.draw_fusion(tg.fuse(seed()[1]))


def test_the_seed_becomes_one_node(of_seed):
    result = tg.fuse(seed()[1])
    text = svg_text(of_seed)
    assert {"before: 7 operations", "after: 1 operation"} <= set(text.splitlines())
    assert "rule: " + result.rewrites[0].rule in " ".join(text.split())
    assert result.rewrites[0].because in " ".join(text.split())
    assert "6 operations saved," in text
    assert "88 B less kept for backward" in text
    assert str(of_seed) == str(result)


def test_what_was_matched_is_outlined_by_more_than_colour(of_seed):
    graph = AGraph(string=of_seed.source)
    frame = graph.get_subgraph("cluster_before").get_subgraph("cluster_match0")
    matched = {node for node in frame.nodes() if not node.startswith("note")}
    assert matched == {"b1", "b2", "b3", "b4", "b6", "b7", "b8"}
    style = frame.graph_attr
    assert "dashed" in style["style"]
    assert float(style["penwidth"]) == 2
    assert attributes(of_seed, "a2")["shape"] == "box3d"


def test_an_arrow_leads_to_what_replaces_the_match(of_seed):
    arrows = [arrow for arrow in of_seed.scene.arrows if arrow.tone == "rewrite"]
    assert [(arrow.source, arrow.target) for arrow in arrows] == [("b8", "a2")]
    assert ("b8", "a2") in edges(of_seed)


def test_what_remains_is_at_the_same_height_and_in_the_same_order():
    w1, h = hidden()
    w2, b = tg.Tensor(W2, name="W2"), tg.Tensor(np.zeros(3), name="b")
    regular = 0.01 * (w1 * w1).sum()
    result = tg.fuse(loss_of(tg.relu(h @ w2 + b), T) + regular)
    drawing = viz.draw_fusion(result)
    at = positions(drawing)
    pairs = [(f"b{b}", f"a{a}") for b, a in result.unchanged.items()]
    pairs = [pair for pair in pairs if set(pair) <= set(at)]
    assert len(pairs) > 8
    rows: dict[float, list[tuple[str, str]]] = {}
    for before, after in pairs:
        assert at[before][1] == pytest.approx(at[after][1])
        rows.setdefault(round(at[before][1]), []).append((before, after))
    for row in rows.values():
        left = sorted(row, key=lambda pair: at[pair[0]][0])
        assert left == sorted(row, key=lambda pair: at[pair[1]][0])
    assert max(at[before][0] for before, _ in pairs) < min(at[after][0] for _, after in pairs)


def test_two_losses_are_two_matches_with_numbered_targets():
    _, h = hidden()
    z = tg.relu(h @ tg.Tensor(W2, name="W2"))
    result = tg.fuse(loss_of(z, T) + tg.exp(loss_of(h, T)))
    assert len(result.rewrites) == 2
    drawing = viz.draw_fusion(result)
    frames = [c for c in drawing.scene.clusters.values() if c.marked]
    assert len(frames) == 2
    assert {"y₁", "y₂", "t₁", "t₂"} <= {box.title for box in drawing.scene.boxes}
    assert sum(arrow.tone == "rewrite" for arrow in drawing.scene.arrows) == 2
    drawing.render("svg")


def test_nothing_found_says_so_and_what_was_missing():
    a = tg.Tensor([1.0, 2.0, 3.0], name="a")
    e = tg.exp(a)
    result = tg.fuse(-tg.log(e / (e.sum() + 1e-7))[0])
    drawing = viz.draw_fusion(result)
    text = svg_text(drawing)
    assert "nothing to fuse was found in 7 operations" in text
    assert "⚠ almost 'softmax': the denominator is not" in text
    assert [box.key for box in drawing.scene.boxes if box.alarming] == ["b5"]
    assert not any(key.startswith("a") for key in boxes(drawing))


def test_a_near_miss_beside_a_success_is_a_remark():
    a = tg.Tensor([[1.0, 2.0, 3.0]], name="a")
    e = tg.exp(a)
    drawing = viz.draw_fusion(tg.fuse(-tg.log(e / e.sum(axis=1, keepdims=True) + 1e-7).sum()))
    assert "almost 'log of softmax'" in " ".join(svg_text(drawing).split())
    assert not any(box.alarming for box in drawing.scene.boxes)


def test_where_the_given_graph_broke_is_marked():
    a = tg.Tensor([1000.0, 0.0], name="a")
    with np.errstate(all="ignore"):
        e = tg.exp(a)
        drawing = viz.draw_fusion(tg.fuse(-tg.log(e / e.sum())[1]))
    assert [box.key for box in drawing.scene.boxes if box.alarming] == ["b1"]
    outputs = [box.rows[0].cells for box in drawing.scene.boxes if box.output]
    assert outputs == [(("∞",),), (("1000",),)]


def test_a_large_graph_is_drawn_around_its_matches():
    w = tg.Tensor(W1, name="W")
    h = X @ w
    for _ in range(500):
        h = tg.tanh(h) + 0.1
    drawing = viz.draw_fusion(tg.fuse(loss_of(h, T)))
    assert len(drawing.scene.boxes) < 30
    assert "nodes are drawn: those around the matches." in svg_text(drawing)


def calls(make):
    """How many calls of functions it takes to draw what fuse finds in what `make` makes."""
    result, profile = tg.fuse(make()), cProfile.Profile()
    profile.runcall(lambda: viz.draw_fusion(result))
    return sum(stat[0] for stat in pstats.Stats(profile).stats.values())


def scaled(n):
    x = tg.Tensor(W1[0], name="x")
    for _ in range(n):
        x = x * 1.0
    return x.sum()


def penalised(n):
    x = tg.Tensor(W2)
    for i in range(n):
        x = x + np.full(W2.shape, 1e-3 * i)
    return loss_of(x, [0] * 8)


@pytest.mark.parametrize(
    "make",
    [
        scaled,
        penalised,
        lambda n: sum(loss_of(tg.Tensor(W2 + i), [i % 3] * 8) for i in range(n)),
        lambda n: sum(tg.log(tg.softmax(tg.Tensor(W2)) + 1e-7).sum() for _ in range(n)),
    ],
)
def test_the_work_grows_with_the_graph_and_no_faster(make):
    make(3)
    assert calls(lambda: make(240)) < 5.5 * calls(lambda: make(60))


def test_of_a_match_that_is_too_large_the_end_is_drawn():
    h = tg.Tensor(W2, name="a")
    for _ in range(500):
        h = h - 0.001
    result = tg.fuse(loss_of(h, [0] * 8))
    drawing = viz.draw_fusion(result)
    assert len(drawing.scene.boxes) < 40
    assert f"b{result.before.output}" in boxes(drawing)
    assert f"a{result.after.output}" in boxes(drawing)
    drawing.render("svg")


def test_mermaid_has_both_sides(of_seed):
    text = of_seed.mermaid
    assert 'subgraph match0["rule' in text
    assert "b8 -.-> a2" in text


def test_deterministic(of_seed):
    assert viz.draw_fusion(tg.fuse(seed()[1])).source == of_seed.source


def test_only_a_result_of_fuse_is_drawn():
    with pytest.raises(TypeError, match="draw_fusion needs what fuse returned; got Tensor"):
        viz.draw_fusion(tg.Tensor(1.0))
