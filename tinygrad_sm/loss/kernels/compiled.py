"""The compiled kernel: `loops` run on the rows of a block, without the interpreter's lock."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_sm.loss.kernels.in_numpy import LN2
from tinygrad_sm.loss.kernels.loops import machine_code
from tinygrad_sm.loss.kernels.rows import Block, Doubles, Floats, PerRow, scratch

NO_DENSE = {kind: np.empty(0, kind) for kind in (np.dtype("f4"), np.dtype("f8"))}
BITS = {np.dtype("f4"): np.int32, np.dtype("f8"): np.int64}


def fill_in(block: Block, threads: int = 1) -> None:
    """Write the losses of a block's rows and, if it is wanted, their gradient."""
    for piece in block.pieces() if block.gradient is None else (block,):
        a, out, rows, kind = piece.logits, piece.gradient, len(piece.logits), piece.logits.dtype
        flat = a.reshape(-1)
        machine_code(kind.name)(
            flat,
            flat.view(BITS[kind]),
            np.ascontiguousarray(piece.index, np.intp),
            _each(piece.coefficient, rows),
            NO_DENSE[kind] if piece.dense is None else piece.dense.reshape(-1),
            _each(piece.active, rows),
            _each(piece.factor, rows),
            _period(piece.temperature, kind),
            (scratch.take("work", a.shape, kind) if out is None else out).reshape(-1),
            piece.losses,
        )


def _each(values: PerRow, rows: int) -> Doubles:
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values, np.float64)
    return np.full(rows, values)


@lru_cache(maxsize=16)
def _period(temperature: float, kind: np.dtype[Any]) -> Floats:
    """1/(T log 2), T log 2 in two parts, and 1/T."""
    length = LN2 * Fraction(temperature)
    upper = kind.type(float(length))
    parts = [1 / length, upper, length - Fraction(float(upper)), 1 / Fraction(temperature)]
    return np.array([float(x) for x in parts], kind)
