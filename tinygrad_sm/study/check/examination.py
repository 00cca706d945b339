"""The check: every derivative from the reverse sweep beside the one from the function's values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine import shapes
from tinygrad_sm.engine.gradients import grad
from tinygrad_sm.engine.intake import rectangular
from tinygrad_sm.engine.tensor import Tensor, constant
from tinygrad_sm.errors import (
    GradcheckError,
    InvalidTypeError,
    InvalidValueError,
    TinygradError,
    shown,
)
from tinygrad_sm.study.check.defects import changed, defects_in, same
from tinygrad_sm.study.check.numeric import Hopeless, Numeric, Scalar, evaluated, largest
from tinygrad_sm.study.check.report import INFINITE, NOT_CHECKED, GradcheckEntry, GradcheckReport


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
    and a result of the wrong dtype. Near a kink the differences shrink until they do not cross it;
    at a kink (relu at 0) any slope between the one-sided ones counts as right. Where even that is
    unknown, as for the second derivative there, the report says "not checked: kink", and if nothing
    of an order could be checked, the check has failed.

    Args:
        f: maps the inputs to a Tensor; the same inputs must give the same result.
        inputs: an array or a Tensor; a list or tuple holds several, one per argument of `f`.
            Floating-point ones are checked, each in its own dtype. Integers (but for those of an
            only input, which become float64), booleans and Tensors with ``requires_grad=False``
            are passed on as constants. Nothing given is changed, and no `grad` is touched.
        order: 2 checks second derivatives too: those of (gradient · a random direction).
        rtol: allowed error relative to the derivative; the square root of the dtype's epsilon
            unless given.
        atol: allowed error besides; unless given, what rounding leaves of the largest derivative
            and of f's value.
        max_elements: an input with more elements is checked along random directions, and by a
            random element in place of a direction where many of them are at kinks.
        directions: how many of them.
        seed: of the random directions and weights.
        raise_on_failure: False returns the report of a failed check as well.

    Returns:
        The report, when all is right.

    Raises:
        GradcheckError: something is wrong; the message is the report's text.
        InvalidTypeError: no input is floating point, or `f` does not return a Tensor that
            depends on one, or it is no function.
        InvalidValueError: `order` is neither 1 nor 2, or `directions` is less than 1.

    Examples:
        >>> import numpy as np, tinygrad_sm as tg
        >>> gradcheck(lambda x: tg.exp(x) * x, np.array([0.5, 2.0]), order=2).ok
        True
    """
    if order not in (1, 2):
        raise InvalidValueError(f"gradcheck: order must be 1 or 2; got {shown(order)}")
    if not callable(f):
        raise InvalidTypeError(f"gradcheck: f must be a function; got {type(f).__name__}")
    if directions < 1:  # a large input would pass unseen
        raise InvalidValueError(
            f"gradcheck: directions must be at least 1; got {shown(directions)}"
        )
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
    except Hopeless as found:
        report.problems.append(str(found))
    if raise_on_failure and not report.ok:
        raise GradcheckError(str(report))
    return report


# Inputs and the scalar function that is checked ---------------------------------------------------

Leaves = dict[int, Tensor]  # by position among the inputs


def _leaves(given: Sequence[Any]) -> Leaves:
    """Fresh Tensors for the inputs to be checked."""
    leaves = {}
    checked = "f" if len(given) > 1 else "fiu"
    for i, x in enumerate(given):
        if isinstance(x, Tensor):
            if x.requires_grad:
                leaves[i] = Tensor(x.numpy(), name=x.name)
        elif rectangular(x, f"gradcheck: input {i}").dtype.kind in checked:
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
    out = evaluated(f, [Tensor(x) for x in leaves.values()])
    if not out.requires_grad:
        raise InvalidTypeError("gradcheck: f's result does not depend on its inputs")
    if out.dtype.kind != "f":
        raise Hopeless(f"f's result has the dtype {out.dtype}, which is not floating point")
    if out.size == 1:
        return lambda *tensors: shapes.reshape(f(*tensors), shape=())
    weights = random.uniform(0.5, 1.5, out.shape) * random.choice([-1, 1], out.shape)
    return lambda *tensors: _dot(f(*tensors), weights)


def _gradient_along(f: Scalar, leaves: Leaves, random: np.random.Generator) -> Scalar:
    """∇f · v, recorded, for a random direction v through all inputs."""
    along = [random.standard_normal(x.shape) for x in leaves.values()]

    def slope(*tensors: Tensor) -> Tensor:
        gradients = grad(f(*tensors), tensors, create_graph=True, allow_unused=True)
        total: Tensor = p.add(0.0, Tensor(0.0, requires_grad=False))
        for g, v in zip(gradients, along, strict=True):
            total = total + _dot(g, v)
        return total

    return slope


def _dot(x: Tensor, weights: np.ndarray) -> Tensor:
    # a Tensor, since a complex x is no dtype for a plain constant
    total: Tensor = p.sum(x * constant(weights.astype(x.dtype)))
    return total


# The examination ----------------------------------------------------------------------------------


Way = tuple[tuple[int, ...] | None, np.ndarray, float]


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
        before = [x._now.copy() for x in tensors]  # `numpy` would lock them
        out = evaluated(f, tensors)
        self.report.problems += dict.fromkeys(defects_in(out, self.random))  # each one once
        if changed([x._now for x in tensors], before):
            raise Hopeless("f changes its inputs")
        if not same(out.numpy(), evaluated(f, tensors).numpy()):
            raise Hopeless("f gives different results for the same inputs")
        gradients = _gradients(out, tensors)
        numeric = Numeric(
            f, [x.numpy().astype(np.result_type(x.dtype, np.float64)) for x in tensors]
        )
        for k, (i, x) in enumerate(leaves.items()):
            self._compare(order, i, x, gradients[k], k, numeric)

    def _compare(
        self, order: int, i: int, x: Tensor, g: np.ndarray, k: int, numeric: Numeric
    ) -> None:
        eps = float(np.finfo(x.dtype).eps)
        rtol = eps**0.5 if self.rtol is None else self.rtol
        ways = list(self._ways(x))
        for index, v, scale in ways:  # grows while it is walked
            analytic = float(g[index] if index is not None else np.sum(g * v, dtype=v.dtype))
            # what rounding leaves of the largest derivative and of f's own value
            noise = max(0.01 * eps**0.5, 16 * eps) * largest(g) + 16 * eps * numeric.size / scale
            floor = noise if self.atol is None else self.atol
            facts = order, i, x.name, index, analytic
            if not np.isfinite(scale):  # no difference leads away from an infinite element
                entry = GradcheckEntry(*facts, np.nan, 0.0, floor, INFINITE, None)
                self.report.entries.append(entry)
                continue
            found = numeric.quick(k, v)
            ok = found is not None and found.judges(analytic, rtol, floor, order)
            if found is None or not ok:
                found, *others = numeric.careful(k, v, scale, eps, rtol, floor)
                ok = found.judges(analytic, rtol, floor, order)
                for other in others:
                    second = other.judges(analytic, rtol, floor, order)
                    if ok is False and second is not False:
                        found, ok = other, second
            if index is None and not ok and (ok is None or found.slopes is not None):
                # the kinks of many elements add up to slopes that bound nothing; one's do
                element = np.unravel_index(int(self.random.integers(x.size)), x.shape)
                ways.append(self._way(x, tuple(map(int, element))))
                continue
            error = 0.0 if ok and found.slopes is not None else abs(analytic - found.value)
            method = NOT_CHECKED if ok is None else found.method
            tolerance = found.tolerance(rtol, floor)
            entry = GradcheckEntry(*facts, found.value, error, tolerance, method, ok)
            self.report.entries.append(entry)

    def _way(self, x: Tensor, index: tuple[int, ...]) -> Way:
        """Index, direction and length of a step for one element."""
        unit = np.zeros(x.shape)
        unit[index] = 1
        return index, unit, max(1.0, abs(float(x.numpy()[index])))

    def _ways(self, x: Tensor) -> Iterator[Way]:
        """The ways of each element, or random directions."""
        if x.size <= self.max_elements:
            for index in np.ndindex(x.shape):
                yield self._way(x, index)
        else:
            size = np.abs(x.numpy())
            reach = np.where(np.isfinite(size), np.maximum(1, size), 0.0) / x.size**0.5
            for _ in range(self.directions):
                yield None, self.random.standard_normal(x.shape) * reach, 1.0


def _gradients(out: Tensor, tensors: list[Tensor]) -> list[np.ndarray]:
    if not out.requires_grad:  # a gradient that is constant
        return [np.zeros(x.shape, x.dtype) for x in tensors]
    try:
        gradients = grad(out, tensors, allow_unused=True)
    except (TinygradError, ValueError) as error:  # ValueError: it writes where it must not
        raise Hopeless(f"the backward sweep raised {type(error).__name__}: {error}") from error
    return list(gradients)
