"""The page in headless Chromium: what a student sees, hears and can do."""

import math
import re

import numpy as np
import pytest

import tinygrad_sm as tg
import viz
from tinygrad_sm.engine.primitive import TABLE
from viz.lessons.presets import PRESETS, lesson

SLOW = pytest.mark.slow
WIDTHS = (1280, pytest.param(360, marks=SLOW), pytest.param(3840, marks=SLOW))


@pytest.fixture(scope="module")
def made():
    return viz.page()


def numbers(texts):
    return [float(x.replace("−", "-").replace("∞", "inf")) for x in texts]


def close(shown, exact):
    """Whether numbers are shown as what they are, to three digits."""
    return np.allclose(numbers(shown), np.ravel(exact), rtol=6e-3, atol=1e-9, equal_nan=True)


# Steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_every_preset_is_stepped_to_its_end_and_back_and_edited(made, opened, preset, width):
    for key in preset.forms or (preset.lesson,):
        it = opened(made, width=width, hash=f"preset={preset.key}&lesson={key}")
        trace = lesson(preset, key).trace
        last = int(it.page.get_attribute("#scrubber", "max"))
        assert it.step() == 0
        assert set(it.column(trace.graph.output, "value")) == {"—"}
        it.walk("ArrowRight", last + 1)
        assert it.step() == last
        assert close(it.column(0, "gradient"), trace.steps[-1].cotangent)
        it.walk("ArrowLeft", last + 1)
        assert it.step() == 0
        it.page.fill("#inputs input[type=number] >> nth=0", "0.5")
        it.settle()
        assert it.column(0, "value")[0] == "0.5"
        assert it.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert it.is_silent(), it.heard


def test_what_is_not_computed_is_a_dash_and_never_a_zero(made, opened):
    it = opened(made)
    trace = lesson(PRESETS[0], "naive").trace
    shown = "svg:not(.elsewhere)[data-side=graph] [data-node] .{} text:not(.head)"
    assert set(it.texts(shown.format("gradient"))) == {"—"}
    it.page.fill("#scrubber", "2")  # a, then e, then s
    it.settle()
    assert close(it.column(1, "value"), trace.graph.nodes[1].value)
    assert it.column(2, "value") == ["11.2"]
    assert set(it.column(3, "value")) == {"—"}


def test_at_the_fork_both_addends_stay_in_sight_with_their_names(made, opened):
    it = opened(made, hash="step=14")
    assert "−y" in it.texts("svg:not(.elsewhere) [data-node='1'] .numerator .head")
    assert close(it.column(1, "numerator"), [-1, 0, 0])
    it.page.click("#next")
    for _ in range(3):
        assert close(it.column(1, "numerator"), [-1, 0, 0])
        assert close(it.column(1, "denominator"), [0.659, 0.242, 0.0986])
        it.press("ArrowRight")
    assert close(it.column(0, "gradient"), [-0.341, 0.242, 0.0986])
    assert "+p·Σy" in " ".join(it.texts("#card th"))


def test_a_gradient_that_is_still_adding_up_says_so(made, opened):
    it = opened(made, hash="step=13")
    assert it.texts("svg:not(.elsewhere) [data-node='1'] .gradient .head") == ["so far"]
    assert close(it.column(1, "gradient"), [-0.1353, 0, 0])
    assert "—" in it.texts("#card .sums td, #card td")


def test_the_fused_node_takes_one_step(made, opened):
    it = opened(made, hash="step=10")
    fused = "svg:not(.elsewhere)[data-side=fused] [data-node='0'] .gradient text:not(.head)"
    assert close(it.texts(fused), [-0.341, 0.242, 0.0986])
    assert set(it.column(0, "gradient")) == {"—"}


def test_numbers_change_at_once_and_stay_those_of_the_engine(made, opened):
    it = opened(made, hash="step=17")
    it.page.fill("#inputs input[type=number] >> nth=0", "-1.5")
    it.page.click("#inputs input[type=radio] >> nth=2")
    it.settle()
    a = tg.Tensor([-1.5, 1.0, 0.1])
    tg.cross_entropy(a, [0, 0, 1]).backward()
    assert close(it.column(0, "gradient"), a.grad)
    assert "x0=-1.5" in it.page.evaluate(
        "new Promise(r => setTimeout(() => r(location.hash), 300))"
    )
    it.page.evaluate("document.querySelector('.temperature input').value = 2")
    it.page.dispatch_event(".temperature input", "change")
    it.settle()
    assert it.page.input_value("#preset") == "temperature"
    a.zero_grad()
    tg.cross_entropy(a, [0, 0, 1], temperature=2.0).backward()
    it.page.click("#last")
    it.settle()
    assert close(it.column(0, "gradient"), a.grad)
    it.page.click("#reset")
    it.settle()
    assert it.column(0, "value") == ["2", "1", "0.1"]


def test_softmax_twice_says_how_low_the_loss_can_get(made, opened):
    it = opened(made, hash="preset=twice&lesson=twice&step=30")
    assert f"{math.log(1 + 2 / math.e):.4g}" in it.page.inner_text("#bound")


def test_the_naive_form_breaks_at_a_named_node_and_the_others_do_not(made, opened):
    it = opened(made, hash="preset=overflow&step=1")
    assert "e is the first node" in it.page.inner_text("#card")
    assert it.column(1, "value")[0] == "∞"
    it.page.click("#forms button >> nth=1")
    it.settle()
    it.page.click("#last")
    it.settle()
    assert it.column(0, "gradient") == ["0", "0", "0"]
    assert it.texts("svg:not(.elsewhere) .broken") == []


# The arithmetic -----------------------------------------------------------------------------------


def test_it_checks_itself_against_the_engine(made, opened):
    it = opened(made)
    found = it.page.eval_on_selector("#check", "x => ({...x.dataset})")
    assert int(found["runs"]) >= 16
    assert float(found["worst"]) <= 1e-12
    assert re.search(r"largest relative difference \d", it.page.inner_text("#check"))


def every_operation():
    """One graph with an operation of each row of the page's table, and their gradients."""
    x = tg.Tensor([[0.3, -0.7, 1.2], [0.9, 0.4, -0.2]], name="x")
    w = tg.Tensor([[0.5, -1.0], [0.25, 0.75], [-0.5, 1.5]], name="w")
    positive = tg.exp(x) + 1.0
    terms = [
        x - w.T, x * x / positive, positive**x, -tg.log(positive), tg.log1p(positive),
        np.expm1(x), np.log2(positive), np.log10(positive), np.exp2(x), tg.sqrt(positive),
        tg.tanh(x), tg.sigmoid(x), np.sin(x), np.cos(x), np.tan(x), np.arctan(x), np.sinh(x),
        np.cosh(x), tg.relu(x), tg.abs(x), tg.maximum(x, w.T), tg.minimum(x, 0.4),
        tg.where(x.numpy() > 0, x, w.T), x - tg.mean(x, axis=0), x * np.min(x),
        x / tg.max(positive, axis=1)[:, None],
        tg.reshape(x, (3, 2)).T, tg.broadcast_to(x[0], (2, 3)),
        tg.concatenate([x[:1], w.T[1:]]),
        tg.take_along_axis(x, np.array([[2, 0, 1], [1, 1, 0]]), axis=1),
        (x @ w) @ w.T, x * (x[0] @ x[1]), x * (x @ w[:, 0]).sum(),
    ]  # fmt: skip
    total = terms[0]
    for term in terms[1:]:
        total = total + term * term
    return tg.sum(total).named("L")


def test_every_row_of_its_table_computes_what_the_engine_does(opened):
    trace = every_operation().backward(trace=True)
    it = opened(viz.page(trace))
    found = it.page.eval_on_selector("#check", "x => ({...x.dataset})")
    assert found["runs"] == "1"
    assert float(found["worst"]) <= 1e-12
    used = {node.op for node in trace.graph.nodes if node.inputs}
    from test_page import SCRIPT

    table = SCRIPT[SCRIPT.index("const TABLE = {") :]
    rows = set(re.findall(r"^  (\w+)(?:: |,$)", table[: table.index("\n};")], re.M))
    assert rows - used <= {"astype", "SoftmaxWithLoss"}
    last = int(it.page.get_attribute("#scrubber", "max"))
    for step in range(0, last + 1, 7):
        it.page.fill("#scrubber", str(step))
        it.settle()
    assert it.is_silent(), it.heard


def test_an_operation_that_it_does_not_know_shows_the_engines_numbers(opened):
    name = "softplus of the page's test"
    softplus = TABLE.get(name) or tg.def_primitive(
        name, lambda x: np.logaddexp(0, x), lambda g, y, x: g * tg.sigmoid(x)
    )
    a = tg.Tensor([3.0, 1.0, 2.0], name="a")
    trace = softplus(a).sum().backward(trace=True)
    it = opened(viz.page(trace), hash="step=99")
    assert close(it.column(0, "gradient"), a.grad)
    assert "cannot compute" in it.page.inner_text("#inputs")
    for tab in ("paths", "predict"):
        it.page.click(f"#tab-{tab}")
        it.settle()
        assert "cannot compute" in it.page.inner_text("#card")
    assert it.is_silent(), it.heard
