"""Make the pictures of the README and the pages: `python docs/make.py`, with the extra `lab`."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tinygrad_sm as tg
import viz
from tinygrad_sm.cli.examples import linear_levels
from tinygrad_sm.study.derivation import derive
from tinygrad_sm.study.stability.report import survey
from tinygrad_sm.study.stability.two_losses import confidently_wrong
from viz import lab

HERE = Path(__file__).parent


def comparison() -> viz.Drawing:
    """The composite and the fused node on the article's example."""
    return viz.draw_comparison(tg.compare([2.0, 1.0, 0.1], [1, 0, 0]))


def diamond() -> viz.Drawing:
    """One number used twice: the beginner's first graph."""
    x = tg.Tensor(3.0, name="x")
    trace = ((x + 4).named("u") * (x**2).named("v")).named("L").backward(trace=True)
    return viz.draw(trace, dtypes=False, legend=False)


def overflow() -> viz.Drawing:
    """The naive loss of a logit whose exponential is no number."""
    a = tg.Tensor([1000.0, 0.0, 0.0], name="a")
    with np.errstate(all="ignore"):
        loss = tg.composite_cross_entropy(a, [1, 0, 0])
    return viz.draw(loss, dtypes=False, legend=False, gradients=False, compact=True)


def fusion() -> viz.Drawing:
    """The loss of a small network, before and after."""
    return viz.draw_fusion(tg.fuse(two_layers()))


def two_layers() -> tg.Tensor:
    """The naive loss of a small network, as one may write it."""
    random = np.random.default_rng(0)
    x = tg.Tensor(random.normal(size=(4, 3)), name="x", requires_grad=False)
    w1 = tg.Tensor(random.normal(size=(3, 5)), name="W1")
    w2 = tg.Tensor(random.normal(size=(5, 3)), name="W2")
    h = tg.relu(x @ w1).named("h")
    e = tg.exp((h @ w2).named("a")).named("e")
    p = (e / e.sum(axis=1, keepdims=True)).named("p")
    return (-tg.log(p)[np.arange(4), [0, 2, 1, 0]].mean()).named("L")


def slides() -> viz.Picture:
    """The chain rule on one neuron, step by step."""
    made: viz.Picture = runpy.run_path(str(HERE.parent / "examples/10_slides.py"))["slides"]()
    return made


GRAPHS: dict[str, Callable[[], viz.Drawing]] = {
    "comparison": comparison,
    "diamond": diamond,
    "formulas": lambda: viz.draw_formulas(derive([2.0, 1.0, 0.1], 0)),
    "fusion": fusion,
    "levels": lambda: viz.draw_levels(linear_levels()),
    "overflow": overflow,
}
"""The pictures of graphs, by the name of their file; tests compare them with today's."""
PLOTS: dict[str, Callable[[], viz.Picture]] = {
    "stability": lambda: lab.draw_stability(survey()),
    "confidently-wrong": lambda: lab.draw_confidently_wrong(confidently_wrong()),
    "frames": slides,
}


def main() -> None:
    """Write every picture beside this file."""
    for name, made in (GRAPHS | PLOTS).items():
        print(made().save(HERE / f"{name}.svg").name)


if __name__ == "__main__":
    main()
