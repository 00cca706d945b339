"""`fuse` rewrites one graph; `fusing` has every `backward` rewrite its graph first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygrad_sm.engine.gradients import before_sweep
from tinygrad_sm.engine.later import Deferred, put_off
from tinygrad_sm.engine.scopes import deferring
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError
from tinygrad_sm.fusion.patterns import Rule
from tinygrad_sm.fusion.plan import Plan
from tinygrad_sm.fusion.result import FuseResult
from tinygrad_sm.fusion.rules import ALMOST, RULES, RULES_FOR_BACKWARD
from tinygrad_sm.fusion.snapshot import Snapshot

MOST_ROWS = 100_000
"""How many recorded operations the remembered plans may stand for, in all."""
PLANS_PER_STRUCTURE = 4  # that differ in the numbers that their search looked at


class Plans:
    """The plans that were found, by structure; the least recently used are forgotten.

    Finding one again takes 3 µs, searching for it about 1 ms, and a whole step of the composite on
    64 × 10 logits 0.07 ms: no small network could be fused at each step without.
    """

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._most_rows = most_rows
        self._known: OrderedDict[Any, list[Plan]] = OrderedDict()
        self._rows = 0
        self._lock = threading.Lock()
        self.searches = 0
        """How many times a plan had to be searched for."""

    def plan(self, snapshot: Snapshot, rules: tuple[Rule, ...]) -> Plan:
        """Return the plan for a structure, remembered or new."""
        key = (rules, snapshot.key)
        with self._lock:
            for plan in self._known.get(key, ()):
                if _same_numbers(plan, snapshot):
                    self._known.move_to_end(key)
                    return plan
        plan = Plan(snapshot, rules)
        with self._lock:
            self.searches += 1
            self._remember(key, plan, len(snapshot.tensors))
        return plan

    def _remember(self, key: Any, plan: Plan, rows: int) -> None:
        plans = self._known.setdefault(key, [])
        if not plans:
            self._rows += rows
        plans.append(plan)
        del plans[:-PLANS_PER_STRUCTURE]
        self._known.move_to_end(key)
        while self._rows > self._most_rows:
            (_, (forgotten, _)), _ = self._known.popitem(last=False)
            self._rows -= len(forgotten)


def _same_numbers(plan: Plan, snapshot: Snapshot) -> bool:
    for slot, value in plan.reads.items():
        now = snapshot.slots[slot]
        if (now.item() if isinstance(now, np.ndarray) else now) != value:
            return False
    return True


_plans = Plans()


def fuse(output: Tensor, *, rules: Iterable[Rule] | None = None) -> FuseResult:
    """Find softmax-cross-entropy and its parts in a graph, and rewrite them to fused nodes.

    The given graph stays as it is. The new one ends in the same leaves, so that a backward through
    it adds to the same `.grad`; what did not change is shared. The fused nodes are computed from
    the logits again, so that they are right where the given values had overflowed.

    Args:
        output: a Tensor; what it was computed from is looked through.
        rules: the rules to apply, in the order in which they are tried; None: `RULES`.

    Returns:
        The new output, with what was rewritten and what almost was.

    Raises:
        InvalidTypeError: `output` is not a Tensor, or `rules` are not `Rule`s.
        InvalidValueError: the logits of a fused node hold NaN or +inf, or rules of your own
            lead on and on, or one changes a shape.
        ChangedDataError: data was changed in place after it was used.
    """
    if not isinstance(output, Tensor):
        raise InvalidTypeError(f"fuse: output must be a Tensor; got {type(output).__name__}")
    return _fused(output, RULES if rules is None else _checked(rules))


def _checked(rules: Any) -> tuple[Rule, ...]:
    if not isinstance(rules, Iterable):
        raise InvalidTypeError(f"fuse: rules must be a list of Rule; got {type(rules).__name__}")
    found = tuple(rules)
    for rule in found:
        if not isinstance(rule, Rule):
            raise InvalidTypeError(
                f"fuse: rules must be a list of Rule; one is of type {type(rule).__name__}"
            )
    return found


def _fused(output: Tensor, rules: tuple[Rule, ...]) -> FuseResult:
    snapshot = Snapshot(output)
    return FuseResult(snapshot, _plans.plan(snapshot, rules), rules, ALMOST)


@contextmanager
def fusing(*, rules: Iterable[Rule] | None = None) -> Iterator[None]:
    """Have every `backward` inside fuse its graph before it sweeps.

    `.grad` of the leaves is that of the fused graph: finite and accurate where the operations as
    written overflow. Intermediate results that were replaced receive no `.grad`. A structure that
    was seen before is not searched again.

    Large operations inside are computed when their values are first read, which fuses them, too;
    those that were replaced are not computed at all. A loss then has the value of the fused one,
    whether it is read before backward or after; where its logits hold NaN or +inf, a reader gets
    what the operations as written make of them, and backward raises InvalidValueError.

    Args:
        rules: as for `fuse`; by default without the linear layer, which would save the logits'
            bytes by computing them again: the forward pass has computed and kept them already.

    Raises:
        InvalidTypeError: `rules` are not `Rule`s.
    """
    checked = RULES_FOR_BACKWARD if rules is None else _checked(rules)
    token = before_sweep.set(lambda output: _to_sweep(output, checked))
    try:
        with deferring(put_off):
            yield
    finally:
        before_sweep.reset(token)


def _to_sweep(output: Tensor, rules: tuple[Rule, ...]) -> Tensor:
    """The fused output; where the given one still waits for its values, these are they."""
    if isinstance(output, Deferred) and output.stand_in is not None:
        return output.stand_in
    fused = _fused(output, rules).output
    if isinstance(output, Deferred) and output.waits and fused is not output:
        output.settle(fused.numpy(), fused)
    return fused
