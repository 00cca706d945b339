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


def test_a_click_in_the_graph_chooses_a_class_or_goes_to_a_step(made, opened):
    it = opened(made)
    it.page.click("svg:not(.elsewhere) [data-node='5'] .value text:not(.head) >> nth=1")
    it.settle()
    assert it.column(5, "value") == ["0", "1", "0"]
    assert it.page.is_checked("#inputs input[type=radio] >> nth=1")
    for step in (3, 13, 3):  # p is computed, sends back, and is computed again
        it.page.click("svg:not(.elsewhere)[data-side=graph] [data-node='3'] .title")
        it.settle()
        assert it.step() == step


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


# Paths, questions, mistakes -----------------------------------------------------------------------


def rows(it, selector="#card tr"):
    return [
        [cell.strip() for cell in row]
        for row in it.page.eval_on_selector_all(
            selector, "all => all.map(row => [...row.cells].map(x => x.textContent))"
        )
    ]


def test_the_paths_between_two_elements_add_up_to_the_derivative(made, opened):
    it = opened(made, hash="view=paths&step=9")
    found = rows(it)
    p = tg.softmax(np.array([2.0, 1.0, 0.1]))
    assert [row[0] for row in found[:2]] == ["a[0] → e[0] → s → p[0]", "a[0] → e[0] → p[0]"]
    assert close([found[0][-1], found[1][-1]], [-(p[0] ** 2), p[0]])
    assert close([found[2][-1]], p[0] * (1 - p[0]))
    it.page.select_option("#card select >> nth=1", label="L ")
    it.settle()
    found = rows(it)
    assert [row[0].count("→") for row in found[:4]] == [
        7,
        7,
        7,
        6,
    ]  # three by the sum, one straight
    assert close([row[-1] for row in found[:4]][3:], -1)
    assert close([found[4][-1]], p[0] - 1)


def test_the_matrix_of_softmax_has_its_diagonal_apart(made, opened):
    it = opened(made, hash="view=paths&step=9")
    p = tg.softmax(np.array([2.0, 1.0, 0.1]))
    assert close(it.texts("#card tr.matrix td"), np.diag(p) - np.outer(p, p))
    assert close(it.texts("#card .diagonal"), p * (1 - p))
    assert close(it.texts("#card tr.total.apart td"), [-0.341, 0.242, 0.0986])
    assert close(it.texts("#card tr.mistaken td"), [-0.341, 0, 0])
    it.page.click("#card tr.matrix button >> nth=1")  # ∂p_0/∂a_1
    it.settle()
    assert rows(it)[0][0] == "a[1] → e[1] → s → p[0]"
    assert len(it.texts("svg:not(.elsewhere) [data-edge].path")) == 3


ANSWERS = {  # at the step before exp sends to a: what a learner may say, and what it is told
    "textbook": {"0": "depended on a_i alone"},
    "soft": {"-0.34": "p − y for any target"},
    "batch": {
        "0.242": "of their sum", "0.0606": "divided by N once more", "0": "depended on a_i alone",
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", ANSWERS)
def test_a_wrong_answer_is_told_which_mistake_gives_it(made, opened, preset):
    one = next(p for p in PRESETS if p.key == preset)
    last = int(opened(made, hash=f"preset={preset}").page.get_attribute("#scrubber", "max"))
    it = opened(made, hash=f"preset={preset}&step={last - 2}&view=predict")
    asked = it.page.inner_text("#card label")
    assert "send back to a" in asked
    for answer, told in ANSWERS[preset].items():
        it.page.fill("#answer", answer)
        it.press("Enter")
        assert told in it.page.inner_text("#card"), asked
    gradient = lesson(one, one.lesson).trace.steps[-1].cotangent.ravel()
    j = int(re.search(r"class (\d)", asked)[1])
    it.page.fill("#answer", f"{gradient[j]:.2f}".replace(".", ","))
    it.press("Enter")
    assert it.step() == last - 1


def test_where_edges_meet_both_mistakes_of_softmax_are_told(made, opened):
    it = opened(made, hash="step=13&view=predict")  # s is next
    share = 1 / np.sum(np.exp([2.0, 1.0, 0.1]))  # what the sum brings back to each class
    assert "What does s send back to e (class 1)?" in it.page.inner_text("#card label")
    for answer, told in (("0", "depended on a_i alone"), (f"{share:.3f}", "Right")):
        it.page.fill("#answer", answer)
        it.press("Enter")
        assert told in it.page.inner_text("#card")
    assert "Contributions have met at e (class 0)" in it.page.inner_text("#card label")
    it.page.fill("#answer", f"{share:.3f}")
    it.press("Enter")
    assert "second contribution replaces the first" in it.page.inner_text("#card")
    it.page.fill("#answer", f"{share - 1 / np.exp(2.0):.3f}")
    it.press("Enter")
    assert it.step() == 14


def test_all_can_be_predicted_by_the_keyboard_and_nothing_is_shown_before(made, opened):
    it = opened(made, hash="view=predict")
    it.page.click("#card button")
    it.settle()
    asked = 0
    while it.page.query_selector("#answer"):
        before = it.step()
        hidden = "svg:not(.elsewhere)[data-side=fused] [data-node='0'] .gradient text:not(.head)"
        assert set(it.texts(hidden)) == {"—"}
        it.press("ArrowRight")  # the page does not go on without an answer
        assert it.step() == before
        it.page.click("#card form button[type=button]")
        it.settle()
        asked += 1
        assert asked < 20
    it.page.click("#card .main")
    it.settle()
    assert asked == 9  # seven contributions of the chain, a second of the quotient, and their sum
    assert it.is_silent()


@pytest.mark.parametrize("preset", ["textbook", "soft", "batch"])
def test_a_broken_engine_shows_its_own_numbers_where_they_go_wrong_and_gradcheck(
    made, opened, preset
):
    from tinygrad_sm.study.mistakes import MISTAKES, break_it

    one = next(p for p in PRESETS if p.key == preset)
    it = opened(made, hash=f"preset={preset}&view=break")
    for name in it.page.eval_on_selector_all(
        "#card [name=mistake]", "all => all.map(x => x.value)"
    ):
        if not name:
            continue
        it.page.check(f"#card [value='{name}']")
        it.settle()
        broken = break_it(name, one.logits, np.asarray(one.target, float))
        n = min(broken.gradient.size, 12)
        assert close(it.texts("#card tr.mistaken td"), broken.gradient.ravel()[:n])
        assert close(it.texts("#card tr.total td"), broken.right.ravel()[:n])
        assert str(broken.report).splitlines()[0] in it.page.inner_text("#card pre")
        if not MISTAKES[name].twice:
            side = "fused" if MISTAKES[name].form == "fused" else "graph"
            shown = f"svg:not(.elsewhere)[data-side={side}]"
            found = it.texts(f"{shown} [data-node='0'] .gradient text:not(.head)")
            assert close(found, broken.gradient)
            assert it.texts(f"{shown} .wrong")
    it.page.fill("#inputs input[type=number] >> nth=0", "0")  # the mistake is the example's own
    it.settle()
    assert it.texts("svg .wrong") == []
    it.page.click("#reset")
    it.settle()
    assert close(it.column(0, "gradient"), lesson(one, one.lesson).trace.steps[-1].cotangent)


# Languages, keys, the address ---------------------------------------------------------------------


def test_the_language_changes_in_the_page(made, opened):
    it = opened(made, hash="step=5")
    english = it.page.inner_text("body")
    it.page.click("#language")
    it.settle()
    korean = it.page.inner_text("body")
    assert it.page.get_attribute("html", "lang") == "ko"
    same = set(re.findall(r"[A-Za-z]{4,}", korean)) & set(re.findall(r"[A-Za-z]{4,}", english))
    assert same <= {"English", "SoftmaxWithLoss"}
    assert "lang=ko" in it.page.evaluate(
        "new Promise(r => setTimeout(() => r(location.hash), 300))"
    )


def test_each_step_is_a_sentence_that_is_read_out(made, opened):
    it = opened(made)
    assert it.page.get_attribute("#says", "aria-live") == "polite"
    last = int(it.page.get_attribute("#scrubber", "max"))
    heard = []
    for _ in range(last + 1):
        heard.append(it.page.inner_text("#says"))
        it.walk("ArrowRight", 1)
    assert len(set(heard)) == last + 1
    assert heard[3] == "Forward, step 3 of 7: p = e / s is [0.659, 0.2424, 0.09857]."
    assert heard[-1].endswith("the gradient of a is complete: [−0.341, 0.2424, 0.09857].")


def test_the_keyboard_alone_reaches_and_does_all(made, opened):
    it = opened(made)
    reached = set()
    for _ in range(60):
        it.page.keyboard.press("Tab")
        reached.add(it.page.evaluate("document.activeElement.id || document.activeElement.type"))
    assert reached >= {
        "preset", "language", "theme", "save", "next", "last", "play", "scrubber", "graph",
        "tab-step", "card", "range", "number", "radio", "reset",
    }  # fmt: skip
    it.page.focus("#tab-step")
    for view in ("paths", "predict", "break", "step"):
        it.press("ArrowRight")
        assert it.page.evaluate("document.activeElement.dataset.view") == view
        assert it.page.get_attribute(f"#tab-{view}", "aria-selected") == "true"
    it.page.focus("#graph")
    it.press("End")
    assert it.step() == int(it.page.get_attribute("#scrubber", "max"))
    it.press("Home")
    assert it.step() == 0


def test_play_goes_to_the_end_and_stops(made, opened):
    it = opened(made, hash="step=14")
    it.page.click("#play")
    assert it.page.inner_text("#play") == "Pause"
    it.page.locator("#play", has_text="Play").wait_for()
    assert it.step() == int(it.page.get_attribute("#scrubber", "max"))


@pytest.mark.parametrize(
    "hash",
    ["lang=ko&theme=dark&preset=batch&step=12&view=paths&x0=1%2C2%2C3%2C4%2C5%2C6", "step=4",
     "preset=overflow&lesson=logsumexp&step=9", "view=break&mistake=diagonal",
     "view=paths&from=0%2C2&to=8%2C0"],
)  # fmt: skip
def test_the_address_keeps_the_state(made, opened, hash):
    it = opened(made, hash=hash)
    words = "new Promise(r => setTimeout(() => r(location.hash.slice(1)), 300))"
    assert it.page.evaluate(words) == hash
    seen = it.page.inner_text("body")
    it.go(it.page.evaluate(words))
    assert it.page.inner_text("body") == seen


def test_an_address_that_makes_no_sense_is_passed_over(made, opened):
    it = opened(made)
    for hash in (
        "%", "step=-5&view=nothing", "preset=__proto__&lesson=constructor", "step=1e999",
        "x0=a,b,c&x0=1", "lang=fr&theme=<b>", "view=break&mistake=none", "=&=&&",
        "from=99,0&to=8,7&view=paths", "preset=batch&lesson=ten", "lesson=batch&view=break",
    ):  # fmt: skip
        it.page.evaluate("hash => { location.hash = hash }", hash)
        it.settle()
        it.press("ArrowRight")
        assert it.is_silent(), (hash, it.heard)


# Names, frames, files -----------------------------------------------------------------------------

NASTY = "</script><img src=x onerror=alert(1)>\"'`&amp;{data}\u202eabc"


def test_names_are_text_and_nothing_else(opened):
    a = tg.Tensor([1.0, 2.0], name=NASTY)
    y = tg.Tensor([0.5, 1.0], name=r"$\hat{y}_1^{2}$")
    loss = ((tg.exp(a) - y) ** 2).sum().named("<i>L</i>")
    it = opened(viz.page(loss.backward(trace=True), title=NASTY), hash="step=3")
    it.page.on("dialog", lambda dialog: pytest.fail("a name ran as a script"))
    assert "onerror=alert(1)>" in it.page.title()
    for view in ("step", "paths", "predict"):
        it.page.click(f"#tab-{view}")
        it.settle()
        it.walk("End", 1)
        assert it.page.query_selector_all("img, i, script:not([type])") == []
    assert "<i>L</i>" in it.page.text_content("svg:not(.elsewhere)")
    it.page.click("#tab-step")
    it.page.click("#tab-step")
    it.walk("Home", 1)
    it.walk("ArrowRight", 1)
    last = int(it.page.get_attribute("#scrubber", "max"))
    written = set()
    for _ in range(last):
        written |= set(it.page.eval_on_selector_all("#card math *", "x => x.map(x => x.localName)"))
        it.walk("ArrowRight", 1)
    assert {"mover", "msub", "msup"} <= written
    assert it.is_silent(), it.heard


def test_a_graph_of_ones_own_has_no_parts_of_softmax(opened):
    x = tg.Tensor([1.0, 2.0], name="x")
    trace = (x * tg.exp(x)).sum().named("L").backward(trace=True)
    it = opened(viz.page(trace), hash="step=99")
    assert close(it.column(0, "gradient"), x.grad)
    assert not it.page.is_visible("#fused-panel")
    assert not it.page.is_visible("#tab-break")
    assert "contributions add up" in it.page.inner_text("#card")
    assert "softmax" not in it.page.inner_text("body").lower()
    it.page.click("#tab-paths")
    it.settle()
    assert it.texts("#card tr.matrix") == []
    it.page.fill("#inputs input[type=number] >> nth=0", "0")
    it.settle()
    assert it.column(0, "gradient")[0] == "1"


ROWS = [[2.0, 1.0, 0.1], [0.5, 2.0, 1.0]]
OPTIONS = {
    "weight": (ROWS, [0, 2], {"weight": [1.0, 2.0, 0.5]}),
    "none": (ROWS, [0, 2], {"reduction": "none"}),
    "mask": ([2.0, -np.inf, 1.0], 0, {}),
    "float32": (np.float32(ROWS), [0, 2], {"label_smoothing": 0.1}),
    "axis": (ROWS, [[1, 0, 1], [0, 1, 0]], {"axis": 0, "form": "shifted"}),
}


@pytest.mark.parametrize(
    "case", ["weight", "mask", *(pytest.param(x, marks=SLOW) for x in ("none", "float32", "axis"))]
)
def test_a_comparison_with_any_options_is_stepped_through_under_every_tab(opened, case):
    logits, target, options = OPTIONS[case]
    with np.errstate(all="ignore"):
        compared = tg.compare(logits, target, **options)
    it = opened(viz.page(compared))
    last = int(it.page.get_attribute("#scrubber", "max"))
    for view in ("step", "paths", "predict", "break"):
        it.page.click(f"#tab-{view}")
        for step in range(0, last + 1, 2):
            it.page.fill("#scrubber", str(step))
            it.settle()
    assert it.is_silent(), it.heard
    assert "Careful" not in it.page.inner_text("#check")


def test_the_frame_of_a_notebook_works_without_a_word(made, browser, tmp_path):
    notebook = tmp_path / "saved.html"
    notebook.write_text(
        f"<!doctype html><title>saved</title>{made._repr_html_()}", encoding="utf-8"
    )
    page = browser.new_page(viewport={"width": 1000, "height": 800}, reduced_motion="reduce")
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto(notebook.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("#next").click()
    frame.locator("#last").click()
    frame.locator("#language").click()
    assert "완성" in frame.locator("#says").inner_text()
    page.wait_for_timeout(400)  # the address is written after a while
    assert heard == []
    page.close()


def test_the_picture_is_saved_as_it_is(made, opened):
    import xml.etree.ElementTree as ET

    it = opened(made, hash="step=14", color_scheme="dark")
    with it.page.expect_download() as waiting:
        it.page.click("#save")
    assert waiting.value.suggested_filename == "naive-14.svg"
    text = waiting.value.path().read_text(encoding="utf-8")
    root = ET.fromstring(text)
    words = [x.text for x in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"−1.52", "−0.135", "e = exp(a)"} <= set(words)
    assert not {"class", "style"} & {name for x in root.iter() for name in x.attrib}
    assert "var(" not in text


def test_it_prints_on_one_sheet(made, opened):
    for hash in ("step=17", "view=break&mistake=diagonal", "preset=ten&lesson=ten&view=paths"):
        it = opened(made, hash=hash)
        sheets = it.page.pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", sheets)) == 1, hash


# Looks --------------------------------------------------------------------------------------------


def test_motion_is_reduced_where_it_is_asked_for(made, opened):
    moving = "getComputedStyle(document.querySelector('.forward-now path')).animationName"
    assert opened(made, hash="step=2").page.evaluate(moving) == "none"
    it = opened(made, hash="step=2", reduced_motion="no-preference")
    assert it.page.evaluate(moving) == "along"


def test_light_and_dark_follow_the_system_or_the_button(made, opened):
    paper = "getComputedStyle(document.body).backgroundColor"
    dark, light = "rgb(22, 24, 29)", "rgb(255, 255, 255)"
    it = opened(made, color_scheme="dark")
    assert it.page.evaluate(paper) == dark
    it.page.click("#theme")
    it.settle()
    assert it.page.evaluate(paper) == light
    it.page.click("#theme")
    it.settle()
    assert it.page.evaluate(paper) == dark


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=SLOW)])
@pytest.mark.parametrize(
    "view", ["step", "paths", *(pytest.param(x, marks=SLOW) for x in ("predict", "break"))]
)
def test_axe_finds_nothing(made, opened, view, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    mistake = "&mistake=overwritten" if view == "break" else ""
    it = opened(made, hash=f"view={view}&step=15{mistake}", color_scheme=scheme)
    found = axe.run(it.page)
    assert found.violations_count == 0, found.generate_report()


@SLOW
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_axe_finds_nothing_in_any_preset_on_a_phone(made, opened, preset):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    it = opened(made, width=360, hash=f"preset={preset.key}&lesson={preset.lesson}&step=9&lang=ko")
    found = axe.run(it.page)
    assert found.violations_count == 0, found.generate_report()


def test_sixty_nodes_are_stepped_through_with_few_changes_a_frame(opened):
    x = tg.Tensor([0.5, 0.25, 0.125], name="x")
    value = x
    for i in range(58):
        value = (tg.tanh(value) if i % 2 else value * 1.5).named(f"v{i}")
    trace = value.sum().named("L").backward(trace=True)
    assert len([node for node in trace.graph.nodes if node.shape or node.inputs]) == 60
    it = opened(viz.page(trace), height=700)
    steps = int(it.page.get_attribute("#scrubber", "max"))
    found = it.page.evaluate(
        """async (steps) => {
            let changes = 0;
            new MutationObserver((all) => (changes += all.length)).observe(
                document.getElementById("graph"),
                { subtree: true, childList: true, attributes: true, characterData: true });
            const most = [], work = [];
            for (let i = 0; i < steps; i++) {
                changes = 0;
                let began;
                requestAnimationFrame(() => (began = performance.now()));
                document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
                await new Promise(requestAnimationFrame);  // after the page's own work
                document.getElementById("graph").getBoundingClientRect();  // style and layout
                await new Promise((r) => setTimeout(r));
                most.push(changes);
                work.push(performance.now() - began);
            }
            work.sort((a, b) => a - b);
            return { most: Math.max(...most), median: work[work.length >> 1], worst: work.at(-1) };
        }""",
        steps,
    )
    print(f"a step of 60 nodes: {found}")
    assert it.step() == steps
    assert 0 < found["most"] <= 40
