"""The families of logits that the lab sweeps: what grows, from where to where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Sweep:
    """A family of three logits, slope · x + offset, as x grows from 1 to `stop`.

    Attributes:
        name: short, for JSON.
        title: what is swept.
        formula: the logits in words, x written as `symbol`.
        symbol: the name of x.
        slope, offset: one number per class.
        target: the right class.
        stop: the largest x.
    """

    name: str
    title: str
    formula: str
    symbol: str
    slope: tuple[float, ...]
    offset: tuple[float, ...]
    target: int
    stop: float

    def logits(self, x: Any, dtype: str) -> np.ndarray:
        """Return the logits at each x: shape (number of x, classes)."""
        rows = np.multiply.outer(np.atleast_1d(np.asarray(x, np.float64)), self.slope)
        return (rows + self.offset).astype(dtype)


SWEEPS = (
    Sweep(
        "scale", "scale of the logits", "a = (c, c/2, c/20), class 1 is right", "c",
        (1.0, 0.5, 0.05), (0.0, 0.0, 0.0), 1, 10_000.0,
    ),
    Sweep(
        "ahead", "right class ahead by a margin", "a = (m, 0, −1), class 0 is right", "m",
        (1.0, 0.0, 0.0), (0.0, 0.0, -1.0), 0, 3_000.0,
    ),
    Sweep(
        "behind", "right class behind by a margin: confidently wrong",
        "a = (0, m, m − 1), class 0 is right", "m",
        (0.0, 1.0, 1.0), (0.0, 0.0, -1.0), 0, 3_000.0,
    ),
)  # fmt: skip
