"""Derivatives made of several sweeps: the Jacobian, and the Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_sm.engine import shapes
from tinygrad_sm.engine.gradients import grad
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError


def jacobian(f: Callable[[Tensor], Tensor], x: Any) -> np.ndarray:
    """Return the Jacobian of `f` at `x`: entry [i…, j…] is ∂f(x)[i…] / ∂x[j…].

    One reverse sweep per element of the output.

    Args:
        f: maps a Tensor to a Tensor.
        x: an array or a Tensor, of any shape.

    Returns:
        An array of shape ``f(x).shape + x.shape``. For softmax of n logits it is
        ``diag(p) - p pᵀ``.

    Raises:
        InvalidTypeError: `f` does not return a Tensor that depends on its argument.
    """
    at, y = _evaluated("jacobian", f, x)
    rows = [grad(y, at, unit, allow_unused=True) for unit in _units(y)]
    return _stacked(rows, y.shape + at.shape, at)


def hessian(f: Callable[[Tensor], Tensor], x: Any) -> np.ndarray:
    """Return the second derivatives of a scalar `f` at `x`: entry [i…, j…] is ∂²f/∂x[i…]∂x[j…].

    The gradient is recorded (``create_graph``) and differentiated again, once per element.

    Returns:
        An array of shape ``x.shape + x.shape``. For softmax-cross-entropy of n logits it is
        ``Σy · (diag(p) - p pᵀ)``.

    Raises:
        InvalidTypeError: `f` does not return a Tensor that depends on its argument.
        InvalidValueError: `f` does not return one element.
    """
    at, y = _evaluated("hessian", f, x)
    g = grad(y, at, create_graph=True, allow_unused=True)
    if not g.requires_grad:  # f is linear in x
        return np.zeros(at.shape + at.shape, at.dtype)
    rows = [grad(g, at, unit, allow_unused=True) for unit in _units(g)]
    return _stacked(rows, at.shape + at.shape, at)


def _evaluated(caller: str, f: Callable[[Tensor], Tensor], x: Any) -> tuple[Tensor, Tensor]:
    """The point as a leaf, and the value of f there."""
    if not callable(f):
        raise InvalidTypeError(f"{caller}: f must be a function; got {type(f).__name__}")
    at = Tensor(x, requires_grad=True)
    y = f(at)
    if not isinstance(y, Tensor) or not y.requires_grad:
        raise InvalidTypeError(
            f"{caller}: f must return a Tensor that depends on its argument; got {type(y).__name__}"
        )
    return at, y


def _stacked(rows: list[Any], shape: tuple[int, ...], at: Tensor) -> np.ndarray:
    joined = shapes.stack(rows) if rows else np.zeros(shape, at.dtype)
    found: np.ndarray = shapes.reshape(joined, shape)
    return found


def _units(y: Tensor) -> list[np.ndarray]:
    units = np.eye(y.size, dtype=y.dtype)
    return [row.reshape(y.shape) for row in units]
