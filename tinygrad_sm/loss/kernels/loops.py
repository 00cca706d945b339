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
# Indices have no sign: one that may be negative counts from the end, which no vector can do.
NONE, ONE = np.uintp(0), np.uintp(1)
TOGETHER = np.uintp(4096)  # logits of short rows that share a loop
BLOCK = np.uintp(512)  # numbers that are added in any order

exact: Any = njit(nogil=True, error_model="numpy", fastmath=False)  # said, or callers decide
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
def is_double(values):
    """Whether these are float64; the compiler knows."""
    return np.finfo(values.dtype).eps < 1e-10


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
def exponentials(a, start, stop, centre, period, shift, out):
    """Write exp((a − centre)/T) 2^-shift."""
    for k in range(start, stop):
        out[k] = exponential(a[k] - centre, period, shift)


@exact
def shift_of(top, weight, period):
    """How far a row is shifted: by `centre`, if its logits are that large, and by 2^shift.

    So that no exponential that counts is denormal, and none is too large: the largest is the weight
    of the row, if that is large, with a margin. Steps of 32 let most rows have the same shift. The
    third number is more than any exponential of the row.
    """
    margin, most = (72, 900) if is_double(period) else (48, 90)  # so that even denormals show
    centre = top if abs(top) * np.float64(period[3]) > 4096.0 else 0.0
    room = margin if abs(weight) < 1.0 else min(math.frexp(weight)[1] + margin, most)
    shift = 32.0 * np.rint(((top - centre) * np.float64(period[0]) - room) / 32.0)
    return centre, shift, two_to(np.float64(room + 17))


@exact
def times(weight, value):
    """weight * value, in which 0 · inf is 0."""
    return weight * value if weight != 0 else weight


# --- from `start` to `stop`: the largest, and sums --------------------------------------------


@exact
def turned(bits, sign):
    """Bits of a float as an integer of the same order, and back: of negative ones all but the sign.

    `sign` is the number with only the sign's bit.
    """
    return bits if bits >= 0 else ~(bits ^ sign)


@exact
def maximum(bits, start, stop):
    """The largest in the order of floats, found by bits, since integers have no NaN."""
    kind = bits.dtype.type
    sign = kind(np.iinfo(kind).min)
    found = sign
    for k in range(start, stop):
        found = max(found, kind(turned(bits[k], sign)))
    return kind(turned(found, sign))


@exact
def place(bits, start, stop, wanted):
    """Where it is first."""
    found = stop
    for k in range(start, stop):
        found = min(found, k if bits[k] == wanted else stop)
    return found


@in_any_order
def block_sum(values, start, stop):
    """The sum, in float64."""
    found = 0.0
    for k in range(start, stop):
        found += np.float64(values[k])
    return found


@in_any_order
def block_of_target(a, start, stop, t, top, q, first):
    """Σ_{j≠t} q_j, and Σ_j q_j (top − a_j), where 0 · inf is 0; the row of q begins at `first`."""
    mass = gap = 0.0
    for k in range(start, stop):
        y = np.float64(q[first + (k - start)])
        distance = top - np.float64(a[k]) if y != 0.0 else 0.0
        mass += y if k != t else 0.0
        gap += y * distance
    return mass, gap


@exact
def cut_in_two(x, unit):
    """x as a multiple of the last place of `unit`, a larger number, and the rest; both exact."""
    upper = (x + unit) - unit
    return upper, x - upper


@in_any_order
def sum_below(values, start, stop, unit):
    """The sum of numbers that together are below `unit`, rounded about once.

    Upper parts add up without any rounding, lower ones are too small for theirs to matter (Rump,
    Ogita & Oishi 2008). Those of float32 are so short that a plain sum in float64 will do.
    """
    if not is_double(values):
        return block_sum(values, start, stop)
    upper = lower = 0.0
    for k in range(start, stop):
        high, low = cut_in_two(values[k], unit)
        upper += high
        lower += low
    return upper + lower


@exact
def add(total, lower, x):
    """total + x, and what was rounded off, added to `lower` (Knuth's TwoSum)."""
    found = total + x
    part = found - total
    return found, lower + ((total - (found - part)) + (x - part))


@exact
def of_target(a, start, stop, t, top, q, first):
    """Σ_{j≠t} q_j and Σ_j q_j (top − a_j), each rounded about once."""
    mass = mass_lower = gap = gap_lower = 0.0
    for k in range(start, stop, BLOCK):
        last = min(k + BLOCK, stop)
        one, other = block_of_target(a, k, last, t, top, q, first + (k - start))
        mass, mass_lower = add(mass, mass_lower, one)
        gap, gap_lower = add(gap, gap_lower, other)
    return mass + mass_lower, gap + gap_lower if gap < np.inf else gap


# --- the gradient -----------------------------------------------------------------------------


@exact
def scale(out, start, stop, rate, unit):
    """out = rate * out * unit."""
    if unit == 1:
        for k in range(start, stop):
            out[k] *= rate
    else:
        for k in range(start, stop):
            out[k] = out[k] * rate * unit


@exact
def in_double(a, start, stop, t, top, weight, period, out):
    """out = weight p; return Σ_{k≠t} e_k and e_t: float32 has no room for such weights, small p."""
    temperature = (np.float64(period[1]) + np.float64(period[2])) / LOG2
    peak, rest = math.exp((np.float64(a[t]) - top) / temperature), 0.0
    for k in range(start, stop):
        if k != t:
            rest += math.exp((np.float64(a[k]) - top) / temperature)
    if rest + peak == 0.0:  # every class is masked
        rest = 1.0
    for k in range(start, stop):
        out[k] = weight * (math.exp((np.float64(a[k]) - top) / temperature) / (rest + peak))
    return rest, peak


@exact
def pull(out, start, stop, factor, q, first):
    """out −= factor * q, in which inf · 0 is 0."""
    for k in range(start, stop):
        out[k] -= times(q[first + (k - start)], factor)


# --- rows -------------------------------------------------------------------------------------


@exact
def step(per_row):
    """From the number of one row to that of the next, or none if all rows have one."""
    return ONE if len(per_row) > 1 else NONE


@exact
def fill_in_rows(a, bits, index, coefficients, q, rests, actives, factors, period, out, losses):
    """Write losses, NaN for a row that holds NaN or +inf, and gradients; arrays are flat.

    q has one row for each of the logits', or one for all, and then `rests` has its sums but for a
    class; neither has anything where there is none.
    With one right class a row, that is the class t which is set apart.
    """
    kind, rows = period.dtype.type, np.uintp(len(losses))
    classes = np.uintp(len(a)) // rows
    dense = np.uintp(len(q)) // classes
    c, f, d = step(coefficients), step(factors), step(actives)
    few = min(max(ONE, TOGETHER // classes), rows)
    ts, tops, owns = np.empty(few, np.uintp), np.empty(few), np.empty(few)
    others, gaps, centres, shifts = np.empty(few), np.empty(few), np.empty(few), np.empty(few)
    peaks, largest = np.empty(few), np.empty(1, bits.dtype)
    at_t, highest = np.empty(few), np.empty(few)
    for first in range(NONE, rows, few):
        last = min(first + few, rows)
        for i in range(first, last):
            k, start, stop = i - first, i * classes, (i + ONE) * classes
            right, coefficient = start + np.uintp(index[i]), coefficients[i * c]
            largest[0] = maximum(bits, start, stop)
            t = place(bits, start, stop, largest[0]) if dense else right
            top = np.float64(largest.view(kind)[0])
            if top == -np.inf:  # every class is masked
                top = 0.0
            own = coefficient if t == right else 0.0
            other = coefficient - own
            apart = times(other, top - np.float64(a[right]))
            if dense and actives[i * d] != 0.0:
                row = i % dense * classes
                at = row + (t - start)
                mass, far = of_target(a, start, stop, t, top, q, row)
                apart += actives[i * d] * far
                other += actives[i * d] * (rests[t - start] if len(rests) else mass)
                own += actives[i * d] * np.float64(q[at])
            ts[k], tops[k], at_t[k], gaps[k] = t, top, np.float64(a[t]), apart
            owns[k], others[k] = own, other
            centres[k], shifts[k], highest[k] = shift_of(
                top, factors[i * f] * (own + other), period
            )

        i = first
        while i < last:  # neighbours that are shifted alike, in one loop
            start, centre, shift = i * classes, centres[i - first], shifts[i - first]
            i += ONE
            while i < last and centres[i - first] == centre and shifts[i - first] == shift:
                i += ONE
            exponentials(a, start, i * classes, kind(centre), period, kind(shift), out)

        for k in range(last - first):  # apart: a vector waits for a number just written into it
            peaks[k], out[ts[k]] = out[ts[k]], 0

        for i in range(first, last):
            k, start, stop = i - first, i * classes, (i + ONE) * classes
            t, own, other, factor = ts[k], owns[k], others[k], factors[i * f]
            mass, peak = own + other, peaks[k]
            rest = sum_below(out, start, stop, highest[k] * classes)
            if rest + peak == 0.0:  # every class is masked: p = 0/1
                rest = 1.0
            lse = math.log1p(rest / peak)
            if lse > 80.0 and at_t[k] > -np.inf:  # the peak may have vanished beside the largest
                top = exponential(kind(tops[k] - centres[k]), period, kind(shifts[k]))
                lse = (tops[k] - at_t[k]) * np.float64(period[3])
                lse += math.log(rest / np.float64(top))
            loss = times(mass, lse) + gaps[k] * np.float64(period[3])
            losses[i] = loss if tops[k] < np.inf and rest < np.inf else np.nan
            weight, sum_of_all = factor * mass, rest + peak
            unit = 1.0 if abs(weight) > 1e-25 * sum_of_all else 2.0**-80  # else it is denormal
            rate = weight / unit / sum_of_all
            if is_double(period) or abs(weight) < 2.0**40:
                scale(out, start, stop, kind(rate), kind(unit))
            else:
                rest, peak = in_double(a, start, stop, t, tops[k], weight, period, out)
                rate = weight / (rest + peak)
            if dense:
                pull(out, start, stop, kind(factor * actives[i * d]), q, i % dense * classes)
                if coefficients[i * c] != 0.0:
                    out[start + np.uintp(index[i])] -= kind(factor * coefficients[i * c])
            if own < other:
                out[t] = kind(rate * (peak * unit) - times(own, factor))
            else:
                out[t] = kind(times(other, factor) - rate * (rest * unit))


# --- machine code, kept on disk ---------------------------------------------------------------

# Each in an index of its own: two processes that write one at a time cannot mix them up.


def float32_rows(a, bits, index, coefficients, q, rests, actives, factors, period, out, losses):
    """`fill_in_rows` for float32."""
    fill_in_rows(a, bits, index, coefficients, q, rests, actives, factors, period, out, losses)


def float64_rows(a, bits, index, coefficients, q, rests, actives, factors, period, out, losses):
    """`fill_in_rows` for float64."""
    fill_in_rows(a, bits, index, coefficients, q, rests, actives, factors, period, out, losses)


@lru_cache
def machine_code(kind):
    """`fill_in_rows` for a dtype, "float32" or "float64": from the cache, if it is there."""
    number, integer = getattr(types, kind), getattr(types, kind.replace("float", "int"))
    a, bits, index, per_row = (
        types.Array(each, 1, "C", readonly=True)
        for each in (number, integer, types.intp, types.float64)
    )
    signature = types.void(
        a, bits, index, per_row, a, per_row, per_row, per_row, a, number[::1], types.float64[::1]
    )
    function = {"float32": float32_rows, "float64": float64_rows}[kind]
    how = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(signature, cache=True, **how)(function)
    except Exception:  # the cache is damaged, or there is no place for one
        return njit(signature, **how)(function)
