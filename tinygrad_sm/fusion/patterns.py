"""A small matcher: patterns of operations, and rules made of a pattern and its replacement.

Nothing here knows any operation. A pattern is made of `Op`, `Var`, `Const` and `Number`; a name
that stands twice must stand for the same term both times, and terms are equal by structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from tinygrad_sm.fusion.terms import NUMBER, Numbers, Term, walk

Bound = Mapping[str, Term]


class Match:
    """What a pattern's names stand for, as attributes; `number(name)` is the value of one."""

    def __init__(self, bound: Bound, numbers: Numbers) -> None:
        self._bound = bound
        self._numbers = numbers

    def __getattr__(self, name: str) -> Any:
        try:
            return self._bound[name]
        except KeyError:
            raise AttributeError(f"the pattern has no name {name!r}") from None

    def has(self, name: str) -> bool:
        """Return whether an optional part of the pattern was there."""
        return name in self._bound

    def number(self, name: str) -> Any:
        """Return the exact value of a number, a Fraction, or None if it is infinite or NaN."""
        return self._numbers(self._bound[name])


class Pattern:
    """What a term must look like."""

    def ways(self, term: Term, bound: Bound, clashes: list[str] | None) -> Iterator[Bound]:
        """Yield each way in which `term` fits, as what the names stand for then.

        With a list of `clashes`, a name may stand for two terms, and is noted there.
        """
        raise NotImplementedError

    def variables(self) -> set[str]:
        """Return the names of the parts that may be anything."""
        return set()


@dataclass(frozen=True)
class Var(Pattern):
    """Any term."""

    name: str

    def ways(self, term: Term, bound: Bound, clashes: list[str] | None) -> Iterator[Bound]:
        """See `Pattern`."""
        yield from _bind(self.name, term, bound, clashes)

    def variables(self) -> set[str]:
        """See `Pattern`."""
        return {self.name}


@dataclass(frozen=True)
class Const(Pattern):
    """An array or number that no gradient flows through."""

    name: str

    def ways(self, term: Term, bound: Bound, clashes: list[str] | None) -> Iterator[Bound]:
        """See `Pattern`."""
        if term.constant:
            yield from _bind(self.name, term, bound, clashes)


@dataclass(frozen=True)
class Number(Pattern):
    """A single number that no gradient flows through."""

    name: str

    def ways(self, term: Term, bound: Bound, clashes: list[str] | None) -> Iterator[Bound]:
        """See `Pattern`."""
        if term.op == NUMBER:
            yield from _bind(self.name, term, bound, clashes)


class Op(Pattern):
    """A term with one of the operations `ops`, whose inputs fit `inputs`.

    Args:
        ops: names of operations, in one string, separated by spaces.
        inputs: one pattern per input.
        name: what to call the term itself.
        any_order: the inputs may stand in any order.
        more: further inputs may follow.
    """

    def __init__(
        self,
        ops: str,
        *inputs: Pattern,
        name: str | None = None,
        any_order: bool = False,
        more: bool = False,
    ) -> None:
        self.ops = frozenset(ops.split())
        self.inputs = inputs
        self.name = name
        self.any_order = any_order
        self.more = more
        # (position, operations): what can be seen at a glance; most terms fail there
        self._glance = [(i, x.ops) for i, x in enumerate(inputs) if isinstance(x, Op)]

    def _may_fit(self, term: Term) -> bool:
        inputs, count = term.inputs, len(self.inputs)
        if term.op not in self.ops or len(inputs) < count:
            return False
        if len(inputs) > count and not self.more:
            return False
        for i, ops in self._glance:
            if inputs[i].op not in ops:
                if not self.any_order:
                    return False
                if all(x.op not in ops for x in inputs):
                    return False
        return True

    def ways(self, term: Term, bound: Bound, clashes: list[str] | None) -> Iterator[Bound]:
        """See `Pattern`."""
        if not self._may_fit(term):
            return
        starts = [bound] if self.name is None else _bind(self.name, term, bound, clashes)
        for start in starts:
            head = term.inputs[: len(self.inputs)]
            for order in permutations(head) if self.any_order else [head]:
                yield from _all_ways(self.inputs, order, start, clashes)

    def variables(self) -> set[str]:
        """See `Pattern`."""
        return set().union(*(x.variables() for x in self.inputs))


@dataclass(frozen=True)
class Maybe(Pattern):
    """What fits `inner`, or an operation `op` on it, which is then called `name`."""

    op: str
    inner: Pattern
    name: str

    def ways(self, term: Term, bound: Bound, clashes: list[str] | None) -> Iterator[Bound]:
        """See `Pattern`."""
        yield from self.inner.ways(term, bound, clashes)
        yield from Op(self.op, self.inner, name=self.name).ways(term, bound, clashes)

    def variables(self) -> set[str]:
        """See `Pattern`."""
        return self.inner.variables()


@dataclass(frozen=True)
class Either(Pattern):
    """What fits one of two patterns, which have the same variables."""

    one: Pattern
    other: Pattern

    def ways(self, term: Term, bound: Bound, clashes: list[str] | None) -> Iterator[Bound]:
        """See `Pattern`."""
        yield from self.one.ways(term, bound, clashes)
        yield from self.other.ways(term, bound, clashes)

    def variables(self) -> set[str]:
        """See `Pattern`."""
        return self.one.variables()


def _bind(name: str, term: Term, bound: Bound, clashes: list[str] | None) -> Iterator[Bound]:
    known = bound.get(name)
    if known is None:
        yield {**bound, name: term}
    elif known is term:
        yield bound
    elif clashes is not None:
        clashes.append(name)
        yield bound


def _all_ways(
    patterns: tuple[Pattern, ...], terms: Iterable[Term], bound: Bound, clashes: list[str] | None
) -> Iterator[Bound]:
    """Yield the ways in which all patterns fit at once, the first ones outermost."""
    if not patterns:
        yield bound
        return
    first, *rest = terms
    for way in patterns[0].ways(first, bound, clashes):
        yield from _all_ways(patterns[1:], rest, way, clashes)


Check = Callable[[Match], bool]
Make = Callable[[Match], Term]


@dataclass(frozen=True, eq=False)
class Rule:
    """A pattern, and what may stand in its place.

    Attributes:
        name: short, for messages and pictures.
        because: one sentence that justifies the replacement.
        pattern: what to look for; its root is an `Op`.
        make: builds the replacement from a `Match`.
        only_if: conditions beyond the pattern, each with the sentence that says what was missing.
        helps: the rule makes nothing better by itself but brings a term into the form that other
            rules look for. Where none of them comes to use, the user's own operations are kept.
        saves: the rule is there to save: where no operation and no byte is, nothing is replaced.
        alone: for a rule that pays only where what it matches, between its root and what the
            pattern leaves open, is needed by nothing else: the sentence for where it is. Such a
            rule is tried last, on the graph that the others leave.
    """

    name: str
    because: str
    pattern: Op
    make: Make
    only_if: tuple[tuple[Check, str], ...] = ()
    helps: bool = False
    saves: bool = False
    alone: str = ""

    def apply(self, term: Term, numbers: Numbers) -> tuple[Term, Bound] | None:
        """Return the replacement of `term` and what the names stood for, or None if it is none."""
        for bound in self.pattern.ways(term, {}, None):
            match = Match(bound, numbers)
            if all(check(match) for check, _ in self.only_if):
                return self.make(match), bound
        return None

    def inside(self, term: Term, numbers: Numbers) -> list[Term] | None:
        """Return the terms below `term` that the rule would do without, or None if it fits not."""
        applied = self.apply(term, numbers)
        if applied is None:
            return None
        bound = applied[1]
        left = [bound[name] for name in self.pattern.variables() if name in bound]
        return [x for x in walk(term, left) if x is not term and not x.constant]

    def missing(self, term: Term, numbers: Numbers) -> tuple[str, Bound] | None:
        """Return what keeps a rule from fitting whose operations are all there, if one thing."""
        clashes: list[str] = []
        for bound in self.pattern.ways(term, {}, clashes):
            if clashes:
                return f"{clashes[0]} is not the same in both places", bound
            match = Match(bound, numbers)
            for check, sentence in self.only_if:
                if not check(match):
                    return sentence, bound
            return (self.alone, bound) if self.alone else None
        return None


@dataclass(frozen=True, eq=False)
class AlmostRule:
    """What is often written where a rule was meant to fit, and the sentence that says so."""

    meant: str
    sentence: str
    pattern: Op
    only_if: Check = lambda match: True

    def missing(self, term: Term, numbers: Numbers) -> tuple[str, Bound] | None:
        """Return the sentence if `term` is such a place."""
        for bound in self.pattern.ways(term, {}, None):
            if self.only_if(Match(bound, numbers)):
                return self.sentence, bound
        return None
