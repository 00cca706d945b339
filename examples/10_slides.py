"""Slides of a function of one's own: forward, then backward, a picture a step.

    python examples/10_slides.py slides.svg

or, without a line of Python besides the function:

    tinygrad-sm draw examples/10_slides.py:neuron --frames -o slides.pdf
"""

from __future__ import annotations

import sys

import tinygrad_sm as tg
import viz


def neuron() -> tg.Tensor:
    """One neuron, and the square of what it says."""
    w, x, b = (tg.Tensor(v, name=n) for n, v in {"w": 2.0, "x": 3.0, "b": -5.0}.items())
    z = (w * x + b).named("z")
    return (tg.tanh(z) ** 2).named("L")


def slides() -> viz.Frames:
    """A picture for each step; nothing moves from one to the next."""
    trace = neuron().backward(trace=True)
    assert trace is not None
    return viz.frames(trace, direction="LR", dtypes=False, legend=False)


def main(arguments: list[str]) -> None:
    """Say what happens on each slide, and save them where it is said."""
    frames = slides()
    print(frames)
    for path in arguments:
        print(frames.save(path))


if __name__ == "__main__":
    main(sys.argv[1:])
