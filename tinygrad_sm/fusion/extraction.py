"""From the rewritten terms to jobs: what of the old graph stays, or is done again or anew.

Jobs hold no data: they speak of rows (operations of the old graph, by position) and of terms, and
so fit every graph of the same structure. The user's own operations stay wherever nothing was fused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import TypeAlias

from tinygrad_sm.fusion.snapshot import Called
from tinygrad_sm.fusion.terms import Slot, Term

Job: TypeAlias = "int | Term"
"""A row of the old graph, or a term to compute."""


class Extraction:
    """Choose, from the output down, what stays and what is made; `useless` terms are not.

    Attributes:
        order: the jobs, each with its position in the order in which they are carried out; the
            last is the row of the output.
        rows_made: the rows whose values are computed in a new way.
        rows_kept: those that stay or are done again.
        rows_of: the rows that have a normal form, by its id.
        stands_for: by term, the row whose name and groups the new operation takes over.
        uses: how often the new graph needs a term, by its id.
    """

    def __init__(
        self,
        rows: tuple[Called, ...],
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
        self.order: dict[Job, int] = {}
        self.rows_made: list[int] = []
        self.rows_kept: set[int] = set()
        self.stands_for: dict[Term, int] = {}
        self.uses: Counter[int] = Counter()
        pending: list[Job] = [len(rows) - 1]
        while pending:
            job = pending[-1]
            missing = [x for x in self._needs(job) if x not in self.order]
            if job not in self.order and missing:
                pending += missing
                continue
            pending.pop()
            if job not in self.order:
                self._note(job)

    def is_made(self, row: int) -> bool:
        """Whether a row's value comes from something fused that no other row stands for."""
        term = self.normals[row]
        return term.id in self._fusing and term.id not in self._useless

    def job_of(self, term: Term) -> Job:
        """The row that stands for a term, else the term itself."""
        row = self.rows_of[term.id][0] if term.id in self.rows_of else None
        return term if row is None or self.is_made(row) else row

    def _needs(self, job: Job) -> list[Job]:
        """What has to be there before a row or a term; constants need nothing."""
        if isinstance(job, Term):
            return [self.job_of(x) for x in job.inputs if not x.constant]
        if self.is_made(job):
            return [self.normals[job]]
        return [x for x in self.rows[job].inputs if not isinstance(x, Slot)]

    def _note(self, job: Job) -> None:
        self.order[job] = len(self.order)
        if isinstance(job, Term):
            self.uses.update(x.id for x in job.inputs)
        elif self.is_made(job):
            self.rows_made.append(job)
            self.stands_for[self.normals[job]] = job  # the last row that asks gives its name
        else:
            self.rows_kept.add(job)
            own = self.normals[job]
            # a row that does nothing to its input needs what that needs
            needed = (self.normals[x] for x in self.rows[job].inputs if not isinstance(x, Slot))
            self.uses.update(term.id for term in needed if term is not own)

    def terms(self) -> list[Term]:
        """Return the term of each job."""
        terms = [x if isinstance(x, Term) else self.normals[x] for x in self.order]
        return [term for term in terms if term.id not in self._useless]

    def made_for(self, row: int) -> tuple[list[Term], set[int]]:
        """Return the terms made for a row, in order, and the ids of what they start from."""
        root = self.normals[row]
        made, starts = {}, set()
        pending = [root]
        while pending:
            term = pending.pop()
            if term in made or term.constant:
                continue
            if term is not root and term.id in self.rows_of:  # another row stands for it
                starts.add(term.id)
                continue
            made[term] = self.order[term]
            pending += term.inputs
        return sorted(made, key=made.__getitem__), starts
