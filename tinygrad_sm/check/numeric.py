"""Derivatives of a function from its own values, in float64 whatever the dtype of the inputs.

Where every primitive is analytic a derivative is a complex step, Im f(x + ih) / h, which has no
rounding error to speak of; elsewhere, and as a second opinion on every disagreement, it is a
central difference with its own error bar.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygrad_sm.errors import GradcheckError, InvalidTypeError, TinygradError
from tinygrad_sm.graph import graph
from tinygrad_sm.tensor import Tensor, _made

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

    def at_kink(self) -> Estimate:
        """The same, told as the slopes on both sides."""
        return replace(self, method="one-sided slopes")


class Numeric:
    """The derivatives of a scalar function at a point, from its values in float64."""

    def __init__(self, f: Scalar, at: list[np.ndarray], order: int) -> None:
        self.f = f
        self.at = at
        self.order = order
        tensors = [Tensor(x) for x in at]
        out = evaluated(f, tensors)
        self.size = abs(float(out.numpy()))
        self.eps = float(np.finfo(np.float64).eps)
        self.analytic = True
        for node in graph(out).nodes:
            op = node.primitive
            if node.tensor is not None and op is not None and node.dtype[0] == "f":
                self.analytic &= op.analytic
                self.eps = max(self.eps, float(np.finfo(node.tensor.dtype).eps))
                if op.linear and op.kind in ("elementwise", "reduction"):  # terms that may cancel
                    self.size = max(self.size, _terms(node.tensor))

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
        return Estimate(value, 64 * self.eps * abs(value), "complex step")

    def careful(self, k: int, v: np.ndarray, scale: float, rtol: float, floor: float) -> Estimate:
        """The central difference from the step that gives the smallest error bar."""
        steps = [self.eps ** (1 / 7) * scale, self.eps ** (1 / 3) * scale]
        near = self._nearest(k, v)
        blur = self.eps**0.5 * self.size / scale
        if near < 1:  # e.g. the logarithm of a small number
            steps += [self.eps ** (1 / 7) * near, self.eps ** (1 / 3) * near]
        steps += [self.eps ** (1 / 2) * scale, self.eps ** (2 / 3) * scale]  # a steep function
        best = Estimate(0.0, np.inf)
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

    def _extrapolated(self, k: int, v: np.ndarray, h: float) -> Estimate:
        """Richardson's extrapolation of the central differences with h, h/2, h/4 to h = 0."""
        values = [(self(k, v, t), self(k, v, -t)) for t in (h, h / 2, h / 4)]
        d = [(up - down) / (2 * t) for (up, down), t in zip(values, (h, h / 2, h / 4), strict=True)]
        once = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
        value = (16 * once[1] - once[0]) / 15
        size = max(self.size, *(abs(x) for pair in values for x in pair))
        return Estimate(value, abs(once[1] - once[0]) + 8 * self.eps * size / h)

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
