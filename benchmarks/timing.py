"""Interleaved timing: contestants take turns in one process, so that drift hits all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Run = Callable[[], object]

MIN_SAMPLE = 2e-3  # seconds: shorter runs are repeated within a sample
SETTLE = 3e-3  # seconds: the threads of the one before stop spinning
WARM_UP = 5e-3  # seconds: a core that rested takes some to be back at its speed
LONG = 0.02  # seconds: longer calls warm up by themselves
MOST = 101  # rounds


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call of one contestant, one number for each round that it took part in."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)

    def first(self, rounds: int) -> Timing:
        """The first rounds only: a slower contestant took part in no more."""
        return Timing(self.seconds[:rounds])

    def scaled(self, factor: float) -> Timing:
        """The same times multiplied, for example to seconds per operation."""
        return Timing(tuple(factor * s for s in self.seconds))


@dataclass(frozen=True, slots=True)
class Ratio:
    """One median divided by another, and the quartiles of the ratio from round to round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Timing, theirs: Timing) -> Ratio:
        """Pair the rounds: two times of one round saw the machine in the same mood."""
        pairs = zip(ours.seconds, theirs.seconds, strict=True)
        low, _, high = statistics.quantiles([a / b for a, b in pairs], n=4, method="inclusive")
        return cls(ours.median / theirs.median, low, high)


@dataclass(slots=True)
class Outcome:
    """The timings by contestant, and why some contestants have none."""

    timings: dict[str, Timing] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def scaled(self, factor: float) -> Outcome:
        """The same with every time multiplied."""
        timings = {name: timing.scaled(factor) for name, timing in self.timings.items()}
        return Outcome(timings, self.dropped)


def interleave(
    contestants: Mapping[str, Run],
    budget: float,
    *,
    before: Mapping[str, Run] = MappingProxyType({}),
    essential: Container[str] = (),
    slow: float = math.inf,
    settle: float = SETTLE,
    fewest: int = 3,
) -> Outcome:
    """Time the contestants round robin, in an order that rotates from round to round.

    Args:
        contestants: what to call, by name.
        budget: seconds to spend in all, shared equally.
        before: what to do, outside the time, before some contestants run, by name.
        essential: those whose failure is an error and who are never too slow.
        slow: others whose call takes longer than this many seconds are dropped.
        settle: seconds to wait before each sample.
        fewest: rounds for everyone, however small the budget; at least 2.
    """
    outcome = Outcome()
    plans: dict[str, tuple[int, int, int]] = {}
    for name, run in contestants.items():
        before.get(name, _nothing)()
        first = _trial(name, run, name in essential, outcome)
        if first is None:
            continue
        if name not in essential and first > slow and (first := timed(run, 1)) > slow:
            outcome.dropped[name] = f"too slow ({first:.1f} s)"
            continue
        estimate = min(first, timed(run, 1)) if first < slow else first
        rounds, warming, calls = _plan(estimate, budget / len(contestants))
        plans[name] = max(rounds, fewest), warming, calls
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    names = list(plans)
    for round_ in range(max((rounds for rounds, *_ in plans.values()), default=0)):
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            rounds, warming, calls = plans[name]
            if round_ < rounds:
                time.sleep(settle)
                before.get(name, _nothing)()
                timed(contestants[name], warming)  # its own data and threads, as in a loop
                seconds[name].append(timed(contestants[name], calls) / calls)
    outcome.timings = {name: Timing(tuple(each)) for name, each in seconds.items()}
    return outcome


def _nothing() -> None:
    """What most contestants need done before they run."""


def timed(run: Run, calls: int) -> float:
    """Seconds for `calls` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def _trial(name: str, run: Run, essential: bool, outcome: Outcome) -> float | None:
    """Seconds of the first call, which loads and compiles; None if a peer cannot do it."""
    try:
        return timed(run, 1)
    except Exception as error:  # a peer may fail in any way; the others still run
        if essential:
            raise
        outcome.dropped[name] = f"failed ({type(error).__name__})"
        return None


def _plan(estimate: float, budget: float) -> tuple[int, int, int]:
    """How many rounds fit the budget, and in each how many calls to warm up and to time."""
    each = max(estimate, 1e-9)
    warming = 0 if each > LONG else math.ceil(WARM_UP / each)
    calls = math.ceil(MIN_SAMPLE / each)
    rounds = int(budget / ((warming + calls) * estimate + SETTLE))
    return min(rounds, MOST), warming, calls
