"""Rows whose classes are cut into parts: what a part tells of them, and how parts go together.

A part knows t, the class of its largest logit, and tells six numbers of each row:

    TOP = a_t,  PLACE = t,  REST = Σ_{k≠t} e_k,
    OWN = q_t,  OTHERS = Σ_{j≠t} q_j,  GAP = Σ_j q_j (a_t − a_j)/T

Those of some parts make those of all of them, in any tree, and the gradient of a part needs nothing
but its logits and the numbers of the whole row. As in `in_numpy` e_k = exp((a_k − c)/T) 2^-n; c and
n follow from TOP, so that parts on different scales are moved to one by a power of two, which
rounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from tinygrad_sm.loss.kernels.in_numpy import (
    Parts,
    Shift,
    at_the_largest,
    bounds,
    exact_sums,
    fill_part,
    plain_dtype,
    powers,
    sums_of,
    target_of,
)
from tinygrad_sm.loss.kernels.rows import (
    Block,
    Doubles,
    Floats,
    Indices,
    block_of,
    kernel_dtype,
    times,
)

NUMBERS = 6
TOP, PLACE, REST, OWN, OTHERS, GAP = range(NUMBERS)
SAFE = (-0.69, 60.0)  # largest logits of rows whose exponentials need no shift


def part_of(
    logits: Floats,
    start: int,
    *,
    index: Indices | None = None,
    coefficient: Doubles | float | None = None,
    smooth: Doubles | None = None,
    **asked: Any,
) -> Block:
    """A part of rows as a Block, from what `rows.block_of` takes.

    The part's first class is `start`. Of the arguments `logits` (rows, width) and `soft` are those
    of the part, `smooth` is that of all classes, and `index` counts from class 0.
    """
    width, dtype = logits.shape[1], kernel_dtype(logits.dtype)
    if index is not None:
        here = (index >= start) & (index < start + width)
        index = np.where(here, index - start, 0)
        coefficient = here * (1.0 if coefficient is None else coefficient)
    if smooth is not None:
        smooth = smooth[start : start + width]
    logits = np.ascontiguousarray(logits, dtype)
    block = block_of(logits, None, index=index, coefficient=coefficient, smooth=smooth, **asked)
    if block.dense is not None:
        block.dense = np.ascontiguousarray(block.dense, dtype)
    return block


def tell(block: Block, start: int) -> Doubles:
    """The numbers of each row of a part, (rows, 6); its first class is `start`."""
    told = np.empty((len(block.logits), NUMBERS))
    with np.errstate(all="ignore"):
        for piece, numbers in _in_pieces(block, told):
            _tell(piece, numbers)
    told[:, PLACE] += start
    return told


def _in_pieces(block: Block, told: Doubles) -> Iterator[tuple[Block, Doubles]]:
    at = 0
    for piece in block.pieces():
        yield piece, told[at : at + len(piece.logits)]
        at += len(piece.logits)


def _tell(block: Block, told: Doubles) -> None:
    a, parts = block.logits, Parts(block.logits.shape[1], 1)
    t = parts.largest(a)
    told[:, TOP], told[:, PLACE] = a[np.arange(len(a)), t], t
    top = _finite(told[:, TOP])
    target = target_of(block, parts, t, top)
    told[:, OWN], told[:, OTHERS], told[:, GAP] = target.own, target.others, target.gap
    for rows, shifted in _alike(_is_plain(top, block.temperature)):
        shift = Shift(top[rows], 1.0, block.temperature) if shifted else None
        some = a if len(rows) == len(a) else a[rows]
        told[rows, REST] = sums_of(some, t[rows], shift)


def _alike(plain: Any) -> Iterator[tuple[Indices, bool]]:
    """The numbers of the rows that need no shift, and of those that do."""
    for rows, shifted in ((np.flatnonzero(plain), False), (np.flatnonzero(~plain), True)):
        if rows.size:
            yield rows, shifted


def merge(told: Doubles, temperature: float) -> Doubles:
    """The numbers that several parts make together, (rows, parts, 6) -> (rows, 6)."""
    each = np.arange(len(told))
    largest = told[..., TOP].argmax(axis=1)  # the first of them, or NaN
    found = told[each, largest]
    there = np.arange(told.shape[1]) == largest[:, None]
    with np.errstate(all="ignore"):
        top = _finite(told[..., TOP])
        totals = told[..., REST] + np.where(there, 0.0, _peak(told[..., TOP], temperature))
        found[:, REST] = exact_sums(_moved(totals, top, top[each, largest][:, None], temperature))
        masses = told[..., OTHERS] + np.where(there, 0.0, told[..., OWN])
        found[:, OTHERS] = exact_sums(masses)
        further = (top[each, largest][:, None] - told[..., TOP]) / temperature
        gaps = told[..., GAP] + np.where(there | (masses == 0.0), 0.0, masses * further)
        found[:, GAP] = gaps.sum(axis=1)  # which may be infinite
    return found


def losses_of(told: Doubles, temperature: float) -> Doubles:
    """The losses of rows, by the numbers of all their classes; NaN where a logit is NaN or +inf."""
    with np.errstate(all="ignore"):
        peak, rest = _peak(told[:, TOP], temperature), told[:, REST]
        rest = np.where(rest + peak == 0.0, 1.0, rest)  # every class is masked
        losses = times(told[:, OWN] + told[:, OTHERS], np.log1p(rest / peak)) + told[:, GAP]
        return np.where(told[:, TOP] < np.inf, losses, np.nan)


def fill_in(block: Block, start: int, told: Doubles) -> None:
    """Write the gradient of a part, whose first class is `start`, given the numbers of the rows."""
    with np.errstate(all="ignore"):
        for piece, numbers in _in_pieces(block, told):
            a, weight = piece.logits, piece.factor * (numbers[:, OWN] + numbers[:, OTHERS])
            peak = _peak(numbers[:, TOP], piece.temperature)
            total = numbers[:, REST] + peak
            lowest, highest = bounds(a.dtype, plain_dtype(a), weight)
            plain = _is_plain(_finite(numbers[:, TOP]), piece.temperature)
            for rows, shifted in _alike(plain & (total >= lowest) & (total <= highest)):
                fill = partial(_fill, numbers[rows], weight[rows], peak[rows], start, shifted)
                piece.apart(rows, fill)


def _fill(
    told: Doubles, weight: Doubles, peak: Doubles, start: int, shifted: bool, block: Block
) -> None:
    own, others, rest, shift = told[:, OWN], told[:, OTHERS], told[:, REST], None
    if shifted:
        top = _finite(told[:, TOP])
        shift = Shift(top, weight, block.temperature)
        change = _scale(top, block.temperature)[1] - shift.exponent
        peak, rest = _times_two_to(peak, change), _times_two_to(rest, change)
    rest = np.where(rest + peak == 0.0, 1.0, rest)
    rate = weight / (rest + peak)
    fill_part(block, shift, rate)
    gradient, each = block.gradient, np.arange(len(told))
    assert gradient is not None
    gradient[each, block.index] -= times(block.coefficient, block.factor)
    place = told[:, PLACE].astype(np.intp) - start
    here = (place >= 0) & (place < gradient.shape[1])
    at_t = at_the_largest(block.factor, own, others, rate, peak, rest)
    gradient[each[here], place[here]] = at_t[here]


# Scales -------------------------------------------------------------------------------------------


def _finite(top: Doubles) -> Doubles:
    """The largest logits, and 0 where all classes are masked."""
    return np.where(top == -np.inf, 0.0, top)


def _is_plain(top: Doubles, temperature: float) -> Any:
    return (top >= SAFE[0]) & (top <= SAFE[1]) & (temperature == 1.0)


def _scale(top: Doubles, temperature: float) -> tuple[Doubles, Doubles]:
    """c and n of rows, by their largest logits."""
    shift = Shift(top, 1.0, temperature)
    return shift.centre, np.where(_is_plain(top, temperature), 0.0, shift.exponent)


def _peak(top: Doubles, temperature: float) -> Doubles:
    """The largest exponential of rows; 0 where all classes are masked."""
    finite = _finite(top)
    centre, exponent = _scale(finite, temperature)
    power, number = _power(finite - centre, temperature)
    return np.where(top == -np.inf, 0.0, _times_two_to(number, power - exponent))


def _moved(values: Doubles, top: Doubles, largest: Doubles, temperature: float) -> Doubles:
    """Exponentials on the scale of rows with other largest logits, which are larger."""
    (centre, n), (to, n_to) = (_scale(x, temperature) for x in (top, largest))
    power, number = _power(centre - to, temperature)
    return _times_two_to(values * number, power + n - n_to)


def _power(x: Doubles, temperature: float) -> tuple[Doubles, Doubles]:
    """exp(x/T) as a power of two and a number near 1."""
    step, *parts = powers(temperature)
    x = np.maximum(x, -1e5 * temperature)  # which is 0
    n = np.rint(x * step)
    for part in parts:
        x = x - n * part
    return n, np.exp(x / temperature)


def _times_two_to(values: Doubles, power: Doubles) -> Doubles:
    return np.ldexp(values, np.clip(power, -4000, 4000).astype(np.intc))
