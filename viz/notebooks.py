"""What notebooks show of the results of the package: pictures, and tables as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import Graph
from tinygrad_sm.fusion import FuseResult
from tinygrad_sm.notebook import Bundle
from tinygrad_sm.study.check import GradcheckReport
from tinygrad_sm.study.comparison import Comparison
from viz.comparisons import draw_comparison
from viz.fusion import draw_fusion
from viz.graphs import draw
from viz.picture import Picture

_MOST = 12  # derivatives of a gradient check, the worst ones
_CELL = "text-align:right;padding:2px 8px"


def bundle(result: Any) -> Bundle:
    """Draw a result for a notebook; empty for what has no picture."""
    if isinstance(result, Picture):
        return result.media()
    if isinstance(result, (Graph, BackwardTrace)):
        return draw(result).media()
    if isinstance(result, FuseResult):
        return draw_fusion(result).media()
    if isinstance(result, Comparison):
        return {"text/html": result.to_html() + draw_comparison(result).media()["text/html"]}
    if isinstance(result, GradcheckReport):
        return {"text/html": _gradcheck(result)}
    return {}


def _gradcheck(report: GradcheckReport) -> str:
    """The verdict, and the derivatives that are farthest from their tolerance."""
    first, *others = str(report).splitlines()
    worst = sorted(report.entries, key=lambda e: -e.error / e.tolerance if e.tolerance else 0)
    rows = [
        (
            {True: "✓", False: "✗ wrong", None: "not checked"}[entry.ok],
            "second" if entry.order == 2 else "first",
            entry.name or f"input {entry.input}",
            "a random direction" if entry.index is None else str(entry.index),
            f"{entry.analytic:.10g}", f"{entry.numeric:.10g}",
            f"{entry.error:.2g}", f"{entry.tolerance:.2g}", entry.method,
        )
        for entry in worst[:_MOST]
    ]  # fmt: skip
    heads = ("", "derivative", "by", "at", "vjp", "from the values", "error", "tolerance", "method")
    said = "".join(f"<p>{html.escape(line.strip())}</p>" for line in others if not report.ok)
    more = len(report.entries) - len(rows)
    rest = f"<p>and {more} more, nearer to each other</p>" if more > 0 else ""
    return f"<p><b>{html.escape(first)}</b></p>{said}{_table(heads, rows)}{rest}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        written = (f'<{tag} style="{_CELL}">{html.escape(cell)}</{tag}>' for cell in cells)
        return f"<tr>{''.join(written)}</tr>"

    return f"<table>{line('th', heads)}{''.join(line('td', row) for row in rows)}</table>"
