"""What is right: the exact loss and gradient in decimal arithmetic, and how far a number is off."""

from __future__ import annotations

import decimal
import math
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

import numpy as np

from tinygrad_sm.errors import InvalidValueError, shown

DTYPES = ("float32", "float64")
STATES = ("ok", "digits lost", "0", "inf", "NaN")
"""What a result can be, from the mildest to the worst; states are kept as positions in here."""
OK, LOST, ZERO, INF, NAN = range(len(STATES))

_DIGITS = 60  # of the exact reference
_FORGIVEN = 5  # units in the last place: what a denormal truth may lose without being broken


def check_dtype(dtype: str) -> None:
    """Raise InvalidValueError unless `dtype` is one of DTYPES."""
    if dtype not in DTYPES:
        raise InvalidValueError(f"dtype must be one of {', '.join(DTYPES)}; got {shown(dtype)}")


@dataclass(frozen=True, slots=True)
class Exact:
    """The loss −log p_t, and the gradient p − y with one entry per class, to 60 digits."""

    loss: Decimal
    gradient: tuple[Decimal, ...]


@lru_cache(maxsize=8192)
def exact(logits: tuple[float, ...], target: int) -> Exact:
    """Return loss and gradient of one row of finite logits, by decimal arithmetic.

    L = log(1 + R/e_t) and p_t − 1 = −R/S with R = Σ_{k≠t} e_k, so that nothing cancels.
    """
    with decimal.localcontext(prec=_DIGITS, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX):
        a = [Decimal(x) for x in logits]
        e = [(x - max(a)).exp() for x in a]
        total = sum(e, Decimal(0))
        rest = sum(e[:target] + e[target + 1 :], Decimal(0))
        gradient = [x / total for x in e]
        gradient[target] = -rest / total
        return Exact(_log1p(rest / e[target]), tuple(gradient))


def _log1p(x: Decimal) -> Decimal:
    if x < Decimal("1e-20"):  # the next term is below the 60 digits
        return x - x * x / 2 + x * x * x / 3
    with decimal.localcontext() as context:
        context.prec += 20  # for the digits of x that 1 + x pushes out
        return (1 + x).ln()


@dataclass(frozen=True, slots=True)
class Judge:
    """Holds computed numbers of one dtype against exact ones."""

    dtype: str
    tolerance: float

    def state(self, computed: float, truth: Decimal) -> int:
        """Return the position in STATES that a computed number earns."""
        if math.isnan(computed):
            return NAN
        if math.isinf(computed):
            return INF
        error = abs(Decimal(computed) - truth)
        if error <= Decimal(self.tolerance) * abs(truth) or error <= _FORGIVEN * self._unit(truth):
            return OK
        return ZERO if computed == 0 else LOST

    def ulps(self, computed: float, truth: Decimal) -> float:
        """Return the error in units in the last place of the truth; NaN if it is not finite."""
        if not math.isfinite(computed):
            return math.nan
        return float(abs(Decimal(computed) - truth) / self._unit(truth))

    def _unit(self, truth: Decimal) -> Decimal:
        return Decimal(float(np.spacing(np.asarray(abs(float(truth)), self.dtype))))
