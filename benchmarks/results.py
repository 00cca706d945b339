"""One row of the result: what was measured, against what, and whether the target is met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.timing import Outcome, Ratio

LIMIT = "np.copyto"  # the contestant that copies the logits once, on one thread
QUIET = 0.05  # the share of the cores that others may use


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement of `subject`, divided by that of `against`.

    Attributes:
        section, case: where it stands.
        subject: what was measured; one of this project's functions unless the row is for context.
        against: what it is compared with.
        unit: "s", "s/operation", "s/element", "bytes" or "bytes/operation".
        value, reference: the two measurements (medians, where they are times).
        ratio: the ratio with its quartiles; None where nothing was measured.
        limit: `value` divided by the time that copying the logits takes; None for amounts.
        target: what the ratio should not exceed; None for a row that has no target.
        size: for rows about growth, how much work it was.
        note: why there is no number.
        others: the share of the cores that other processes used meanwhile; None if unknown.
    """

    section: str
    case: str
    subject: str
    against: str
    unit: str = "s"
    value: float | None = None
    reference: float | None = None
    ratio: Ratio | None = None
    limit: float | None = None
    target: float | None = None
    size: int | None = None
    note: str = ""
    others: float | None = None

    @property
    def disturbed(self) -> bool:
        """Whether other processes used so much of the machine that a time means little."""
        return self.others is not None and self.others > QUIET and self.unit.startswith("s")

    @property
    def verdict(self) -> str:
        """One or two words: "met", "missed", "no target" or "not measured"."""
        if self.ratio is None:
            return "not measured"
        if self.target is None:
            return "no target"
        return "met" if self.ratio.median <= self.target else "missed"

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data, verdict included."""
        return {**asdict(self), "verdict": self.verdict, "disturbed": self.disturbed}


def timed_row(outcome: Outcome, subject: str, against: str, **fields: Any) -> Row:
    """Return the row that divides one contestant's time by another's.

    Args:
        outcome: their interleaved run.
        subject, against: the contestants, as `outcome` and the row call them.
        fields: the other fields of the row.
    """
    labels: dict[str, Any] = {"subject": subject, "against": against}
    if against in outcome.dropped:
        return Row(**labels, **fields, note=outcome.dropped[against])
    both = outcome.timings[subject], outcome.timings[against]
    ours, theirs = (timing.first(min(len(t.seconds) for t in both)) for timing in both)
    copy = outcome.timings.get(LIMIT)
    return Row(
        **labels,
        value=ours.median,
        limit=None if copy is None else ours.median / copy.median,
        reference=theirs.median,
        ratio=Ratio.of(ours, theirs),
        **fields,
    )


def amount_row(value: float | None, reference: float, **fields: Any) -> Row:
    """Return a row about an amount that does not vary; without a ratio if it is not known."""
    if value is None:
        return Row(**fields, note="cannot be measured on this system")
    share = value / reference
    return Row(**fields, value=value, reference=reference, ratio=Ratio(share, share, share))


def counts(rows: Iterable[Row]) -> Mapping[str, int]:
    """How many rows have each verdict."""
    found: dict[str, int] = {}
    for row in rows:
        found[row.verdict] = found.get(row.verdict, 0) + 1
    return found
