"""Softmax regression on Fisher's iris flowers by plain gradient descent, twice from one start.

One run builds the loss from exp, sum, div and log, the other calls the one fused node. Both losses
fall alike: what separates them after hundreds of steps is rounding.

    python examples/05_gradient_descent.py
    python examples/05_gradient_descent.py --steps 1000 --learning-rate 1 -o pictures
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

import tinygrad_sm as tg
import viz
from viz.files import write_whole

Loss = Callable[[tg.Tensor, np.ndarray], tg.Tensor]

DATA = Path(__file__).parent / "data" / "iris.csv"


def read_iris() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the standardised features (150, 4), the classes (150,), and the classes' names."""
    with DATA.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    features = np.array([row[:-1] for row in rows], dtype=np.float64)
    names = sorted({row[-1] for row in rows})
    target = np.array([names.index(row[-1]) for row in rows], dtype=np.int64)
    return (features - features.mean(axis=0)) / features.std(axis=0), target, names


@dataclass
class Model:
    """A linear classifier and the loss that it descends.

    Attributes:
        loss_of: maps logits (rows, classes) and a target (rows,) to a loss.
        W: weights (features, classes).
        b: biases (classes,).
    """

    loss_of: Loss
    W: tg.Tensor
    b: tg.Tensor

    @classmethod
    def at_zero(cls, loss_of: Loss, features: int, classes: int) -> Model:
        """The start: every class as likely as the others. The loss is convex, so any start does."""
        W = tg.Tensor(np.zeros((features, classes)), name="W")
        return cls(loss_of, W, tg.Tensor(np.zeros(classes), name="b"))

    def sweep(self, X: np.ndarray, y: np.ndarray) -> tuple[tg.Tensor, float, tg.BackwardTrace]:
        """Forward and backward: return the logits, the loss, and the record of the sweep."""
        self.W.zero_grad()
        self.b.zero_grad()
        with np.errstate(all="ignore"):  # a loss that is not finite ends the run, in main
            logits = (tg.Tensor(X, name="X", requires_grad=False) @ self.W + self.b).named("a")
            loss = self.loss_of(logits, y)
            return logits, loss.item(), loss.backward(trace=True)

    def descend(self, learning_rate: float) -> None:
        """Take one step against the gradient."""
        for parameter in (self.W, self.b):
            parameter.data = parameter.data - learning_rate * parameter.grad


def largest_difference(one: Model, other: Model) -> float:
    """Return the largest difference of two models' parameters."""
    return max(
        np.abs(one.W.data - other.W.data).max(),
        np.abs(one.b.data - other.b.data).max(),
    )


def worth_printing(step: int, steps: int) -> bool:
    """Whether a step is 0, the last, or 1, 2 or 5 times a power of ten."""
    return step in (0, steps) or str(step).rstrip("0") in ("1", "2", "5")


def logits_as_csv(logits: np.ndarray, target: np.ndarray, names: list[str]) -> str:
    """Return the text that `tinygrad-sm compare` reads: a column per class, then the target.

    Six decimals are far above the rounding of any machine's exp and matmul, so every machine
    makes the same bytes.
    """
    lines = [",".join([*names, "target"])]
    for row, right in zip(logits, target, strict=True):
        lines.append(",".join([*(f"{a:.6f}" for a in row), str(right)]))
    return "\n".join(lines) + "\n"


class Parser(argparse.ArgumentParser):
    """argparse, with one sentence for a bad argument."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def arguments() -> argparse.Namespace:
    """Read and check the command line; nothing is written before all of it is right."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="updates (default: 200)")
    parser.add_argument("--learning-rate", type=float, default=0.5, help="(default: 0.5)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("out"), help="folder for pictures (default: out)"
    )
    parser.add_argument(
        "--write-logits", type=Path, metavar="FILE", help="also write the last logits, as CSV"
    )
    given = parser.parse_args()
    if given.steps < 1:
        parser.error(f"--steps must be at least 1; got {given.steps}")
    if not 0 < given.learning_rate < np.inf:
        parser.error(f"--learning-rate must be positive and finite; got {given.learning_rate}")
    wanted = given.write_logits
    if wanted is not None and (wanted.is_dir() or not os.access(wanted.parent, os.W_OK)):
        parser.error(f"--write-logits: {wanted} is not a file in a folder to write to")
    try:
        given.output.mkdir(parents=True, exist_ok=True)
    except (OSError, RecursionError):  # the latter a thousand folders deep
        parser.error(f"--output: {given.output} is not a folder and cannot become one")
    if not os.access(given.output, os.W_OK):
        parser.error(f"--output: the folder {given.output} cannot be written to")
    return given


def main() -> None:
    """Fit both models side by side, then draw the last step of each."""
    options = arguments()
    X, y, names = read_iris()
    composite = Model.at_zero(tg.composite_cross_entropy, X.shape[1], len(names))
    fused = Model.at_zero(tg.cross_entropy, X.shape[1], len(names))

    print(f"{len(X)} flowers, {X.shape[1]} features, classes {', '.join(names)}")
    print("  step     loss, composite         loss, fused  difference  of parameters")
    apart = 0.0
    for step in range(options.steps + 1):
        try:
            _, composite_loss, composite_trace = composite.sweep(X, y)
            logits, fused_loss, fused_trace = fused.sweep(X, y)
        except tg.TinygradError as error:  # the parameters have run away
            raise SystemExit(f"step {step}: {error}; try a smaller --learning-rate") from None
        if not np.isfinite(composite_loss):
            raise SystemExit(
                f"step {step}: the composite's loss is {composite_loss}, the fused node's "
                f"{fused_loss:.6g}; a smaller --learning-rate keeps exp in range"
            )
        difference = abs(composite_loss - fused_loss)
        apart = max(apart, difference)
        if worth_printing(step, options.steps):
            print(
                f"{step:6}  {composite_loss:18.15f}  {fused_loss:18.15f}  {difference:10.1e}  "
                f"{largest_difference(composite, fused):13.1e}"
            )
        if step < options.steps:  # the graphs of the last step are drawn with its own parameters
            composite.descend(options.learning_rate)
            fused.descend(options.learning_rate)

    right = np.argmax(logits.numpy(), axis=-1) == y
    print(f"largest difference of the losses over all steps: {apart:.1e}")
    print(f"right on the flowers it was fitted to: {right.sum()} of {len(y)}, {right.mean():.1%}")

    try:
        for name, trace in (("composite", composite_trace), ("fused", fused_trace)):
            print("wrote", viz.draw(trace).save(options.output / f"gradient_descent_{name}.svg"))
        if options.write_logits is not None:
            write_whole(options.write_logits, logits_as_csv(logits.numpy(), y, names).encode())
            print("wrote", options.write_logits)
    except OSError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
