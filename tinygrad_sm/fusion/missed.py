"""Near misses: places where a single thing keeps a rule from fitting, looked for when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tinygrad_sm.fusion.extraction import Extraction
from tinygrad_sm.fusion.patterns import Rule
from tinygrad_sm.fusion.terms import Numbers, Slot, Term, walk


def near_misses(
    extraction: Extraction, rules: Iterable[Rule], almost: Iterable[Rule], numbers: Numbers
) -> list[tuple[int, str, str]]:
    """Return the places among what stays: the row, the rule that was meant, what is missing."""
    last = [rule for rule in rules if rule.alone]
    asked = [*(rule for rule in rules if not rule.helps), *almost]
    normals, rows_kept = extraction.normals, extraction.rows_kept
    stands_alone = {term.id for term in normals}
    seen: tuple[set[int], set[int]] = (set(), set())  # parts of several count for the first
    found: dict[tuple[int, str, str], int] = {}
    inside: set[int] = set()  # of a place that is told of whole
    told: set[tuple[int | Slot, str]] = set()
    for row in sorted({*rows_kept, *extraction.rows_made}):
        for term in _own_parts(normals[row], stands_alone, seen[row in rows_kept]):
            for rule in asked if row in rows_kept else last:
                missing = rule.missing(term, numbers) if rule.pattern.takes(term.op) else None
                if missing:
                    sentence, bound = missing
                    if all((x, sentence) not in told for x in extraction.rows[row].inputs):
                        found[row, rule.name, sentence] = term.id
                    told.add((row, sentence))
                    inside |= {x.id for x in walk(term, rule.left_open(bound))} - {term.id}
    return [miss for miss, term_id in found.items() if term_id not in inside]


def _own_parts(root: Term, stands_alone: set[int], seen: set[int]) -> Iterator[Term]:
    """The terms of a row's normal form that are no other row's, and were not seen before."""
    pending = [root]
    while pending:
        term = pending.pop()
        if term.id not in seen:
            seen.add(term.id)
            yield term
            pending += [x for x in term.inputs if x.id not in stands_alone]
