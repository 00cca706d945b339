"""A linear classifier on rows in chunks: the weights are NumPy's, the rows need not fit in memory.

The flowers of 05_gradient_descent.py once more, first as an array, then as a Dask array of chunks,
as they would come from files. Each step computes loss and gradients chunk by chunk. Both end with
the same weights. Needs the extra dask.

    python examples/11_larger_than_memory.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np

import tinygrad_sm as tg

DATA = Path(__file__).parent / "data" / "iris.csv"
STEPS, RATE = 60, 0.5


def main() -> None:
    """Train on both kinds of rows, and compare."""
    table = np.genfromtxt(DATA, delimiter=",", names=True, dtype=None, encoding="utf-8")
    names = table.dtype.names
    rows = np.stack([table[name] for name in names[:-1]], axis=1).astype(float)
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    _, labels = np.unique(table[names[-1]], return_inverse=True)

    in_memory = train(rows, labels)
    in_chunks = train(da.from_array(rows, chunks=(40, rows.shape[1])), labels)
    difference = max(abs(a - b).max() for a, b in zip(in_memory, in_chunks, strict=True))
    right = np.mean((rows @ in_chunks[0] + in_chunks[1]).argmax(axis=1) == labels)
    print(f"{len(rows)} flowers in chunks of 40: {right:.0%} named right")
    print(f"largest difference to the weights of training in memory: {difference:.1e}")


def train(rows: Any, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias after some steps of gradient descent."""
    weight, bias = tg.Tensor(np.zeros((rows.shape[1], 3))), tg.Tensor(np.zeros(3))
    for _ in range(STEPS):
        weight.zero_grad()
        bias.zero_grad()
        loss = tg.cross_entropy(tg.Tensor(rows, requires_grad=False) @ weight + bias, labels)
        loss.backward()  # with chunks nothing is computed yet
        value, by_weight, by_bias = dask.compute(loss.data, weight.grad, bias.grad)  # one pass
        with tg.no_grad():
            weight -= RATE * by_weight
            bias -= RATE * by_bias
    print(f"loss after {STEPS} steps: {float(value):.6f}")
    return weight.numpy(), bias.numpy()


if __name__ == "__main__":
    main()
