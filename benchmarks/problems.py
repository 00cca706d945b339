"""What the contestants are given: arrays that do not depend on who solves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

KINDS = ("plain", "soft", "weight", "smoothing", "ignore_index", "none")
IGNORED = -100
IGNORED_SHARE = 0.1
SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Problem:
    """One loss: logits (rows, classes), class indices or a distribution, and the options."""

    logits: Floats
    target: NDArray[Any]
    weight: Floats | None = None
    reduction: str = "mean"
    label_smoothing: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether it is the mean over class indices that all count the same."""
        indices = self.target.ndim == 1 and not (self.target < 0).any()
        options = self.weight is not None or self.reduction != "mean" or self.label_smoothing
        return indices and not options


def make_problem(shape: tuple[int, int], dtype: str, kind: str = "plain") -> Problem:
    """Return a problem with logits from N(0, 1); the same arguments give the same numbers.

    `kind` is "plain", or the one option that departs from it: "soft" (a distribution as the
    target), "weight", "smoothing", "ignore_index" (a tenth of the rows) or "none" (the reduction).
    """
    rng = np.random.default_rng(0)
    rows, classes = shape
    logits = rng.standard_normal(shape, np.float32).astype(dtype)
    target = rng.integers(0, classes, rows)
    if kind == "soft":
        soft = rng.random(shape, np.float32).astype(dtype)
        return Problem(logits, soft / soft.sum(axis=1, keepdims=True))
    if kind == "weight":
        return Problem(logits, target, weight=rng.uniform(0.5, 2.0, classes).astype(dtype))
    if kind == "smoothing":
        return Problem(logits, target, label_smoothing=SMOOTHING)
    if kind == "ignore_index":
        target[: int(rows * IGNORED_SHARE)] = IGNORED
    return Problem(logits, target, reduction="none" if kind == "none" else "mean")


@dataclass(frozen=True, slots=True)
class LinearProblem:
    """A linear layer in front of the loss: x (rows, features), weight (classes, features)."""

    x: Floats
    weight: Floats
    bias: Floats
    target: NDArray[np.intp]


def make_linear_problem(shape: tuple[int, int, int], dtype: str = "float32") -> LinearProblem:
    """Return a problem for shape (rows, features, classes) whose logits are about N(0, 1)."""
    rng = np.random.default_rng(0)
    rows, features, classes = shape
    x = rng.standard_normal((rows, features), np.float32)
    weight = rng.standard_normal((classes, features), np.float32) / np.sqrt(np.float32(features))
    bias = rng.standard_normal(classes, np.float32)
    return LinearProblem(
        x.astype(dtype), weight.astype(dtype), bias.astype(dtype), rng.integers(0, classes, rows)
    )
