"""Arrays as text: small ones in full, large ones as min, mean and max; formulas as they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_of
from viz.scene import Grid, Row, Tone

_MOST_ELEMENTS = 12
_MOST_COLUMNS = 6
_MOST_LINES = 2  # beside an arrow
_BROAD = 14  # letters, from which on each element has a line of its own
DIGITS = 4
"""Significant digits of a number, if nothing else is asked for."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def number(x: Any, digits: int = DIGITS) -> str:
    """A few significant digits, with a true minus sign; −0 is shown as 0."""
    if isinstance(x, str) or kind_of(x) is not None:
        return x if isinstance(x, str) else str(_pictured(x))
    x = float(x)
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    return f"{x + 0.0:.{digits}g}".replace("-", "−")


def row(
    label: str, x: np.ndarray, tone: Tone = "plain", port: str | None = None,
    *, full: bool = True, digits: int = DIGITS,
) -> Row:  # fmt: skip
    """A labelled array: its elements if there are few (and `full` allows it), else a summary."""
    x = _pictured(x)
    if isinstance(x, str) or x.size == 0 or (full and in_full(x)):
        return Row(label, _elements(x, digits), tone, port)
    found = _summary(x, digits)
    return Row(label, (tuple(found.values()),), tone, port, heads=tuple(filter(None, found)))


def brief(x: np.ndarray, digits: int = DIGITS) -> Grid:
    """What an arrow has room for: the elements if there are few, else two lines."""
    x = _pictured(x)
    if isinstance(x, str):
        return ((x,),)
    lines = x.size // max(x.shape[-1], 1) if x.ndim and not _is_text(x) else 1
    if x.size == 0 or (in_full(x) and lines <= _MOST_LINES):
        return _elements(x, digits)
    found = _summary(x, digits)
    if "" in found:
        return ((found[""],),)
    return ((f"{found['min']} … {found['max']}",), (f"mean {found['mean']}",))


def in_full(x: np.ndarray) -> bool:
    """Whether an array is small enough to show each element."""
    return x.size <= _MOST_ELEMENTS and (x.ndim == 0 or x.shape[-1] <= _MOST_COLUMNS)


def _elements(x: Any, digits: int) -> Grid:
    """What `_pictured` gives, element by element."""
    if isinstance(x, str):
        return ((x,),)
    if x.size == 0:
        return (("no elements",),)
    rows = x.reshape(1, -1) if x.ndim < 2 else x.reshape(-1, x.shape[-1])
    if _is_text(x) and max(map(len, x.flat)) > _BROAD:
        rows = x.reshape(-1, 1)
    return tuple(tuple(number(v, digits) for v in row) for row in rows)


def _pictured(x: Any) -> Any:
    """An array of numbers or texts, or one text for all of an array that has neither."""
    kind = kind_of(x)
    return x if kind is None else kind.pictured(x)


def _is_text(x: np.ndarray) -> bool:
    return x.dtype.kind == "O"


def _summary(x: np.ndarray, digits: int) -> dict[str, str]:
    """Min, mean and max of the finite elements by name; or one sentence, which has none.

    A summary has a digit less than a number that stands for itself.
    """
    if _is_text(x):
        return {"": f"{shortened(x.flat[0], _BROAD)}, and {x.size - 1} more"}
    finite = x[np.isfinite(x)].astype(np.float64)
    if finite.size == 0:
        return {"": "no finite element"}
    low, high = finite.min(), finite.max()
    if low == high and finite.size == x.size:
        return {"": f"all {number(low, digits)}"}
    with np.errstate(over="ignore"):  # a mean that overflows is shown as it is
        mean = finite.mean()
    noise = np.finfo(np.float64).eps * max(abs(low), abs(high))
    vanished = 0 < abs(mean) < noise  # what rounding left of a sum that is 0
    figures = {"min": low, "mean": mean, "max": high}
    found = {name: number(x, max(digits - 1, 1)) for name, x in figures.items()}
    return found | {"mean": "≈ 0"} if vanished else found


def alarm(x: np.ndarray) -> str:
    """How many elements are NaN or infinite, or nothing if none is, or nobody can tell."""
    x = _pictured(x)
    if isinstance(x, str) or _is_text(x):
        return ""
    counts = {
        "NaN": np.count_nonzero(np.isnan(x)),
        "∞": np.count_nonzero(np.isposinf(x)),
        "−∞": np.count_nonzero(np.isneginf(x)),
    }
    found = [f"{n} × {what}" for what, n in counts.items() if n]
    return f"{', '.join(found)} of {x.size}" if found else ""


def shortened(text: str, most: int) -> str:
    """The beginning of a text that is too long."""
    return text if len(text) <= most else f"{text[:most]}…"


def shape_text(shape: tuple[int, ...]) -> str:
    """E.g. ``"(2, 3)"``; a single number is a ``"scalar"``."""
    return str(shape) if shape else "scalar"


def memory(count: int) -> str:
    """A number of bytes in the unit that fits, e.g. ``"1.5 MiB"``."""
    value, power = float(count), 0
    while abs(value) >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.4g} {_UNITS[power]}".replace("-", "−")
