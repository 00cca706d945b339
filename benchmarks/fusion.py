"""What fusion is measured with: one loss as people write it, fused in each way, and the search."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_sm as tg
from benchmarks.problems import Problem
from benchmarks.timing import Run
from tinygrad_sm.fusion import RULES
from tinygrad_sm.fusion.front import Plans
from tinygrad_sm.fusion.plan import Plan
from tinygrad_sm.fusion.snapshot import Snapshot

SPELLINGS = ("picked", "one-hot")


def fusion_runs(problem: Problem, spelling: str) -> dict[str, Run]:
    """Return the contestants by name; each forward and backward leaves a gradient.

    Args:
        problem: a plain one.
        spelling: "picked" takes log p at the right classes, "one-hot" sums y·log p.
    """
    a = tg.Tensor(problem.logits)
    rows, classes = problem.logits.shape
    index = np.arange(rows), problem.target
    one_hot = np.eye(classes, dtype=problem.logits.dtype)[problem.target]
    target = problem.target if spelling == "picked" else one_hot

    def loss() -> Any:
        e = a.exp()
        p = e / e.sum(axis=1, keepdims=True)
        if spelling == "picked":
            return -p.log()[index].mean()
        return -(one_hot * p.log()).sum() / rows

    def swept(output: Any) -> Any:
        a.zero_grad()
        output.backward()
        return a.grad

    def fusing() -> Any:
        with tg.fusing():
            return swept(loss())

    recorded, seen = loss(), Plans()
    return {
        "composite": lambda: swept(loss()),
        "fused node": lambda: swept(tg.cross_entropy(a, target)),
        "fusing()": fusing,
        "fuse(L)": lambda: swept(tg.fuse(recorded).output),
        "search, seen before": lambda: seen.plan(Snapshot(recorded), RULES),
        "first search": lambda: Plan(Snapshot(recorded), RULES),
    }
