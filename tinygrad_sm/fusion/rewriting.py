"""The rewriting loop: apply rules to interned terms until none fits. It knows no operation.

Terms are rewritten from the inputs up, each once. Rules that lead back to where they started, or
on and on, are refused: each has to lower some cost, be it the size of a term or how far inside its
numbers stand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.fusion.patterns import Rule
from tinygrad_sm.fusion.terms import Numbers, Term, Terms, walk
from tinygrad_sm.fusion.vocabulary import out_of_range

STEPS_PER_TERM = 20  # of the given graph, on the average; ours take up to 2


class Applied(NamedTuple):
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
        self, terms: Terms, rules: Iterable[Rule], numbers: Numbers, alone: Collection[int] = ()
    ) -> None:
        self._terms = terms
        self._rules = tuple(rules)
        self._alone = alone
        self._numbers = numbers
        self._normal: dict[int, Term] = {}
        self._by_op: dict[str, list[Rule]] = {}
        self._most_steps = STEPS_PER_TERM * (len(terms) + 20)
        self.steps: dict[int, Applied] = {}
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
        if term.id in self.steps or len(self.steps) > self._most_steps:
            rule, before, after = self.steps.get(term.id) or next(reversed(self.steps.values()))
            raise InvalidValueError(
                f"the rule {rule.name!r} does not lower the cost, so that it would be applied "
                f"forever: {before} becomes {after}"
            )
        for rule in () if term.constant else self._rules_for(term.op):
            if rule.alone and term.id not in self._alone:
                continue
            applied = rule.apply(term, self._numbers)
            if applied is None:
                continue
            made, bound = applied
            if not all(x.size for x in bound.values() if isinstance(x, Term)):
                continue  # of no elements there is no softmax
            if not made.fits(term):
                raise InvalidValueError(
                    f"the rule {rule.name!r} turns an array of shape {term.shape} and dtype "
                    f"{term.dtype} into one of shape {made.shape} and dtype {made.dtype}"
                )
            known = len(self._terms)
            after = self._terms.intern(made)
            if any(map(out_of_range, self._terms.since(known))):
                continue
            if not rule.helps:
                inside = (x for x in walk(term, rule.left_open(bound)) if x.id in self.fused)
                first = {x.op: self.fused[x.id] for x in inside}
                self.fused |= {x.id: first.get(x.op, rule) for x in self._terms.since(known)}
            self.steps[term.id] = Applied(rule, term, after)
            return after
        return None

    def _rules_for(self, op: str) -> list[Rule]:
        found = self._by_op.get(op)
        if found is None:
            found = self._by_op[op] = [r for r in self._rules if r.pattern.takes(op)]
        return found

    def history(self, terms: Iterable[Term], ends: set[int]) -> list[Applied]:
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
