"""The file that `viz.page` makes, without a browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import tinygrad_sm as tg
import viz
from tinygrad_sm.cli.entry import run
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.texts import LANGUAGES, texts
from viz.lessons.presets import PRESETS, lesson

MOST_BYTES = 150_000
SCRIPT = (Path(viz.__file__).parent / "page" / "lesson.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html():
    return viz.page().html


class Elements(HTMLParser):
    """Tags with their attributes, and the text in scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.inside = [], {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if self.cdata_elem in ("script", "style"):
            self.inside[tag, attributes.get("type", "")] = data


def data_of(html):
    return json.loads(Elements(html).inside["script", "application/json"])


def test_it_is_small(html):
    assert len(html.encode()) <= MOST_BYTES


def test_it_asks_nobody_for_anything(html):
    tags = Elements(html).tags
    links = [a.get(name) for _, a in tags for name in ("src", "href") if a.get(name)]
    assert links == ["data:,"]  # the icon, so that none is looked for
    assert set(re.findall(r"https?://[^\s\"'`]+", html)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML",
    }  # fmt: skip


def test_its_policy_allows_its_own_script_and_style_and_no_other(html):
    found = Elements(html)
    [policy] = [a["content"] for t, a in found.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for text in (found.inside["script", "module"], found.inside["style", ""]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not any(name.startswith("on") or name == "style" for _, a in found.tags for name in a)


def operations(one):
    graphs = [one.trace.graph] + ([one.fused.graph] if one.fused else [])
    return {node.op for graph in graphs for node in graph.nodes if node.inputs}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_each_operation_of_a_preset_has_a_row_in_the_table(preset):
    table = SCRIPT[SCRIPT.index("const TABLE = {") :]
    rows = set(re.findall(r"^  (\w+)(?:: |,$)", table[: table.index("\n};")], re.M))
    assert len(rows) > 30
    for key in preset.forms or (preset.lesson,):
        assert operations(lesson(preset, key)) <= rows


def test_it_carries_the_engines_numbers(html):
    data = data_of(html)
    a, y = tg.Tensor([2.0, 1.0, 0.1], name="a"), np.array([1.0, 0.0, 0.0])
    loss = tg.composite_cross_entropy(a, y)
    loss.backward()
    record = data["records"][0]
    assert record["composite"]["gradients"]["0"] == a.grad.tolist()
    assert record["composite"]["values"]["8"] == [loss.item()]


def test_it_has_the_mistakes_as_the_engine_makes_them(html):
    by_preset = {p["key"]: {m["key"] for m in p["mistakes"]} for p in data_of(html)["presets"]}
    assert by_preset["textbook"] >= {"diagonal", "overwritten", "softmax-twice"}
    assert "p-minus-y" in by_preset["soft"]
    assert by_preset["batch"] >= {"mean-forgotten", "mean-twice"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_text_that_the_page_asks_for_is_there(lang):
    words = texts(lang, "page")
    template = (Path(viz.__file__).parent / "page" / "lesson.html").read_text(encoding="utf-8")
    asked = set(re.findall(r"\b(?:t|words)\(\s*\"([\w.]+)\"", SCRIPT))
    asked |= set(re.findall(r"data-(?:text|label)=\"([\w.]+)\"", template))
    assert len(asked) > 50
    for key in asked:
        found = words
        for part in key.split("."):
            found = found[part]
        assert isinstance(found, str), key
    for preset in PRESETS:
        assert words["presets"][preset.key]["name"]


def test_names_cannot_leave_the_text_they_are_in():
    nasty = "</script><img src=x onerror=alert(1)>\"'`{data}\u202e\u2028"
    a = tg.Tensor([1.0, 2.0], name=nasty)
    trace = tg.exp(a).sum().named("<b>L</b>").backward(trace=True)
    made = viz.page(trace, title="</title><script>alert(1)</script>")
    found = Elements(made.html)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert "b" not in tags
    assert "<b>L</b>" in [
        n["name"] for n in data_of(made.html)["lessons"]["yours"]["graph"]["nodes"]
    ]
    assert "\u202e" not in made.html
    assert "\u2028" not in made.html


def test_a_notebook_keeps_it_in_a_frame_that_reaches_nothing():
    made = viz.page()
    [(tag, attributes)] = Elements(made._repr_html_()).tags
    assert tag == "iframe"
    assert attributes["srcdoc"] == made.html
    assert attributes["sandbox"] == "allow-scripts allow-downloads"
    assert made._repr_mimebundle_()["text/plain"] == made.text == str(made)


def test_it_opens_in_a_language_and_is_saved_as_html_alone(tmp_path):
    assert '<html lang="ko">' in viz.page(lang="ko").html
    made = viz.page()
    assert made.save(tmp_path / "a.html").read_text(encoding="utf-8") == made.html
    with pytest.raises(InvalidValueError, match=r"\.html; got 'a\.svg'"):
        made.save(tmp_path / "a.svg")


def test_the_same_graph_gives_the_same_bytes():
    assert viz.page().html == viz.page().html


def test_a_comparison_of_class_indices_shows_the_distribution_that_they_stand_for():
    found = tg.compare([[2.0, 1.0, 0.1], [0.0, 1.0, 3.0]], [0, 2], temperature=2.0)
    data = data_of(viz.page(found).html)
    roles = data["lessons"]["yours"]["roles"]
    values = data["records"][0]["composite"]["values"]
    assert values[str(roles["y"])] == [1, 0, 0, 0, 0, 1]
    assert values[str(roles["temperature"])] == [2]
    assert {"diagonal", "mean-forgotten"} <= {m["key"] for m in data["presets"][0]["mistakes"]}


def test_an_output_that_is_an_array_keeps_the_cotangent_that_it_was_given():
    a = tg.Tensor([1.0, 2.0], name="a")
    trace = tg.exp(a).backward(np.array([3.0, 4.0]), trace=True)
    assert data_of(viz.page(trace).html)["lessons"]["yours"]["graph"]["seed"] == [3, 4]


def test_what_it_cannot_show_is_one_sentence():
    with pytest.raises(InvalidTypeError, match=r"page needs the BackwardTrace .* got Tensor"):
        viz.page(tg.Tensor([1.0]))
    with pytest.raises(InvalidValueError, match=r"lang must be one of en, ko; got 'fr'"):
        viz.page(lang="fr")
    with pytest.raises(InvalidTypeError, match=r"title must be text; got int"):
        viz.page(title=3)
    formula = tg.symbols("x", 2) if find_spec("sympy") else None
    if formula is not None:
        with pytest.raises(InvalidTypeError, match=r"a page shows arrays of floating-point"):
            viz.page(tg.exp(tg.Tensor(formula)).sum().backward(trace=True))
    large = tg.Tensor(np.ones(30_000)).sum().backward(trace=True)
    with pytest.raises(InvalidValueError, match=r"at most 200 nodes and 20000 numbers"):
        viz.page(large)


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = run(["page", *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_the_command_writes_the_lesson(command, html):
    assert command() == (0, "lesson.html\n", "")
    assert Path("lesson.html").read_text(encoding="utf-8") == html
    assert command("--lang", "ko", "-o", "ko.html") == (0, "ko.html\n", "")
    assert '<html lang="ko">' in Path("ko.html").read_text(encoding="utf-8")


def test_the_command_steps_through_your_numbers_and_your_function(command):
    assert command("--logits", "2,1.5,0.1", "--target", "1", "-o", "a.html")[0] == 0
    Path("mine.py").write_text(
        "import tinygrad_sm as tg\n"
        "def f():\n    x = tg.Tensor([1.0, 2.0], name='x')\n    return (x * x).sum().named('L')\n"
        "def g():\n    return tg.Tensor([1.0, 2.0]) * 2\n"
    )
    assert command("mine.py:f", "-o", "b.html", "--title", "Squares") == (0, "b.html\n", "")
    data = data_of(Path("b.html").read_text(encoding="utf-8"))
    assert [n["op"] for n in data["lessons"]["yours"]["graph"]["nodes"]] == ["leaf", "mul", "sum"]
    assert data["texts"]["ko"]["title"] == "Squares"
    status, out, err = command("mine.py:g")
    assert (status, out) == (2, "")
    assert err.startswith("tinygrad-sm: mine.py:g must return a single number")
    assert not Path("lesson.html").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "a.svg"], "--output must end in .html; got 'a.svg'"),
        (["mine.txt"], "'mine.txt' is not FILE.py:function"),
        (["a.py:f", "--target", "1"], "--logits and --target are not for FILE.py:function"),
        (["nowhere.py:f"], "nowhere.py: there is no such file"),
        (["--logits", "1,2", "--target", "7"], "target"),
    ],
)
def test_the_command_refuses_in_one_sentence(command, arguments, sentence, tmp_path):
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
