"""The live widget: the engine itself answers a change of the page's numbers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_sm as tg
import viz
from viz.lessons.presets import PRESETS, lesson
from viz.lessons.record import trace_record
from viz.lessons.replay import replayed
from viz.lessons.widget import WidgetError, answer

ESM = (Path(viz.__file__).parent / "page" / "widget.js").read_text(encoding="utf-8")


def complete(record):
    """A record as `trace_record` gives it has no number twice; one of `replayed` has all."""
    return {"values": record["values"], "gradients": record["gradients"]}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_a_replayed_graph_has_the_same_numbers(preset):
    for key in preset.forms or (preset.lesson,):
        one = lesson(preset, key)
        for trace in (one.trace, one.fused):
            assert complete(replayed(trace, {})) == complete(trace_record(trace))


def test_other_inputs_give_what_the_engine_gives_for_them():
    one = lesson(PRESETS[4], "temperature")
    roles = one.roles
    inputs = {roles["a"]: [0.5, -1.0, 3.0], roles["y"]: [0, 0.5, 0.5], roles["temperature"]: [3.0]}
    found = answer([one], {"key": "k", "lesson": "temperature", "inputs": inputs})
    a = tg.Tensor([0.5, -1.0, 3.0])
    tg.cross_entropy(a, np.array([0, 0.5, 0.5]), temperature=3.0).backward()
    assert found["key"] == "k"
    assert np.allclose(found["composite"]["gradients"][0], a.grad, rtol=1e-13)
    assert np.allclose(found["fused"]["gradients"][0], a.grad, rtol=1e-15)


def test_the_maximum_of_the_shifted_form_follows_the_logits():
    one = lesson(PRESETS[1], "logsumexp")
    inputs = {one.roles["a"]: [0.0, 2000.0, 1.0]}
    found = answer([one], {"lesson": "logsumexp", "inputs": inputs})
    assert found["composite"]["values"][one.roles["m"]] == [2000]
    assert found["composite"]["gradients"][0] == [-1, 1, 0]


@pytest.mark.parametrize(
    "asked",
    [None, "text", [], {}, {"inputs": 3}, {"inputs": {}, "lesson": "other"},
     {"inputs": {"0": "abc"}, "lesson": "naive"}, {"inputs": {"x": [1]}, "lesson": "naive"},
     {"inputs": {0: [1.0]}, "lesson": "naive"}, {"inputs": {0: [None] * 3}, "lesson": "naive"}],
)  # fmt: skip
def test_what_is_no_question_gets_no_answer(asked):
    assert answer([lesson(PRESETS[0], "naive")], asked) is None


def test_without_anywidget_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(WidgetError, match=r"needs anywidget, .*'anywidget>=0\.9'"):
        viz.page().live()


def test_the_widget_shows_the_page_and_answers_it(monkeypatch):
    pytest.importorskip("anywidget", reason="needs the extra 'widget'")
    made = viz.page()
    widget = made.live()
    assert (widget.html, widget.title) == (made.html, made.text)
    said = []
    monkeypatch.setattr(widget, "send", said.append)
    widget._handle_custom_msg({"key": "k", "lesson": "naive", "inputs": {"0": [1, 2, 3]}}, [])
    widget._handle_custom_msg({"nonsense": True}, [])
    [found] = said
    assert found["key"] == "k"
    json.dumps(found, allow_nan=False)


def test_a_change_in_the_frame_is_answered_by_the_engine(browser, tmp_path):
    """Of a graph with an operation that only the engine knows."""
    a = tg.Tensor([3.0, 1.0], name="a")
    trace = np.logaddexp(a, 1.0).sum().named("L").backward(trace=True)
    made = viz.page(trace)
    asked = []

    def engine(message):
        asked.append(message)
        return answer(made._lessons, message)

    page = browser.new_page(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    heard = []
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.expose_function("engine", engine)
    html = json.dumps({"html": made.html, "title": made.text, "height": 700}).replace(
        "<", "\\u003c"
    )
    file = tmp_path / "notebook.html"
    file.write_text(
        f"""<!doctype html><title>notebook</title><body><script type="module">
        {ESM.replace("export default", "const widget =")}
        const kept = {html};
        let reply;
        const model = {{
          get: (name) => kept[name],
          on: (_, heard) => (reply = heard),
          send: async (asked) => {{ const found = await engine(asked); if (found) reply(found); }},
        }};
        widget.render({{ model, el: document.body }});
        </script>""",
        encoding="utf-8",
    )
    page.goto(file.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("#check", has_text="engine in Python").wait_for()
    frame.locator("#inputs input[type=number] >> nth=0").fill("0")
    frame.locator("#last").click()
    sigmoid = 1 / (1 + np.exp(1.0))
    shown = frame.locator("[data-node='0'] .gradient text:not(.head) >> nth=0")
    shown.filter(has_text=f"{sigmoid:.3g}").wait_for()
    assert asked[-1]["inputs"] == {"0": [0, 1]}
    assert heard == []
    page.close()
