"""A small matcher: patterns of operations, and rules made of a pattern and what it becomes.

Nothing here knows any operation. Patterns are written as formulas of `Var`, `Const` and `Number`:
``exp(x) / total(exp(x), k)``. A name that stands twice must stand for the same both times; terms
are equal by structure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import permutations
from typing import Any, NamedTuple

from tinygrad_sm.engine.primitive import TABLE
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.fusion.terms import Expression, Numbers, Term, walk

Bound = Mapping[str, Any]
"""What names stand for: terms, exact numbers, and parameters of operations."""
COMMUTATIVE = frozenset(("add", "mul", "maximum", "minimum"))


class Search(NamedTuple):
    """What a search brings along: the numbers, and for a near miss a list of names that clash.

    With such a list a name may stand for two things, and is noted there.
    """

    numbers: Numbers
    clashes: list[str] | None = None


class Pattern(Expression):
    """What a term must look like; also a formula that becomes a term once its names are known."""

    name: str | None = None
    inner: tuple[Pattern, ...] = ()

    @staticmethod
    def of(op: str, *inputs: Any, **params: Any) -> Op:
        """Return the pattern of an operation."""
        return Op(op, *inputs, **params)

    def ways(self, term: Term, bound: Bound, look: Search) -> Iterator[Bound]:
        """Yield each way in which `term` fits, as what the names stand for then."""
        raise NotImplementedError

    def term(self, bound: Bound) -> Any:
        """Return what the formula is where its names stand for these terms."""
        raise NotImplementedError

    def parts(self) -> Iterator[Pattern]:
        """Yield this pattern and all that it is made of."""
        yield self
        for part in self.inner:
            yield from part.parts()


@dataclass(frozen=True, eq=False)
class Var(Pattern):
    """Any term; in the place of a parameter, any value."""

    name: str

    def ways(self, term: Any, bound: Bound, look: Search) -> Iterator[Bound]:
        """See `Pattern`."""
        known = bound.get(self.name)
        if known is None:
            yield {**bound, self.name: term}
        elif known == term:
            yield bound
        elif look.clashes is not None:
            look.clashes.append(self.name)
            yield bound

    def term(self, bound: Bound) -> Any:
        """See `Pattern`."""
        return bound[self.name]


class Const(Var):
    """An array or number that no gradient flows through."""

    def ways(self, term: Term, bound: Bound, look: Search) -> Iterator[Bound]:
        """See `Pattern`."""
        if term.constant:
            yield from super().ways(term, bound, look)


class Varying(Var):
    """What a gradient flows through."""

    def ways(self, term: Term, bound: Bound, look: Search) -> Iterator[Bound]:
        """See `Pattern`."""
        if not term.constant:
            yield from super().ways(term, bound, look)


class Number(Var):
    """A finite number that no gradient flows through; its name stands for the exact Fraction."""

    def ways(self, term: Any, bound: Bound, look: Search) -> Iterator[Bound]:
        """See `Pattern`."""
        value = look.numbers(term) if isinstance(term, Term) else term
        if value is not None:
            yield from super().ways(value, bound, look)


@dataclass(frozen=True, eq=False)
class _Exactly(Pattern):
    """The number, or the parameter, that is written in a formula."""

    value: Any

    def ways(self, term: Any, bound: Bound, look: Search) -> Iterator[Bound]:
        """See `Pattern`."""
        if (look.numbers(term) if isinstance(term, Term) else term) == self.value:
            yield bound

    def term(self, bound: Bound) -> Any:
        """See `Pattern`."""
        return self.value


def _pattern(x: Any) -> Pattern:
    if isinstance(x, Pattern):
        return x
    return _Exactly(Fraction(x) if isinstance(x, (int, float)) else x)


class Op(Pattern):
    """A term with one of the operations `ops`, whose inputs fit `inputs`.

    Args:
        ops: names of operations, in one string, separated by spaces; or what primitives are, of a
            `Primitive.kind` or "linear". The inputs of a commutative one stand in any order.
        inputs: one pattern per input.
        more: further inputs may follow.
        params: patterns of some parameters.
    """

    def __init__(self, ops: str, *inputs: Any, more: bool = False, **params: Any) -> None:
        self._ops = frozenset(ops.split())
        self.inputs = tuple(map(_pattern, inputs))
        self.more = more
        self.params = {name: _pattern(value) for name, value in params.items()}
        self.inner = (*self.params.values(), *self.inputs)
        # (position, pattern): what can be seen at a glance; most terms fail there
        self._glance = [(i, x) for i, x in enumerate(self.inputs) if isinstance(x, Op)]

    def named(self, name: str) -> Op:
        """Return the pattern of a term that is to be called `name`."""
        new = copy(self)
        new.name = name
        return new

    def takes(self, op: str) -> bool:
        """Return whether a term of this operation may fit."""
        known = TABLE.get(op)
        if op in self._ops or known is None:
            return op in self._ops
        return known.kind in self._ops or (known.linear and "linear" in self._ops)

    def _may_fit(self, term: Term) -> bool:
        count = len(self.inputs)
        if len(term.inputs) < count or (len(term.inputs) > count and not self.more):
            return False
        if not self.takes(term.op):
            return False
        if term.op in COMMUTATIVE:
            return all(any(one.takes(x.op) for x in term.inputs) for _, one in self._glance)
        return all(one.takes(term.inputs[i].op) for i, one in self._glance)

    def ways(self, term: Term, bound: Bound, look: Search) -> Iterator[Bound]:
        """See `Pattern`."""
        if not self._may_fit(term):
            return
        values = [term.params.get(name) for name in self.params]
        head = term.inputs[: len(self.inputs)]
        start = bound if self.name is None else {**bound, self.name: term}
        for order in permutations(head) if term.op in COMMUTATIVE else [head]:
            yield from _all_ways(self.inner, (*values, *order), start, look)

    def term(self, bound: Bound) -> Term:
        """See `Pattern`."""
        (op,) = self._ops
        params = {name: x.term(bound) for name, x in self.params.items()}
        return Term.of(op, *[x.term(bound) for x in self.inputs], **params)


class Either(Pattern):
    """What fits one of several patterns."""

    def __init__(self, *patterns: Pattern) -> None:
        self.inner = patterns

    def ways(self, term: Term, bound: Bound, look: Search) -> Iterator[Bound]:
        """See `Pattern`."""
        for one in self.inner:
            yield from one.ways(term, bound, look)


def maybe(op: str, inner: Pattern, name: str) -> Pattern:
    """Return the pattern of `inner`, or of an operation `op` on it, which is then called `name`."""
    return Either(inner, Op(op, inner).named(name))


def _all_ways(
    patterns: tuple[Pattern, ...], terms: Iterable[Any], bound: Bound, look: Search
) -> Iterator[Bound]:
    """Yield the ways in which all patterns fit at once, the first ones outermost."""
    if not patterns:
        yield bound
        return
    first, *rest = terms
    for way in patterns[0].ways(first, bound, look):
        yield from _all_ways(patterns[1:], rest, way, look)


@dataclass(frozen=True, eq=False)
class Rule:
    """A pattern, and what may stand in its place.

    Functions take names of the pattern, as their parameters, and are given what these stand for:
    a `Term`, a Fraction, a parameter, or None where an optional part is not there. `whole` is
    what the pattern as a whole has matched.

    Attributes:
        name: short, for messages and pictures.
        because: one sentence that justifies the replacement.
        pattern: what to look for; its root is an `Op`.
        becomes: the replacement: a formula, or a function that returns it, or None to decline.
        only_if: conditions beyond the pattern, each with the sentence that says what was missing.
        helps: the rule makes nothing better by itself but brings a term into the form that other
            rules look for. Where none of them comes to use, the user's own operations are kept.
            It does not fit where it would change the shape or the dtype.
        saves: the rule is there to save: where no operation and no byte is, nothing is replaced.
        alone: for a rule that pays only where what it matches, between its root and what the
            pattern leaves open, is needed by nothing else: the sentence for where it is. Such a
            rule is tried last, on the graph that the others leave.
    """

    name: str
    because: str
    pattern: Op
    becomes: Pattern | Callable[..., Term | None]
    only_if: tuple[tuple[Callable[..., bool], str], ...] = ()
    helps: bool = False
    saves: bool = False
    alone: str = ""
    _made: Callable[[Bound], Term | None] = field(init=False, repr=False)
    _conditions: tuple[tuple[Callable[[Bound], bool], str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        made, checks = self.becomes, [(self._of_names(f), text) for f, text in self.only_if]
        function = made.term if isinstance(made, Pattern) else self._of_names(made)
        object.__setattr__(self, "_made", function)
        object.__setattr__(self, "_conditions", tuple(checks))

    def _of_names(self, function: Callable[..., Any]) -> Callable[[Bound], Any]:
        """A function whose parameters are names, as one of what all names stand for."""
        names = tuple(inspect.signature(function).parameters)
        for name in names:
            if name not in {"whole", *(part.name for part in self.pattern.parts())}:
                raise InvalidValueError(
                    f"the pattern of the rule {self.name!r} has no name {name!r}"
                )
        return lambda bound: function(*[bound.get(name) for name in names])

    def apply(self, term: Term, numbers: Numbers) -> tuple[Term, Bound] | None:
        """Return the replacement of `term` and what the names stood for, or None if it is none."""
        for bound in self.pattern.ways(term, {"whole": term}, Search(numbers)):
            if all(check(bound) for check, _ in self._conditions):
                made = self._made(bound)
                if made is not None and (not self.helps or made.fits(term)):
                    return made, bound
        return None

    def left_open(self, bound: Bound) -> list[Term]:
        """Return the terms that the pattern says nothing about."""
        names = {part.name for part in self.pattern.parts() if isinstance(part, Var)}
        return [x for name, x in bound.items() if name in names and isinstance(x, Term)]

    def inside(self, term: Term, numbers: Numbers) -> list[Term] | None:
        """Return the terms below `term` that the rule would do without, or None if it fits not."""
        applied = self.apply(term, numbers)
        if applied is None:
            return None
        below = walk(term, self.left_open(applied[1]))
        return [x for x in below if x is not term and not x.constant]

    def missing(self, term: Term, numbers: Numbers) -> tuple[str, Bound] | None:
        """Return what keeps a rule from fitting whose operations are all there, if one thing."""
        clashes: list[str] = []
        for bound in self.pattern.ways(term, {"whole": term}, Search(numbers, clashes)):
            if clashes:
                return f"{clashes[0]} is not the same in both places", bound
            for check, sentence in self._conditions:
                if not check(bound):
                    return sentence, bound
            return (self.alone, bound) if self.alone else None
        return None


def almost(meant: str, sentence: str, pattern: Op) -> Rule:
    """Return a rule that never fits: what is often written where `meant` was, and what it lacks."""
    return Rule(meant, sentence, pattern, lambda: None, ((lambda: False, sentence),))
