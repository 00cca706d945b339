"""What a search found, as a list of instructions that makes the new graph from the old one.

A plan holds no data: it speaks of rows (the recorded Tensors of a `Snapshot`, by position) and of
slots, and so fits every graph of the same structure. The user's own operations stay wherever
nothing was fused: kept as they are, or done again where an argument has changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tinygrad_sm.fuse.patterns import AlmostRule, Rule
from tinygrad_sm.fuse.rewriting import Rewriting, Step
from tinygrad_sm.fuse.terms import NUMBER, Numbers, Row, Slot, Snapshot, Term, Terms, terms_of
from tinygrad_sm.fuse.vocabulary import LOSS, build
from tinygrad_sm.tensor import Tensor, record, recording


@dataclass(frozen=True, slots=True)
class Keep:
    """Use the Tensor of a row as it is."""

    row: int


@dataclass(frozen=True, slots=True)
class Redo:
    """Do the operation of a row again; an argument is an instruction, or None as it was."""

    row: int
    inputs: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Make:
    """Compute a term; an argument is an instruction, or a constant's term."""

    term: Term
    inputs: tuple[int | Term, ...]
    stands_for: int | None
    """The row whose name and groups it takes over."""


Instruction: TypeAlias = Keep | Redo | Make


@dataclass(frozen=True, slots=True)
class Found:
    """One place where operations are replaced.

    Attributes:
        row: the row whose value is computed in the new way.
        matched: the rows that were matched, `row` among them, in their order.
        gone: those of them that the new graph does without.
        made: positions of the new instructions.
        steps: the applications of rules that led there, in their order.
    """

    row: int
    matched: tuple[int, ...]
    gone: tuple[int, ...]
    made: tuple[int, ...]
    steps: tuple[Step, ...]


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

    def __init__(self, snapshot: Snapshot, rules: Iterable[Rule]) -> None:
        terms = Terms()
        numbers = Numbers(snapshot.slots)
        rows = snapshot.key[0]
        originals = terms_of(snapshot.key, terms)
        rewriting = Rewriting(terms, rules, numbers)
        self._normals = [rewriting.normal(term) for term in originals]
        extraction = _Extraction(rows, self._normals, rewriting.fused)
        self.instructions = extraction.instructions
        self.found = _found(rows, originals, self._normals, rewriting, extraction)
        self._kept = extraction.rows_kept
        self.reads: Mapping[int, Any] = dict(numbers.read)

    def carry_out(self, snapshot: Snapshot) -> list[Tensor]:
        """Return the Tensor of each instruction; those kept are the snapshot's own."""
        results: list[Tensor] = []
        with recording():
            for instruction in self.instructions:
                results.append(_carried_out(instruction, snapshot, results))
        return results

    def misses(
        self, rules: Iterable[Rule], almost: Iterable[AlmostRule], numbers: Numbers
    ) -> list[Miss]:
        """Return the places, among what stays, where one thing only keeps a rule from fitting."""
        asked: list[Rule | AlmostRule] = [rule for rule in rules if not rule.helps]
        asked += almost
        stands_alone = {term.id for term in self._normals}
        found: dict[Miss, None] = {}
        for row in sorted(self._kept):
            for term in _own_parts(self._normals[row], stands_alone):
                for rule in asked:
                    missing = rule.missing(term, numbers) if term.op in rule.pattern.ops else None
                    if missing:
                        meant = rule.name if isinstance(rule, Rule) else rule.meant
                        found[Miss(row, meant, missing)] = None
        return list(found)


def _own_parts(root: Term, stands_alone: set[int]) -> Iterable[Term]:
    """The terms of a row's normal form that are no other row's."""
    parts = {root.id: root}
    pending = [root]
    while pending:
        for x in pending.pop().inputs:
            if x.id not in stands_alone and x.id not in parts:
                parts[x.id] = x
                pending.append(x)
    return parts.values()


# Which operations the new graph has ---------------------------------------------------------------

_CARRIERS = frozenset({"@scale", "reshape", "astype", "sum", "@pick", "@masked"})
_Task: TypeAlias = "int | Term"  # a row, or a term to make


class _Extraction:
    """Choose, from the output down, what is kept, done again and made."""

    def __init__(self, rows: tuple[Row, ...], normals: list[Term], fused: set[int]) -> None:
        self._rows = rows
        self._normals = normals
        self._fused = fused
        self._first_row: dict[int, int] = {}
        for place, term in enumerate(normals):
            self._first_row.setdefault(term.id, place)
        self.instructions: list[Instruction] = []
        self._done: dict[_Task | tuple[str, int], int] = {}
        self.rows_made: list[int] = []
        self.rows_kept: set[int] = set()
        self._run(len(rows) - 1)

    def wants_normal(self, row: int) -> bool:
        """Whether a row's value comes from something fused that no other row stands for."""
        term = self._normals[row]
        if term.id in self._fused:
            return True
        while term.op in _CARRIERS:
            term = term.inputs[0]
            if term.id in self._first_row:
                return False
            if term.id in self._fused:
                return True
        return False

    def inputs_of(self, task: _Task) -> list[_Task]:
        """Return what has to be there before a row or a term; constants need nothing."""
        if isinstance(task, Term):
            return [self.task_of(x) for x in task.inputs if not x.constant]
        if self.wants_normal(task):
            return [self._normals[task]]
        return [x for x in self._rows[task].inputs if not isinstance(x, Slot)]

    def task_of(self, term: Term) -> _Task:
        """Return the row that stands for a term, else the term itself."""
        row = self._first_row.get(term.id)
        return term if row is None or self.wants_normal(row) else row

    def _key(self, task: _Task) -> Any:
        return ("term", task.id) if isinstance(task, Term) else ("row", task)

    def _run(self, output: int) -> None:
        pending: list[_Task] = [output]
        while pending:
            task = pending[-1]
            if self._key(task) in self._done:
                pending.pop()
                continue
            open_inputs = [x for x in self.inputs_of(task) if self._key(x) not in self._done]
            if open_inputs:
                pending += open_inputs
                continue
            pending.pop()
            self._done[self._key(task)] = self._place(task)

    def _place(self, task: _Task) -> int:
        if isinstance(task, Term):
            inputs = tuple(
                x if x.constant else self._done[self._key(self.task_of(x))] for x in task.inputs
            )
            return self._add(Make(task, inputs, None))
        if self.wants_normal(task):
            self.rows_made.append(task)
            place = self._done[self._key(self._normals[task])]
            made = self.instructions[place]
            if isinstance(made, Make):  # the last row that asks gives its name
                self.instructions[place] = Make(made.term, made.inputs, task)
            return place
        self.rows_kept.add(task)
        sources = self._rows[task].inputs
        places = [None if isinstance(x, Slot) else self._done[self._key(x)] for x in sources]
        unchanged = all(
            place is None or self.instructions[place] == Keep(x)  # type: ignore[arg-type]
            for place, x in zip(places, sources, strict=True)
        )
        return self._add(Keep(task) if unchanged else Redo(task, tuple(places)))

    def _add(self, instruction: Instruction) -> int:
        self.instructions.append(instruction)
        return len(self.instructions) - 1

    def made_for(self, row: int) -> tuple[list[int], list[Term]]:
        """Return the instructions that were made for a row, and the terms that they start from."""
        root = self._normals[row]
        made, starts = [], []
        pending, seen = [root], set()
        while pending:
            term = pending.pop()
            if term.id in seen or term.constant:
                continue
            seen.add(term.id)
            if term is not root and term.id in self._first_row:  # another row stands for it
                starts.append(term)
                continue
            made.append(self._done[self._key(term)])
            pending += term.inputs
        return made, starts


# What was found -----------------------------------------------------------------------------------


def _found(
    rows: tuple[Row, ...],
    originals: list[Term],
    normals: list[Term],
    rewriting: Rewriting,
    extraction: _Extraction,
) -> tuple[Found, ...]:
    last_row = {normals[row].id: row for row in extraction.rows_made}
    found = []
    for row in sorted(last_row.values()):
        made, starts = extraction.made_for(row)
        ends = {term.id for term in starts}
        matched = _matched(rows, normals, row, ends)
        gone = tuple(r for r in matched if r not in extraction.rows_kept)
        outside = {originals[r].id for r, term in enumerate(normals) if term.id in ends}
        steps = rewriting.history((originals[r] for r in matched), ends | outside)
        found.append(Found(row, matched, gone, tuple(sorted(made)), tuple(steps)))
    return tuple(found)


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
        new = record(old._op, args, old._params)
        _take_over(new, old)
        return new
    inputs = [
        results[x] if isinstance(x, int) else _value(x, snapshot.slots) for x in instruction.inputs
    ]
    made: Tensor = build(instruction.term, inputs, _with_data(instruction.term, snapshot.slots))
    if instruction.stands_for is not None:
        _take_over(made, snapshot.tensors[instruction.stands_for])
    return made


def _take_over(new: Tensor, old: Tensor) -> None:
    new.name = old.name
    new._groups = old._groups


def _value(constant: Term, slots: list[Any]) -> Any:
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


def bytes_of(term: Term | Row) -> int:
    """The bytes that an operation keeps for backward; the fused loss also keeps its gradient."""
    if term.dtype is None:
        return 0
    own = math.prod(term.shape) * term.dtype.itemsize
    if isinstance(term, Term) and term.op == LOSS:
        own += bytes_of(term.inputs[0])
    return own


def main_of(terms: Iterable[Term]) -> Term:
    """Return the term that a replacement is about: the fused node, not what carries it."""
    candidates = [term for term in terms if term.op not in _CARRIERS and term.op != NUMBER]
    return candidates[-1]
