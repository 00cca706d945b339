import numpy as np
import pytest
from picture_text import attributes, edges, svg_text
from pygraphviz import AGraph
from seed_graph import seed, traced

import tinygrad_sm as tg
import viz


def width_of(drawing):
    """In points, of which a page at 72 per inch has 1 per pixel."""
    return float(drawing.render("svg").decode().split('width="')[1].split("pt")[0])


@pytest.fixture(scope="module")
def comparison():
    return tg.compare([2.0, 1.0, 0.1], [1, 0, 0])


def test_the_two_terms_stand_where_they_meet(comparison):
    drawing = viz.draw_comparison(comparison)
    meet = next(box for box in drawing.scene.boxes if box.title == "e = exp(a)")
    terms = {row.tone: row.cells[0] for row in meet.rows if row.tone != "plain"}
    assert terms == {
        "numerator": ("−1", "0", "0"),
        "denominator": ("0.659", "0.2424", "0.09857"),
        "gradient": ("−0.341", "0.2424", "0.09857"),
    }
    text = svg_text(drawing)
    assert {"−y, through", "+ p·Σy, through", "the numerator", "the denominator"} <= set(
        text.splitlines()
    )
    assert "Composite and fused agree" in text


def test_both_sides_share_logits_target_and_loss(comparison):
    drawing = viz.draw_comparison(comparison)
    found = edges(drawing)
    assert ("c0", "c1") in found
    assert ("c0", "f2") in found
    assert ("c5", "c6") in found  # each side has a y of its own: no arrow crosses another
    assert ("f1", "f2") in found
    titles = {box.key: box.title for box in drawing.scene.boxes}
    assert titles["c5"] == titles["f1"] == "y"
    assert [source for source, target in found if target == "loss"] == ["c8", "f2"]
    assert attributes(drawing, "f2")["shape"] == "box3d"


def test_what_the_one_node_replaces_is_framed(comparison):
    graph = AGraph(string=viz.draw_comparison(comparison).source)
    frame = graph.get_subgraph("cluster_composite")
    assert set(frame.nodes()) == {"c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"}
    assert [len(stage.nodes()) for stage in frame.subgraphs()] == [3, 5]


def test_the_denominators_term_takes_the_way_through_the_sum(comparison):
    arrows = viz.draw_comparison(comparison).scene.arrows
    ways = {tone: [(x.source, x.target) for x in arrows if x.tone == tone]
            for tone in ("numerator", "denominator")}  # fmt: skip
    assert ways == {"numerator": [("c3", "c1")], "denominator": [("c3", "c2"), ("c2", "c1")]}


def test_fits_a_readme(comparison):
    assert width_of(viz.draw_comparison(comparison)) < 1050


@pytest.mark.parametrize("shape", [(2, 3), (128, 10)])
def test_a_batch_is_readable_too(shape):
    random = np.random.default_rng(0)
    compared = tg.compare(random.normal(size=shape), random.integers(0, shape[1], shape[0]))
    drawing = viz.draw_comparison(compared)
    assert width_of(drawing) < 1250
    titles = [box.title for box in drawing.scene.boxes]
    assert "log(p)[t]" in titles
    assert not any("reshape" in title for title in titles)  # it stands in the next formula


@pytest.mark.parametrize("form", ["naive", "logsumexp"])
@pytest.mark.parametrize(("shape", "axis"), [((128, 10), 1), ((10, 128), 0), ((30,), 0)])
def test_terms_of_large_arrays_are_elements_that_add_up(form, shape, axis):
    """Not min, mean and max, of which only the means add up."""
    random = np.random.default_rng(0)
    target = random.integers(0, shape[axis], np.delete(shape, axis))
    if len(shape) > 1:
        target[0] = -100  # a row that does not count shows nothing
    compared = tg.compare(random.normal(size=shape), target, form=form, axis=axis)
    boxes = viz.draw_comparison(compared).scene.boxes
    (meet,) = [b for b in boxes if any(row.tone == "numerator" for row in b.rows)]
    assert len({row.heads for row in meet.rows}) == 1
    assert all(head.startswith("class ") for head in meet.rows[0].heads)
    *_, one, other, total = [
        [float(cell.replace("−", "-")) for cell in row.cells[0]]
        for row in meet.rows
        if row.label != "grad\nfused"
    ]
    assert np.add(one, other) == pytest.approx(total, rel=2e-3)
    assert f"3 of {shape[axis]} classes" in meet.subtitle
    assert ("row 1 of 128" in meet.subtitle) == (len(shape) > 1)


def test_what_the_sum_of_the_terms_is_the_gradient_of_is_said(comparison):
    boxes = {box.key: box for box in viz.draw_comparison(comparison).scene.boxes}
    assert boxes["c1"].rows[-1].label == "= ∂L/∂a"  # in the box of e
    assert boxes["f2"].rows[-1].label == "Σy·p − y\n= ∂L/∂a"
    assert boxes["c1"].rows[-1].cells == boxes["f2"].rows[-1].cells


def test_only_the_first_node_that_broke_has_a_thick_border():
    drawing = viz.draw_comparison(tg.compare([1000.0, 0.0, 0.0], [1, 0, 0]))
    assert [box.title for box in drawing.scene.boxes if box.alarming] == ["e = exp(a)"]


@pytest.mark.parametrize("form", ["naive", "shifted", "logsumexp"])
@pytest.mark.parametrize(
    ("shape", "target", "options"),
    [
        ((3,), 1, {}),
        ((2, 3), [0, 2], {}),
        ((2, 3), [[1, 1, 0], [0, 0, 2]], {"reduction": "none"}),
        ((64, 20), [3] * 64, {"label_smoothing": 0.1, "temperature": 2.0}),
        ((3, 4), [1, -100, 2], {"weight": [1.0, 2.0, 3.0, 4.0], "reduction": "sum"}),
    ],
)
def test_every_form_and_option_is_drawn(form, shape, target, options):
    logits = np.random.default_rng(0).normal(size=shape)
    drawing = viz.draw_comparison(tg.compare(logits, target, form=form, **options))
    tones = {row.tone for box in drawing.scene.boxes for row in box.rows}
    assert {"numerator", "denominator", "gradient"} <= tones
    drawing.render("svg")
    assert drawing.mermaid.startswith("flowchart LR")


def test_a_composite_that_broke_says_where_and_why():
    drawing = viz.draw_comparison(tg.compare([1000.0, 0.0], [0, 1]))
    text = svg_text(drawing)
    assert "⚠ broke: exp overflowed" in text
    assert "Composite and fused differ" in text
    assert attributes(drawing, "c1")["penwidth"] == "4"


def test_two_traces_will_do():
    a, composite = seed()
    fused = tg.cross_entropy(a, np.array([1, 0, 0]), reduction="sum")
    drawing = viz.draw_comparison(traced(composite), traced(fused))
    text = svg_text(drawing)
    assert "−0.1353" in text  # as it arrives at e
    assert "Σy·p − y" in text
    assert "= ∂L/∂e" in text


def reshaped(a):
    e = tg.exp(a)
    return e / e.sum().reshape(1)


def squared(a):
    e = tg.exp(a * a)
    return e / e.sum()


@pytest.mark.parametrize("p_of", [reshaped, squared])
def test_every_arrow_leads_from_one_box_to_another(p_of):
    """Where what stands in the next formula is on the way, and where a node goes one way twice."""
    a, y = tg.Tensor([2.0, 1.0, 0.1], name="a"), np.array([1.0, 0.0, 0.0])
    composite = -tg.sum(y * tg.log(p_of(a)))
    drawing = viz.draw_comparison(traced(composite), traced(tg.cross_entropy(a, y)))
    ends = {(arrow.source, arrow.target) for arrow in drawing.scene.arrows}
    assert {key for pair in ends for key in pair} == {box.key for box in drawing.scene.boxes}
    assert not any(source == target for source, target in ends)
    assert sum(arrow.tone == "denominator" for arrow in drawing.scene.arrows) == 2


def test_deterministic(comparison):
    again = tg.compare([2.0, 1.0, 0.1], [1, 0, 0])
    assert viz.draw_comparison(comparison).source == viz.draw_comparison(again).source


def test_what_cannot_be_compared(comparison):
    with pytest.raises(TypeError, match="draw_comparison needs a Comparison"):
        viz.draw_comparison(3)
    with pytest.raises(TypeError, match="draw_comparison needs a Comparison"):
        viz.draw_comparison(comparison.composite_trace)
    other = tg.compare([1.0, 2.0], [1, 0])
    with pytest.raises(ValueError, match="none in common"):
        viz.draw_comparison(comparison.composite_trace, other.fused_trace)
