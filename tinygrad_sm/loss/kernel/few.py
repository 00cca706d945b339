"""Softmax-cross-entropy of a few short rows, where a call costs more than the elements do.

The formulas are those of `rows`, in as few calls as will do, and in float64 for either dtype.
Every function returns the losses (rows,) in float64 and fills in the gradient, if one is given; or
returns None, before anything is written, where rows need more care than it takes.  They are called
with NumPy's floating-point warnings off.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_sm.loss.kernel.loops import Doubles, Floats
from tinygrad_sm.loss.kernel.rows import Indices, PerRow, per_row, safe_range

SHORT = 64  # classes of a row whose sum needs no care
BRIEF = 24  # classes of a single row that Python's own floats are quicker for
DOUBLE = np.dtype(np.float64)
ONES = np.ones(SHORT)
DIGITS = 1e-6  # of a float64 difference that still has float32's digits


def few_rows(
    logits: Floats,
    index: Indices | None,
    coefficient: Floats | None,
    soft: NDArray[Any] | None,
    scale: float | Floats,
    gradient: Floats | None,
) -> Doubles | None:
    """The losses of logits (rows, classes <= SHORT); arguments as in `softmax_cross_entropy`."""
    if soft is not None:
        index, coefficient = _only_classes(soft)
    if index is not None:
        if len(logits) == 1 and logits.shape[1] <= BRIEF and isinstance(scale, float):
            at_index = 1.0 if coefficient is None else float(coefficient[0])
            return _one_row(logits, int(index[0]), at_index, scale, gradient)
        return _by_classes(logits, index, coefficient, scale, gradient)
    if soft is not None and logits.dtype == np.float32 and isinstance(scale, float):
        if len(logits) == 1 and logits.shape[1] <= BRIEF:
            return _one_distribution(logits, soft, scale, gradient)
        return _by_distributions(logits, soft, scale, gradient)
    return None


def _only_classes(soft: NDArray[Any]) -> tuple[Indices | None, Floats | None]:
    """Each row's only class and its value; None if a row has two classes."""
    if np.count_nonzero(soft[0]) > 1:
        return None, None
    there = soft != 0.0
    if np.count_nonzero(there) > len(soft) or (np.add.reduce(there, axis=1) > 1).any():
        return None, None
    index = there.argmax(axis=1)
    return index, soft[np.arange(len(soft)), index].astype(DOUBLE)


def _one_row(
    logits: Floats, index: int, at_index: float, scale: float, gradient: Floats | None
) -> Doubles | None:
    row, weight = logits[0].tolist(), scale * at_index
    try:
        exps = [math.exp(x) for x in row]
        peak = exps[index]
        exps[index] = 0.0
        rest = math.fsum(exps)
    except OverflowError:
        return None
    total = rest + peak
    floor, ceiling = safe_range(weight, DOUBLE, logits.dtype)
    if not (floor <= total and total * total <= ceiling and rest * rest <= ceiling * peak * peak):
        return None
    if gradient is not None:
        rate = weight / total
        exps[index] = -rest
        gradient[0] = [rate * e for e in exps]
    return np.array([at_index * math.log1p(rest / peak)])


def _one_distribution(
    logits: Floats, soft: NDArray[Any], scale: float, gradient: Floats | None
) -> Doubles | None:
    """What `_by_distributions` does."""
    row, target = logits[0].tolist(), soft[0].tolist()
    try:
        exps = [math.exp(x) for x in row]
        total, mass = math.fsum(exps), math.fsum(target)
        dot = math.fsum([q * x for q, x in zip(target, row, strict=True)])
    except (OverflowError, ValueError):  # ValueError: inf - inf
        return None
    floor, ceiling = safe_range(scale, DOUBLE, logits.dtype)
    if not (floor <= total and total * total <= ceiling):
        return None
    loss = mass * math.log(total) - dot
    if not loss - DIGITS * abs(dot) >= DIGITS:
        return None
    if gradient is not None:
        rate = mass * (scale / total)
        gradient[0] = [rate * e - scale * q for e, q in zip(exps, target, strict=True)]
    return np.array([loss])


def _by_classes(
    logits: Floats,
    index: Indices,
    coefficient: Floats | None,
    scale: float | Floats,
    gradient: Floats | None,
) -> Doubles | None:
    """One index into flat arrays instead of pairs, sums of squares as the test for overflow."""
    classes = logits.shape[1]
    at_index: PerRow = 1.0 if coefficient is None else per_row(coefficient)
    weight = per_row(scale) * at_index
    floor, ceiling = safe_range(weight, DOUBLE, logits.dtype)
    exps = np.exp(logits, dtype=DOUBLE, order="C")
    apart = index + _starts(len(logits), classes)
    flat = exps.reshape(-1)
    peak = flat[apart]
    flat[apart] = 0.0
    # float64 is added pairwise; for results in float32 the quickest sum has digits enough
    rest = np.add.reduce(exps, 1) if logits.dtype == DOUBLE else exps.dot(ONES[:classes])
    total = rest + peak
    ratio = rest / peak
    if not isinstance(floor, float):
        floor, ceiling = np.max(floor), np.min(ceiling)
    smallest = total[total.argmin()]  # NaN if there is one
    if not (smallest >= floor and total.dot(total) <= ceiling and ratio.dot(ratio) <= ceiling):
        return None
    if gradient is not None:
        rate = weight / total
        np.multiply(exps, rate[:, None], out=exps)
        gradient[...] = exps
        gradient.put(apart, -rate * rest)
    losses: Doubles = np.log1p(ratio)
    if coefficient is not None:
        losses *= at_index
    return losses


@lru_cache(maxsize=64)
def _starts(rows: int, classes: int) -> Indices:
    """Where the rows of a flat array start."""
    starts = np.arange(0, rows * classes, classes)
    starts.setflags(write=False)
    return starts


def _by_distributions(
    logits: Floats, soft: NDArray[Any], scale: float, gradient: Floats | None
) -> Doubles | None:
    """Σq lse(a) - q.a and scale (Σq p - q): in float64 no class need stand apart for float32."""
    classes = logits.shape[1]
    a, q = logits.astype(DOUBLE), soft.astype(DOUBLE, copy=False)
    exps = np.exp(a)
    total, mass = exps.dot(ONES[:classes]), q.dot(ONES[:classes])
    floor, ceiling = safe_range(scale, DOUBLE, logits.dtype)
    dots: Doubles = np.vecdot(a, q)
    losses: Doubles = mass * np.log(total) - dots
    if not (
        np.minimum.reduce(total) >= floor
        and total.dot(total) <= ceiling
        and np.minimum.reduce(losses - DIGITS * np.abs(dots)) >= DIGITS
    ):
        return None  # NaN, too: a masked class, or a row that is not finite
    if gradient is not None:
        np.multiply(exps, (mass * (scale / total))[:, None], out=exps)
        np.subtract(exps, q * scale, out=gradient, casting="same_kind")
    return losses
