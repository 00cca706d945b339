"""The loops of the compiled kernel, which read like the definition: Numba makes machine code.

For a row of logits a and its target q, with t the class of the largest logit:

    e_k = exp(a_k/T) 2^-shift            to leave a power of two out rounds nothing
    peak = e_t,  rest = Σ_{k≠t} e_k      one of them apart, so that nothing cancels
    loss = Σq log1p(rest/peak) + Σ_j q_j (a_t − a_j)/T
    gradient = factor (Σq e/(rest + peak) − q)

`in_numpy` says why this keeps the digits. Sums may be added in any order, so that they run at full
vector width; what computes exp may not be changed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

LOG2 = math.log(2)
TERMS = tuple(1 / math.factorial(k) for k in range(14))  # of exp(r) = Σ r^k/k!, |r| < log(2)/2
TOGETHER = 4096  # logits of short rows that share a loop
BLOCK = 512  # logits that are added in any order, or among which the largest is looked for

exact: Any = njit(nogil=True, error_model="numpy")
in_any_order: Any = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})


# --- exp --------------------------------------------------------------------------------------


@intrinsic
def fma(context, x, y, z):
    """x*y + z, rounded once."""
    return x(x, x, x), lambda context, builder, signature, numbers: builder.fma(*numbers)


def two_to(n):
    """2^n, for whole n of a normal number, put together from its bits."""


@overload(two_to)
def _two_to(n):
    if n == types.float32:
        return lambda n: np.int32((np.int32(n) + 127) << 23).view(np.float32)
    return lambda n: np.int64((np.int64(n) + 1023) << 52).view(np.float64)


@exact
def is_double(period):
    """Whether this is float64; the compiler knows."""
    return np.finfo(period.dtype).eps < 1e-10


@exact
def exponential(x, period, shift):
    """exp(x/T) 2^-shift = 2^(n - shift) exp(r), x = n T log 2 + r T; 0 where that is denormal.

    `period` holds 1/(T log 2), T log 2 in two parts, and 1/T, in x's dtype.
    """
    kind = period.dtype.type
    lowest, terms = (kind(-1022), 13) if is_double(period) else (kind(-126), 7)
    n = np.rint(x * period[0])
    r = fma(-n, period[2], fma(-n, period[1], x)) * period[3]
    power = kind(TERMS[terms])
    for k in range(terms - 1, -1, -1):
        power = fma(power, r, kind(TERMS[k]))
    n -= shift
    power *= two_to(max(n, lowest))
    return kind(0) if n < lowest else power


@exact
def exponentials(a, centre, period, shift, out):
    """Write exp((a − centre)/T) 2^-shift."""
    for k in range(len(a)):
        out[k] = exponential(a[k] - centre, period, shift)


@exact
def shift_of(top, weight, period):
    """How far a row is shifted: by `centre`, if its logits are that large, and by 2^shift.

    So that no exponential that counts is denormal, and none is too large: the largest is the weight
    of the row, if that is large, with a margin. Steps of 32 let most rows have the same shift.
    """
    margin, most = (60, 900) if is_double(period) else (48, 90)
    centre = top if abs(top) * np.float64(period[3]) > 4096.0 else 0.0
    room = margin if abs(weight) < 1.0 else min(math.frexp(weight)[1] + margin, most)
    return centre, 32.0 * np.rint(((top - centre) * np.float64(period[0]) - room) / 32.0)


# --- the largest, and sums --------------------------------------------------------------------


@exact
def in_order(bits):
    """Bits of a float as an integer of the same order: of negative ones all but the sign turn."""
    return bits if bits >= 0 else bits ^ np.iinfo(type(bits)).max


@exact
def maximum(bits):
    """The largest, in the order of the floats."""
    found = in_order(bits[0])
    for k in range(len(bits)):
        found = max(found, in_order(bits[k]))
    return found


@exact
def largest(bits):
    """Where the first of the largest is, found by their bits, since integers have no NaN."""
    at, found = 0, maximum(bits[:BLOCK])
    for start in range(BLOCK, len(bits), BLOCK):
        here = maximum(bits[start : start + BLOCK])
        if here > found:
            at, found = start, here
    while in_order(bits[at]) != found:
        at += 1
    return at


@in_any_order
def block_sum(values):
    """The sum, in float64."""
    found = 0.0
    for k in range(len(values)):
        found += np.float64(values[k])
    return found


@in_any_order
def block_gap(a, top, q):
    """Σ_j q_j (top − a_j), in which 0 · inf is 0."""
    found = 0.0
    for k in range(len(a)):
        distance = top - np.float64(a[k]) if q[k] != 0.0 else 0.0
        found += np.float64(q[k]) * distance
    return found


@exact
def add(total, lower, x):
    """total + x, and what was rounded off, added to `lower` (Knuth's TwoSum)."""
    found = total + x
    part = found - total
    return found, lower + ((total - (found - part)) + (x - part))


@exact
def total(values):
    """The sum, in float64, rounded about once."""
    if len(values) <= BLOCK:
        return block_sum(values)
    found = lower = 0.0
    for k in range(0, len(values), BLOCK):
        found, lower = add(found, lower, block_sum(values[k : k + BLOCK]))
    return found + lower


@exact
def gap(a, top, q):
    """Σ_j q_j (top − a_j)."""
    found = lower = 0.0
    for k in range(0, len(a), BLOCK):
        part = slice(k, k + BLOCK)
        found, lower = add(found, lower, block_gap(a[part], top, q[part]))
    return found + lower if found < np.inf else found


# --- the gradient -----------------------------------------------------------------------------


@exact
def scale(out, rate, unit):
    """out = rate * unit * out."""
    if unit == 1:
        for k in range(len(out)):
            out[k] *= rate
    else:
        for k in range(len(out)):
            out[k] = out[k] * rate * unit


@exact
def pull(out, factor, q):
    """out −= factor * q."""
    for k in range(len(out)):
        out[k] -= factor * q[k]


# --- rows -------------------------------------------------------------------------------------


@exact
def fill_in_rows(a, bits, index, coefficients, q, actives, factors, period, out, losses):
    """Write losses, NaN for a row that holds NaN or +inf, and gradients."""
    kind, dense = period.dtype.type, len(q)
    rows, classes = a.shape
    few = min(max(1, TOGETHER // classes), rows)
    ts, tops, owns = np.empty(few, np.intp), np.empty(few), np.empty(few)
    others, gaps, centres, shifts = np.empty(few), np.empty(few), np.empty(few), np.empty(few)
    flat, exps = a.reshape(-1), out.reshape(-1)
    for first in range(0, rows, few):
        last = min(first + few, rows)
        for i in range(first, last):
            k, row, right, coefficient = i - first, a[i], index[i], coefficients[i]
            t = largest(bits[i])
            top = np.float64(row[t])
            if top == -np.inf:  # every class is masked
                top = 0.0
            own = coefficient if t == right else 0.0
            other = coefficient - own
            apart = coefficient * (top - np.float64(row[right])) if coefficient != 0.0 else 0.0
            if dense and actives[i] != 0.0:
                y = q[i % dense]
                apart += actives[i] * gap(row, top, y)
                other += actives[i] * (total(y[:t]) + total(y[t + 1 :]))
                own += actives[i] * np.float64(y[t])
            ts[k], tops[k], owns[k], others[k], gaps[k] = t, top, own, other, apart
            centres[k], shifts[k] = shift_of(top, factors[i] * (own + other), period)

        i = first
        while i < last:  # neighbours that are shifted alike, in one loop
            begin, centre, shift = i * classes, centres[i - first], shifts[i - first]
            i += 1
            while i < last and centres[i - first] == centre and shifts[i - first] == shift:
                i += 1
            part = slice(begin, i * classes)
            exponentials(flat[part], kind(centre), period, kind(shift), exps[part])

        for i in range(first, last):
            k, row, factor = i - first, out[i], factors[i]
            t, own, other = ts[k], owns[k], others[k]
            mass, peak = own + other, np.float64(row[t])
            row[t] = 0
            rest = total(row)
            if rest + peak == 0.0:  # every class is masked: p = 0/1
                rest = 1.0
            loss = mass * math.log1p(rest / peak) if mass != 0.0 else 0.0
            loss += gaps[k] * np.float64(period[3])
            losses[i] = loss if tops[k] < np.inf and rest < np.inf else np.nan
            rate = factor * mass / (rest + peak)
            unit = 1.0 if abs(rate) > 1e-25 else 2.0**-80  # a float32 rate would be denormal
            scale(row, kind(rate / unit), kind(unit))
            if dense:
                pull(row, kind(factor * actives[i]), q[i % dense])
            row[index[i]] -= kind(factor * coefficients[i])
            at_t = factor * other - rate * rest
            row[t] = kind(rate * peak - factor * own if own < other else at_t)


# --- machine code, kept on disk ---------------------------------------------------------------

# Each in an index of its own: two processes that write one at a time cannot mix them up.


def float32_rows(a, bits, index, coefficients, q, actives, factors, period, out, losses):
    """`fill_in_rows` for float32."""
    fill_in_rows(a, bits, index, coefficients, q, actives, factors, period, out, losses)


def float64_rows(a, bits, index, coefficients, q, actives, factors, period, out, losses):
    """`fill_in_rows` for float64."""
    fill_in_rows(a, bits, index, coefficients, q, actives, factors, period, out, losses)


@lru_cache
def machine_code(kind):
    """`fill_in_rows` for a dtype, "float32" or "float64": from the cache, if it is there."""
    number, integer = getattr(types, kind), getattr(types, kind.replace("float", "int"))
    given, made = [types.Array(x, 2, "C", readonly=True) for x in (number, integer)], number[:, ::1]
    per_row = [types.Array(x, 1, "C", readonly=True) for x in (types.intp, types.float64, number)]
    labels, numbers, constants = per_row
    signature = types.void(
        *given, labels, numbers, given[0], numbers, numbers, constants, made, types.float64[::1]
    )
    function = {"float32": float32_rows, "float64": float64_rows}[kind]
    how = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(signature, cache=True, **how)(function)
    except Exception:  # the cache is damaged, or there is no place for one
        return njit(signature, **how)(function)
