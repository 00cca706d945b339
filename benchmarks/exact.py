"""Softmax-cross-entropy to 60 digits, distances to it, and logits that are hard to get right.

What the accuracy table and the tests measure with. It needs mpmath, which the engine does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import libmp  # type: ignore[import-untyped]
from numpy.typing import NDArray

PRECISION = 210  # bits: 60 digits, and some for the roundings on the way

Floats = NDArray[Any]
Sampler = Callable[[np.random.Generator, int, int], tuple[Floats, NDArray[np.intp]]]


# The truth ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exact:
    """Exact numbers, each as ``nearest + rest * unit``; float64 arrays of one shape.

    Attributes:
        nearest: the nearest number of the dtype that is asked about.
        rest: what is left, between -1/2 and 1/2.
        unit: the spacing of the dtype at the exact number, never finer than denormal spacing.
    """

    nearest: Floats
    rest: Floats
    unit: Floats

    def ulps(self, computed: Floats) -> Floats:
        """How far `computed` is off, in units in the last place; NaN and inf where it is those."""
        with np.errstate(over="ignore"):
            off = np.abs((computed.astype(np.float64) - self.nearest) / self.unit - self.rest)
        return np.where(np.isinf(computed), np.inf, off)


@dataclass(frozen=True, slots=True)
class Errors:
    """The worst errors of a computed loss and gradient, in units in the last place."""

    loss: float
    right_class: float
    other_classes: float


@dataclass(frozen=True, slots=True)
class Truth:
    """The exact losses (rows,) and their gradient (rows, classes) of some rows of logits."""

    target: NDArray[np.intp]
    loss: Exact
    gradient: Exact

    def errors(self, loss: Floats, gradient: Floats) -> Errors:
        """Return the worst errors of computed losses (rows,) and gradient (rows, classes)."""
        off = self.gradient.ulps(gradient)
        right = np.arange(off.shape[1]) == self.target[:, np.newaxis]
        return Errors(
            float(self.loss.ulps(loss).max()),
            float(off[right].max()),
            float(off[~right].max(initial=0.0)),
        )


def exact_cross_entropy(logits: Floats, target: NDArray[np.intp]) -> Truth:
    """Return the exact loss and gradient of each row, ready to be compared in the logits' dtype.

    Args:
        logits: (rows, classes), float32 or float64; finite or -inf, and finite at the right class.
        target: (rows,) the right classes.
    """
    rows = [_exact_row(row.tolist(), int(t)) for row, t in zip(logits, target, strict=True)]
    loss = _rounded((loss for loss, _ in rows), logits.dtype)
    gradient = _rounded((g for _, gradient in rows for g in gradient), logits.dtype)
    return Truth(
        np.asarray(target),
        loss,
        Exact(*(x.reshape(logits.shape) for x in (gradient.nearest, gradient.rest, gradient.unit))),
    )


def _exact_row(logits: list[float], t: int) -> tuple[Any, list[Any]]:
    """L = log(1 + R/e_t), p_t − 1 = −R/S with R = Σ_{k≠t} e_k, so that no digits cancel.

    Numbers are libmp's tuples: mpmath's own classes would double the time.
    """
    top = libmp.from_float(max(logits))
    e = [
        libmp.mpf_exp(libmp.mpf_sub(libmp.from_float(x), top), PRECISION)  # differences are exact
        for x in logits
    ]
    rest = libmp.mpf_sum(e[:t] + e[t + 1 :], PRECISION)
    inverse = libmp.mpf_div(libmp.fone, libmp.mpf_add(rest, e[t], PRECISION), PRECISION)
    gradient = [libmp.mpf_mul(x, inverse, PRECISION) for x in e]
    gradient[t] = libmp.mpf_neg(libmp.mpf_mul(rest, inverse, PRECISION))
    odds = libmp.mpf_add(libmp.fone, libmp.mpf_div(rest, e[t], PRECISION))  # exact, however small
    return libmp.mpf_log(odds, PRECISION), gradient


def _rounded(numbers: Iterable[Any], dtype: np.dtype[Any]) -> Exact:
    info = np.finfo(dtype)
    digits, lowest = info.nmant + 1, int(info.minexp) - int(info.nmant)
    columns = np.array([_split(x, digits, lowest) for x in numbers], np.float64)
    return Exact(*columns.reshape(-1, 3).T)


def _split(number: Any, digits: int, lowest: int) -> tuple[float, float, float]:
    """Return nearest, rest and unit of one number, by arithmetic on its integer mantissa."""
    sign, mantissa, exponent, bits = number
    unit = max(exponent + bits - digits, lowest)
    shift = unit - exponent
    if not mantissa or shift > bits + 60:  # nothing, or nothing next to the unit
        return 0.0, 0.0, math.ldexp(1.0, unit if mantissa else lowest)
    count, rest = mantissa << max(-shift, 0), 0.0
    if shift > 0:
        count = (mantissa + (1 << (shift - 1))) >> shift
        rest = (mantissa - (count << shift)) / (1 << shift)
    signed = -1 if sign else 1
    return signed * math.ldexp(count, unit), signed * rest, math.ldexp(1.0, unit)


# Hard logits --------------------------------------------------------------------------------------

MARGINS = (20.0, 37.43, 40.0, 88.0, 104.0, 300.0, 700.0)
MASKED_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of logits; `sample(rng, rows, classes)` makes float64 rows and their right classes."""

    name: str
    sample: Sampler


def _normal(scale: float) -> Sampler:
    def sample(
        rng: np.random.Generator, rows: int, classes: int
    ) -> tuple[Floats, NDArray[np.intp]]:
        return rng.standard_normal((rows, classes)) * scale, rng.integers(0, classes, rows)

    return sample


def _dominant(rng: np.random.Generator, rows: int, classes: int) -> tuple[Floats, NDArray[np.intp]]:
    """The right class is ahead of every other by a margin from 20 to 700."""
    logits, target = _normal(1.0)(rng, rows, classes)
    at = np.arange(rows), target
    logits[at] = -np.inf
    logits[at] = logits.max(axis=1) + np.resize(MARGINS, rows)
    return logits, target


def _equal(rng: np.random.Generator, rows: int, classes: int) -> tuple[Floats, NDArray[np.intp]]:
    values = np.resize([0.0, 1.0, -3.7, 88.0, 700.0, -1e4, 1e4], (rows, 1))
    return np.repeat(values, classes, axis=1), rng.integers(0, classes, rows)


def _masked(rng: np.random.Generator, rows: int, classes: int) -> tuple[Floats, NDArray[np.intp]]:
    """Some of the wrong classes are masked by -inf, at scales 1, 30 and 700."""
    logits, target = _normal(1.0)(rng, rows, classes)
    logits *= np.resize([1.0, 30.0, 700.0], (rows, 1))
    wrong = np.arange(classes) != target[:, np.newaxis]
    logits[wrong & (rng.random(logits.shape) < MASKED_SHARE)] = -np.inf
    return logits, target


FAMILIES = (
    Family("N(0,1)", _normal(1.0)),
    Family("scale 30", _normal(30.0)),
    Family("scale 700", _normal(700.0)),
    Family("scale 1e4", _normal(1e4)),
    Family("right class ahead", _dominant),
    Family("all equal", _equal),
    Family("-inf masks", _masked),
)
