"""What a search found: how to make the new graph from any old one of the same structure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import Any

from tinygrad_sm.engine.primitive import TABLE
from tinygrad_sm.engine.tensor import Tensor, record, recording
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.fusion.extraction import Extraction, Instruction, Keep, Make, Redo
from tinygrad_sm.fusion.patterns import Rule
from tinygrad_sm.fusion.rewriting import Rewriting, Step
from tinygrad_sm.fusion.snapshot import Row, Snapshot, terms_of
from tinygrad_sm.fusion.terms import LOSS_NODE, Numbers, Slot, Term, Terms, walk
from tinygrad_sm.fusion.vocabulary import LINEAR_LOSS, LOSS, PRIMITIVE, build


@dataclass(frozen=True, slots=True)
class Found:
    """One place where operations are replaced.

    Attributes:
        matched: the rows that were matched, in their order; the last is computed in a new way.
        made: the new instruction, without what leads to it and what carries its result on.
        op: the operation that it computes.
        rule: the rule that made it.
        steps: all applications of rules that led there, in their order.
        operations_saved: how many operations fewer the new graph has for it.
        bytes_saved: how many bytes fewer are kept for backward; negative if more.
    """

    matched: tuple[int, ...]
    made: int
    op: str
    rule: Rule
    steps: tuple[Step, ...]
    operations_saved: int
    bytes_saved: int


@dataclass(frozen=True, slots=True)
class Miss:
    """A place that almost matched: the row, what was meant, and what is missing."""

    row: int
    meant: str
    missing: str


class Plan:
    """How to make the new graph.

    Attributes:
        instructions: in the order in which they are carried out; the last is the output.
        found: the replacements.
        reads: the numbers that the search looked at: other values need another search.
    """

    def __init__(self, snapshot: Snapshot, rules: Collection[Rule]) -> None:
        terms = Terms()
        numbers = Numbers(snapshot.slots)
        rows = snapshot.key[0]
        originals = terms_of(snapshot.key, terms)

        def search(alone: Collection[int]) -> tuple[Extraction, tuple[Found, ...]]:
            rewriting = Rewriting(terms, rules, numbers, alone)
            normals = [rewriting.normal(term) for term in originals]
            useless: set[int] = set()
            while True:
                extraction = Extraction(rows, normals, terms, rewriting.fused, useless)
                found = _found(originals, rewriting, extraction)
                more = {normals[each.matched[-1]].id for each in found if not _pays(each)}
                if not more:
                    return extraction, found
                useless |= more

        extraction, found = search(alone=())
        alone = _fits_alone(extraction, rules, numbers)
        if alone:
            extraction, found = search(alone)
        self.instructions = extraction.instructions
        self.found = found
        self._extraction = extraction
        self.reads: Mapping[int, Any] = dict(numbers.read)

    def carry_out(self, snapshot: Snapshot) -> list[Tensor]:
        """Return the Tensor of each instruction; those kept are the snapshot's own."""
        results: list[Tensor] = []
        with recording():
            for place, instruction in enumerate(self.instructions):
                try:
                    results.append(_carried_out(instruction, snapshot, results))
                except InvalidValueError as error:
                    what = self._in_words(place, snapshot, results)
                    raise InvalidValueError(f"fuse: {what}: {error}") from None
        return results

    def _in_words(self, place: int, snapshot: Snapshot, results: list[Tensor]) -> str:
        """What an instruction was to do, for a message."""
        instruction = self.instructions[place]
        if not isinstance(instruction, Make):
            return f"{_called(snapshot.tensors[instruction.row])} cannot be computed again"
        row = next((found.matched[-1] for found in self.found if found.made == place), -1)
        op = PRIMITIVE.get(instruction.term.op, instruction.term.op)
        sources = [results[x] for x in instruction.inputs if isinstance(x, int)]
        given = " and ".join(_called(x) for x in sources if isinstance(x, Tensor))
        return f"{_called(snapshot.tensors[row])} cannot become {op} of {given}"

    def misses(self, rules: Iterable[Rule], almost: Iterable[Rule], numbers: Numbers) -> list[Miss]:
        """Return the places, among what stays, where one thing only keeps a rule from fitting."""
        last: list[Rule] = [rule for rule in rules if rule.alone]
        asked: list[Rule] = [*(r for r in rules if not r.helps), *almost]
        kept, normals = self._extraction.rows_kept, self._extraction.normals
        stands_alone = {term.id for term in normals}
        seen: tuple[set[int], set[int]] = (set(), set())  # parts of several count for the first
        found: dict[Miss, int] = {}
        inside: set[int] = set()  # of a place that is told of whole
        told: set[tuple[int | Slot, str]] = set()
        for row in sorted({*kept, *self._extraction.rows_made}):
            for term in _own_parts(normals[row], stands_alone, seen[row in kept]):
                for rule in asked if row in kept else last:
                    missing = rule.missing(term, numbers) if rule.pattern.takes(term.op) else None
                    if missing:
                        sentence, bound = missing
                        if all(
                            (x, sentence) not in told for x in self._extraction.rows[row].inputs
                        ):
                            found[Miss(row, rule.name, sentence)] = term.id
                        told.add((row, sentence))
                        inside |= {x.id for x in walk(term, rule.left_open(bound))} - {term.id}
        return [miss for miss, term_id in found.items() if term_id not in inside]


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


def _own_parts(root: Term, stands_alone: set[int], seen: set[int]) -> Iterator[Term]:
    """The terms of a row's normal form that are no other row's, and were not seen before."""
    pending = [root]
    while pending:
        term = pending.pop()
        if term.id not in seen:
            seen.add(term.id)
            yield term
            pending += [x for x in term.inputs if x.id not in stands_alone]


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
    made, starts = extraction.made_for(row)
    ends = {term.id for term in starts}
    matched = _matched(extraction.rows, extraction.normals, row, ends)
    gone = [r for r in matched if r not in counted]
    counted.update(matched)
    outside = {originals[r].id for end in ends for r in extraction.rows_of[end]}
    steps = rewriting.history((originals[r] for r in matched), ends | outside)
    fused = {at: term for at, term in made.items() if term.id in rewriting.fused}
    place = max(
        (at for at in fused if fused[at].op not in ("@scale", "reshape")), default=max(fused)
    )
    return Found(
        matched=matched,
        made=place,
        op=made[place].op,
        rule=rewriting.fused[made[place].id],
        steps=tuple(steps),
        operations_saved=len(gone) - len(made),
        bytes_saved=sum(_bytes_of_row(extraction.rows, r) for r in gone)
        - sum(_bytes_kept(t.op, t, t.inputs) for t in made.values()),
    )


def _pays(found: Found) -> bool:
    return found.operations_saved > 0 or found.bytes_saved > 0 or not found.rule.saves


_FOUND_FORWARD = {LOSS_NODE: 1, LOSS: 1, LINEAR_LOSS: 3}  # gradients of the first so many arguments


def _bytes_of_row(rows: tuple[Row, ...], row: int) -> int:
    x = rows[row]
    assert x.op is not None
    return _bytes_kept(x.op, x, [rows[i] for i in x.inputs if not isinstance(i, Slot)])


def _bytes_kept(op: str, made: Row | Term, inputs: Sequence[Row | Term]) -> int:
    """The bytes that an operation keeps for backward; a fused loss also keeps its gradients."""
    if op in TABLE and TABLE[op].kind == "view":
        return 0
    arrays = [made, *inputs[: _FOUND_FORWARD.get(op, 0)]]
    return sum(prod(x.shape) * x.dtype.itemsize for x in arrays if x.dtype is not None)


def _matched(
    rows: tuple[Row, ...], normals: list[Term], row: int, ends: set[int]
) -> tuple[int, ...]:
    """The rows from which `row` was computed, down to those whose terms are `ends`."""
    pending, seen = [row], set()
    while pending:
        at = pending.pop()
        if at in seen or rows[at].op is None or normals[at].id in ends:
            continue
        seen.add(at)
        pending += [x for x in rows[at].inputs if not isinstance(x, Slot)]
    return tuple(sorted(seen))


# Carrying it out ----------------------------------------------------------------------------------


def _carried_out(instruction: Instruction, snapshot: Snapshot, results: list[Tensor]) -> Tensor:
    if isinstance(instruction, Keep):
        return snapshot.tensors[instruction.row]
    if isinstance(instruction, Redo):
        old = snapshot.tensors[instruction.row]
        args = tuple(
            x if place is None else results[place]
            for place, x in zip(instruction.inputs, old._operands, strict=True)
        )
        assert old._op is not None
        params = dict(old._params)
        if "saved" in params:  # what a node notes for its own backward
            params["saved"] = copy(params["saved"])
        new = record(old._op, args, params)
        _take_over(new, old)
        return new
    inputs = [
        results[x] if isinstance(x, int) else _value(x, snapshot.slots) for x in instruction.inputs
    ]
    made: Tensor = build(instruction.term, inputs, _with_data(instruction.term, snapshot.slots))
    if instruction.stands_for is not None:
        _take_over(made, snapshot.tensors[instruction.stands_for])
    return made


def _called(t: Tensor) -> str:
    return " ".join([t.op or "leaf", *([repr(t.name)] if t.name else []), f"of shape {t.shape}"])


def _take_over(new: Tensor, old: Tensor) -> None:
    new.name = old.name
    new._call = (*new._call[:-1], old._groups)


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
