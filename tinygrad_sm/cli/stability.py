"""`tinygrad-sm stability`: where each form of softmax-cross-entropy breaks, and why."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Column, Table

from tinygrad_sm.cli.json_text import print_json
from tinygrad_sm.cli.pictures import NamedPictures, picture_options, write_pictures
from tinygrad_sm.cli.printing import console, print_whole, print_written
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.study.stability.report import TOLERANCE, Band, Report, SweepReport, survey
from tinygrad_sm.study.stability.truth import DTYPES
from tinygrad_sm.study.stability.two_losses import confidently_wrong

FORMATS = ("svg", "png", "pdf")  # of matplotlib's pictures


@click.command("stability", short_help="Find where each form breaks, at which node, and why.")
@picture_options("the pictures", FORMATS)
@click.option("--dtype", type=click.Choice(DTYPES), default="float64")
@click.option(
    "--tolerance",
    default=TOLERANCE,
    metavar="T",
    help="Relative error above which digits count as lost; between 0 and 1.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON instead.")
def stability_command(
    folder: Path | None, formats: tuple[str, ...], dtype: str, tolerance: float, as_json: bool
) -> None:
    """Find where each form of softmax-cross-entropy turns to NaN, inf, 0 or garbage, and why.

    The logits' scale and the right class's margin (ahead, and behind: confidently wrong) grow
    until the forms break. Each is held against exact decimal arithmetic, and the first node of
    its graph that is to blame is named.

    The pictures (stability, accuracy, confidently-wrong) need matplotlib, the extra `lab`.

    \b
    Examples:
      tinygrad-sm stability
      tinygrad-sm stability --dtype float32 -o out --format svg,png
      tinygrad-sm stability --json
    """
    if not 0 < tolerance < 1:
        raise InvalidValueError(f"--tolerance must lie between 0 and 1; got {tolerance}")
    if folder is not None:
        from viz.lab import require_matplotlib  # noqa: PLC0415  only for pictures

        require_matplotlib()
    report = survey(dtype, tolerance=tolerance)
    written = write_pictures(_pictures(report), folder, formats)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report, written)


def _pictures(report: Report) -> NamedPictures:
    from viz import lab  # noqa: PLC0415  only for pictures

    yield "stability", lab.draw_stability(report)
    yield "accuracy", lab.draw_accuracy(report)
    wrong = confidently_wrong(dtype=report.dtype)
    yield "confidently-wrong", lab.draw_confidently_wrong(wrong)


def _print(report: Report, written: list[Path]) -> None:
    out = console()
    out.print(
        f"{report.dtype}, against exact arithmetic; digits count as lost when the relative error "
        f"is above {report.tolerance:g}\n",
        markup=False,
    )
    for swept in report.sweeps:
        print_whole(out, _table(swept))
        out.print(_reasons(swept))
    print_written(out, written)


def _table(swept: SweepReport) -> Table:
    """What the gradient and the loss turn into, and from where on."""
    sweep = swept.sweep
    title = f"{sweep.title}\n{sweep.formula}"
    columns = (Column(name, no_wrap=True) for name in ("form", "gradient", "loss"))
    table = Table(*columns, title=title, title_justify="left", show_lines=True)
    for form in swept.forms:
        table.add_row(form.form.label, _words(form.gradient), _words(form.loss))
    return table


def _words(bands: tuple[Band, ...]) -> str:
    """One line per band; that a sweep begins well goes without saying, if more follows."""
    told = bands[1:] if bands[0].cause is None and len(bands) > 1 else bands
    return "\n".join(
        "ok" if band is bands[0] and band.cause is None else f"{band.state} from {band.start_text}"
        for band in told
    )


def _reasons(swept: SweepReport) -> Table:
    """Why the gradient breaks: the first node to blame, for each band that is not ok."""
    reasons = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(), padding=(0, 2))
    for form in swept.forms:
        for band in form.gradient:
            if band.cause is not None or band is not form.gradient[0]:
                why = band.cause or "the exact gradient rounds to 0 too"
                reasons.add_row(form.form.name, band.state, str(why))
    reasons.add_row()
    return reasons
