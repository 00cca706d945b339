"""The result of a comparison, and how it shows itself: text, HTML, JSON."""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinygrad_sm.engine.sweep import BackwardTrace
from tinygrad_sm.study.diagnose import Breakdown
from tinygrad_sm.study.ulp import ulp_distance

_SHOWN_CLASSES = 12
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
_ARRAYS = (
    "logits", "target", "probabilities", "composite_grad", "fused_grad", "textbook_grad",
)  # fmt: skip


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
class Comparison:
    """The composite and the fused gradient of softmax-cross-entropy on the same logits.

    Arrays have the logits' shape unless said otherwise.

    Attributes:
        logits: the logits a.
        target: the effective target y, as a distribution.
        probabilities: p = softmax(a / T), from the shifted logits.
        form: of the composite: "naive", "shifted" or "logsumexp".
        reduction: "mean", "sum" or "none".
        axis: the class axis, not negative.
        composite_loss, fused_loss: float, or an array with one loss per row under "none".
        composite_grad, fused_grad: the gradients with respect to the logits.
        textbook_grad: p − y, scaled like the loss: the closed form that holds when Σy = 1.
        max_abs_error: largest |composite_grad − fused_grad|; NaN if one of them has a NaN.
        max_ulp_error: the same in units in the last place of the logits' dtype; inf for NaN.
        agree: whether the difference is within rounding.
        verdict: one sentence that begins with "agree" or "differ".
        reason: one sentence or more on why.
        notes: what is likely a mistake in the input, one sentence each.
        contributions: the terms −y and +p·Σy, from the composite's backward.
        composite_cost, fused_cost: time and memory.
        breakdown: the first node of the composite that left the finite numbers, or None.
        composite_trace, fused_trace: the records of the two backward sweeps.
    """

    logits: np.ndarray
    target: np.ndarray
    probabilities: np.ndarray
    form: str
    reduction: str
    axis: int
    composite_loss: Any
    fused_loss: Any
    composite_grad: np.ndarray
    fused_grad: np.ndarray
    textbook_grad: np.ndarray
    max_abs_error: float
    max_ulp_error: float
    agree: bool
    verdict: str
    reason: str
    notes: tuple[str, ...]
    contributions: Contributions
    composite_cost: Cost
    fused_cost: Cost
    breakdown: Breakdown | None
    composite_trace: BackwardTrace
    fused_trace: BackwardTrace

    def tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Return the row with the largest difference as two tables: (header, rows of text) each.

        Without any row there is no table.

        The first leads from the logits to the two terms, the second holds the two gradients to
        the last bit. Of many classes those with the largest gradients are shown.
        """
        row, classes = self._shown()
        if not classes:
            return []
        rows = {
            name: np.moveaxis(x, self.axis, -1).reshape(-1, x.shape[self.axis])[row]
            for name, x in {
                "a": self.logits,
                "p": self.probabilities,
                "y": self.target,
                "num": self.contributions.numerator,
                "den": self.contributions.denominator,
                "composite": self.composite_grad,
                "fused": self.fused_grad,
            }.items()
        }
        ulps = ulp_distance(rows["composite"], rows["fused"])
        digits = {2: 5, 4: 9, 8: 17}[self.logits.dtype.itemsize]  # enough to tell any two apart
        terms, gradients = [], []
        for j in classes:
            terms.append([str(j), *(_short(rows[k][j]) for k in ("a", "p", "y", "num", "den"))])
            exact = [f"{rows[k][j]:.{digits}g}" for k in ("composite", "fused")]
            gradients.append([str(j), *exact, ulp_text(ulps[j])])
        return [
            (["class", "logit a", "p", "y", "numerator −y", "denominator +p·Σy"], terms),
            (["class", "composite", "fused", "ULP apart"], gradients),
        ]

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
            (
                "−y and +p·Σy add up to the gradient",
                "yes" if self.contributions.add_up else "no",
            ),
            *((f"kept for backward, {side}", f"{cost.bytes:,} B") for side, cost in costs.items()),
            *(
                (f"forward and backward, {side}", f"{_time(cost.seconds)}, median of {cost.runs}")
                for side, cost in costs.items()
                if cost.seconds is not None
            ),
        ]

    def sentences(self) -> list[str]:
        """Return the verdict, the reason and the notes, each with what it is before it."""
        notes = (f"note:    {note}" for note in self.notes)
        return [f"verdict: {self.verdict}", f"reason:  {self.reason}", *notes]

    def caption(self) -> str:
        """Return which part of the input the tables show; empty if it is all of it."""
        row, classes = self._shown()
        rows = self.logits.size // self.logits.shape[self.axis]
        parts = []
        if rows > 1:
            parts.append(f"row {row} of {rows}, where the gradients differ most")
        if len(classes) < self.logits.shape[self.axis]:
            n = self.logits.shape[self.axis]
            parts.append(f"{len(classes)} of {n} classes, those with the largest gradients")
        return "; ".join(parts)

    def _shown(self) -> tuple[int, list[int]]:
        """The row that differs most, and which of its classes a table has room for."""
        n = self.logits.shape[self.axis]
        ulps = ulp_distance(self.composite_grad, self.fused_grad)
        by_row = np.moveaxis(ulps, self.axis, -1).reshape(-1, n)
        if len(by_row) == 0:
            return 0, []
        row = int(np.argmax(by_row.max(axis=1)))
        if n <= _SHOWN_CLASSES:
            return row, list(range(n))
        gradient = np.moveaxis(self.fused_grad, self.axis, -1).reshape(-1, n)[row]
        size = np.abs(gradient.astype(np.float64))
        size[np.argmax(by_row[row])] = np.inf  # the one that the verdict is about, in any case
        return row, sorted(map(int, np.argsort(-size, kind="stable")[:_SHOWN_CLASSES]))

    def __str__(self) -> str:
        parts = [self.headline(), self.caption()]
        parts += ["\n" + _as_text(header, rows) for header, rows in self.tables() if rows]
        width = max(len(what) for what, _ in self.summary())
        parts.append("\n" + "\n".join(f"{what:<{width}}  {v}" for what, v in self.summary()))
        parts += ["\n" + "\n".join(self.sentences())]
        return "\n".join(part for part in parts if part)

    def __repr__(self) -> str:
        return f"<Comparison: {self.verdict}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Show the tables in a notebook, as HTML with the plain text beside it."""
        tables = "".join(_as_html(header, rows) for header, rows in self.tables() if rows)
        said = "".join(
            f"<p>{html.escape(line)}</p>"
            for line in (self.verdict, self.reason, *self.notes, self.caption())
        )
        return {
            "text/plain": str(self),
            "text/html": f"<p><b>{html.escape(self.headline())}</b></p>{tables}{said}",
        }

    def to_dict(self, *, arrays: bool = True) -> dict[str, Any]:
        """Return the figures in types that JSON has; numbers that are not finite as text.

        Without `arrays` it is a summary, whose size does not depend on the input's.
        """
        figures: dict[str, Any] = jsonable(self.figures(arrays=arrays))
        return figures

    def figures(self, *, arrays: bool = True) -> dict[str, Any]:
        """Return what `to_dict` does, with the arrays and numbers as they are."""
        found: dict[str, Any] = {
            "form": self.form,
            "reduction": self.reduction,
            "axis": self.axis,
            "dtype": str(self.logits.dtype),
            "shape": list(self.logits.shape),
        }
        for name in ("composite_loss", "fused_loss"):
            if arrays or np.ndim(getattr(self, name)) == 0:
                found[name] = getattr(self, name)
        if arrays:
            found |= {name: getattr(self, name) for name in _ARRAYS}
        terms = ("numerator", "denominator") if arrays else ()
        return found | {
            "contributions": {
                **{name: getattr(self.contributions, name) for name in terms},
                "add_up": self.contributions.add_up,
            },
            "max_abs_error": self.max_abs_error,
            "max_ulp_error": self.max_ulp_error,
            "agree": self.agree,
            "verdict": self.verdict,
            "reason": self.reason,
            "notes": list(self.notes),
            "composite_cost": asdict(self.composite_cost),
            "fused_cost": asdict(self.fused_cost),
            "breakdown": None if self.breakdown is None else str(self.breakdown),
        }


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


def ulp_text(ulps: float) -> str:
    """A number of units in the last place, short."""
    return f"{ulps:.0f}" if ulps < 1e6 else f"{ulps:.2g}"


def _as_text(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, *rows]
    return "\n".join(
        "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    )


def _as_html(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def jsonable(value: Any) -> Any:
    """Return a value in types that JSON has: arrays as lists, numbers that are not finite as text.

    Takes dicts and lists of them too; numbers of arrays become floats.
    """
    if isinstance(value, dict):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        numbers = value.astype(np.float64).tolist()
        return numbers if np.isfinite(value).all() else jsonable(numbers)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
