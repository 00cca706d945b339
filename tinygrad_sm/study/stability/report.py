"""The lab itself: every form over every sweep, cut into bands of one state, each with its cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown
from tinygrad_sm.study.plain import jsonable
from tinygrad_sm.study.stability.causes import Cause, cause_of
from tinygrad_sm.study.stability.forms import FORMS, Form, computed, recorded
from tinygrad_sm.study.stability.sweeps import SWEEPS, Sweep
from tinygrad_sm.study.stability.truth import LOST, OK, STATES, Judge, check_dtype, exact

TOLERANCE = 1e-3
_POINTS = 600  # per sweep, in equal ratios
_WINDOW = 8  # points: a lucky rounding this close to broken ones on both sides is broken too
_REFINED = 1e-7  # relative width to which the start of a band is narrowed down
_SLIVER = 1e-6  # relative width of a hidden band that is one tie, not a stretch


# What is reported ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of a sweep over which a result is in one state.

    Attributes:
        start, stop: the values of x that it begins and ends at.
        state: one of STATES.
        cause: what is to blame where it begins; None for "ok".
    """

    start: float
    stop: float
    state: str
    cause: Cause | None

    @property
    def start_text(self) -> str:
        """The start as text; digits fade rather than end at a point, so that is rounded more."""
        if self.state != STATES[LOST]:
            return f"{self.start:.4g}"
        return f"≈ {self.start:.2g}" if self.start < 100 else f"≈ {self.start:.3g}"


@dataclass(frozen=True, slots=True)
class FormReport:
    """How one form fared in one sweep.

    Attributes:
        form: which one.
        gradient, loss: the bands from the first x to the last.
        ulps: (points,) error of the right class's gradient at each x; NaN where not finite.
    """

    form: Form
    gradient: tuple[Band, ...]
    loss: tuple[Band, ...]
    ulps: np.ndarray

    @property
    def broke(self) -> Band | None:
        """The first band in which the gradient is not "ok", or None."""
        return next((band for band in self.gradient if band.state != STATES[OK]), None)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """All forms in one sweep; `x` (points,) is where they were measured."""

    sweep: Sweep
    x: np.ndarray
    forms: tuple[FormReport, ...]

    def form(self, name: str) -> FormReport:
        """Return the report of the form with this name."""
        return next(report for report in self.forms if report.form.name == name)


@dataclass(frozen=True, slots=True)
class Report:
    """The whole lab for one dtype; `tolerance` is the relative error called "digits lost"."""

    dtype: str
    tolerance: float
    sweeps: tuple[SweepReport, ...]

    def sweep(self, name: str) -> SweepReport:
        """Return the report of the sweep with this name."""
        return next(report for report in self.sweeps if report.sweep.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return the bands in types that JSON has."""
        sweeps = {
            swept.sweep.name: {
                "title": swept.sweep.title,
                "logits": swept.sweep.formula,
                "symbol": swept.sweep.symbol,
                "forms": {
                    one.form.name: {"gradient": one.gradient, "loss": one.loss}
                    for one in swept.forms
                },
            }
            for swept in self.sweeps
        }
        found: dict[str, Any] = jsonable(
            {"dtype": self.dtype, "tolerance": self.tolerance, "sweeps": sweeps}
        )
        return found


# How it is found ----------------------------------------------------------------------------------


def survey(dtype: str = "float64", *, tolerance: float = TOLERANCE) -> Report:
    """Sweep the logits' scale and the margin, and find where each form breaks, and why.

    Args:
        dtype: "float32" or "float64".
        tolerance: relative error above which a result has lost its digits, in (0, 1). An error
            of up to 5 units in the last place never counts.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not one of those.
    """
    check_dtype(dtype)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
        raise InvalidTypeError(f"tolerance must be a number; got {type(tolerance).__name__}")
    if not 0 < tolerance < 1:
        raise InvalidValueError(f"tolerance must lie between 0 and 1; got {shown(tolerance)}")
    judge = Judge(dtype, float(tolerance))
    return Report(dtype, judge.tolerance, tuple(_swept(sweep, judge) for sweep in SWEEPS))


def _swept(sweep: Sweep, judge: Judge) -> SweepReport:
    x = np.geomspace(1.0, sweep.stop, _POINTS)
    return SweepReport(sweep, x, tuple(_examined(form, sweep, x, judge) for form in FORMS))


def _examined(form: Form, sweep: Sweep, x: np.ndarray, judge: Judge) -> FormReport:
    measured = _measure(form, sweep, x, judge)

    def bands(what: str) -> tuple[Band, ...]:
        starts = _starts(
            lambda one: int(_measure(form, sweep, one, judge)[what][0]), x, _closed(measured[what])
        )
        stops = [*(start.x for start in starts[1:]), float(x[-1])]
        return tuple(band(what, *start, stop) for start, stop in zip(starts, stops, strict=True))

    def band(what: str, start: float, state: int, stop: float) -> Band:
        if state == OK:
            return Band(start, stop, STATES[OK], None)
        record = recorded(form, sweep.logits(start, judge.dtype), sweep.target, what)
        return Band(start, stop, STATES[state], cause_of(record, state, judge, sweep.target))

    return FormReport(form, bands("gradient"), bands("loss"), measured["ulps"])


def _measure(form: Form, sweep: Sweep, x: Any, judge: Judge) -> dict[str, np.ndarray]:
    """The states of the gradient (its worst entry) and the loss; the ULP of the right entry."""
    logits = sweep.logits(x, judge.dtype)
    losses, gradients = computed(form, logits, sweep.target)
    gradient, loss, ulps = [], [], []
    for row, found, found_loss in zip(
        logits.tolist(), gradients.tolist(), losses.tolist(), strict=True
    ):
        truth = exact(tuple(row), sweep.target)
        gradient.append(max(map(judge.state, found, truth.gradient)))
        loss.append(judge.state(found_loss, truth.loss))
        ulps.append(judge.ulps(found[sweep.target], truth.gradient[sweep.target]))
    return {"gradient": np.array(gradient), "loss": np.array(loss), "ulps": np.array(ulps)}


def _closed(states: np.ndarray) -> np.ndarray:
    """Raise a state to the worse ones near it on both sides: it was a lucky rounding."""
    found = states.copy()
    for i in range(1, len(states) - 1):
        before = states[max(i - _WINDOW, 0) : i].max()
        after = states[i + 1 : i + 1 + _WINDOW].max()
        found[i] = max(states[i], min(before, after))
    return found


class _Start(NamedTuple):
    """An x from which a state holds."""

    x: float
    state: int


def _starts(measure: Callable[[float], int], x: np.ndarray, states: np.ndarray) -> list[_Start]:
    """Return where each stretch of equal states begins, narrowed down between the points."""
    points = [_Start(*point) for point in zip(x.tolist(), states.tolist(), strict=True)]
    found = points[:1]
    for before, after in pairwise(points):
        if after.state != before.state:
            found += _narrowed(measure, before, after)
    return found


def _narrowed(measure: Callable[[float], int], before: _Start, after: _Start) -> list[_Start]:
    """The smallest x from which the state of `after` holds, by bisection.

    A worse state that hides between the two, in less than a step of the sweep, comes first.
    """
    low, high, last = before.x, after.x, before.state
    while high - low > _REFINED * high:
        middle = (low + high) / 2
        state = measure(middle)
        if state == after.state:
            high = middle
        else:
            low, last = middle, state
    hidden = last > before.state and low > before.x
    earlier = _narrowed(measure, before, _Start(low, last)) if hidden else []
    if earlier and high - earlier[-1].x < _SLIVER * high:
        earlier = []
    return [*earlier, _Start(high, after.state)]
