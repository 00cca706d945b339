"""Pictures that follow each other: what each shows, that nothing moves, and the files."""

import io
import re
import shutil
import sys

import numpy as np
import pytest
from picture_text import svg_text
from seed_graph import seed, traced
from test_picture_options import places

import tinygrad_sm as tg
import viz


@pytest.fixture(scope="module")
def frames():
    return viz.frames(traced(seed()[1]), title="The chain rule")


def test_forward_then_backward_a_step_each(frames):
    steps = [picture.scene.step for picture in frames]
    assert steps[0] == "the inputs"
    assert steps[1] == "forward 1 of 7: e = exp(a)"
    assert steps[7] == "forward 7 of 7: L = −Σ(c5 · log(p))"
    assert steps[8] == "backward 1 of 8: through L = −Σ(c5 · log(p))"
    assert steps[15] == "backward 8 of 8: the gradient of a"
    assert len(frames) == len(steps) == 16


def test_what_has_not_happened_is_not_seen(frames):
    texts = [svg_text(picture) for picture in frames]
    seen = [{word for word in ("2", "11.21", "0.417", "1", "−1.517", "−0.341", "grad")
             if word in text.splitlines()} for text in texts]  # fmt: skip
    assert seen[0] == {"2", "1"}  # the logits
    assert seen[2] == {"2", "1", "11.21"}
    assert seen[7] == {"2", "1", "11.21", "0.417"}
    assert seen[8] == {"2", "1", "11.21", "0.417", "grad"}
    assert seen[15] == {"2", "1", "11.21", "0.417", "grad", "−1.517", "−0.341"}
    assert [text.count("∂:") for text in texts] == [0] * 8 + [1, 2, 3, 4, 6, 7, 8, 8]


def test_the_current_node_and_its_arrows_stand_out(frames):
    current = [[box.title for box in x.scene.boxes if box.current] for x in frames]
    assert current[0] == ["a", "constant c5"]
    assert current[3] == ["p = e / s"]
    assert current[12] == ["p = e / s"]
    arrows = [(x.source, x.target) for x in frames[12].scene.arrows if x.tone == "gradient"]
    assert arrows == [("n1", "n3"), ("n2", "n3")]


def assert_that_nothing_moves(frames):
    """Boxes and frames stay to the last digit; the tip of an arrow gives way to a thick border."""
    (size, first), *others = map(places, frames)
    for other_size, other in others:
        assert other_size == size
        assert other.keys() == first.keys()
        for name, shapes in other.items():
            if not name.startswith("edge"):
                assert set(first[name]) <= set(shapes)
                continue
            for shape, expected in zip(shapes, first[name], strict=True):
                numbers = [[float(x) for x in re.findall(r"[\d.]+", y)] for y in (shape, expected)]
                assert np.allclose(*numbers, rtol=0, atol=4)


def test_nothing_moves(frames):
    assert_that_nothing_moves(frames)


def test_a_long_sentence_has_its_room_and_an_end():
    x = tg.Tensor([1.0], name="x")
    frames = viz.frames(traced(tg.exp(x).named("a name of quite some length " * 5)))
    assert max(len(picture.scene.step) for picture in frames) == 72
    assert frames[1].scene.step.endswith("…")
    assert_that_nothing_moves(frames)


def test_options_are_those_of_draw():
    frames = viz.frames(traced(seed()[1]), theme="dark", direction="LR", gradients=False)
    assert {picture.look.theme for picture in frames} == {"dark"}
    assert "∂:" not in svg_text(frames[-1])


def test_groups_drawn_as_one_box_are_one_step():
    frames = viz.frames(traced(seed()[1]), max_nodes=3)
    assert [x.scene.step for x in frames][1:3] == [
        "forward 1 of 2: softmax", "forward 2 of 2: cross-entropy"
    ]  # fmt: skip


# Files --------------------------------------------------------------------------------------------


def test_numbered_files(frames, tmp_path):
    paths = frames.save_each(tmp_path / "step.mmd")
    assert [path.name for path in paths][::15] == ["step-01.mmd", "step-16.mmd"]
    assert all(path.read_text().startswith("flowchart") for path in paths)
    with pytest.raises(ValueError, match="can be saved as"):
        frames.save_each(tmp_path / "step.gif")
    with pytest.raises(OSError, match="cannot be written"):
        frames.save_each(tmp_path / "none" / "step.dot")
    assert len(list(tmp_path.iterdir())) == 16


def test_a_pdf_has_a_page_for_each(frames):
    pypdf = pytest.importorskip("pypdf", reason="the extra slides")
    content = frames.render("pdf")
    pages = pypdf.PdfReader(io.BytesIO(content)).pages
    assert len(pages) == 16
    assert len({tuple(page.mediabox) for page in pages}) == 1
    assert "0.341" not in pages[7].extract_text()
    assert "0.341" in pages[15].extract_text()
    assert frames.render("pdf") == content


def test_a_gif_plays(frames, tmp_path):
    pillow = pytest.importorskip("PIL.Image", reason="the extra slides")
    with pillow.open(frames.save(tmp_path / "x.gif", scale=0.5)) as image:
        assert image.n_frames == 16
        assert image.info["duration"] == 1500
        image.seek(15)
        assert image.info["duration"] == 4500


def test_an_svg_plays_by_css_alone(frames):
    svg = frames.render("svg").decode()
    assert "<script" not in svg
    assert "href" not in svg
    assert svg.count(">7.389<") == 1  # what several pictures have in common is written once
    assert re.search(r"prefers-reduced-motion:reduce\)\{[^}]*animation-play-state:paused", svg)
    assert len(svg) < 4 * len(frames[-1].render("svg"))


def seen_at(svg, turn, turns):
    """The texts that are seen at one turn of a playing svg, by its rules."""
    steps = {
        name: [(float(at), state) for at, state in re.findall(r"([\d.]+)%\{visibility:(\w+)", rule)]
        for name, rule in re.findall(r"@keyframes ([\w-]+)\{((?:[^{}]+\{[^{}]*\})*)\}", svg)
    }
    found = set()
    for classes, text in re.findall(r"<text (?:class=\"([^\"]+)\" )?[^>]*>([^<]*)</text>", svg):
        state = "visible"
        if classes:
            states = steps[classes.split()[1]]
            state = [state for at, state in states if at <= 100 * (turn + 0.5) / turns][-1]
        if state == "visible":
            found.add(text)
    return found


def test_each_turn_of_the_playing_svg_is_that_picture(frames):
    svg = frames.render("svg").decode()
    for turn, picture in enumerate(frames):
        texts = re.findall(r"<text [^>]*>([^<]*)</text>", picture.render("svg").decode())
        assert seen_at(svg, turn, 18) == set(texts)


@pytest.mark.parametrize(("format", "module"), [("pdf", "pypdf"), ("gif", "PIL")])
def test_a_package_that_is_missing_is_one_sentence(frames, monkeypatch, format, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(viz.Drawing, "render", lambda *_: b"")
    with pytest.raises(viz.FramesError, match=f"frames in one {format} need .* the extra slides"):
        frames.render(format)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda t: viz.frames(seed()[1]), "frames needs the BackwardTrace that backward"),
        (lambda t: viz.frames(t, seconds=0), "seconds must be from 0.05 to 600; got 0"),
        (lambda t: viz.frames(t, seconds=np.nan), "seconds must be from 0.05 to 600; got nan"),
        (lambda t: viz.frames(t, speed=2), "frames takes the options seconds, title"),
    ],
)
def test_what_is_refused(call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence) as caught:
        call(traced(seed()[1]))
    assert isinstance(caught.value, tg.TinygradError)


def test_frames_of_what_broke_play_too():
    a = tg.Tensor([1000.0, 0.0, 0.0], name="a")
    with np.errstate(all="ignore"):
        frames = viz.frames(traced(tg.composite_cross_entropy(a, 0)))
    assert_that_nothing_moves(frames)
    svg = frames.render("svg").decode()
    assert "∞" not in seen_at(svg, 0, len(frames) + 2)
    assert {"∞", "NaN"} <= seen_at(svg, len(frames) - 1, len(frames) + 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("motion", "seen"), [("no-preference", "the inputs"), ("reduce", "8 of 8")]
)
def test_it_rests_in_a_browser_where_the_reader_wants_no_motion(frames, tmp_path, motion, seen):
    api = pytest.importorskip("playwright.sync_api", reason="the extra browser")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium")
    page_file = tmp_path / "x.html"
    page_file.write_text(frames.render("svg").decode().partition("?>")[2], encoding="utf-8")
    with api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(reduced_motion=motion).new_page()
        page.goto(page_file.as_uri())
        texts = page.evaluate(
            "[...document.querySelectorAll('text')]"
            ".filter(x => getComputedStyle(x).visibility == 'visible').map(x => x.textContent)"
        )
        browser.close()
    assert any(seen in text for text in texts)
