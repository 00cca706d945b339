"""The results as pictures: ratios with their targets, and cost as work grows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.machine import in_words
from benchmarks.results import Row

FORMATS = ("png", "svg")
STYLES = {"met": ("o", "#00664B"), "missed": ("X", "#B34700")}
# told apart by markers as well
LINES = (("o", "#0065A3"), ("s", "#B34700"), ("^", "#00664B"), ("D", "#6F3D8F"))
ROW_INCHES = 0.2


def draw(rows: Sequence[Row], machine: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the pictures' bytes by file name; none where there is nothing to draw.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    measured = [row for row in rows if row.ratio is not None]
    aimed = [row for row in measured if row.target is not None]
    growth = [row for row in measured if row.section == "growth"]
    files: dict[str, bytes] = {}
    if aimed:
        files |= _files("ratios", _ratios(aimed), machine)
    if growth:
        files |= _files("growth", _growth(growth), machine)
    return files


def _files(name: str, figure: Any, machine: Mapping[str, Any]) -> dict[str, bytes]:
    figure.suptitle("\n".join(in_words(machine)[:2]), fontsize=8)
    files = {}
    for kind in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=130)
        files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415  an extra

    return Figure(figsize=(width, height), layout="constrained")


def _ratios(rows: Sequence[Row]) -> Any:
    """One line for each row with a target: median, quartiles, target; the verdict by marker."""
    figure = _figure(9, 1.8 + ROW_INCHES * len(rows))
    axes = figure.subplots()
    heights = dict(zip(map(id, rows), range(len(rows), 0, -1), strict=True))
    for verdict, (marker, colour) in STYLES.items():
        some = [row for row in rows if row.verdict == verdict]
        if some:
            axes.errorbar(
                [_shown(row) for row in some], [heights[id(row)] for row in some],
                xerr=_bars(some), fmt=marker, color=colour, label=verdict,
            )  # fmt: skip
    axes.plot([row.target for row in rows], list(heights.values()), "|", color="black",
              markersize=11, markeredgewidth=2, label="target")  # fmt: skip
    axes.axvline(1.0, color="black", linewidth=0.6, linestyle=":")
    axes.set_xscale("log")
    names = [f"{row.case}: {row.subject} / {row.against}" for row in rows]
    axes.set_yticks(list(heights.values()), names, fontsize=7)
    axes.set_ylim(0, len(rows) + 1)
    axes.grid(axis="x", linewidth=0.3)
    axes.set_xlabel("ratio to what it is compared with; left is better; bars are quartiles")
    figure.legend(loc="outside lower right", ncols=3, fontsize=8)
    return figure


def _shown(row: Row) -> float:
    """The ratio as a logarithmic axis can show it."""
    assert row.ratio is not None
    return max(row.ratio.median, 1e-3)


def _bars(rows: Sequence[Row]) -> list[list[float]]:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return [
        [max(r.median - r.low, 0.0) for r in ratios],
        [max(r.high - r.median, 0.0) for r in ratios],
    ]


def _growth(rows: Sequence[Row]) -> Any:
    """Cost per element over classes, and per operation over operations."""
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    classes = [row for row in rows if row.unit == "s/element"]
    operations = [row for row in rows if row.unit == "s/operation"]
    lines: dict[str, dict[int, float]] = {}
    for row in classes:
        lines.setdefault(row.subject, {})[row.size or 0] = row.value or 0.0
        lines.setdefault(row.against, {})[row.size or 0] = row.reference or 0.0
    _plot(left, lines, 1e9, "classes, elements fixed", "ns per element")
    left.set_yscale("log")
    chain: dict[int, float] = {}
    for row in operations:
        chain[int(row.against.split()[0])] = row.reference or 0.0
        chain[row.size or 0] = row.value or 0.0
    _plot(right, {"engine": chain} if chain else {}, 1e6, "operations in the graph",
          "µs per operation")  # fmt: skip
    right.set_ylim(bottom=0)
    return figure


def _plot(
    axes: Any, lines: Mapping[str, Mapping[int, float]], scale: float, x: str, y: str
) -> None:
    for (marker, colour), (label, points) in zip(LINES, lines.items(), strict=False):
        sizes = sorted(points)
        values = [scale * points[size] for size in sizes]
        axes.plot(sizes, values, marker=marker, color=colour, label=label)
    axes.set_xscale("log")
    axes.grid(linewidth=0.3)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if lines:
        axes.legend(fontsize=8)
