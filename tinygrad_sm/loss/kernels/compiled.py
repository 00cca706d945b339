"""The compiled kernel: `loops` run on the rows of a block, without the interpreter's lock."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_sm.loss.kernels.in_numpy import LN2
from tinygrad_sm.loss.kernels.loops import machine_code
from tinygrad_sm.loss.kernels.rows import FLOAT32, FLOAT64, Block, Doubles, Floats, PerRow, scratch

NOTHING = {kind: np.empty(0, kind) for kind in (FLOAT32, FLOAT64)}
BITS = {FLOAT32: np.int32, FLOAT64: np.int64}
ONES = np.ones(1)


def fill_in(block: Block, threads: int = 1) -> None:
    """Write the losses of a block's rows and, if it is wanted, their gradient."""
    kind, gradient = block.logits.dtype, block.gradient
    code = machine_code("float32" if kind == FLOAT32 else "float64")
    period = _period(block.temperature, kind)
    for piece in block.pieces() if gradient is None else (block,):
        a, dense, out = piece.logits.reshape(-1), piece.dense, piece.gradient
        code(
            a,
            a.view(BITS[kind]),
            np.ascontiguousarray(piece.index, np.intp),
            _each(piece.coefficient),
            NOTHING[kind] if dense is None else dense.reshape(-1),
            ONES[:0] if piece.others is None else piece.others,
            _each(piece.active),
            _each(piece.factor),
            period,
            (scratch.take("work", piece.logits.shape, kind) if out is None else out).reshape(-1),
            piece.losses,
        )


def _each(values: PerRow) -> Doubles:
    """One number for each row, or a single one for all."""
    if isinstance(values, float):
        return ONES if values == 1.0 else np.array([values])
    return np.ascontiguousarray(values, np.float64)


@lru_cache(maxsize=16)
def _period(temperature: float, kind: np.dtype[Any]) -> Floats:
    """1/(T log 2), T log 2 in two parts, and 1/T."""
    length = LN2 * Fraction(temperature)
    upper = kind.type(float(length))
    parts = [1 / length, upper, length - Fraction(float(upper)), 1 / Fraction(temperature)]
    return np.array([float(x) for x in parts], kind)
