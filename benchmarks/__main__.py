"""`python -m benchmarks`: this project and its peers side by side."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.command import output_option, run, write_files
from benchmarks.machine import (
    INSTRUCTIONS,
    Others,
    claim_instructions,
    claim_threads,
    describe,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.cases import Case
    from benchmarks.peers import Peer
    from benchmarks.results import Row

# Named here, too, since NumPy may not be imported yet
SECTIONS = ("fused", "threads", "engine", "composite", "linear", "fusion", "growth")


def chosen_sections(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    """Return the sections in a list such as "fused,engine"; all of them by default."""
    if value is None:
        return SECTIONS
    names = value.replace(",", " ").split()
    wrong = [name for name in names if name not in SECTIONS]
    if wrong or not names:
        raise click.ClickException(
            f"--only must be among {', '.join(SECTIONS)}; got {wrong[0] if wrong else value!r}"
        )
    return tuple(name for name in SECTIONS if name in names)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@output_option
@click.option("--quick", is_flag=True, help="A rough run in less than a minute.")
@click.option(
    "--only",
    "sections",
    metavar="LIST",
    callback=chosen_sections,
    help=f"Some of {', '.join(SECTIONS)}.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 16),
    default=2,
    show_default=True,
    help="Threads of every contestant.",
)
@click.option(
    "--budget",
    type=click.FloatRange(0, 600),
    metavar="SECONDS",
    help="Time for each case; 4 by default, 0.4 with --quick.",
)
@click.option("--peers", metavar="LIST", help="Only these peers, such as torch,mygrad.")
@click.option(
    "--instructions",
    type=click.Choice([*INSTRUCTIONS]),
    help="Let nobody use more than these vector instructions.",
)
def command(
    folder: Path,
    quick: bool,
    sections: tuple[str, ...],
    threads: int,
    budget: float | None,
    peers: str | None,
    instructions: str | None,
) -> int:
    """Time tinygrad_sm and every installed peer side by side, and hold it to its targets.

    Prints a table; writes benchmarks.json, benchmarks.md and, with matplotlib, a picture.
    """  # fmt: skip
    claim_threads(threads)
    if instructions is not None:
        claim_instructions(instructions)
    # Nothing that imports NumPy or a peer may be loaded before that
    from benchmarks import cases, report  # noqa: PLC0415

    contest = make_contestants(threads, peers)
    kernels = usable_kernels(contest[0])
    plan = (cases.Plan.quick if quick else cases.Plan)(contest, threads, kernels=kernels)
    if budget is not None:
        plan = replace(plan, budget=budget)
    machine = describe(threads, {peer.name: (peer.version, peer.threads) for peer in contest})
    rows = measured(cases.cases_of(plan, sections))
    report.show(rows, machine, report.console())
    options = {"quick": quick, "sections": sections, "threads": threads, "budget": plan.budget}
    files = {
        "benchmarks.json": report.as_json(rows, machine, options),
        "benchmarks.md": report.as_markdown(rows, machine),
    }
    if importlib.util.find_spec("matplotlib") is None:
        click.echo("No picture: matplotlib is not installed.")
    else:
        from benchmarks.picture import draw  # noqa: PLC0415

        files |= draw(rows, machine)
    for path in write_files(folder, files):
        click.echo(path)
    return 0


def chosen_peers(value: str) -> list[str]:
    """Return the names in a list such as "torch,mygrad"; "none" is an empty one."""
    from benchmarks.peers import PEERS  # noqa: PLC0415  imports NumPy

    known = [peer.name for peer in PEERS]
    names = [] if value == "none" else value.replace(",", " ").split()
    wrong = [name for name in names if name not in known]
    if wrong:
        raise click.ClickException(f"--peers must be among {', '.join(known)}; got {wrong[0]}")
    return names


def make_contestants(threads: int, peers: str | None) -> Sequence[Peer]:
    """This project and the chosen peers, with a line about those that are not installed."""
    from benchmarks.peers import contestants, wanted  # noqa: PLC0415  imports NumPy

    names = None if peers is None else chosen_peers(peers)
    absent = wanted(names)[1]
    if absent:
        click.echo(f"Left out, since not installed: {', '.join(absent)} (the extra bench).")
    return contestants(threads, names)


def usable_kernels(ours: Peer) -> tuple[str, ...]:
    """The kernels of this project's loss, with a line while one is compiled or why it is not."""
    from benchmarks.peers import kernels  # noqa: PLC0415  imports NumPy

    with Console(stderr=True).status("Compiling the loss's loops, once; Numba keeps them …"):
        found, reason = kernels(ours)
    if reason:
        click.echo(f"Left out, the compiled kernel: {reason}")
    return found


def measured(cases: Sequence[Case]) -> list[Row]:
    """Measure every case, with a progress bar on the terminal."""
    columns = (
        TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    rows: list[Row] = []
    # refreshed by hand: a thread that redraws would take time from those that are measured
    with Progress(
        *columns, console=Console(stderr=True), auto_refresh=False, transient=True
    ) as bar:
        task = bar.add_task("", total=len(cases))
        for case in cases:
            bar.update(task, description=f"{case.section}: {case.title}", refresh=True)
            others = Others()
            found = case.measure()
            share = others.share()
            rows += (replace(row, others=share) for row in found)
            bar.advance(task)
    return rows


if __name__ == "__main__":
    sys.exit(run(command, "python -m benchmarks", sys.argv[1:]))
