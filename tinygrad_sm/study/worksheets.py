"""Exercises for a class: small graphs with numbers, whose gradients are to be found by hand.

A problem is a program of a few lines. The engine runs it, so the answers are the engine's; and it
runs it with each mistake of `mistakes` put in, so that a wrong answer can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from tinygrad_sm.engine.gradients import grad
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown
from tinygrad_sm.study.mistakes import MISTAKES, Mistake, mistaken

_LARGEST = 200  # of the numbers in a problem
HEAD = "import numpy as np\nimport tinygrad_sm as tg"
"""What every program of a problem begins with."""


@dataclass(frozen=True, slots=True)
class Blank:
    """One gradient that is asked for.

    Attributes:
        name: of the node: the blank is ∂L/∂name.
        via: of the consumer, if only what comes over its edge is asked for; else None.
        value: the answer.
    """

    name: str
    via: str | None
    value: np.ndarray

    @property
    def variable(self) -> str:
        """What the answer is called in a program, e.g. ``"dL_dx_via_u"``."""
        return f"dL_d{self.name}" + (f"_via_{self.via}" if self.via else "")


@dataclass(frozen=True, slots=True)
class Problem:
    """A graph with numbers, and what is asked of it.

    Attributes:
        kind: one of KINDS.
        program: its lines in Python, after HEAD; they end with ``L``.
        trace: the sweep that found the answers.
        blanks: what is asked for, in the order of the sweep.
        typical: mistakes that give another answer to the last blank, each with that answer.
    """

    kind: str
    program: str
    trace: BackwardTrace
    blanks: tuple[Blank, ...]
    typical: tuple[tuple[Mistake, np.ndarray], ...]


Asked = list[tuple[str, str | None]]
"""Name and via of each blank."""


def _scalar(random: Random) -> dict[str, str]:
    """Three operations on a number, each with a number of its own."""
    plus = _number(random, 9)
    return {
        "times": f"{_number(random, 6)} * {{}}",
        "plus": f"{{}} {'+' if plus > 0 else '-'} {abs(plus)}",
        "square": "{} ** 2",
    }


def _number(random: Random, most: int) -> int:
    """A whole number from 2 to `most`, or from −`most` to −2."""
    return random.choice([-1, 1]) * random.randint(2, most)


def _leaf(random: Random) -> str:
    return f'x = tg.Tensor({_number(random, 6)}.0, name="x")'


def _named(name: str, expression: str) -> str:
    made = expression if expression.startswith("tg.") else f"({expression})"
    return f'{name} = {made}.named("{name}")'


def _chain(random: Random) -> tuple[list[str], Asked]:
    """A number times, plus and squared: L of v of u of x. A sum at the end would pass on 1."""
    scalar = _scalar(random)
    last = scalar.pop(random.choice(["times", "square"]))
    steps = [*random.sample(list(scalar.values()), 2), last]
    made = [_named(y, step.format(x)) for x, y, step in zip("xuv", "uvL", steps, strict=True)]
    return [_leaf(random), *made], [("v", None), ("u", None), ("x", None)]


def _diamond(random: Random) -> tuple[list[str], Asked]:
    """One number used twice: L = u · v, both computed from x."""
    of_u, of_v = random.sample(list(_scalar(random).values()), 2)
    program = [
        _leaf(random),
        _named("u", of_u.format("x")),
        _named("v", of_v.format("x")),
        _named("L", "u * v"),
    ]
    return program, [("u", None), ("v", None), ("x", "u"), ("x", "v"), ("x", None)]


def _logits(random: Random) -> list[float]:
    """Three different logits, so near each other that every probability can be seen."""
    return [n / 2 for n in random.sample(range(-2, 5), 3)]


def _one_hot(random: Random) -> list[int]:
    right = random.randrange(3)
    return [int(i == right) for i in range(3)]


def _target(rows: list[Any]) -> str:
    return f'y = tg.Tensor({rows}, name="y", requires_grad=False)'


def _softmax(random: Random) -> tuple[list[str], Asked]:
    """The loss from exp, sum, div and log, and what meets at e = exp(a)."""
    program = [
        f'a = tg.Tensor({_logits(random)}, name="a")',
        _target(_one_hot(random)),
        _named("e", "tg.exp(a)"),
        _named("s", "tg.sum(e)"),
        _named("p", "e / s"),
        _named("L", "-tg.sum(y * tg.log(p))"),
    ]
    return program, [("p", None), ("s", None), ("e", "p"), ("e", "s"), ("e", None), ("a", None)]


def _mean(random: Random) -> tuple[list[str], Asked]:
    """The mean loss of two rows, with softmax as one operation."""
    program = [
        f'a = tg.Tensor({[_logits(random), _logits(random)]}, name="a")',
        _target([_one_hot(random), _one_hot(random)]),
        _named("p", "tg.softmax(a)"),
        _named("l", "-tg.sum(y * tg.log(p), axis=1)"),
        _named("L", "tg.mean(l)"),
    ]
    return program, [("l", None), ("p", None), ("a", None)]


KINDS: dict[str, Callable[[Random], tuple[list[str], Asked]]] = {
    "chain": _chain,
    "diamond": _diamond,
    "softmax": _softmax,
    "mean": _mean,
}
"""The kinds of problems, the easiest first."""


def problem(kind: str, seed: int) -> Problem:
    """Return a problem with the engine's answers; the same kind and seed give the same one.

    Every seed gives the same number of steps, with numbers of the same size.

    Raises:
        InvalidValueError: there is no such kind, or the seed is negative.
        InvalidTypeError: the seed is not an integer.

    Examples:
        >>> found = problem("chain", 1)
        >>> [blank.variable for blank in found.blanks]
        ['dL_dv', 'dL_du', 'dL_dx']
    """
    if kind not in KINDS:
        raise InvalidValueError(f"kind must be one of {', '.join(KINDS)}; got {shown(kind)}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InvalidTypeError(f"seed must be an integer; got {type(seed).__name__}")
    if seed < 0:
        raise InvalidValueError(f"seed must not be negative; got {shown(seed)}")
    random = Random(f"{kind} {seed}")
    while True:
        found = _answered(kind, *KINDS[kind](random))
        if _is_fair(found):
            return found


def tensors_of(program: str) -> dict[str, Tensor]:
    """Run the program of a problem, and return its Tensors by name."""
    names: dict[str, Any] = {}
    exec(f"{HEAD}\n{program}", names)  # a program of ours, built above
    return {name: x for name, x in names.items() if isinstance(x, Tensor)}


def _answered(kind: str, lines: list[str], asked: Asked) -> Problem:
    program = "\n".join(lines)
    tensors = tensors_of(program)
    trace = tensors["L"].backward(trace=True)
    assert trace is not None
    blanks = [Blank(name, via, _sent(trace, tensors[name], via)) for name, via in asked]
    typical = tuple(_typical(tensors["L"], tensors[blanks[-1].name], blanks[-1].value))
    return Problem(kind, program, trace, tuple(blanks), typical)


def _sent(trace: BackwardTrace, tensor: Tensor, via: str | None) -> np.ndarray:
    """The gradient of a Tensor, or what came over the edge from one consumer."""
    if via is None:
        found = trace.cotangent(tensor)
        assert found is not None
        return found
    (edge,) = (edge for edge in trace.contributions(tensor) if edge.consumer.name == via)
    return edge.value


def _typical(output: Tensor, leaf: Tensor, right: np.ndarray) -> Iterator[tuple[Mistake, Any]]:
    """What the engine finds with a mistake in it, where that is not the right answer."""
    for name, mistake in MISTAKES.items():
        if not mistake.twice:  # which is a mistake of the program
            with mistaken(name):
                wrong = grad(output, leaf)
            if not np.allclose(wrong, right):
                yield mistake, wrong


def _is_fair(problem: Problem) -> bool:
    """Whether no number on the way is large, and no answer is all zeros."""
    numbers = [node.value for node in problem.trace.graph.nodes]
    numbers += [blank.value for blank in problem.blanks]
    if any(np.abs(x).max() > _LARGEST for x in numbers):
        return False
    return all(np.any(blank.value) for blank in problem.blanks)
