"""From the rewritten terms to instructions: what of the old graph is kept, done again, or made.

Instructions hold no data: they speak of rows (the recorded Tensors of a `Snapshot`, by position)
and of slots, and so fit every graph of the same structure. The user's own operations stay wherever
nothing was fused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from tinygrad_sm.fusion.snapshot import Row
from tinygrad_sm.fusion.terms import Slot, Term


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

_Task: TypeAlias = "int | Term"  # a row, or a term to make


class Extraction:
    """Choose, from the output down, what is kept, done again and made; `useless` terms are not."""

    def __init__(
        self,
        rows: tuple[Row, ...],
        normals: list[Term],
        terms: Iterable[Term],
        fused: Collection[int],
        useless: Collection[int],
    ) -> None:
        self.rows = rows
        self.normals = normals
        self._useless = useless
        self.rows_of: defaultdict[int, list[int]] = defaultdict(list)  # by id of their normal form
        for place, term in enumerate(normals):
            self.rows_of[term.id].append(place)
        self._fusing = set(fused)  # and what is made of one such term, and of no row
        for term in terms:  # the inputs of each before it
            sources = [x.id for x in term.inputs if not x.constant]
            if len(sources) == 1 and sources[0] in self._fusing and sources[0] not in self.rows_of:
                self._fusing.add(term.id)
        self.instructions: list[Instruction] = []
        self._done: dict[_Task | tuple[str, int], int] = {}
        self.rows_made: list[int] = []
        self.rows_kept: set[int] = set()
        self.uses: Counter[int] = Counter()  # how often the new graph needs a term, by its id
        self._run(len(rows) - 1)

    def wants_normal(self, row: int) -> bool:
        """Whether a row's value comes from something fused that no other row stands for."""
        term = self.normals[row]
        return term.id in self._fusing and term.id not in self._useless

    def inputs_of(self, task: _Task) -> list[_Task]:
        """Return what has to be there before a row or a term; constants need nothing."""
        if isinstance(task, Term):
            return [self.task_of(x) for x in task.inputs if not x.constant]
        if self.wants_normal(task):
            return [self.normals[task]]
        return [x for x in self.rows[task].inputs if not isinstance(x, Slot)]

    def task_of(self, term: Term) -> _Task:
        """Return the row that stands for a term, else the term itself."""
        row = self.rows_of[term.id][0] if term.id in self.rows_of else None
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
            self.uses.update(x.id for x in task.inputs)
            inputs = tuple(
                x if x.constant else self._done[self._key(self.task_of(x))] for x in task.inputs
            )
            return self._add(Make(task, inputs, None))
        if self.wants_normal(task):
            self.rows_made.append(task)
            place = self._done[self._key(self.normals[task])]
            made = self.instructions[place]
            if isinstance(made, Make):  # the last row that asks gives its name
                self.instructions[place] = Make(made.term, made.inputs, task)
            return place
        self.rows_kept.add(task)
        sources = self.rows[task].inputs
        own = self.normals[task]  # a row that does nothing to its input needs what that needs
        needed = (self.normals[x] for x in sources if not isinstance(x, Slot))
        self.uses.update(term.id for term in needed if term is not own)
        places = [None if isinstance(x, Slot) else self._done[self._key(x)] for x in sources]
        unchanged = all(
            place is None or self.instructions[place] == Keep(x)  # type: ignore[arg-type]
            for place, x in zip(places, sources, strict=True)
        )
        return self._add(Keep(task) if unchanged else Redo(task, tuple(places)))

    def _add(self, instruction: Instruction) -> int:
        self.instructions.append(instruction)
        return len(self.instructions) - 1

    def terms(self) -> Iterator[Term]:
        """Yield the term of each instruction."""
        for instruction in self.instructions:
            if isinstance(instruction, Make):
                yield instruction.term
            elif self.normals[instruction.row].id not in self._useless:
                yield self.normals[instruction.row]

    def made_for(self, row: int) -> tuple[dict[int, Term], list[Term]]:
        """Return the terms made for a row, by instruction, and those that they start from."""
        root = self.normals[row]
        made, starts = {}, []
        pending, seen = [root], set()
        while pending:
            term = pending.pop()
            if term.id in seen or term.constant:
                continue
            seen.add(term.id)
            if term is not root and term.id in self.rows_of:  # another row stands for it
                starts.append(term)
                continue
            made[self._done[self._key(term)]] = term
            pending += term.inputs
        return made, starts
