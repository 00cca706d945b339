"""The result of a comparison, and how it shows itself: text, HTML, JSON."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.notebook import Shown
from tinygrad_sm.study.diagnose import Breakdown
from tinygrad_sm.study.exactness import Exactness
from tinygrad_sm.study.plain import jsonable
from tinygrad_sm.study.ulp import ulp_distance, ulp_text

_SHOWN_CLASSES = 12
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


Columns: TypeAlias = dict[str, tuple[np.ndarray, Callable[[Any], str]]]
"""The columns of a table by their headers: numbers of the logits' shape, and how to write them."""


class Table(NamedTuple):
    """A table of text; `header` names the columns of `rows`."""

    header: list[str]
    rows: list[list[str]]

    def to_text(self) -> str:
        """Return its lines, every column as wide as it needs to be."""
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)

    def to_html(self) -> str:
        """Return it as an HTML table."""
        head, *body = (
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
            for tag, line in [("th", self.header), *(("td", row) for row in self.rows)]
        )
        rows = "".join(f"<tr>{cells}</tr>" for cells in body)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


@dataclass(frozen=True, slots=True)
class Contributions:
    """The two terms of the proof, which meet at `e = exp(a)`, taken on to the logits.

    Attributes:
        numerator: what came through the numerator of p = e/s: −y (scaled like the loss).
        denominator: what came through the denominator: +p·Σy.
        add_up: whether their sum is the composite's gradient, to the rounding of the terms.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    add_up: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What one side takes for a loss and its gradient.

    Attributes:
        bytes: kept in memory between forward and backward, beside logits and target.
        seconds: of forward and backward, the median of `runs`; None where it was not measured.
        runs: how many were measured; the two sides took turns.
    """

    bytes: int
    seconds: float | None = None
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Comparison(Shown):
    """The composite and the fused gradient of softmax-cross-entropy on the same logits.

    Arrays have the logits' shape unless said otherwise.

    Attributes:
        form: of the composite: "naive", "shifted" or "logsumexp".
        reduction: "mean", "sum" or "none".
        axis: the class axis, not negative.
        composite_loss, fused_loss: float, or an array with one loss per row under "none".
        logits: the logits a.
        target: the effective target y, as a distribution.
        probabilities: p = softmax(a / T), as the composite found it on its way.
        composite_grad, fused_grad: the gradients with respect to the logits.
        textbook_grad: p − y, scaled like the loss: the closed form that holds when Σy = 1.
        contributions: the terms −y and +p·Σy, from the composite's backward.
        max_abs_error: largest |composite_grad − fused_grad|; NaN if one of them has a NaN.
        max_ulp_error: the same in units in the last place of the logits' dtype; inf for NaN.
        agree: whether the difference is within rounding.
        verdict: one sentence that begins with "agree" or "differ".
        reason: one sentence or more on why.
        notes: what is likely a mistake in the input, one sentence each.
        composite_cost, fused_cost: time and memory.
        breakdown: the first node of the composite that left the finite numbers, or None.
        composite_trace, fused_trace: the records of the two backward sweeps.
        exact: both gradients against the exact one, if it was asked for.
    """

    form: str
    reduction: str
    axis: int
    composite_loss: Any
    fused_loss: Any
    logits: np.ndarray
    target: np.ndarray
    probabilities: np.ndarray
    composite_grad: np.ndarray
    fused_grad: np.ndarray
    textbook_grad: np.ndarray
    contributions: Contributions
    max_abs_error: float
    max_ulp_error: float
    agree: bool
    verdict: str
    reason: str
    notes: tuple[str, ...]
    composite_cost: Cost
    fused_cost: Cost
    breakdown: Breakdown | None
    composite_trace: BackwardTrace
    fused_trace: BackwardTrace
    exact: Exactness | None = None

    def tables(self) -> list[Table]:
        """Return the row with the largest difference as two tables; without any row, none.

        The first leads from the logits to the two terms, the second holds the two gradients to
        the last bit. Of many classes those with the largest gradients are shown. Against the exact
        gradient there are two more: what each component is off by, and each node of the composite.
        """
        row, classes = self.shown()
        if not classes:
            return []
        digits = {2: 5, 4: 9, 8: 17}[self.logits.dtype.itemsize]  # enough to tell any two apart
        full = f"{{:.{digits}g}}".format

        def table(columns: Columns) -> Table:
            cells = [map(text, self.rows(x)[row, classes]) for x, text in columns.values()]
            lines = zip(map(str, classes), *cells, strict=True)
            return Table(["class", *columns], [list(line) for line in lines])

        terms: Columns = {
            "logit a": (self.logits, _short),
            "p": (self.probabilities, _short),
            "y": (self.target, _short),
            "numerator −y": (self.contributions.numerator, _short),
            "denominator +p·Σy": (self.contributions.denominator, _short),
        }
        gradients: Columns = {
            "composite": (self.composite_grad, full),
            "fused": (self.fused_grad, full),
            "ULP apart": (ulp_distance(self.composite_grad, self.fused_grad), ulp_text),
        }
        if self.exact is None:
            return [table(terms), table(gradients)]
        exact: Columns = {
            "exact": (self.exact.gradient, full),
            "composite off (ULP)": (self.exact.composite_ulps, ulp_text),
            "fused off (ULP)": (self.exact.fused_ulps, ulp_text),
        }
        return [table(terms), table(gradients), table(exact), _by_node(self.exact)]

    def headline(self) -> str:
        """Return one line that says what was compared."""
        shape = "×".join(map(str, self.logits.shape))
        return (
            f"softmax + cross-entropy on {shape} logits ({self.logits.dtype}), "
            f"{self.form} composite against the fused node, reduction {self.reduction!r}"
        )

    def summary(self) -> list[tuple[str, str]]:
        """Return the figures for the whole input, as (what, value) in text."""
        costs = {"composite": self.composite_cost, "fused": self.fused_cost}
        return [
            ("loss, composite", _loss(self.composite_loss)),
            ("loss, fused", _loss(self.fused_loss)),
            ("largest difference of the gradients", f"{self.max_abs_error:.3g}"),
            ("the same in units in the last place", f"{ulp_text(self.max_ulp_error)} ULP"),
            ("−y and +p·Σy add up to the gradient", "yes" if self.contributions.add_up else "no"),
            *((f"kept for backward, {side}", f"{cost.bytes:,} B") for side, cost in costs.items()),
            *(
                (f"forward and backward, {side}", f"{_time(cost.seconds)}, median of {cost.runs}")
                for side, cost in costs.items()
                if cost.seconds is not None
            ),
        ]

    def sentences(self) -> list[str]:
        """Return the verdict, the reason and the notes, each with what it is before it."""
        said = [f"verdict: {self.verdict}", f"reason:  {self.reason}"]
        if self.exact is not None:
            said.append(f"digits:  {self.exact.lost}")
        return [*said, *(f"note:    {note}" for note in self.notes)]

    def caption(self) -> str:
        """Return which part of the input the tables show; empty if it is all of it."""
        row, classes = self.shown()
        n = self.logits.shape[self.axis]
        rows = self.logits.size // n
        parts = []
        if rows > 1:
            parts.append(f"row {row} of {rows}, where the gradients differ most")
        if len(classes) < n:
            parts.append(f"{len(classes)} of {n} classes, those with the largest gradients")
        return "; ".join(parts)

    def shown(self) -> tuple[int, list[int]]:
        """Return the row that differs most, and which of its classes a table has room for."""
        n = self.logits.shape[self.axis]
        ulps = ulp_distance(self.composite_grad, self.fused_grad)
        by_row = self.rows(ulps)
        if len(by_row) == 0:
            return 0, []
        row = int(np.argmax(by_row.max(axis=1)))
        if n <= _SHOWN_CLASSES:
            return row, list(range(n))
        size = np.abs(self.rows(self.fused_grad)[row].astype(np.float64))
        size[np.argmax(by_row[row])] = np.inf  # the one that the verdict is about, in any case
        return row, sorted(map(int, np.argsort(-size, kind="stable")[:_SHOWN_CLASSES]))

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Return an array of the logits' shape as (rows, classes)."""
        return np.moveaxis(x, self.axis, -1).reshape(-1, x.shape[self.axis])

    def __str__(self) -> str:
        width = max(len(what) for what, _ in self.summary())
        figures = "\n".join(f"{what:<{width}}  {value}" for what, value in self.summary())
        head = [line for line in (self.headline(), self.caption()) if line]
        tables = (table.to_text() for table in self.tables())
        blocks = ["\n".join(head), *tables, figures, "\n".join(self.sentences())]
        return "\n\n".join(blocks)

    def __repr__(self) -> str:
        return f"<Comparison: {self.verdict}>"

    def to_html(self) -> str:
        """The tables as HTML."""
        tables = "".join(table.to_html() for table in self.tables())
        lost = () if self.exact is None else (self.exact.lost,)
        said = "".join(
            f"<p>{html.escape(line)}</p>"
            for line in (self.verdict, self.reason, *lost, *self.notes, self.caption())
        )
        return f"<p><b>{html.escape(self.headline())}</b></p>{tables}{said}"

    def to_dict(self, *, arrays: bool = True) -> dict[str, Any]:
        """Return the figures in types that JSON has; numbers that are not finite as text.

        Without `arrays` it is a summary, whose size does not depend on the input's.
        """
        figures: dict[str, Any] = jsonable(self.figures(arrays=arrays))
        return figures

    def figures(self, *, arrays: bool = True) -> dict[str, Any]:
        """Return what `to_dict` does, with the arrays and numbers as they are."""
        logits = {"dtype": str(self.logits.dtype), "shape": self.logits.shape}
        return logits | _figures(self, arrays)


def _figures(record: Any, arrays: bool) -> dict[str, Any]:
    """The fields of a dataclass of ours, without the traces and, unless asked for, the arrays."""
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(record)):
        value = getattr(record, name)
        if isinstance(value, Contributions | Exactness):
            found[name] = _figures(value, arrays)
        elif isinstance(value, Breakdown):
            found[name] = str(value)
        elif not isinstance(value, BackwardTrace) and (arrays or not isinstance(value, np.ndarray)):
            found[name] = value
    return found


def _by_node(exact: Exactness) -> Table:
    """The table of nodes."""
    rows = []
    for one in exact.nodes:
        node, value = one.node, ulp_text(one.value)
        gradient = "" if one.cotangent is None else ulp_text(one.cotangent)
        rows.append([str(node.id), node.name or "", node.op, value, gradient])
    return Table(["node", "name", "operation", "value off (ULP)", "gradient off (ULP)"], rows)


def _loss(value: Any) -> str:
    if isinstance(value, float):
        return f"{value + 0.0:.17g}"
    if np.size(value) == 0:
        return "no rows"
    return f"{np.size(value)} rows from {np.min(value):.6g} to {np.max(value):.6g}"


def _time(seconds: float) -> str:
    unit, size = next((u, s) for u, s in _UNITS if seconds >= s or u == "ns")
    return f"{seconds / size:.3g} {unit}"


def _short(x: Any) -> str:
    return f"{x + 0.0:.6g}"  # + 0.0: a −0 is only puzzling here
