"""Derivatives of a function from its own values, in float64 whatever the dtype of the inputs.

Where every primitive is analytic a derivative is a complex step, Im f(x + ih) / h, which has no
rounding error to speak of; elsewhere, and as a second opinion on every disagreement, it is a
central difference with its own error bar.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from tinygrad_sm.engine.tensor import Tensor, constant
from tinygrad_sm.engine.view import graph
from tinygrad_sm.errors import GradcheckError, InvalidTypeError, TinygradError

Scalar = Callable[..., Tensor]


class Hopeless(Exception):
    """The function cannot be evaluated or differentiated any further; the report says why."""


def evaluated(f: Scalar, tensors: Any) -> Tensor:
    """Return f's result; raise Hopeless if it raises an error of the engine."""
    try:
        return f(*tensors)
    except (GradcheckError, InvalidTypeError):
        raise
    except TinygradError as error:
        raise Hopeless(f"f raised {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Estimate:
    """A numerical derivative with its error bar, and how smooth the function is around the point.

    Attributes:
        value, error: the derivative, and how far it may be off.
        method: how it was found.
        step: half the length of the interval that it comes from.
        noise: what the rounding of f may make of a slope over one step.
        spread: how much the two differences with the smallest steps differ.
        bend: how much the slopes to the left and to the right differ.
        slopes: both, smaller one first, if f has a kink at the point itself.
        jump: whether f jumps at the point itself.
        blur: the size of slopes that counts as 0 at this point; larger where a kink is near, since
            small steps have to do there, and tell less.
        bent: whether f is not smooth over the larger steps.
    """

    value: float
    error: float
    method: str = "central difference"
    step: float = 0.0
    noise: float = 0.0
    spread: float = 0.0
    bend: float = 0.0
    slopes: tuple[float, float] | None = None
    jump: bool = False
    blur: float = 0.0
    bent: bool = False

    def judges(self, analytic: float, rtol: float, floor: float, order: int) -> bool | None:
        """Whether `analytic` is right; None where a kink leaves no evidence either way."""
        if not np.isfinite(analytic):
            return False
        if self.jump:  # of f itself: there is no derivative; of its gradient: f has a kink
            return None if order == 2 else False
        if self.slopes is not None:
            low, high = self.slopes
            slack = min(self.tolerance(rtol, floor), 1e-3 * (high - low))
            return low - slack <= analytic <= high + slack
        size = max(abs(self.value), abs(analytic))
        if not self.error <= max(1e-3, rtol) * size + floor + self.blur:  # too blurred to tell
            return None if self.bent else False
        return bool(abs(analytic - self.value) <= self.tolerance(rtol, floor))

    def tolerance(self, rtol: float, floor: float) -> float:
        """How far the right derivative may be from `value`."""
        return rtol * abs(self.value) + floor + self.error

    def doubt(self, blur: float) -> float:
        """The error bar relative to the value; inf for what is not a number."""
        doubt = self.error / (abs(self.value) + blur + np.finfo(float).tiny)
        return doubt if doubt == doubt else np.inf

    def continues(self, larger: Estimate, slack: float) -> bool:
        """Whether f looks as smooth over `larger`'s step as over this smaller one.

        The slope stays, and what is left of the bend is its share. A kink inside the larger
        interval changes the slope if it is outside this one, and leaves the bend if inside.
        """
        bend = 2 * self.step / larger.step * larger.bend
        off = abs(self.value - larger.value)
        return off <= 2 * (self.error + larger.error) + slack and self.bend <= bend + self.noise


class Numeric:
    """The derivatives of a scalar function at a point, from its values in float64."""

    def __init__(self, f: Scalar, at: list[np.ndarray]) -> None:
        self.f = f
        self.at = at
        tensors = [Tensor(x) for x in at]
        out = evaluated(f, tensors)
        self.middle = float(out.numpy())
        self.size = abs(self.middle)
        self.eps = float(np.finfo(np.float64).eps)
        self.analytic = True
        for node in graph(out).nodes:
            op = node.primitive
            if node.tensor is not None and op is not None and node.dtype[0] == "f":
                self.analytic &= op.analytic
                self.eps = max(self.eps, float(np.finfo(node.tensor.dtype).eps))
                if op.linear and op.kind in ("elementwise", "reduction"):  # terms that may cancel
                    self.size = max(self.size, *map(largest, node.tensor._values))

    def __call__(self, k: int, v: np.ndarray, t: float) -> float:
        """f with input k moved by t·v."""
        tensors = [Tensor(x + t * v if i == k else x) for i, x in enumerate(self.at)]
        return float(self.f(*tensors).numpy())

    def _nearest(self, k: int, v: np.ndarray) -> float:
        """The smallest magnitude, up to 1, among the elements that v moves; zeros aside."""
        x = np.abs(self.at[k][(v != 0) & (self.at[k] != 0)])
        return float(np.min(x, initial=1.0))

    def quick(self, k: int, v: np.ndarray) -> Estimate | None:
        """The complex step, or None where f does not continue to complex numbers."""
        if not self.analytic:
            return None
        h = 2.0**-100 * self._nearest(k, v)
        moved: list[Tensor] = [
            constant(x + 1j * h * v if i == k else x + 0j) for i, x in enumerate(self.at)
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
        return Estimate(value, 64 * self.eps * abs(value), "complex step")

    def careful(
        self, k: int, v: np.ndarray, scale: float, eps: float, rtol: float, floor: float
    ) -> list[Estimate]:
        """The central difference from the step that gives the smallest error bar.

        Steps shrink, and one whose interval has a kink that a smaller one shows is no evidence.
        A second estimate is there if f has a kink that an input of precision `eps` cannot tell
        from the point.
        """
        near = self._nearest(k, v)
        sizes = [scale * self.eps**power for power in (1 / 7, 1 / 3, 1 / 2, 3 / 5, 2 / 3)]
        if near < 1:  # e.g. the logarithm of a small number
            sizes += [near * self.eps ** (1 / 7), near * self.eps ** (1 / 3)]
        blur = self.eps**0.5 * self.size / scale
        smooth: list[Estimate] = []  # each over an interval inside the one before
        kinked: list[Estimate] = []  # the last ones, if f has a kink at the point in all of them
        rounded: list[Estimate] = []
        kink = 0.0  # how much the slope was seen to change
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for step in sorted({2.0 ** round(np.log2(size)) for size in sizes}, reverse=True):
                found = self._extrapolated(k, v, step)
                if kink and found.noise > 0.1 * kink:
                    break  # it could not be seen any more
                if smooth and not found.continues(smooth[-1], rtol * abs(found.value) + floor):
                    kink = max(kink, float(np.nan_to_num(smooth[-1].bend, posinf=0.0)))
                    blur = max(blur, 1e-2 * min(kink, self.size / scale))
                    smooth = []
                smooth.append(found)
                kinked = [] if found.slopes is None else [*kinked, found]
                if (kinked or found.jump) and step <= 64 * eps * scale and not rounded:
                    rounded = [found]
                best = min(smooth, key=lambda one: one.doubt(blur))
                if len(smooth) > 1 and best.error <= 0.1 * (rtol * abs(best.value) + floor):
                    break
            else:  # small kinks may hide in what is left, and extrapolating shrinks what they do
                spread = best.spread if kink else min(best.spread, 5e-4 * abs(best.value))
                best = replace(best, error=max(best.error, spread))
        if kinked:
            best = min(kinked, key=lambda one: one.error)
        elif kink and len(smooth) == 1:  # no smaller step vouches for it
            best = replace(best, error=max(best.error, best.noise / 2))
        return [replace(best, blur=blur, bent=kink > 0), *rounded]

    def _extrapolated(self, k: int, v: np.ndarray, h: float) -> Estimate:
        """Richardson's extrapolation of the central differences with h, h/2, h/4 to h = 0."""
        steps = (h, h / 2, h / 4)
        values = [(self(k, v, -t), self(k, v, t)) for t in steps]
        d = [(up - down) / (2 * t) for (down, up), t in zip(values, steps, strict=True)]
        once = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
        value = (16 * once[1] - once[0]) / 15
        size = max(self.size, *(abs(x) for pair in values for x in pair))
        units = 64 + 4 * float(np.count_nonzero(v)) ** 0.5  # every element that moves is rounded
        noise = units * self.eps * size / h
        # how f goes on to the left and to the right, over the step and over a quarter of it
        there, here = (
            np.array([self.middle - down, up - self.middle]) / t
            for (down, up), t in ((values[0], h), (values[2], h / 4))
        )
        bends = abs(there[1] - there[0]), abs(here[1] - here[0])
        found = Estimate(
            value, abs(once[1] - once[0]) + noise / 8, step=h, noise=noise,
            spread=abs(d[1] - d[2]), bend=bends[0],
        )  # fmt: skip
        if abs(here).max() > max(3.6 * abs(there).max(), 4 * noise):
            return replace(found, jump=True)
        if bends[1] > max(0.5 * bends[0], noise):
            # from between the points of each side: the kink may be a little off the point
            outer, inner = (
                np.array([near[0] - far[0], far[1] - near[1]]) / (t / 2)
                for (far, near), t in zip(pairwise(values), steps, strict=False)
            )
            slopes = 2 * inner - outer
            error = 4 * noise + float(abs(slopes - inner).max())
            sides = (float(slopes.min()), float(slopes.max()))
            return replace(found, method="one-sided slopes", error=error, slopes=sides)
        return found


def largest(x: Any) -> float:
    """Return the largest finite magnitude among numbers; 0 if there is none."""
    array = np.asarray(x)
    return float(np.max(np.abs(array[np.isfinite(array)]), initial=0.0))
