"""From the rewritten terms to instructions: what of the old graph stays, or is done again or anew.

Instructions hold no data: they speak of rows (nodes of the old graph, by position) and of slots,
and so fit every graph of the same structure. The user's own operations stay wherever nothing was
fused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from tinygrad_sm.fusion.snapshot import Row
from tinygrad_sm.fusion.terms import Slot, Term

Task: TypeAlias = "int | Term"
"""A row that stays or is done again, or a term to compute."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One node of the new graph.

    Attributes:
        task: the row or the term.
        inputs: for each argument an instruction; or a constant's term, or None for what a row had.
            Empty for a row that stays as it is.
        stands_for: the row whose name and groups the node takes over.
    """

    task: Task
    inputs: tuple[Any, ...]
    stands_for: int | None


class Extraction:
    """Choose, from the output down, what stays and what is made; `useless` terms are not.

    Attributes:
        instructions: in the order in which they are carried out; the last is the output.
        rows_made: the rows whose values are computed in a new way.
        rows_kept: those that stay or are done again.
        rows_of: the rows that have a normal form, by its id.
        uses: how often the new graph needs a term, by its id.
    """

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
        self.rows_of: defaultdict[int, list[int]] = defaultdict(list)
        for place, term in enumerate(normals):
            self.rows_of[term.id].append(place)
        self._fusing = set(fused)  # and what is made of one such term, and of no row
        for term in terms:  # the inputs of each before it
            sources = [x.id for x in term.inputs if not x.constant]
            if len(sources) == 1 and sources[0] in self._fusing and sources[0] not in self.rows_of:
                self._fusing.add(term.id)
        self.instructions: list[Instruction] = []
        self.place_of: dict[Task, int] = {}
        self.rows_made: list[int] = []
        self.rows_kept: set[int] = set()
        self.uses: Counter[int] = Counter()
        pending: list[Task] = [len(rows) - 1]
        while pending:
            task = pending[-1]
            missing = [x for x in self._needs(task) if x not in self.place_of]
            if task not in self.place_of and missing:
                pending += missing
                continue
            pending.pop()
            if task not in self.place_of:
                self.place_of[task] = self._placed(task)

    def _is_made(self, row: int) -> bool:
        """Whether a row's value comes from something fused that no other row stands for."""
        term = self.normals[row]
        return term.id in self._fusing and term.id not in self._useless

    def _needs(self, task: Task) -> list[Task]:
        """What has to be there before a row or a term; constants need nothing."""
        if isinstance(task, Term):
            return [self._task_of(x) for x in task.inputs if not x.constant]
        if self._is_made(task):
            return [self.normals[task]]
        return [x for x in self.rows[task].inputs if not isinstance(x, Slot)]

    def _task_of(self, term: Term) -> Task:
        """The row that stands for a term, else the term itself."""
        row = self.rows_of[term.id][0] if term.id in self.rows_of else None
        return term if row is None or self._is_made(row) else row

    def _placed(self, task: Task) -> int:
        inputs: tuple[Any, ...]
        if isinstance(task, Term):
            self.uses.update(x.id for x in task.inputs)
            inputs = tuple(
                x if x.constant else self.place_of[self._task_of(x)] for x in task.inputs
            )
            self.instructions.append(Instruction(task, inputs, None))
            return len(self.instructions) - 1
        own = self.normals[task]
        if self._is_made(task):
            self.rows_made.append(task)
            place = self.place_of[own]
            made = self.instructions[place]
            if isinstance(made.task, Term):  # the last row that asks gives its name
                self.instructions[place] = Instruction(made.task, made.inputs, task)
            return place
        self.rows_kept.add(task)
        sources = self.rows[task].inputs
        # a row that does nothing to its input needs what that needs
        needed = (self.normals[x] for x in sources if not isinstance(x, Slot))
        self.uses.update(term.id for term in needed if term is not own)
        inputs = tuple(None if isinstance(x, Slot) else self.place_of[x] for x in sources)
        stays = all(
            place is None or self.instructions[place] == Instruction(x, (), x)  # type: ignore[arg-type]
            for place, x in zip(inputs, sources, strict=True)
        )
        self.instructions.append(Instruction(task, () if stays else inputs, task))
        return len(self.instructions) - 1

    def tasks(self) -> list[Task]:
        """Return the task of each instruction."""
        return [instruction.task for instruction in self.instructions]

    def terms(self) -> Iterator[Term]:
        """Yield the term of each instruction."""
        for task in self.tasks():
            if isinstance(task, Term):
                yield task
            elif self.normals[task].id not in self._useless:
                yield self.normals[task]

    def made_for(self, row: int) -> tuple[dict[int, Term], set[int]]:
        """Return the terms made for a row, by instruction, and the ids of what they start from."""
        root = self.normals[row]
        made, starts = {}, set()
        pending, seen = [root], set()
        while pending:
            term = pending.pop()
            if term.id in seen or term.constant:
                continue
            seen.add(term.id)
            if term is not root and term.id in self.rows_of:  # another row stands for it
                starts.add(term.id)
                continue
            made[self.place_of[term]] = term
            pending += term.inputs
        return made, starts
