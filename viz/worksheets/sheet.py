"""A worksheet in one language, before any format: problems with pictures, letters at the blanks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

import numpy as np

from tinygrad_sm.study.mistakes import Mistake
from tinygrad_sm.study.worksheets import KINDS, Blank, Problem, problem
from tinygrad_sm.texts import texts
from viz.drawing import Drawing
from viz.graphs import draw
from viz.scene import Arrow, Box, Grid, Row
from viz.style import Look
from viz.values import brief, row

LINE = "______"
"""What stands in a picture where a number is to be written."""
_ON_PAPER = Look("light")
_LOCAL = {
    "chain": ("times", "plus", "square"),
    "diamond": ("product", "times", "plus", "square"),
    "softmax": ("exp", "sum", "quotient", "log", "times"),
    "mean": ("mean", "log"),
}
"""The local derivatives that each kind of problem needs."""


@dataclass(frozen=True, slots=True)
class Question:
    """A problem with its words and pictures.

    Attributes:
        number: its place on the sheet, from 1.
        problem: what is asked.
        title, task: what it is about, and what to do.
        rules: the local derivatives that it needs.
        labels: of each blank, what is asked for.
        asked, answered: the picture with lines to write on, and with the numbers.
        typical: typical wrong answers to the last blank, each with the mistake in a sentence.
    """

    number: int
    problem: Problem
    title: str
    task: str
    rules: tuple[str, ...]
    labels: tuple[str, ...]
    asked: Drawing
    answered: Drawing
    typical: tuple[tuple[str, np.ndarray], ...]

    def picture(self, answered: bool) -> Drawing:
        """The picture of the answer key, or of the sheet."""
        return self.answered if answered else self.asked

    @property
    def lettered(self) -> Iterator[tuple[str, str, Blank]]:
        """Each blank with its letter and its label."""
        return zip(ascii_uppercase, self.labels, self.problem.blanks, strict=False)


class Worksheet:
    """The problems of one seed, one of each kind.

    Args:
        seed: not negative; each gives other numbers.
        kinds: of `tinygrad_sm.study.worksheets.KINDS`, in the order of the sheet.
        lang: of `tinygrad_sm.texts.LANGUAGES`.

    Attributes:
        seed, lang: as given.
        words: the texts that are not of one problem.
        questions: the problems.

    Raises:
        InvalidValueError, InvalidTypeError: an argument is none of these.
    """

    def __init__(self, seed: int, kinds: Iterable[str] = tuple(KINDS), lang: str = "en") -> None:
        self.seed, self.lang = seed, lang
        self.words = texts(lang, "worksheet")
        problems = [problem(kind, seed) for kind in kinds]
        self.questions = [self._question(i, one) for i, one in enumerate(problems, 1)]

    def say(self, key: str, **places: Any) -> str:
        """Return one of the words, with its places filled."""
        text: str = self.words[key]
        return text.format(seed=self.seed, **places)

    def _question(self, number: int, one: Problem) -> Question:
        about = self.words["kinds"][one.kind]
        return Question(
            number,
            one,
            about["title"],
            about["task"],
            tuple(self.words["local"][rule] for rule in _LOCAL[one.kind]),
            tuple(self._label(blank) for blank in one.blanks),
            _picture(one, answered=False),
            _picture(one, answered=True),
            tuple((self._said_of(mistake, one), wrong) for mistake, wrong in one.typical),
        )

    def _said_of(self, mistake: Mistake, one: Problem) -> str:
        letter = ascii_uppercase[len(one.blanks) - 1]
        return f"{self.say('typical', letter=letter)} ({mistake.says(self.lang)['title']})"

    def _label(self, blank: Blank) -> str:
        if blank.via is None:
            return self.say("gradient", name=blank.name)
        return self.say("edge", name=blank.name, via=blank.via)


# Pictures -----------------------------------------------------------------------------------------


def _picture(one: Problem, answered: bool) -> Drawing:
    """The graph as `draw` lays it out, but of the gradients only those that are asked for.

    It has formulas and no words, so it is the same in every language.
    """
    drawn = draw(one.trace)
    letters = {(b.name, b.via): (c, b) for c, b in zip(ascii_uppercase, one.blanks, strict=False)}
    names = {f"n{node.id}": node.name for node in one.trace.graph.nodes}

    def box(given: Box) -> Box:
        rows = [replace(r, label="=") for r in given.rows if r.tone != "gradient"]
        letter, blank = letters.get((names[given.key] or "", None), ("", None))
        if blank is not None:
            shown = row("", blank.value, "gradient").cells if answered else _lines(blank.value)
            rows.append(Row(f"{letter}: ∂L/∂{blank.name}", shown, "gradient"))
        return replace(given, rows=tuple(rows), subtitle="", output=False, remarks=())

    def arrow(given: Arrow) -> Arrow:
        ends = (names[given.source] or "", names[given.target])
        letter, blank = letters.get(ends, ("", None))
        if blank is None or ends[1] is None:
            return replace(given, label="", cells=())
        shown = brief(blank.value) if answered else ((LINE,),)
        return replace(given, label=f"{letter}:", cells=shown, tone="gradient")

    scene = replace(
        drawn.scene,
        boxes=tuple(map(box, drawn.scene.boxes)),
        arrows=tuple(map(arrow, drawn.scene.arrows)),
        caption=(),
    )
    return Drawing(scene, "\n".join(box.title for box in scene.boxes), _ON_PAPER)


def _lines(value: np.ndarray) -> Grid:
    """As many lines to write on as there are numbers."""
    width = value.shape[-1] if value.ndim else 1
    return ((LINE,) * width,) * (value.size // width)
