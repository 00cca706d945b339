"""Make the pictures that the README shows: `python docs/make.py`, with the extra `lab`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tinygrad_sm as tg
import viz
from tinygrad_sm.cli.examples import linear_levels
from tinygrad_sm.study.stability.report import survey
from tinygrad_sm.study.stability.two_losses import confidently_wrong
from viz import lab

HERE = Path(__file__).parent


def comparison() -> viz.Drawing:
    """The composite and the fused node on the article's example."""
    return viz.draw_comparison(tg.compare([2.0, 1.0, 0.1], [1, 0, 0]))


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


def main() -> None:
    """Write every picture beside this file."""
    pictures: dict[str, viz.Picture] = {
        "comparison": comparison(),
        "levels": viz.draw_levels(linear_levels()),
        "fusion": viz.draw_fusion(tg.fuse(two_layers())),
        "stability": lab.draw_stability(survey()),
        "confidently-wrong": lab.draw_confidently_wrong(confidently_wrong()),
    }
    for name, picture in pictures.items():
        print(picture.save(HERE / f"{name}.svg").name)


if __name__ == "__main__":
    main()
