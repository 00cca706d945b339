"""What a search found: how to make the new graph from any old one of the same structure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import Any

from tinygrad_sm.engine.primitive import TABLE
from tinygrad_sm.engine.scopes import group, recording
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.fusion.extraction import Extraction, Job
from tinygrad_sm.fusion.patterns import Rule
from tinygrad_sm.fusion.rewriting import Applied, Rewriting
from tinygrad_sm.fusion.snapshot import Called, Snapshot, terms_of
from tinygrad_sm.fusion.terms import LOSS_NODE, Numbers, Slot, Term, Terms
from tinygrad_sm.fusion.vocabulary import LINEAR_LOSS, LOSS, PRIMITIVE, build


@dataclass(frozen=True, slots=True)
class Found:
    """One place where operations are replaced.

    Attributes:
        matched: the rows that were matched, in their order; the last is computed in a new way.
        made: the new operation, without what leads to it and what carries its result on.
        rule: the rule that made it.
        steps: all applications of rules that led there, in their order.
        operations_saved: how many operations fewer the new graph has for it.
        bytes_saved: how many bytes fewer are kept for backward; negative if more.
    """

    matched: tuple[int, ...]
    made: Term
    rule: Rule
    steps: tuple[Applied, ...]
    operations_saved: int
    bytes_saved: int

    @property
    def pays(self) -> bool:
        """Whether it is worth while: a rule that is there to save has to save something."""
        return self.operations_saved > 0 or self.bytes_saved > 0 or not self.rule.saves


class Plan:
    """How to make the new graph.

    Attributes:
        extraction: with the jobs, in the order in which they are carried out.
        found: the replacements.
        reads: the numbers that the search looked at: other values need another search.
    """

    def __init__(self, snapshot: Snapshot, rules: Collection[Rule]) -> None:
        terms = Terms()
        numbers = Numbers(snapshot.slots)
        originals = terms_of(snapshot.key, terms)
        rows = tuple(Called(*row) for row in snapshot.key[0])

        def search(alone: Collection[int]) -> tuple[Extraction, tuple[Found, ...]]:
            rewriting = Rewriting(terms, rules, numbers, alone)
            normals = [rewriting.normal(term) for term in originals]
            useless: set[int] = set()
            while True:
                extraction = Extraction(rows, normals, terms, rewriting.fused, useless)
                found = _found(originals, rewriting, extraction)
                more = {normals[each.matched[-1]].id for each in found if not each.pays}
                if not more:
                    return extraction, found
                useless |= more

        self.extraction, self.found = search(alone=())
        alone = _fits_alone(self.extraction, rules, numbers)
        if alone:
            self.extraction, self.found = search(alone)
        self.reads: Mapping[int, Any] = dict(numbers.read)

    def carry_out(self, snapshot: Snapshot) -> dict[Job, Tensor]:
        """Return the Tensor of each job; those that stay are the snapshot's own."""
        results: dict[Job, Tensor] = {}
        with recording():
            for job in self.extraction.order:
                try:
                    results[job] = self._carried_out(job, snapshot, results)
                except InvalidValueError as error:
                    what = self._in_words(job, snapshot, results)
                    raise InvalidValueError(f"fuse: {what}: {error}") from None
        return results

    def _carried_out(self, job: Job, snapshot: Snapshot, results: dict[Job, Tensor]) -> Tensor:
        extraction = self.extraction
        if isinstance(job, Term):
            inputs = self._inputs(job, snapshot.slots, results)
            params = _with_data(job, snapshot.slots)
            row = extraction.stands_for.get(job)
            if row is None:
                made: Tensor = build(job, inputs, params)
                return made
            return _in_place_of(snapshot, row, lambda: build(job, inputs, params))
        if extraction.is_made(job):
            return results[extraction.normals[job]]
        old, operation, operands = snapshot.tensors[job]
        sources = zip(operands, extraction.rows[job].inputs, strict=True)
        args = [x if isinstance(at, Slot) else results[at] for x, at in sources]
        if all(x is given for x, given in zip(args, operands, strict=True)):
            return old
        params = dict(operation.params)
        if "saved" in params:  # what a node notes for its own backward
            params["saved"] = copy(params["saved"])
        return _in_place_of(snapshot, job, lambda: TABLE[operation.primitive.name](*args, **params))

    def _inputs(self, term: Term, slots: list[Any], results: dict[Job, Tensor]) -> list[Any]:
        return [
            _value(x, slots) if x.constant else results[self.extraction.job_of(x)]
            for x in term.inputs
        ]

    def _in_words(self, job: Job, snapshot: Snapshot, results: dict[Job, Tensor]) -> str:
        """What a job was, for a message."""
        if not isinstance(job, Term):
            return f"{_called(snapshot.tensors[job][0])} cannot be computed again"
        row = next((found.matched[-1] for found in self.found if found.made is job), -1)
        op = PRIMITIVE.get(job.op, job.op)
        sources = self._inputs(job, snapshot.slots, results)
        given = " and ".join(_called(x) for x in sources if isinstance(x, Tensor))
        return f"{_called(snapshot.tensors[row][0])} cannot become {op} of {given}"


def _fits_alone(extraction: Extraction, rules: Iterable[Rule], numbers: Numbers) -> frozenset[int]:
    """Return the ids of the terms to which rules may be applied that fit only what is alone."""
    last = [rule for rule in rules if rule.alone]
    return frozenset(
        term.id
        for term in extraction.terms()
        for rule in last
        if rule.pattern.takes(term.op)
        and (inside := rule.inside(term, numbers)) is not None
        and all(extraction.uses[x.id] <= 1 for x in inside)
    )


# What was found -----------------------------------------------------------------------------------


def _found(
    originals: list[Term], rewriting: Rewriting, extraction: Extraction
) -> tuple[Found, ...]:
    last_row = {extraction.normals[row].id: row for row in extraction.rows_made}
    counted = set(extraction.rows_kept)  # what several need less or make counts for the first
    return tuple(
        _found_at(row, originals, rewriting, extraction, counted)
        for row in sorted(last_row.values())
    )


def _found_at(
    row: int, originals: list[Term], rewriting: Rewriting, extraction: Extraction, counted: set[int]
) -> Found:
    rows = extraction.rows
    made, starts = extraction.made_for(row)
    matched = _matched(extraction, row, starts)
    gone = [r for r in matched if r not in counted]
    counted.update(matched)
    outside = {originals[r].id for start in starts for r in extraction.rows_of[start]}
    steps = rewriting.history((originals[r] for r in matched), starts | outside)
    fused = [term for term in made if term.id in rewriting.fused]
    last = ([term for term in fused if term.op not in ("@scale", "reshape")] or fused)[-1]
    before = sum(
        _bytes_kept(rows[r].op, rows[r], [rows[i] for i in rows[r].inputs if isinstance(i, int)])
        for r in gone
    )
    return Found(
        matched=matched,
        made=last,
        rule=rewriting.fused[last.id],
        steps=tuple(steps),
        operations_saved=len(gone) - len(made),
        bytes_saved=before - sum(_bytes_kept(t.op, t, t.inputs) for t in made),
    )


_FOUND_FORWARD = {LOSS_NODE: 1, LOSS: 1, LINEAR_LOSS: 3}  # gradients of the first so many arguments


def _bytes_kept(op: str, made: Called | Term, inputs: Sequence[Called | Term]) -> int:
    """The bytes that an operation keeps for backward; a fused loss also keeps its gradients."""
    if op in TABLE and TABLE[op].kind == "view":
        return 0
    arrays = [made, *inputs[: _FOUND_FORWARD.get(op, 0)]]
    return sum(prod(x.shape) * x.dtype.itemsize for x in arrays if x.dtype is not None)


def _matched(extraction: Extraction, row: int, ends: set[int]) -> tuple[int, ...]:
    """The rows from which `row` was computed, down to those whose terms are `ends`."""
    rows, pending, seen = extraction.rows, [row], set()
    while pending:
        at = pending.pop()
        if at in seen or not rows[at].inputs or extraction.normals[at].id in ends:
            continue
        seen.add(at)
        pending += [x for x in rows[at].inputs if not isinstance(x, Slot)]
    return tuple(sorted(seen))


# Carrying it out ----------------------------------------------------------------------------------


def _in_place_of(snapshot: Snapshot, row: int, make: Callable[[], Tensor]) -> Tensor:
    """Make a Tensor in the groups, and with the name, of the old one that it stands for."""
    old, operation, _ = snapshot.tensors[row]
    with ExitStack() as stack:
        for name in operation.groups:
            stack.enter_context(group(name))
        new = make()
    new.name = old.name
    return new


def _called(x: Tensor) -> str:
    return " ".join([x.op or "leaf", *([repr(x.name)] if x.name else []), f"of shape {x.shape}"])


def _value(constant: Term, slots: list[Any]) -> Any:
    if constant.inputs:
        inputs = [_value(x, slots) for x in constant.inputs]
        return build(constant, inputs, _with_data(constant, slots))
    if "value" in constant.params:
        return float(constant.params["value"])
    data = slots[constant.params["content"].place]
    return data if constant.dtype is None else data.reshape(constant.shape)


def _with_data(term: Term, slots: list[Any]) -> dict[str, Any]:
    return {name: _filled(value, slots) for name, value in term.params.items()}


def _filled(value: Any, slots: list[Any]) -> Any:
    """Put the data of slots into a parameter."""
    if isinstance(value, Slot):
        return slots[value.place]
    if type(value) is tuple:
        return tuple(_filled(part, slots) for part in value)
    return value
