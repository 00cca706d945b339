"""The stability lab: where each form of softmax-cross-entropy leaves the truth, and at which node.

Three sweeps of three logits meet the three ways to break: large logits (the range of exp), a right
class far ahead (1 − p cancels), a right class far behind (p underflows). Every form runs on the
same logits and is held against `exact`, which shares no code with any of them. Numbers only; the
pictures are in `viz.lab`.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm import primitives as p
from tinygrad_sm.backward import BackwardTrace
from tinygrad_sm.diagnose import first_breakdown, underflowed
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.graph import Graph, Node, graph
from tinygrad_sm.loss.composite import composite_cross_entropy
from tinygrad_sm.loss.softmax import row_maximum, softmax
from tinygrad_sm.loss.softmax_with_loss import cross_entropy
from tinygrad_sm.tensor import Tensor, group

DTYPES = ("float32", "float64")
STATES = ("ok", "digits lost", "0", "inf", "NaN")
"""What a result can be, from the mildest to the worst; states are kept as positions in here."""
OK, LOST, ZERO, INF, NAN = range(len(STATES))

TOLERANCE = 1e-3
FLOOR = 1e-15
"""What the clipped form raises probabilities to, as DeZero does."""
_FORGIVEN = 5  # units in the last place: what a denormal truth may lose without being broken
_DIGITS = 60  # of the exact reference
_POINTS = 600  # per sweep, in equal ratios
_WINDOW = 8  # points: a lucky rounding this close to broken ones on both sides is broken too
_REFINED = 1e-7  # relative width to which the start of a band is narrowed down
_SLIVER = 1e-6  # relative width of a hidden band that is one tie, not a stretch

Record = Graph | BackwardTrace


# The truth ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exact:
    """The loss −log p_t, and the gradient p − y with one entry per class, to 60 digits."""

    loss: Decimal
    gradient: tuple[Decimal, ...]


@lru_cache(maxsize=8192)
def exact(logits: tuple[float, ...], target: int) -> Exact:
    """Return loss and gradient of one row of finite logits, by decimal arithmetic.

    L = log(1 + R/e_t) and p_t − 1 = −R/S with R = Σ_{k≠t} e_k, so that nothing cancels.
    """
    with decimal.localcontext(prec=_DIGITS, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX):
        a = [Decimal(x) for x in logits]
        e = [(x - max(a)).exp() for x in a]
        total = sum(e, Decimal(0))
        rest = sum(e[:target] + e[target + 1 :], Decimal(0))
        gradient = [x / total for x in e]
        gradient[target] = -rest / total
        return Exact(_log1p(rest / e[target]), tuple(gradient))


def _log1p(x: Decimal) -> Decimal:
    if x < Decimal("1e-20"):  # the next term is below the 60 digits
        return x - x * x / 2 + x * x * x / 3
    with decimal.localcontext() as context:
        context.prec += 20  # for the digits of x that 1 + x pushes out
        return (1 + x).ln()


# The forms ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """One way to compute the loss and its gradient.

    Attributes:
        name: short, for JSON.
        label: for tables and pictures.
        build: maps logits, a Tensor of shape (rows, classes), and the right class of every row
            to the losses (rows,) and the gradient, or None where `backward` computes it.
    """

    name: str
    label: str
    build: Callable[[Tensor, int], tuple[Tensor, Tensor | None]] = field(repr=False)


def _composite(form: str) -> Callable[[Tensor, int], tuple[Tensor, None]]:
    def build(a: Tensor, target: int) -> tuple[Tensor, None]:
        right = np.full(a.shape[0], target)
        return composite_cross_entropy(a, right, form=form, reduction="none"), None

    return build


def _textbook(a: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The article's fused code: p = exp(a) / sum(exp(a)), da = p, da[target] -= 1."""
    prob = np.exp(a) / np.sum(np.exp(a), axis=-1, keepdims=True)
    prob.name = "p"
    y = np.zeros(a.shape, a.dtype)
    y[:, target] = 1
    gradient = prob - y  # p − 0 is exact, so this is the same as changing one entry in place
    gradient.name = "da"
    return -np.log(prob[:, target]), gradient


def _clipped(a: Tensor, target: int) -> tuple[Tensor, None]:
    """Probabilities raised to a floor before the logarithm, so that log(0) cannot happen."""
    with group("softmax"):
        e = p.exp(a - row_maximum(a.numpy(), -1))
        prob = e / e.sum(axis=-1, keepdims=True)
        e.name, prob.name = "e", "p"
    clipped = p.maximum(prob, FLOOR)
    clipped.name = "clipped"
    return -clipped.log()[:, target], None


def _fused(a: Tensor, target: int) -> tuple[Tensor, None]:
    return cross_entropy(a, np.full(a.shape[0], target), reduction="none"), None


FORMS = (
    Form("naive", "naive composite", _composite("naive")),
    Form("textbook", "textbook's p − y", _textbook),
    Form("shifted", "shifted composite", _composite("shifted")),
    Form("clipped", "clipped p (1e-15)", _clipped),
    Form("logsumexp", "log-sum-exp composite", _composite("logsumexp")),
    Form("fused", "fused node", _fused),
)


def _computed(form: Form, logits: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a form makes of rows of logits: losses (rows,), gradient (rows, classes)."""
    a = Tensor(logits)
    with np.errstate(all="ignore"):  # what breaks is reported, not warned about
        loss, gradient = form.build(a, target)
        if gradient is None:
            loss.backward(np.ones(loss.shape))
    return loss.numpy(), a.grad if gradient is None else gradient.numpy()


def _recorded(form: Form, logits: np.ndarray, target: int, what: str) -> Record:
    """Return the record to look in for what is wrong with the "loss" or the "gradient"."""
    a = Tensor(logits, name="a")
    with np.errstate(all="ignore"):
        loss, gradient = form.build(a, target)
        if what == "loss":
            return graph(loss)
        if gradient is not None:
            return graph(gradient)
        trace = loss.backward(np.ones(loss.shape), trace=True)
    assert trace is not None
    return trace


# The sweeps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sweep:
    """A family of three logits, slope · x + offset, as x grows from 1 to `stop`.

    Attributes:
        name: short, for JSON.
        title: what is swept.
        formula: the logits in words, x written as `symbol`.
        symbol: the name of x.
        slope, offset: one number per class.
        target: the right class.
        stop: the largest x.
    """

    name: str
    title: str
    formula: str
    symbol: str
    slope: tuple[float, ...]
    offset: tuple[float, ...]
    target: int
    stop: float

    def logits(self, x: Any, dtype: str) -> np.ndarray:
        """Return the logits at each x: shape (number of x, classes)."""
        rows = np.multiply.outer(np.atleast_1d(np.asarray(x, np.float64)), self.slope)
        return (rows + self.offset).astype(dtype)


SWEEPS = (
    Sweep(
        "scale", "scale of the logits", "a = (s, s/2, s/20), the second class is right", "s",
        (1.0, 0.5, 0.05), (0.0, 0.0, 0.0), 1, 10_000.0,
    ),
    Sweep(
        "ahead", "right class ahead by a margin", "a = (m, 0, −1), the first class is right", "m",
        (1.0, 0.0, 0.0), (0.0, 0.0, -1.0), 0, 3_000.0,
    ),
    Sweep(
        "behind", "right class behind by a margin: confidently wrong",
        "a = (0, m, m − 1), the first class is right", "m",
        (0.0, 1.0, 1.0), (0.0, 0.0, -1.0), 0, 3_000.0,
    ),
)  # fmt: skip


# The judgement ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Judge:
    """Holds computed numbers of one dtype against exact ones."""

    dtype: str
    tolerance: float

    def state(self, computed: float, truth: Decimal) -> int:
        """Return the position in STATES that a computed number earns."""
        if math.isnan(computed):
            return NAN
        if math.isinf(computed):
            return INF
        error = abs(Decimal(computed) - truth)
        if error <= Decimal(self.tolerance) * abs(truth) or error <= _FORGIVEN * self._unit(truth):
            return OK
        return ZERO if computed == 0 else LOST

    def ulps(self, computed: float, truth: Decimal) -> float:
        """Return the error in units in the last place of the truth; NaN if it is not finite."""
        if not math.isfinite(computed):
            return math.nan
        return float(abs(Decimal(computed) - truth) / self._unit(truth))

    def _unit(self, truth: Decimal) -> Decimal:
        return Decimal(float(np.spacing(np.asarray(abs(float(truth)), self.dtype))))


@dataclass(frozen=True, slots=True)
class _Measured:
    """States (rows,) of the gradient (its worst entry) and the loss; ULP of the right entry."""

    gradient: np.ndarray
    loss: np.ndarray
    ulps: np.ndarray


def _measure(form: Form, sweep: Sweep, x: Any, judge: _Judge) -> _Measured:
    logits = sweep.logits(x, judge.dtype)
    losses, gradients = _computed(form, logits, sweep.target)
    gradient, loss, ulps = [], [], []
    for row, found, found_loss in zip(
        logits.tolist(), gradients.tolist(), losses.tolist(), strict=True
    ):
        truth = exact(tuple(row), sweep.target)
        gradient.append(max(map(judge.state, found, truth.gradient)))
        loss.append(judge.state(found_loss, truth.loss))
        ulps.append(judge.ulps(found[sweep.target], truth.gradient[sweep.target]))
    return _Measured(np.array(gradient), np.array(loss), np.array(ulps))


def _closed(states: np.ndarray) -> np.ndarray:
    """Raise a state to the worse ones near it on both sides: it was a lucky rounding."""
    found = states.copy()
    for i in range(1, len(states) - 1):
        before = states[max(i - _WINDOW, 0) : i].max()
        after = states[i + 1 : i + 1 + _WINDOW].max()
        found[i] = max(states[i], min(before, after))
    return found


# The causes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cause:
    """The first node that is to blame, and why.

    Attributes:
        node: its id in the form's graph for one row; None if there is no single one.
        name: the user's name for it, or None.
        op: its operation, or None.
        phase: "forward" or "backward".
        text: one sentence.
    """

    node: int | None
    name: str | None
    op: str | None
    phase: str
    text: str

    def __str__(self) -> str:
        if self.node is None:
            return self.text
        name = f"{self.name!r} ({self.op})" if self.name else self.op
        return f"{self.phase} at node {self.node} {name}: {self.text}"


def _at(node: Node, phase: str, text: str) -> Cause:
    return Cause(node.id, node.name, node.op, phase, text)


def _cause(record: Record, state: int, judge: _Judge, target: int) -> Cause:
    """The first explanation that fits, from the plainest to the most roundabout."""
    forward = record.graph if isinstance(record, BackwardTrace) else record
    # infinities that did not reach the result are not to blame for lost digits
    found = (
        (_not_finite(record, target) if state in (INF, NAN) else None)
        or _floored(forward, target)
        or _cancelled_backward(record, judge)
        or _cancelled_forward(forward, judge)
        or _rounded_to_one(forward, judge, target)
        or _denormal(forward, target)
        or _vanished(forward, target)
    )
    text = f"the roundings add up to more than {judge.tolerance:g} of the result"
    return found or Cause(None, None, None, "backward", text)


def _not_finite(record: Record, target: int) -> Cause | None:
    broken = first_breakdown(record)
    if broken is None:
        return None
    harmless = broken.node.op == "log" and broken.index[-1] != target and len(broken.index) > 1
    aside = f" for class {broken.index[-1]}, which is not even the right one" if harmless else ""
    return _at(broken.node, broken.phase, broken.cause + aside + _how_nan_came(record))


def _how_nan_came(record: Record) -> str:
    """The step from inf to NaN, which makes every entry useless."""
    forward = record.graph if isinstance(record, BackwardTrace) else record
    for node in forward.nodes:
        if np.isnan(node.value).any():
            made = {"div": "inf/inf", "sub": "inf − inf", "mul": "0·inf"}.get(node.op, node.op)
            return f"; then {made} = NaN at node {node.id}"
    if isinstance(record, BackwardTrace):
        for step in record.steps:
            if any(np.isnan(edge.value).any() for edge in step.passed_on):
                made = "0/0" if step.node.op == "log" else "0·inf"
                return f"; then {made} = NaN in the vjp of {step.node.op} at node {step.node.id}"
    return ""


def _floored(forward: Graph, target: int) -> Cause | None:
    """A maximum that put a floor in the place of the right class's probability."""
    for node in forward.nodes:
        if node.op == "maximum":
            given = forward.nodes[node.inputs[0]].value[0, target]
            if given < node.value[0, target]:
                text = f"p is below the floor {FLOOR:g}, which passes no gradient on"
                return _at(node, "forward", text)
    return None


def _cancelled_backward(record: Record, judge: _Judge) -> Cause | None:
    """The first Tensor of the sweep at which contributions cancel to little but rounding."""
    if not isinstance(record, BackwardTrace):
        return None
    for step in record.steps:
        if step.node.tensor is None:
            continue
        parts = [edge.value for edge in record.contributions(step.node.tensor)]
        at = _cancelled(parts, step.cotangent, judge) if len(parts) > 1 else None
        if at is not None:
            text = _cancel_text([part[at] for part in parts], step.cotangent[at])
            return _at(step.node, "backward", f"the contributions {text}")
    return None


def _cancelled_forward(forward: Graph, judge: _Judge) -> Cause | None:
    """The first difference or sum of rounded numbers that cancel to little but rounding."""
    for node in forward.nodes:
        computed = any(forward.nodes[i].inputs for i in node.inputs)  # others hold no rounding
        if node.op in ("add", "sub") and computed:
            parts = [np.broadcast_to(forward.nodes[i].value, node.shape) for i in node.inputs]
            at = _cancelled(parts, node.value, judge)
            if at is not None:
                sign = -1 if node.op == "sub" else 1
                text = _cancel_text([parts[0][at], sign * parts[1][at]], node.value[at])
                return _at(node, "forward", text)
    return None


def _cancel_text(terms: Sequence[float], total: float) -> str:
    """E.g. "+1 and -1 cancel to 8.9e-13, whose digits are rounding"."""
    left = "0" if total == 0 else f"{total:.2g}, whose digits are rounding"
    return f"{' and '.join(f'{term:+.4g}' for term in terms)} cancel to {left}"


def _cancelled(
    parts: Sequence[np.ndarray], total: np.ndarray, judge: _Judge
) -> tuple[int, ...] | None:
    """Where the rounding of the largest part is more of the total than the tolerance."""
    largest = np.max([np.abs(part) for part in parts], axis=0).astype(np.float64)
    others = np.min([np.abs(part) for part in parts], axis=0)
    rounding = float(np.finfo(judge.dtype).eps) * largest
    bad = (others > 0) & (np.abs(total) * judge.tolerance <= 4 * rounding)
    return tuple(int(i) for i in np.argwhere(bad)[0]) if bad.any() else None


def _rounded_to_one(forward: Graph, judge: _Judge, target: int) -> Cause | None:
    """A logarithm of a probability whose distance from 1 was rounded away."""
    for node in forward.nodes:
        if node.op == "log":
            x = forward.nodes[node.inputs[0]]
            gap = abs(1.0 - float(x.value.flat[target if x.value.size > target else 0]))
            if gap * judge.tolerance <= 4 * float(np.finfo(judge.dtype).eps):
                made = forward.nodes[x.inputs[0]] if x.op == "getitem" else x
                return _at(made, "forward", f"1 − p = {gap:.2g} was rounded with p, before the log")
    return None


def _denormal(forward: Graph, target: int) -> Cause | None:
    """A number of the right class below the normal range, where digits are missing."""
    for node in forward.nodes:
        if node.op in ("exp", "div") and node.value.ndim == 2 and node.shape[1] > target:
            value = float(node.value[0, target])
            if 0 < value < float(np.finfo(node.dtype).tiny):
                text = f"{value:.3g} is denormal in {node.dtype} and has lost digits"
                return _at(node, "forward", text)
    return None


def _vanished(forward: Graph, target: int) -> Cause | None:
    """A number that became 0: too small for the dtype, or divided by one that had overflowed."""
    node = underflowed(forward)
    if node is None:
        return None
    if not all(np.isfinite(forward.nodes[i].value).all() for i in node.inputs):
        return _not_finite(forward, target)
    return _at(node, "forward", f"a number too small for {node.dtype} became 0")


# The report ---------------------------------------------------------------------------------------


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
        return {
            "dtype": self.dtype,
            "tolerance": self.tolerance,
            "sweeps": {
                s.sweep.name: {
                    "title": s.sweep.title,
                    "logits": s.sweep.formula,
                    "symbol": s.sweep.symbol,
                    "forms": {
                        f.form.name: {
                            "gradient": [asdict(band) for band in f.gradient],
                            "loss": [asdict(band) for band in f.loss],
                        }
                        for f in s.forms
                    },
                }
                for s in self.sweeps
            },
        }


def stability(dtype: str = "float64", *, tolerance: float = TOLERANCE) -> Report:
    """Sweep the logits' scale and the margin, and find where each form breaks, and why.

    Args:
        dtype: "float32" or "float64".
        tolerance: relative error above which a result has lost its digits, in (0, 1). An error
            of up to 5 units in the last place never counts.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not one of those.
    """
    if dtype not in DTYPES:
        raise InvalidValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
        raise InvalidTypeError(f"tolerance must be a number; got {type(tolerance).__name__}")
    if not 0 < tolerance < 1:
        raise InvalidValueError(f"tolerance must lie between 0 and 1; got {tolerance}")
    judge = _Judge(dtype, float(tolerance))
    return Report(dtype, judge.tolerance, tuple(_swept(sweep, judge) for sweep in SWEEPS))


def _swept(sweep: Sweep, judge: _Judge) -> SweepReport:
    x = np.geomspace(1.0, sweep.stop, _POINTS)
    return SweepReport(sweep, x, tuple(_examined(form, sweep, x, judge) for form in FORMS))


def _examined(form: Form, sweep: Sweep, x: np.ndarray, judge: _Judge) -> FormReport:
    measured = _measure(form, sweep, x, judge)

    def bands(what: str) -> tuple[Band, ...]:
        starts = _starts(
            lambda one: int(getattr(_measure(form, sweep, one, judge), what)[0]),
            x,
            _closed(getattr(measured, what)),
        )
        stops = [*(start.x for start in starts[1:]), float(x[-1])]
        return tuple(
            Band(at, stop, STATES[state], _blamed(form, sweep, at, state, what, judge))
            for (at, state), stop in zip(starts, stops, strict=True)
        )

    return FormReport(form, bands("gradient"), bands("loss"), measured.ulps)


def _blamed(
    form: Form, sweep: Sweep, x: float, state: int, what: str, judge: _Judge
) -> Cause | None:
    if state == OK:
        return None
    record = _recorded(form, sweep.logits(x, judge.dtype), sweep.target, what)
    return _cause(record, state, judge, sweep.target)


class _Start(NamedTuple):
    """An x from which a state holds."""

    x: float
    state: int


def _starts(measure: Callable[[float], int], x: np.ndarray, states: np.ndarray) -> list[_Start]:
    """Return where each stretch of equal states begins, narrowed down between the points."""
    found = [_Start(float(x[0]), int(states[0]))]
    for i in range(1, len(x)):
        if states[i] != states[i - 1]:
            before = _Start(float(x[i - 1]), int(states[i - 1]))
            found += _narrowed(measure, before, _Start(float(x[i]), int(states[i])))
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


# "The gradient seldom dies" -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfidentlyWrong:
    """Gradients at the logits a = (0, m, m − 1), first class right, as the margin m grows.

    Attributes:
        margins: (points,) by how much the right class is behind.
        probabilities: (points, 3) softmax of the logits.
        squared: (points, 3) gradient of ½ Σ (p − y)².
        cross: (points, 3) gradient of the cross-entropy, by the fused node.
        naive: (points, 3) the same by the naive composite, which finite precision kills.
    """

    margins: np.ndarray
    probabilities: np.ndarray
    squared: np.ndarray
    cross: np.ndarray
    naive: np.ndarray


def confidently_wrong(
    margins: Iterable[float] | None = None, dtype: str = "float64"
) -> ConfidentlyWrong:
    """Return what two losses on the same softmax tell the logits of ever worse predictions.

    With rivals r, the squared error's gradient at the right class t is
    −p_t ((1 − p_t)² + Σ_r p_r²), which vanishes with the Jacobian's entries p_t p_r; the
    cross-entropy's is p_t − 1, which tends to −1.

    Args:
        margins: finite numbers; negative ones put the right class ahead. By default from −6 to
            800 in tenths.
        dtype: "float32" or "float64".

    Raises:
        InvalidValueError: an argument is not one of those.
    """
    if dtype not in DTYPES:
        raise InvalidValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    x = np.arange(-60, 8001) / 10 if margins is None else np.array(list(margins), np.float64)
    if not (x.ndim == 1 and np.isfinite(x).all()):
        raise InvalidValueError(f"margins must be a flat list of finite numbers; got {margins!r}")
    behind = next(sweep for sweep in SWEEPS if sweep.name == "behind")
    logits = behind.logits(x, dtype)
    y = np.zeros_like(logits)
    y[:, behind.target] = 1

    a = Tensor(logits, name="a")
    prob = softmax(a)
    (0.5 * ((prob - y) ** 2).sum()).backward()
    squared = a.grad
    gradients = {form.name: _computed(form, logits, behind.target)[1] for form in FORMS}
    return ConfidentlyWrong(x, prob.numpy(), squared, gradients["fused"], gradients["naive"])
