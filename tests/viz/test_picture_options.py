"""The options of pictures: what each does, that nothing moves, and what is refused."""

import inspect
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from picture_text import svg_text
from seed_graph import seed, traced

import tinygrad_sm as tg
import viz
from viz.options import DEFAULTS, Choice, DrawOptions, PictureOptions
from viz.style import DARK, LIGHT, MONO


@pytest.fixture(scope="module")
def trace():
    return traced(seed()[1])


def places(drawing):
    """Where each box, arrow and frame of the svg is, and how large the picture."""
    root = ElementTree.fromstring(drawing.render("svg"))
    shapes = {}
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        for shape in group:
            for what in ("points", "d"):
                if what in shape.attrib:
                    shapes.setdefault(group.attrib["id"], []).append(shape.attrib[what])
    return root.attrib["viewBox"], shapes


@pytest.mark.parametrize("direction", ["TB", "LR"])
def test_nothing_moves_between_pictures_with_and_without_numbers(trace, direction):
    whole = places(viz.draw(trace, direction=direction))
    for off in ({"gradients": False}, {"values": False}, {"values": False, "gradients": False}):
        assert places(viz.draw(trace, direction=direction, **off)) == whole
    assert places(viz.draw(trace, theme="mono", direction=direction)) == whole


def test_what_is_not_seen_is_not_in_the_file(trace):
    forward = svg_text(viz.draw(trace, gradients=False))
    assert "7.389" in forward
    assert "∂:" not in forward
    assert "∂ on" not in forward
    assert "grad" not in forward.splitlines()
    backward = svg_text(viz.draw(trace, values=False))
    assert "7.389" not in backward
    assert "−0.341" in backward
    for format in ("mmd", "tex"):
        content = viz.draw(trace, gradients=False).render(format).decode()
        assert "7.389" in content
        assert "0.341" not in content


def test_compact_gives_up_the_room(trace):
    def height(**options):
        return float(places(viz.draw(trace, **options))[0].split()[3])

    assert height(gradients=False, compact=True) < height(gradients=False) - 50
    assert "∂" not in viz.draw(trace, gradients=False, compact=True).source


def test_digits(trace):
    texts = [svg_text(viz.draw(trace, digits=n)).splitlines() for n in (2, 9)]
    assert "−0.34" in texts[0]
    assert "−0.340998861" in texts[1]
    large = tg.Tensor(np.linspace(0, 1, 100) ** 3, name="x")
    assert {"0.2525", "0.25252525"} <= {
        text for n in (5, 9) for text in svg_text(viz.draw(large, digits=n)).splitlines()
    }


def test_labels_are_titles_and_may_be_formulas(trace):
    a = trace.graph.nodes[0].tensor
    drawing = viz.draw(trace, labels={a: "the logits", 1: r"$e_j = \exp(a_j)$"})
    assert {"the logits", "eⱼ = exp(aⱼ)"} <= set(svg_text(drawing).splitlines())
    assert "p = e / s" in svg_text(drawing).splitlines()  # formulas keep the names
    assert "eⱼ = exp(aⱼ)" in drawing.mermaid


def test_title_legend_and_dtypes(trace):
    drawing = viz.draw(trace, title="The <b>gradient</b> of $L$", legend=False, dtypes=False)
    text = svg_text(drawing)
    assert "The <b>gradient</b> of L" in text.splitlines()
    assert "double border" not in text
    assert "float64" not in text
    assert "(3,)" in text.splitlines()


@pytest.mark.parametrize(("theme", "colours"), [("light", LIGHT), ("dark", DARK), ("mono", MONO)])
def test_themes(trace, theme, colours):
    drawing = viz.draw(trace, theme=theme)
    svg = drawing.render("svg").decode()
    used = set(re.findall(r'(?:fill|stroke)="(#[^"]+)"', svg))
    assert used <= {colour.lower() for colour in colours.values()}
    assert "<style" not in svg
    assert colours["leaf"] in drawing.mermaid


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [
        0.2126, 0.7152, 0.0722
    ]  # fmt: skip


@pytest.mark.parametrize("colours", [LIGHT, DARK, MONO])
def test_text_of_every_theme_can_be_read(colours):
    papers = ["paper", "leaf", "constant", "operation", "fused", "group", "cut"]
    for ink in ("ink", "faint", "plain", "numerator", "denominator", "gradient", "alarm"):
        for paper in papers:
            one, other = sorted((luminance(colours[ink]), luminance(colours[paper])))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (ink, paper)


def test_an_svg_turns_dark_where_its_reader_prefers_that(trace):
    svg = viz.draw(trace).render("svg").decode()
    (rules,) = re.findall(r"<style>(.*?)</style>", svg, re.S)
    assert rules.startswith("@media (prefers-color-scheme:dark){")
    for light in set(re.findall(r'="(#[^"]+)"', svg)):
        assert f'="{light}"]' in rules
    assert all(".tinygrad-sm [" in rule for rule in rules.split("{", 1)[1].split("}")[:-2])


def test_font_size(trace):
    small, large = (places(viz.draw(trace, font_size=n))[0] for n in (8, 20))
    assert float(large.split()[2]) > 1.5 * float(small.split()[2])


def test_every_picture_takes_the_options_of_pictures():
    options = {"title": "One $x_1$", "legend": False, "digits": 3, "font_size": 13, "theme": "dark"}
    a = tg.Tensor([2.0, 1.0, 0.1], name="a")
    levels = {"one": tg.exp(a).sum(), "other": tg.exp(a).sum()}
    for drawing in (
        viz.draw_comparison(tg.compare([2.0, 1.0, 0.1], [1, 0, 0]), **options),
        viz.draw_fusion(tg.fuse(seed()[1]), **options),
        viz.draw_levels(levels, **options),
    ):
        assert drawing.scene.title == "One $x_1$"
        assert not any("rrow" in line for line in drawing.scene.caption)
        assert drawing.look == ("dark", 13)
        assert "One x₁" in svg_text(drawing).splitlines()


def test_declaration_and_check_agree():
    assert DrawOptions.__optional_keys__ == DEFAULTS.keys()
    for function in (viz.draw, viz.frames):
        shown = inspect.signature(function).parameters
        assert {name: shown[name].default for name in DEFAULTS} == DEFAULTS
        assert "font_size: of numbers" in function.__doc__
    assert set(inspect.signature(viz.draw_fusion).parameters) == {
        "result", *PictureOptions.__optional_keys__
    }  # fmt: skip
    for name in DEFAULTS:
        assert f"    {name}: " in inspect.getdoc(DrawOptions) + inspect.getdoc(PictureOptions)
    assert Choice() == Choice(**DEFAULTS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"values": 1}, "values must be True or False; got 1"),
        ({"legend": "no"}, "legend must be True or False; got 'no'"),
        ({"theme": "blue"}, "theme must be 'auto', 'light', 'dark' or 'mono'; got 'blue'"),
        ({"digits": 0}, "digits must be an integer from 1 to 17; got 0"),
        ({"digits": 2.0}, "digits must be an integer from 1 to 17; got 2.0"),
        ({"font_size": 100}, "font_size must be an integer from 6 to 72; got 100"),
        ({"title": 3}, "title must be text; got int"),
        ({"labels": ["x"]}, "labels must be a dictionary from Nodes, Tensors or node ids to text"),
        ({"warnings": {99: "x"}}, "warnings must belong to nodes of the graph; there is no node 9"),
        ({"colour": "red"}, "draw takes the options title, legend, .*; 'colour' is none of them"),
    ],
)
def test_what_is_refused(trace, options, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence) as caught:
        viz.draw(trace, **options)
    assert isinstance(caught.value, tg.TinygradError)
    assert "\n" not in str(caught.value)


def test_a_picture_of_two_graphs_refuses_what_only_one_graph_has():
    with pytest.raises(TypeError, match=r"draw_fusion takes the options .*'direction' is none"):
        viz.draw_fusion(tg.fuse(seed()[1]), direction="LR")


# Dots per inch ------------------------------------------------------------------------------------


def png_width(path):
    return int.from_bytes(path.read_bytes()[16:20], "big")


def test_scale_and_dpi(trace, tmp_path):
    drawing = viz.draw(trace)
    widths = [
        png_width(drawing.save(tmp_path / "x.png", **options))
        for options in ({}, {"scale": 2}, {"dpi": 192}, {"scale": 0.5})
    ]
    assert widths[1] == widths[2] == pytest.approx(2 * widths[0], abs=2)
    assert widths[3] == pytest.approx(widths[0] / 2, abs=2)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("x.svg", {"scale": 2}, "is for .png and .gif"),
        ("x.png", {"scale": 2, "dpi": 96}, "scale or dpi, one of them"),
        ("x.png", {"scale": 0}, "scale must make from 10 to 1200 dots per inch; got 0"),
        ("x.png", {"dpi": 5000}, "dpi must make from 10 to 1200 dots per inch; got 5000"),
        ("x.png", {"dpi": "96"}, "dpi must make from 10 to 1200"),
    ],
)
def test_dots_that_are_refused(trace, tmp_path, name, options, sentence):
    with pytest.raises(tg.TinygradError, match=sentence):
        viz.draw(trace).save(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_title_exchanges_nothing():
    """Graphviz may put what is side by side the other way round inside of one more frame."""
    x = tg.Tensor([2.0, 1.0, 0.1], name="a")
    levels = {f"level {i}": tg.exp(x).sum() * i for i in range(3)}
    for draw, words, sign in (
        (lambda **o: viz.draw_fusion(tg.fuse(seed()[1]), **o), ("before: ", "after: "), 0),
        (lambda **o: viz.draw_levels(levels, **o), ("level 0", "level 1", "level 2"), 1),
    ):
        for title in ("", "A title"):
            svg = draw(title=title).render("svg").decode()
            texts = re.findall(r'<text[^>]* x="([^"]*)" y="([^"]*)"[^>]*>([^<]*)', svg)
            at = [float(t[sign]) for word in words for t in texts if word in t[2]]
            assert len(at) == len(words)
            assert at == sorted(at)
            assert (title in svg_text(draw(title=title))) or not title
