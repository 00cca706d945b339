"""Softmax-cross-entropy to 60 digits, distances to it, and logits that are hard to get right.

What the accuracy table and the tests measure with. It needs mpmath, which the engine does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from typing import Any

import numpy as np
from mpmath import libmp  # type: ignore[import-untyped]
from numpy.typing import NDArray

PRECISION = 210  # bits: 60 digits, and some for the roundings on the way

Floats = NDArray[Any]
Sampler = Callable[[np.random.Generator, int, int], tuple[Floats, NDArray[Any]]]


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


def exact_cross_entropy(logits: Floats, target: NDArray[Any], smoothing: float = 0.0) -> Truth:
    """Return the exact loss and gradient of each row, ready to be compared in the logits' dtype.

    An error of a class's gradient counts in units of its last place; where a distribution makes it
    a difference, in those of its terms. There are two ways to write it,

        Σq·p_j − q_j        and        Σ_{k≠j} q_k − Σq·Σ_{k≠j} p_k

    and the larger term of the better one counts: its own rounding moves the difference as much.

    Args:
        logits: (rows, classes), float32 or float64; finite or -inf, and finite where a target is.
        target: (rows,) the right classes, or (rows, classes) a distribution, not negative.
        smoothing: ε; right classes become a distribution by it.
    """
    if target.ndim == 1 and not smoothing:
        found = [_exact_row(row.tolist(), int(t)) for row, t in zip(logits, target, strict=True)]
    else:
        q = _distributions(target, logits.shape[1], smoothing)
        found = [_exact_soft_row(row.tolist(), own) for row, own in zip(logits, q, strict=True)]
    losses, gradients, sizes = zip(*found, strict=True)
    loss = _rounded(losses, losses, logits.dtype)
    gradient = _rounded(chain(*gradients), chain(*sizes), logits.dtype)
    return Truth(
        target if target.ndim == 1 else target.argmax(axis=1),
        loss,
        Exact(*(x.reshape(logits.shape) for x in (gradient.nearest, gradient.rest, gradient.unit))),
    )


def _distributions(target: NDArray[Any], classes: int, smoothing: float) -> list[list[Any]]:
    """The effective target q = (1 − ε) y + ε/n of each row, in exact numbers."""
    if target.ndim > 1:
        return [[libmp.from_float(float(x)) for x in row] for row in target]
    share = libmp.mpf_div(libmp.from_float(smoothing), libmp.from_int(classes), PRECISION)
    kept = libmp.mpf_sub(libmp.fone, libmp.from_float(smoothing))
    right = libmp.mpf_add(kept, share, PRECISION)
    return [[right if j == t else share for j in range(classes)] for t in target]


def _exponentials(logits: list[float]) -> list[Any]:
    """exp(a − max a). Numbers are libmp's tuples: mpmath's own classes would double the time."""
    top = libmp.from_float(max(logits))
    return [  # the differences are exact
        libmp.mpf_exp(libmp.mpf_sub(libmp.from_float(x), top), PRECISION) for x in logits
    ]


def _exact_row(logits: list[float], t: int) -> tuple[Any, list[Any], list[Any]]:
    """L = log(1 + R/e_t), p_t − 1 = −R/S with R = Σ_{k≠t} e_k, so that no digits cancel."""
    e = _exponentials(logits)
    rest = libmp.mpf_sum(e[:t] + e[t + 1 :], PRECISION)
    inverse = libmp.mpf_div(libmp.fone, libmp.mpf_add(rest, e[t], PRECISION), PRECISION)
    gradient = [libmp.mpf_mul(x, inverse, PRECISION) for x in e]
    gradient[t] = libmp.mpf_neg(libmp.mpf_mul(rest, inverse, PRECISION))
    return _log_of_one_and(libmp.mpf_div(rest, e[t], PRECISION)), gradient, gradient


def _exact_soft_row(logits: list[float], q: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    """L = Σ q_j log(1 + R_j/e_j) and (e_j Q_j − q_j R_j)/S, where R_j, Q_j are the others' sums."""

    def times(x: Any, y: Any) -> Any:
        return libmp.mpf_mul(x, y, PRECISION)

    e = _exponentials(logits)
    total, mass = libmp.mpf_sum(e, PRECISION), libmp.mpf_sum(q, PRECISION)
    rests, masses = _sums_of_others(e), _sums_of_others(q)
    terms, gradient, sizes = [], [], []
    for own, rest, y, others in zip(e, rests, q, masses, strict=True):
        if y != libmp.fzero:
            terms.append(times(y, _log_of_one_and(libmp.mpf_div(rest, own, PRECISION))))
        difference = libmp.mpf_sub(times(own, others), times(y, rest), PRECISION)
        gradient.append(libmp.mpf_div(difference, total, PRECISION))
        p, not_p = (libmp.mpf_div(times(mass, x), total, PRECISION) for x in (own, rest))
        sizes.append(_smaller(_larger(p, y), _larger(not_p, others)))
    return libmp.mpf_sum(terms, PRECISION), gradient, sizes


def _sums_of_others(numbers: list[Any]) -> list[Any]:
    """Σ_{k≠j} x_k for every j, from the sums before and after it."""
    zero = libmp.fzero
    add = partial(libmp.mpf_add, prec=PRECISION)
    before = [zero, *accumulate(numbers[:-1], add)]
    after = [zero, *accumulate(numbers[:0:-1], add)][::-1]
    return [add(x, y) for x, y in zip(before, after, strict=True)]


def _log_of_one_and(ratio: Any) -> Any:
    return libmp.mpf_log(libmp.mpf_add(libmp.fone, ratio), PRECISION)  # exact, however small


def _larger(x: Any, y: Any) -> Any:
    return x if libmp.mpf_ge(x, y) else y


def _smaller(x: Any, y: Any) -> Any:
    return y if libmp.mpf_ge(x, y) else x


def _rounded(numbers: Iterable[Any], sizes: Iterable[Any], dtype: np.dtype[Any]) -> Exact:
    info = np.finfo(dtype)
    digits, lowest = info.nmant + 1, int(info.minexp) - int(info.nmant)
    pairs = zip(numbers, sizes, strict=True)
    columns = np.array([_split(x, size, digits, lowest) for x, size in pairs], np.float64)
    return Exact(*columns.reshape(-1, 3).T)


def _split(number: Any, size: Any, digits: int, lowest: int) -> tuple[float, float, float]:
    """Nearest, rest and unit of a number, by its integer mantissa; the unit is that of `size`."""
    sign, mantissa, exponent, bits = number
    unit = max(size[2] + size[3] - digits, lowest) if size[1] else lowest
    shift = unit - exponent
    if not mantissa or shift > bits + 60:  # nothing, or nothing next to the unit
        return 0.0, 0.0, math.ldexp(1.0, unit)
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
    """A kind of logits; `sample(rng, rows, classes)` makes float64 rows and their targets.

    The targets are right classes, which `smoothing` may smooth, or distributions.
    """

    name: str
    sample: Sampler
    smoothing: float = 0.0


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


# Distributions as targets: the gradient is a difference, Σq·p − q ---------------------------------


def _soft(rng: np.random.Generator, rows: int, classes: int) -> tuple[Floats, Floats]:
    """Logits at scales 1, 30 and 700; targets from even to sparse."""
    logits = rng.standard_normal((rows, classes)) * np.resize([1.0, 30.0, 700.0], (rows, 1))
    spread = np.resize([1.0, 10.0, 0.1], rows)
    return logits, np.array([rng.dirichlet(np.full(classes, x)) + 1e-300 for x in spread])


def _sure(rng: np.random.Generator, rows: int, classes: int) -> tuple[Floats, Floats]:
    """The class of the largest logit has nearly all of the target, but for 1e-1 to 1e-12."""
    logits, top = _dominant(rng, rows, classes)
    target = rng.dirichlet(np.ones(classes), rows) * 10.0 ** -rng.integers(1, 13, (rows, 1))
    at = np.arange(rows), top
    target[at] = 0.0
    target[at] = 1.0 - target.sum(axis=1)
    return logits, target


def _teacher(rng: np.random.Generator, rows: int, classes: int) -> tuple[Floats, Floats]:
    """The target is nearly what is predicted, at scales 1 and 30: nearly all of it cancels."""
    logits = rng.standard_normal((rows, classes)) * np.resize([1.0, 30.0], (rows, 1))
    near = logits + 1e-3 * rng.standard_normal(logits.shape)
    target = np.exp(near - near.max(axis=1, keepdims=True))
    return logits, target / target.sum(axis=1, keepdims=True)


def _counts(rng: np.random.Generator, rows: int, classes: int) -> tuple[Floats, Floats]:
    """The target's sum is not 1."""
    target = rng.integers(0, 4, (rows, classes)).astype(np.float64)
    target[:, 0] += 1.0
    return 30.0 * rng.standard_normal((rows, classes)), target


DISTRIBUTIONS = (
    Family("smoothed 0.1", _normal(30.0), 0.1),
    Family("smoothed 1e-3, ahead", _dominant, 1e-3),
    Family("soft", _soft),
    Family("soft and sure", _sure),
    Family("soft, p near y", _teacher),
    Family("counts", _counts),
)
