"""gradcheck: what the vjps say, held against what the function itself does.

The function is evaluated in float64 whatever the dtype of the inputs, so the reference is exact
to many more digits than the gradient that is checked. Where every primitive is analytic the
reference is a complex step, Im f(x + ih) / h, which has no rounding error to speak of; elsewhere,
and as a second opinion on every disagreement, it is a central difference with its own error bar.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinygrad_sm import primitives as p
from tinygrad_sm.backward import grad
from tinygrad_sm.dispatch import Primitive
from tinygrad_sm.errors import (
    GradcheckError,
    InvalidTypeError,
    InvalidValueError,
    TinygradError,
)
from tinygrad_sm.graph import graph
from tinygrad_sm.tensor import Tensor, _made, _rectangular

ANALYTIC = frozenset(
    {
        "add", "sub", "mul", "div", "neg", "pow", "exp", "log", "log1p", "sqrt", "tanh", "sum",
        "mean", "reshape", "transpose", "broadcast_to", "concatenate", "getitem", "scatter",
        "take_along_axis", "where", "matmul",
    }
)  # fmt: skip
"""The primitives whose forward functions continue analytically to complex arrays."""

_SHOWN = 10  # failures that a report's text lists


@dataclass(frozen=True, slots=True)
class GradcheckEntry:
    """One derivative, from both sides.

    Attributes:
        order: 1 for a gradient; 2 for the gradient of (gradient · a random direction).
        input: position of the input.
        name: the input's name, or None.
        index: of the element; None for a derivative along a random direction.
        analytic: what the reverse sweep gives.
        numeric: what the function's own values give.
        error: distance between the two; 0 at a kink whose one-sided slopes enclose `analytic`.
        tolerance: how large `error` may be; it contains the error bar of `numeric`.
        method: "complex step", "central difference" or "one-sided slopes".
        ok: whether the error is within the tolerance and both numbers are finite and certain.
    """

    order: int
    input: int
    name: str | None
    index: tuple[int, ...] | None
    analytic: float
    numeric: float
    error: float
    tolerance: float
    method: str
    ok: bool

    def __str__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        where = "along a random direction" if self.index is None else f"at {self.index}"
        return (
            f"order {self.order}, input {self.input}{name} {where}: vjp {self.analytic:.12g}, "
            f"{self.method} {self.numeric:.12g}, error {self.error:.2g}, "
            f"tolerance {self.tolerance:.2g}"
        )


@dataclass(slots=True)
class GradcheckReport:
    """What a gradient check found; true in a condition when all is right.

    Attributes:
        entries: every derivative that was compared.
        problems: what is wrong besides the numbers, one sentence each: shapes, dtypes,
            functions that change their arguments.
    """

    entries: list[GradcheckEntry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every derivative agrees and nothing else is wrong."""
        return not self.problems and all(e.ok for e in self.entries)

    @property
    def failures(self) -> list[GradcheckEntry]:
        """The derivatives that do not agree."""
        return [e for e in self.entries if not e.ok]

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        failures = self.failures
        head = f"{len(self.entries)} derivatives compared"
        if self.ok:
            worst = max((e.error for e in self.entries), default=0.0)
            return f"gradcheck passed: {head}, largest error {worst:.2g}"
        lines = [f"gradcheck failed: {head}, {len(failures)} wrong"]
        lines += [f"  {problem}" for problem in self.problems]
        lines += [f"  {entry}" for entry in failures[:_SHOWN]]
        if len(failures) > _SHOWN:
            lines.append(f"  and {len(failures) - _SHOWN} more")
        return "\n".join(lines)


def gradcheck(
    f: Callable[..., Tensor],
    inputs: Any,
    *,
    order: int = 1,
    rtol: float | None = None,
    atol: float | None = None,
    max_elements: int = 64,
    directions: int = 8,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> GradcheckReport:
    """Check the gradients of a function against the function's own values.

    A function with more than one output element is checked through Σ w·f with random weights w.
    It also finds a forward or a vjp that changes its arguments, a vjp whose shape does not fit,
    and a result of the wrong dtype. At a kink (relu at 0) any slope between the one-sided ones
    counts as right.

    Args:
        f: maps the inputs to a Tensor; the same inputs must give the same result.
        inputs: an array or a Tensor; a list or tuple holds several, one per argument of `f`.
            Floating-point ones are checked, each in its own dtype. Integers, booleans and
            Tensors with ``requires_grad=False`` are passed on as constants. Nothing given is
            changed, and no `grad` is touched.
        order: 2 checks second derivatives too: those of (gradient · a random direction).
        rtol: allowed error relative to the derivative; the square root of the dtype's epsilon
            unless given.
        atol: allowed error besides; unless given, what rounding leaves of the largest derivative
            and of f's value.
        max_elements: an input with more elements is checked along random directions.
        directions: how many of them.
        seed: of the random directions and weights.
        raise_on_failure: False returns the report of a failed check as well.

    Returns:
        The report, when all is right.

    Raises:
        GradcheckError: something is wrong; the message is the report's text.
        InvalidTypeError: no input is floating point, or `f` does not return a Tensor that
            depends on one.
        InvalidValueError: `order` is neither 1 nor 2.

    Example:
        >>> import numpy as np, tinygrad_sm as tg
        >>> gradcheck(lambda x: tg.exp(x) * x, np.array([0.5, 2.0]), order=2).ok
        True
    """
    if order not in (1, 2):
        raise InvalidValueError(f"gradcheck: order must be 1 or 2; got {order!r}")
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    random = np.random.default_rng(seed)
    leaves = _leaves(given)
    first = _over_leaves(f, given, list(leaves))
    report = GradcheckReport()
    examiner = _Examiner(report, random, rtol, atol, max_elements, directions)
    try:
        scalar = _weighted(first, leaves, random)
        examiner.examine(1, scalar, leaves)
        if order == 2:
            examiner.examine(2, _gradient_along(scalar, leaves, random), leaves)
    except _Hopeless as found:
        report.problems.append(str(found))
    if raise_on_failure and not report.ok:
        raise GradcheckError(str(report))
    return report


# Inputs and the scalar function that is checked ---------------------------------------------------

Leaves = dict[int, Tensor]  # by position among the inputs
Scalar = Callable[..., Tensor]


class _Hopeless(Exception):
    """The function cannot be evaluated or differentiated any further; the report says why."""


def _leaves(given: Sequence[Any]) -> Leaves:
    """Fresh Tensors for the inputs to be checked."""
    leaves = {}
    for i, x in enumerate(given):
        if isinstance(x, Tensor):
            if x.requires_grad:
                leaves[i] = Tensor(x.numpy(), name=x.name)
        elif _rectangular(x, f"gradcheck: input {i}").dtype.kind == "f":
            leaves[i] = Tensor(x)
    if not leaves:
        raise InvalidTypeError(
            "gradcheck: no input can be differentiated; give arrays of floating-point numbers"
        )
    return leaves


def _over_leaves(f: Callable[..., Any], given: list[Any], positions: list[int]) -> Scalar:
    """`f` as a function of the checked inputs alone."""

    def of_leaves(*tensors: Tensor) -> Tensor:
        arguments = list(given)
        for i, t in zip(positions, tensors, strict=True):
            arguments[i] = t
        out = f(*arguments)
        if not isinstance(out, Tensor):
            raise InvalidTypeError(f"gradcheck: f must return a Tensor; got {type(out).__name__}")
        return out

    return of_leaves


def _weighted(f: Scalar, leaves: Leaves, random: np.random.Generator) -> Scalar:
    """Σ w·f: one number that depends on every element of the output."""
    out = _evaluated(f, [Tensor(x) for x in leaves.values()])
    if not out.requires_grad:
        raise InvalidTypeError("gradcheck: f's result does not depend on its inputs")
    if out.dtype.kind != "f":
        raise _Hopeless(f"f's result has the dtype {out.dtype}, which is not floating point")
    if out.size == 1:
        return lambda *tensors: p.reshape(f(*tensors), shape=())
    weights = random.uniform(0.5, 1.5, out.shape) * random.choice([-1, 1], out.shape)
    return lambda *tensors: _dot(f(*tensors), weights)


def _gradient_along(f: Scalar, leaves: Leaves, random: np.random.Generator) -> Scalar:
    """∇f · v, recorded, for a random direction v through all inputs."""
    along = [random.standard_normal(x.shape) for x in leaves.values()]

    def slope(*tensors: Tensor) -> Tensor:
        gradients = grad(f(*tensors), tensors, create_graph=True)
        total: Tensor = p.add(0.0, Tensor(0.0, requires_grad=False))
        for g, v in zip(gradients, along, strict=True):
            total = total + _dot(g, v)
        return total

    return slope


def _dot(x: Tensor, weights: np.ndarray) -> Tensor:
    # a Tensor, since a complex x is no dtype for a plain constant
    total: Tensor = p.sum(x * _made(weights.astype(x.dtype)))
    return total


def _evaluated(f: Scalar, tensors: Any) -> Tensor:
    try:
        return f(*tensors)
    except (GradcheckError, InvalidTypeError):
        raise
    except TinygradError as error:
        raise _Hopeless(f"f raised {type(error).__name__}: {error}") from error


# The examination ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Examiner:
    report: GradcheckReport
    random: np.random.Generator
    rtol: float | None
    atol: float | None
    max_elements: int
    directions: int

    def examine(self, order: int, f: Scalar, leaves: Leaves) -> None:
        """Compare every derivative of a scalar f, and look at each primitive on the way."""
        tensors = list(leaves.values())
        before = [x.numpy().copy() for x in tensors]
        out = _evaluated(f, tensors)
        self.report.problems += dict.fromkeys(_defects(out, self.random))  # each one once
        if _changed([x.numpy() for x in tensors], before):
            raise _Hopeless("f changes its inputs")
        if not _same(out.numpy(), _evaluated(f, tensors).numpy()):
            raise _Hopeless("f gives different results for the same inputs")
        gradients = _gradients(out, tensors)
        numeric = _Numeric(f, [np.asarray(x.numpy(), _reference(x)) for x in tensors], order)
        for k, (i, x) in enumerate(leaves.items()):
            self._compare(order, i, x, gradients[k], k, numeric)

    def _compare(
        self, order: int, i: int, x: Tensor, g: np.ndarray, k: int, numeric: _Numeric
    ) -> None:
        eps = float(np.finfo(x.dtype).eps)
        rtol = eps**0.5 if self.rtol is None else self.rtol
        largest = float(np.max(np.abs(g[np.isfinite(g)]), initial=0.0))
        for index, v, scale in self._ways(x):
            analytic = float(g[index] if index is not None else np.sum(g * v, dtype=v.dtype))
            # what rounding leaves of the largest derivative and of f's own value
            noise = max(0.01 * eps**0.5, 16 * eps) * largest + 16 * eps * numeric.size / scale
            floor = noise if self.atol is None else self.atol
            quick = numeric.quick(k, v)
            if quick is not None and quick.agrees(analytic, rtol, floor):
                found = quick
            else:
                found = numeric.careful(k, v, scale, rtol, floor)
            tolerance = rtol * abs(found.value) + floor + found.error
            ok = found.agrees(analytic, rtol, floor)
            error = abs(analytic - found.value)
            if not ok and found.encloses(analytic, tolerance):
                ok, error, found = True, 0.0, found.at_kink()
            self.report.entries.append(
                GradcheckEntry(
                    order, i, x.name, index, analytic, found.value, error, tolerance,
                    found.method, ok,
                )
            )  # fmt: skip

    def _ways(self, x: Tensor) -> Iterator[tuple[tuple[int, ...] | None, np.ndarray, float]]:
        """Index, direction and length of a step for each element, or for random directions."""
        if x.size <= self.max_elements:
            for index in np.ndindex(x.shape):
                unit = np.zeros(x.shape)
                unit[index] = 1
                yield index, unit, max(1.0, abs(float(x.numpy()[index])))
        else:
            reach = np.maximum(1, np.abs(x.numpy())) / x.size**0.5
            for _ in range(self.directions):
                yield None, self.random.standard_normal(x.shape) * reach, 1.0


def _gradients(out: Tensor, tensors: list[Tensor]) -> list[np.ndarray]:
    if not out.requires_grad:  # a gradient that is constant
        return [np.zeros(x.shape, x.dtype) for x in tensors]
    try:
        gradients = grad(out, tensors)
    except TinygradError as error:
        raise _Hopeless(f"the backward sweep raised {type(error).__name__}: {error}") from error
    return list(gradients)


def _reference(x: Tensor) -> np.dtype[Any]:
    return np.result_type(x.dtype, np.float64)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


# Derivatives from values --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A numerical derivative with its error bar, and the one-sided slopes where they differ."""

    value: float
    error: float
    method: str = "central difference"
    slopes: tuple[float, float] | None = None
    blur: float = 0.0  # an error bar that this point excuses even where the derivative is 0

    def agrees(self, analytic: float, rtol: float, floor: float) -> bool:
        """Whether `analytic` is right, as far as this estimate is sharp enough to tell."""
        size = max(abs(self.value), abs(analytic))
        sharp = self.error <= max(1e-3, rtol) * size + floor + self.blur
        return sharp and abs(analytic - self.value) <= rtol * abs(self.value) + floor + self.error

    def doubt(self, blur: float) -> float:
        """The error bar relative to the value."""
        return self.error / (abs(self.value) + blur + np.finfo(float).tiny)

    def encloses(self, analytic: float, tolerance: float) -> bool:
        """Whether `analytic` is a slope between the one-sided ones of a kink."""
        if self.slopes is None or not np.isfinite(analytic):
            return False
        slack = min(tolerance, 1e-3 * (self.slopes[1] - self.slopes[0]))
        return self.slopes[0] - slack <= analytic <= self.slopes[1] + slack

    def at_kink(self) -> _Estimate:
        return replace(self, method="one-sided slopes")


class _Numeric:
    """The derivatives of a scalar function at a point, from its values in float64."""

    def __init__(self, f: Scalar, at: list[np.ndarray], order: int) -> None:
        self.f = f
        self.at = at
        self.order = order
        tensors = [Tensor(x) for x in at]
        out = _evaluated(f, tensors)
        self.size = abs(float(out.numpy()))
        self.eps = float(np.finfo(np.float64).eps)
        self.analytic = True
        for node in graph(out).nodes:
            if node.tensor is not None and node.tensor.op is not None and node.dtype[0] == "f":
                self.analytic &= node.op in ANALYTIC
                self.eps = max(self.eps, float(np.finfo(node.tensor.dtype).eps))
                if node.op in ("sum", "add", "sub", "mean"):  # terms that may cancel
                    self.size = max(self.size, _terms(node.tensor))

    def __call__(self, k: int, v: np.ndarray, t: float) -> float:
        """f with input k moved by t·v."""
        tensors = [Tensor(x + t * v if i == k else x) for i, x in enumerate(self.at)]
        return float(self.f(*tensors).numpy())

    def _nearest(self, k: int, v: np.ndarray) -> float:
        """The smallest magnitude, up to 1, among the elements that v moves; zeros aside."""
        x = np.abs(self.at[k][(v != 0) & (self.at[k] != 0)])
        return float(np.min(x, initial=1.0))

    def quick(self, k: int, v: np.ndarray) -> _Estimate | None:
        """The complex step, or None where f does not continue to complex numbers."""
        if not self.analytic:
            return None
        h = 2.0**-100 * self._nearest(k, v)
        moved: list[Tensor] = [
            _made(x + 1j * h * v if i == k else x + 0j) for i, x in enumerate(self.at)
        ]
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                out = self.f(*moved).numpy()
        except (TinygradError, TypeError, ValueError, ArithmeticError, Warning):
            self.analytic = False  # e.g. a second derivative, or a cast to a real dtype
            return None
        if out.dtype.kind != "c":
            return None
        value = float(out.imag) / h
        return _Estimate(value, 64 * self.eps * abs(value), "complex step")

    def careful(self, k: int, v: np.ndarray, scale: float, rtol: float, floor: float) -> _Estimate:
        """The central difference from the step that gives the smallest error bar."""
        steps = [self.eps ** (1 / 7) * scale, self.eps ** (1 / 3) * scale]
        near = self._nearest(k, v)
        blur = self.eps**0.5 * self.size / scale
        if near < 1:  # e.g. the logarithm of a small number
            steps += [self.eps ** (1 / 7) * near, self.eps ** (1 / 3) * near]
        steps += [self.eps ** (1 / 2) * scale, self.eps ** (2 / 3) * scale]  # a steep function
        best = _Estimate(0.0, np.inf)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for step in steps:
                found = self._extrapolated(k, v, 2.0 ** round(np.log2(step)))
                if found.doubt(blur) < best.doubt(blur):  # a NaN is not less than anything
                    best = found
                if best.error <= 0.1 * rtol * abs(best.value) + 0.1 * floor:
                    break
            slopes = self._kink(k, v, 2.0 ** round(np.log2(self.eps ** (1 / 3) * scale)))
        return replace(best, slopes=slopes, blur=blur)

    def _extrapolated(self, k: int, v: np.ndarray, h: float) -> _Estimate:
        """Richardson's extrapolation of the central differences with h, h/2, h/4 to h = 0."""
        values = [(self(k, v, t), self(k, v, -t)) for t in (h, h / 2, h / 4)]
        d = [(up - down) / (2 * t) for (up, down), t in zip(values, (h, h / 2, h / 4), strict=True)]
        once = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
        value = (16 * once[1] - once[0]) / 15
        size = max(self.size, *(abs(x) for pair in values for x in pair))
        return _Estimate(value, abs(once[1] - once[0]) + 8 * self.eps * size / h)

    def _kink(self, k: int, v: np.ndarray, h: float) -> tuple[float, float] | None:
        """The slopes to the left and to the right, if they differ and stay so as h shrinks."""
        middle = self(k, v, 0.0)
        far, near = ((middle - self(k, v, -t), self(k, v, t) - middle, t) for t in (h, h / 4))
        rounding = 64 * self.eps * max(self.size, abs(middle))
        if any(abs(near[i]) > max(0.9 * abs(far[i]), rounding) for i in (0, 1)):  # a jump
            # of the gradient, where f has a kink: its derivative there is whatever it is said to be
            return (-np.inf, np.inf) if self.order == 2 else None
        bends = [abs(right - left) / t for left, right, t in (far, near)]
        if not bends[1] > max(0.5 * bends[0], rounding / h):
            return None
        left, right, t = near
        return (min(left, right) / t, max(left, right) / t)


def _terms(t: Tensor) -> float:
    """The largest finite magnitude among the numbers that a Tensor was added up from."""
    found = 0.0
    for a in t._args:
        array = np.asarray(a)
        finite = np.abs(array[np.isfinite(array)])
        found = max(found, float(np.max(finite, initial=0.0)))
    return found


# Defects of a primitive that its numbers may not show ---------------------------------------------


def _defects(out: Tensor, random: np.random.Generator) -> Iterator[str]:
    """Run every recorded operation again on copies, and say what is not as it must be."""
    for node in graph(out).nodes:
        t = node.tensor
        if t is not None and t._op is not None:
            yield from _forward_defects(t, t._op)
            yield from _vjp_defects(t, t._op, random)


def _copies(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(np.array(v) if isinstance(v, np.ndarray) else v for v in values)


def _changed(values: Sequence[Any], before: Sequence[Any]) -> list[int]:
    pairs = enumerate(zip(values, before, strict=True))
    return [i for i, (v, b) in pairs if isinstance(v, np.ndarray) and not _same(v, b)]


def _forward_defects(t: Tensor, op: Primitive) -> Iterator[str]:
    args = _copies(t._args)
    again = np.asarray(op.forward(*args, **t._params))
    for i in _changed(args, t._args):
        yield f"the forward function of {op.name!r} changes its argument {i}"
    if not _same(again, t._data):
        yield (
            f"the result of {op.name!r} is not what its forward function gives a second time: "
            "it is random, or an operation on the result changes it"
        )
    vjps = op.vjps(len(args))
    numbers = [a for a, vjp in zip(t._args, vjps, strict=True) if vjp is not None]
    allowed = {np.asarray(a).dtype for a in numbers} | {np.result_type(*numbers)}
    if op.name != "astype" and t.dtype not in allowed:
        names = " and ".join(sorted({str(np.asarray(a).dtype) for a in numbers}))
        yield f"the forward function of {op.name!r} turns {names} into {t.dtype}"


def _vjp_defects(t: Tensor, op: Primitive, random: np.random.Generator) -> Iterator[str]:
    vjps = op.vjps(len(t._args))
    if t.dtype.kind != "f":
        return
    for i, (x, vjp) in enumerate(zip(t._inputs, vjps, strict=True)):
        if x is None or not x.requires_grad or vjp is None:
            continue
        cotangent = random.standard_normal(t.shape).astype(t.dtype)
        before = (cotangent, t._data, *t._args)
        given = _copies(before)
        with np.errstate(all="ignore"):  # a random cotangent may overflow where the real one fits
            c = vjp(*given, **t._params)
        who = f"the vjp of {op.name!r} for argument {i}"
        names = ["its cotangent", "the output", *(f"argument {j}" for j in range(len(t._args)))]
        for j in _changed(given, before):
            yield f"{who} changes {names[j]}"
        if c is not None:
            yield from _result_defects(np.asarray(c), x, t, who)


def _result_defects(c: np.ndarray, x: Tensor, t: Tensor, who: str) -> Iterator[str]:
    extra = c.ndim - x.ndim
    if extra < 0 or any(n not in (1, m) for n, m in zip(x.shape, c.shape[extra:], strict=True)):
        yield f"{who} returns shape {c.shape}; the argument's shape is {x.shape}"
    digits = min(np.finfo(x.dtype).precision, np.finfo(t.dtype).precision)
    if c.dtype.kind != "f" or np.finfo(c.dtype).precision < digits:
        yield f"{who} returns {c.dtype}; the argument's dtype is {x.dtype}"
