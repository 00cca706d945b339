"""The lab's pictures: the same bytes every time, every word legible, whole or not there."""

import os
import sys
from functools import lru_cache

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.study.stability.report import survey
from tinygrad_sm.study.stability.two_losses import confidently_wrong
from viz import lab
from viz.files import SaveError

START = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
report = lru_cache(survey)  # a report is never changed
DRAW = {
    "stability": lambda dtype: lab.draw_stability(report(dtype)),
    "accuracy": lambda dtype: lab.draw_accuracy(report(dtype)),
    "confidently wrong": lambda dtype: lab.draw_confidently_wrong(confidently_wrong(dtype=dtype)),
}


@lru_cache
def plot(name: str, dtype: str) -> lab.Plot:
    return DRAW[name](dtype)


@pytest.fixture(scope="module", params=[(n, d) for n in DRAW for d in ("float32", "float64")])
def picture(request) -> lab.Plot:
    name, dtype = request.param
    return plot(name, dtype)


@pytest.fixture(scope="module")
def strips() -> lab.Plot:
    return plot("stability", "float64")


@pytest.fixture(scope="module")
def svg(strips) -> bytes:
    return strips.render("svg")


@pytest.fixture
def blank() -> lab.Plot:
    """A picture that costs little, for what does not depend on its contents."""
    return lab.Plot(lambda: lab._figure(1, 1), "nothing")


@lru_cache
def drawn(picture: lab.Plot):
    """The figure behind a picture, laid out."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        with matplotlib.rc_context(lab._STYLE):
            figure = picture._plot()
            FigureCanvasAgg(figure).draw()
    return figure


def test_the_svg_is_the_same_bytes_every_time_whatever_the_users_settings(strips, svg):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert strips.render("svg") == svg
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("format", lab.Plot.formats)
def test_each_format_is_the_same_bytes_every_time(blank, format):
    first = blank.render(format)
    assert first.startswith(START[format])
    assert blank.render(format) == first


def test_nothing_is_cut_off_and_every_text_is_large_enough(picture):
    figure = drawn(picture)
    width, height = figure.get_size_inches()
    around = figure.get_tightbbox()
    assert around.x0 >= 0
    assert around.y0 >= 0
    assert around.x1 <= width
    assert around.y1 <= height
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert len(texts) > 20
    assert min(text.get_fontsize() for text in texts) >= 9


def test_the_words_stay_inside_their_bands(strips):
    for panel in drawn(strips).axes:
        assert len(panel.texts) >= 6
        bands = [band.get_window_extent() for band in panel.patches]
        for text in panel.texts:
            box = text.get_window_extent()
            middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
            around = [band for band in bands if band.contains(*middle)]
            assert any(band.x0 <= box.x0 and box.x1 <= band.x1 for band in around), text


def test_states_are_told_by_words_and_hatching(svg):
    noted = svg.decode()  # matplotlib notes the text of each path in a comment
    for words in ("NaN from 709.8, at exp", "0 from 69.08, at maximum", "fused node", "lost"):
        assert f"<!-- {words} -->" in noted
    hatched = {look.hatch for look in lab._LOOKS.values() if look.hatch}
    assert len(hatched) == 3  # NaN is dark and ok is empty


def test_the_worst_neighbour_is_drawn_and_gaps_stay_gaps():
    values = np.array([1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, np.nan])
    found = lab._worst_nearby(values)
    np.testing.assert_array_equal(found, [9, 9, 9, 9, 9, 9, 1, np.nan])


def test_a_picture_is_saved_by_its_suffix(blank, tmp_path):
    assert blank.save(tmp_path / "x.PNG").read_bytes().startswith(START["png"])


@pytest.mark.parametrize("name", ["x.gif", "x.dot", "x"])
def test_another_format_is_refused(blank, tmp_path, name):
    with pytest.raises(InvalidValueError, match=r"can be saved as \.svg, \.png, \.pdf"):
        blank.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_save_needs_a_path(blank):
    with pytest.raises(InvalidTypeError, match="save needs a path; got int"):
        blank.save(3)


def test_a_failed_save_leaves_the_old_file(blank, tmp_path, monkeypatch):
    target = tmp_path / "x.svg"
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SaveError, match="No space left on device"):
        blank.save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]
    assert target.read_text() == "old"


def test_a_notebook_gets_the_picture_or_at_least_its_text(blank, monkeypatch):
    assert "image/svg+xml" in blank._repr_mimebundle_()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    bundle = blank._repr_mimebundle_()
    assert list(bundle) == ["text/plain"]
    assert "pip install" in bundle["text/plain"]
    with pytest.raises(lab.LabError, match="matplotlib"):
        blank.render("svg")
