"""The rewriting loop: apply rules to interned terms until none fits. It knows no operation.

Terms are rewritten from the inputs up, each once. That this ends is not left to hope: every single
application must lower the cost of what it replaces (see `vocabulary.cost`), and says so if not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.fusion.patterns import Rule
from tinygrad_sm.fusion.terms import Numbers, Term, Terms, walk
from tinygrad_sm.fusion.vocabulary import cost, out_of_range

Polynomial = dict[int | None, int]


class Step(NamedTuple):
    """One application of a rule."""

    rule: Rule
    before: Term
    after: Term


class Rewriting:
    """The normal forms of terms under a list of rules.

    Rules that fit only what is needed `alone` are applied to the terms whose ids are given.

    Attributes:
        steps: by id of the term that a rule replaced, the step that did.
        fused: by id of a term that a rule made which does more than help others, the rule that
            first made such an operation there.
    """

    def __init__(
        self,
        terms: Terms,
        rules: Iterable[Rule],
        numbers: Numbers,
        alone: Collection[int] = (),
    ) -> None:
        self._terms = terms
        self._alone = alone
        self._numbers = numbers
        self._normal: dict[int, Term] = {}
        self._by_op: dict[str, list[Rule]] = defaultdict(list)
        for rule in rules:
            for op in rule.pattern.ops:
                self._by_op[op].append(rule)
        self.steps: dict[int, Step] = {}
        self._rebuilt: dict[int, Term] = {}  # by id: the same operation on inputs in normal form
        self.fused: dict[int, Rule] = {}

    def normal(self, term: Term) -> Term:
        """Return the form of `term` that no rule fits, nor any part of it."""
        pending = [(term, term)]  # a term, and what became of it so far
        while pending:
            asked, now = pending.pop()
            if asked.id in self._normal:
                continue
            if now.id in self._normal:
                self._normal[asked.id] = self._normal[now.id]
                continue
            open_inputs = [x for x in now.inputs if x.id not in self._normal]
            if open_inputs:
                pending += [(asked, now), *((x, x) for x in open_inputs)]
                continue
            inputs = tuple(self._normal[x.id] for x in now.inputs)
            if inputs != now.inputs:
                given, known = now, len(self._terms)
                now = self._terms.one(now.op, inputs, now.params, now.shape, now.dtype)
                self._rebuilt[given.id] = now
                if given.id in self.fused and now.id >= known:
                    self.fused[now.id] = self.fused[given.id]
            after = None if now.id in self._normal else self._applied(now)
            if after is not None:
                pending += [(asked, now), (now, after)]
            else:
                self._normal.setdefault(now.id, now)
                self._normal[asked.id] = self._normal[now.id]
        return self._normal[term.id]

    def _applied(self, term: Term) -> Term | None:
        """Return what the first rule that fits makes of a term whose inputs are normal."""
        for rule in () if term.constant else self._by_op.get(term.op, ()):
            if rule.alone and term.id not in self._alone:
                continue
            applied = rule.apply(term, self._numbers)
            if applied is None:
                continue
            made, bound = applied
            if not all(x.size for x in bound.values()):  # of no elements there is no softmax
                continue
            known = len(self._terms)
            after = self._terms.intern(made)
            if any(map(out_of_range, self._terms.since(known))):
                continue
            variables = [bound[name] for name in rule.pattern.variables() if name in bound]
            if not rule.helps:
                inside = (x for x in walk(term, variables) if x.id in self.fused)
                first = {x.op: self.fused[x.id] for x in inside}
                self.fused |= {x.id: first.get(x.op, rule) for x in self._terms.since(known)}
            _check_step(rule, term, after, variables)
            self.steps[term.id] = Step(rule, term, after)
            return after
        return None

    def history(self, terms: Iterable[Term], ends: set[int]) -> list[Step]:
        """Return the steps that `terms` went through, but for those of the terms `ends`."""
        pending, seen, found = list(terms), set(ends), []
        while pending:
            term = pending.pop()
            if term.id in seen:
                continue
            seen.add(term.id)
            pending += term.inputs
            if term.id in self._rebuilt:
                pending.append(self._rebuilt[term.id])
            step = self.steps.get(term.id)
            if step is not None:
                found.append(step)
                pending.append(step.after)
        return sorted(found, key=lambda step: step.before.id)


def _check_step(rule: Rule, before: Term, after: Term, variables: list[Term]) -> None:
    """Raise InvalidValueError if a step changes shape or dtype, or does not lower the cost."""
    if (after.shape, after.dtype) != (before.shape, before.dtype):
        raise InvalidValueError(
            f"the rule {rule.name!r} turns an array of shape {before.shape} and dtype "
            f"{before.dtype} into one of shape {after.shape} and dtype {after.dtype}"
        )
    if not _falls(before, after, variables):
        raise InvalidValueError(
            f"the rule {rule.name!r} does not lower the cost, so that it might be applied forever: "
            f"{before} becomes {after}"
        )


def _falls(before: Term, after: Term, variables: list[Term]) -> bool:
    """Return whether a step lowers the cost whatever the variables stand for."""
    if _falls_for({x.id for x in variables}, before, after):
        return True
    # a variable that contains another one is read as the expression that it is
    innermost = {
        x.id
        for x in variables
        if not any(part in variables for part in walk(x, stop=()) if part is not x)
    }
    return _falls_for(innermost, before, after)


def _falls_for(variables: set[int], before: Term, after: Term) -> bool:
    for reading in (0, 1):
        old, new = (_polynomial(term, variables, reading) for term in (before, after))
        for found in (old, new):  # each variable is at least 1: measure from there
            found[None] = sum(found.values())
        if any(count > old.get(term, 0) for term, count in new.items()):
            return False
        if new != old:
            return True
    return False


def _polynomial(term: Term, variables: set[int], reading: int) -> Polynomial:
    """The cost of a term: how often each variable counts, and (under None) the rest."""
    if term.constant:
        return {}
    if term.id in variables or not term.inputs:
        return {term.id: 1}
    factor, rest = cost(term, reading)
    found: Polynomial = {None: rest}
    for x in term.inputs:
        for variable, count in _polynomial(x, variables, reading).items():
            found[variable] = found.get(variable, 0) + factor * count
    return found
