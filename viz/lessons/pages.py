"""`page`: one file that steps through the chain rule, and needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any, ClassVar

import numpy as np

from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown
from tinygrad_sm.study.comparison import Comparison
from tinygrad_sm.study.mistakes import MISTAKES, Broken, break_it
from tinygrad_sm.texts import LANGUAGES, texts
from viz.lessons.layout import CELL, HEAD, ROW, TITLE, picture
from viz.lessons.presets import PRESETS, Lesson, lesson, lesson_of_comparison
from viz.lessons.record import (
    Record,
    count_of_numbers,
    graph_record,
    loss_params,
    numbers,
    trace_record,
)
from viz.lessons.widget import live_widget
from viz.notation import in_unicode
from viz.picture import Picture
from viz.sketch import Sketch

MOST_NODES = 200
MOST_NUMBERS = 20_000
_ROUNDINGS = 4500  # units of the dtype: 1e-12 in float64
_YOURS = "yours"
_LINES = 3  # of gradcheck's report
_HEIGHT = 760  # pixels of the frame in a notebook


class Page(Picture):
    """A page that steps through a graph; notebooks show it in a frame, and keep it when saved.

    Attributes:
        html: the whole file.
        text: what it shows, in plain text.
    """

    formats: ClassVar[tuple[str, ...]] = ("html",)

    def __init__(self, html: str, text: str, lessons: list[Lesson]) -> None:
        self.html = html
        self.text = text
        self._lessons = lessons

    def live(self) -> Any:
        """Return the page as a widget: the engine in this Python answers each change of a number.

        Then a graph can be changed, too, that has an operation of which the page knows nothing.

        Raises:
            WidgetError: anywidget, of the extra `widget`, is not installed.
        """
        return live_widget(self.html, self.text, _HEIGHT, _file("widget.js"), self._lessons)

    def render(self, format: str) -> bytes:
        """Return the page as "html"."""
        self.check_format(format)
        return self.html.encode()

    def _repr_html_(self) -> str:
        """The page in a frame that can reach nothing of the notebook, nor the network."""
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" sandbox="allow-scripts allow-downloads" '
            f'title="{html.escape(self.text, quote=True)}" width="100%" height="{_HEIGHT}" '
            'style="border: 0"></iframe>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": self.text}

    def __repr__(self) -> str:
        return f"<Page: {self.text}>"


def page(
    trace_or_comparison: BackwardTrace | Comparison | None = None,
    *,
    title: str | None = None,
    lang: str = "en",
) -> Page:
    """Make a page that steps through the chain rule: forward, then backward, number by number.

    Args:
        trace_or_comparison: what ``backward(trace=True)`` returned, for a page about that graph;
            what `compare` returned, for one about that softmax and loss; nothing for the lesson,
            with the textbook's example and others.
        title: of the page about your graph; the language's own if not given.
        lang: the language that it opens in, "en" or "ko"; the page can change to the other.

    Raises:
        InvalidTypeError: the first argument is none of these, or the title is not text.
        InvalidValueError: there is no such language, or the graph is too large for a page.
        RenderError: Graphviz is missing or refuses.
    """
    if lang not in LANGUAGES:
        raise InvalidValueError(f"lang must be one of {', '.join(LANGUAGES)}; got {shown(lang)}")
    if title is not None and not isinstance(title, str):
        raise InvalidTypeError(f"title must be text; got {type(title).__name__}")
    if trace_or_comparison is None:
        return _page(*_lesson_data(), lang, title)
    mistakes: list[Record] = []
    if isinstance(trace_or_comparison, Comparison):
        one = lesson_of_comparison(trace_or_comparison)
        mistakes = [*_mistakes_of(trace_or_comparison, one)]
    elif isinstance(trace_or_comparison, BackwardTrace):
        one = Lesson(_YOURS, trace_or_comparison)
    else:
        raise InvalidTypeError(
            "page needs the BackwardTrace that backward(trace=True) returns, or a Comparison; "
            f"got {type(trace_or_comparison).__name__}"
        )
    traces = [trace for trace in (one.trace, one.fused) if trace is not None]
    for step in (step for trace in traces for step in trace.steps):
        if not step.node.dtype.startswith("float"):
            raise InvalidTypeError(
                f"a page shows arrays of floating-point numbers; got {step.node.dtype} at node "
                f"{step.node.id}"
            )
    nodes, count = max(len(t.graph.nodes) for t in traces), count_of_numbers(traces)
    if nodes > MOST_NODES or count > MOST_NUMBERS:
        raise InvalidValueError(
            f"a page steps through at most {MOST_NODES} nodes and {MOST_NUMBERS} numbers; this "
            f"graph has {nodes} and {count}: use viz.draw"
        )
    preset: Record = {"key": _YOURS, "lesson": _YOURS}
    return _page([one], [preset | {"mistakes": mistakes}], [_record(_YOURS, one)], lang, title)


def _lesson_data() -> tuple[list[Lesson], list[Record], list[Record]]:
    """The lessons, presets and records of the page about softmax and cross-entropy."""
    lessons: dict[str, Lesson] = {}
    presets, records = [], []
    for preset in PRESETS:
        for key in preset.forms or (preset.lesson,):
            one = lesson(preset, key)
            lessons.setdefault(key, one)
            records.append(_record(preset.key, one))
        shows = preset.key in ("textbook", "soft", "batch")  # on others it is nothing new
        mistakes = _mistakes(preset.logits, preset.target, preset.temperature) if shows else ()
        presets.append(
            {"key": preset.key, "lesson": preset.lesson, "forms": list(preset.forms),
             "mistakes": list(mistakes)}
        )  # fmt: skip
    return list(lessons.values()), presets, records


def _mistakes(logits: Any, target: Any, temperature: float) -> Iterator[Record]:
    """What the engine finds with each mistake that shows on these inputs."""
    for name in MISTAKES:
        y = np.asarray(target, np.float64)
        broken = break_it(name, logits, y, temperature=temperature)
        if broken.shows:
            yield _broken_record(broken)


def _mistakes_of(comparison: Comparison, one: Lesson) -> Iterator[Record]:
    """The same for a user's comparison, if the page knows its loss."""
    params = None if one.fused is None else loss_params(one.fused)
    usual = comparison.reduction == "mean" and comparison.form == "naive"
    if params and usual and np.isfinite(comparison.logits).all():
        yield from _mistakes(comparison.logits, comparison.target, params["temperature"])


def _broken_record(broken: Broken) -> Record:
    found: Record = {
        "key": broken.mistake.name,
        "form": broken.mistake.form,
        "gradient": numbers(broken.gradient),
        "edges": [f"{user}-{i}" for user, i in broken.edges],
        "nodes": list(broken.nodes),
        "report": "\n".join(str(broken.report).splitlines()[:_LINES]),
    }
    if broken.mistake.twice:
        return found | {"own": True, "edges": [], "nodes": []}
    wrong, right = trace_record(broken.trace), trace_record(broken.right_trace)
    for part in ("gradients", "sent"):  # what is as it should be is in the record already
        found[part] = {k: v for k, v in wrong[part].items() if v != right[part].get(k)}
    return found


def _record(preset: str, one: Lesson) -> Record:
    found = {"preset": preset, "lesson": one.key, "composite": trace_record(one.trace)}
    return found if one.fused is None else found | {"fused": trace_record(one.fused)}


def _lesson_record(one: Lesson, graphs: dict[str, int], fused: dict[str, int]) -> Record:
    """What the page knows of a lesson; its pictures are added to the others, each once."""
    graph, sketch, fork = graph_record(one.trace.graph), Sketch(one.trace), _fork(one)
    cotangent = numbers(one.trace.steps[0].cotangent)
    if cotangent != [1]:
        graph["seed"] = cotangent
    if "m" in one.roles:
        graph["maximum"] = [one.roles["m"], one.trace.graph.nodes[one.roles["d"]].inputs[0]]
    svg = picture(sketch, "graph", {fork["node"]: 2} if fork else {})
    pictures = {"graph": graphs.setdefault(svg, len(graphs))}
    if one.fused is not None:
        pictures["fused"] = fused.setdefault(picture(Sketch(one.fused), "fused"), len(fused))
    return {
        "graph": graph,
        "fused": None if one.fused is None else graph_record(one.fused.graph),
        "roles": dict(one.roles),
        "fork": fork,
        "boxes": [node.id for node in sketch.boxed()],
        "pictures": pictures,
    }


def _fork(one: Lesson) -> Record | None:
    """Where backward's two terms meet, and the edges that they come over."""
    roles = one.roles
    if "y" not in roles:
        return None
    names = list(one.terms)
    if "p" in roles:
        edges = [f"{roles['p']}-0", f"{roles['s']}-0"]
        return {"node": roles["e"], "edges": edges, "scaled": True, "names": names}
    if "lse" in roles:
        minus = next(n for n in one.trace.graph.nodes if n.inputs[:1] == (roles["lse"],))
        edges = [f"{minus.id}-1", f"{roles['d']}-0"]
        return {"node": minus.inputs[1], "edges": edges, "scaled": False, "names": names}
    return None


def _page(
    lessons: list[Lesson], presets: list[Record], records: list[Record], lang: str,
    title: str | None,
) -> Page:  # fmt: skip
    words: Record = {
        one: texts(one, "page") | {"mistakes": texts(one, "mistakes")} for one in LANGUAGES
    }
    name = lessons[0].trace.graph.nodes[lessons[0].trace.graph.output].name
    for one in words.values():
        if title is not None:
            one["title"] = title
        elif lessons[0].fused is None:
            one["title"] = one["titleOther"].format(name=in_unicode(name or "f"))
    graphs: dict[str, int] = {}  # the SVGs with their numbers
    fused: dict[str, int] = {}
    data = {
        "lang": lang,
        "texts": words,
        "sizes": {"cell": CELL, "row": ROW, "title": TITLE, "head": HEAD},
        "tolerance": _tolerance(one.trace for one in lessons),
        "lessons": {one.key: _lesson_record(one, graphs, fused) for one in lessons},
        "presets": presets,
        "records": records,
    }
    style, script = _lean(_file("lesson.css")), _lean(_file("lesson.js"))
    places = {
        "lang": lang,
        "title": html.escape(words[lang]["title"]),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "graphs": "".join(graphs),
        "fused": "".join(fused),
        "data": _for_script(data),
    }
    return Page(_file("lesson.html").format(**places), words[lang]["title"], lessons)


def _tolerance(traces: Iterable[BackwardTrace]) -> float:
    """How far the page's float64 may be from the engine's numbers, of which some are rounder."""
    dtypes = {step.node.dtype for trace in traces for step in trace.steps}
    eps = max(np.finfo(dtype).eps for dtype in dtypes)
    return float(f"{_ROUNDINGS * eps:.0e}")


def _file(name: str) -> str:
    return resources.files("viz").joinpath("page", name).read_text(encoding="utf-8")


def _lean(source: str) -> str:
    """A script or style without its indents and the comments that have lines of their own."""
    bare = re.sub(r"^\s*(?:/\*.*?\*/|//[^\n]*)\s*?\n", "", source, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^\s+", "", bare, flags=re.MULTILINE)


def _hash(text: str) -> str:
    """What the page's policy knows an inline script or style by."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _for_script(data: Any) -> str:
    """JSON that no text in it can end the script element with."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&\u2028\u2029]", lambda c: f"\\u{ord(c.group()):04x}", text)
