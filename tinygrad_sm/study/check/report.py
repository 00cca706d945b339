"""What a gradient check found, and how it reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinygrad_sm.notebook import Shown

_SHOWN = 10  # failures that a report's text lists
NOT_CHECKED = "not checked: kink"
INFINITE = "not checked: infinite"


@dataclass(frozen=True, slots=True)
class GradcheckEntry:
    """One derivative, from both sides.

    Attributes:
        order: 1 for a gradient; 2 for the gradient of (gradient · a random direction).
        input: position of the input.
        name: the input's name, or None.
        index: of the element; None for a derivative along a random direction.
        analytic: what the reverse sweep gives.
        numeric: what the function's own values give.
        error: distance between the two; 0 at a kink whose one-sided slopes enclose `analytic`.
        tolerance: how large `error` may be; it contains the error bar of `numeric`.
        method: "complex step", "central difference", "one-sided slopes", "not checked: kink" or
            "not checked: infinite", since no difference leads away from there.
        ok: whether the error is within the tolerance and both numbers are finite and certain;
            None where f has a kink so near that no difference quotient is evidence.
    """

    order: int
    input: int
    name: str | None
    index: tuple[int, ...] | None
    analytic: float
    numeric: float
    error: float
    tolerance: float
    method: str
    ok: bool | None

    def __str__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        where = "along a random direction" if self.index is None else f"at {self.index}"
        return (
            f"order {self.order}, input {self.input}{name} {where}: vjp {self.analytic:.12g}, "
            f"{self.method} {self.numeric:.12g}, error {self.error:.2g}, "
            f"tolerance {self.tolerance:.2g}"
        )


@dataclass(slots=True)
class GradcheckReport(Shown):
    """What a gradient check found; true in a condition when all is right.

    Attributes:
        entries: every derivative that was compared.
        problems: what is wrong besides the numbers, one sentence each: shapes, dtypes,
            functions that change their arguments.
    """

    entries: list[GradcheckEntry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no derivative is wrong, some of each order were checked, and nothing else is."""
        return not self.problems and not self.failures and not self.unseen

    @property
    def failures(self) -> list[GradcheckEntry]:
        """The derivatives that do not agree."""
        return [e for e in self.entries if e.ok is False]

    @property
    def unseen(self) -> list[int]:
        """The orders of which there are derivatives, but none that could be checked."""
        return [
            order
            for order in sorted({e.order for e in self.entries})
            if all(e.ok is None for e in self.entries if e.order == order)
        ]

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        failures = self.failures
        checked = [e for e in self.entries if e.ok is not None]
        head = f"{len(checked)} derivatives compared"
        if len(checked) < len(self.entries):
            names = {NOT_CHECKED: "at a kink", INFINITE: "at infinity"}
            methods = {entry.method for entry in self.entries}
            where = " or ".join(name for method, name in names.items() if method in methods)
            head += f", {len(self.entries) - len(checked)} not checked ({where})"
        if self.ok:
            worst = max((e.error for e in checked), default=0.0)
            return f"gradcheck passed: {head}, largest error {worst:.2g}"
        lines = [f"gradcheck failed: {head}, {len(failures)} wrong"]
        lines += [f"  no derivative of order {order} could be checked" for order in self.unseen]
        lines += [f"  {problem}" for problem in self.problems]
        lines += [f"  {entry}" for entry in failures[:_SHOWN]]
        if len(failures) > _SHOWN:
            lines.append(f"  and {len(failures) - _SHOWN} more")
        return "\n".join(lines)
