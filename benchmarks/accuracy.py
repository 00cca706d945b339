"""`python -m benchmarks.accuracy`: worst errors in units in the last place, form by form.

Rows of logits of every family are given to each form and peer; loss and gradient are held against
60 exact digits. A distance as large as the number itself is shown as "all": no digit is right.
For targets that are distributions a gradient's digits count from its terms: see `exact`.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from benchmarks.command import output_option, run, write_files
from benchmarks.exact import DISTRIBUTIONS, FAMILIES, Errors, Family, exact_cross_entropy
from benchmarks.peers import Ours, Peer, contestants, kernels
from benchmarks.report import console, markdown_table
from tinygrad_sm.loss.composite import FORMS, composite_cross_entropy

DTYPES = ("float64", "float32")
QUANTITIES = {"loss": "loss", "right_class": "right class", "other_classes": "other classes"}
PROMISE = 5.0  # ULP: what the fused node must stay within
WORST = "all families"
SOFT = frozenset(family.name for family in DISTRIBUTIONS)

# Classes → rows in each family
SIZES = {2: 200, 3: 200, 10: 100, 100: 40, 1000: 8, 50_000: 1}
QUICK_SIZES = {2: 40, 3: 40, 10: 30, 100: 6, 1000: 1}

ByRow = Callable[..., "tuple[NDArray[Any], NDArray[Any]] | None"]
"""From logits, target and `label_smoothing` to losses and gradient; None where there is no such."""


@dataclass(frozen=True, slots=True)
class Result:
    """The worst errors of one form over all rows of one family in one dtype."""

    form: str
    family: str
    dtype: str
    errors: Errors


def forms_of(ours: Ours, peers: Sequence[Peer]) -> dict[str, ByRow]:
    """What is measured, by name: the composites, the fused node, then the peers."""
    forms: dict[str, ByRow] = {
        f"{form} composite": partial(ours.form_by_row, composite_cross_entropy, form=form)
        for form in FORMS
    }
    forms |= {f"fused, {kernel}": partial(ours.by_row_with, kernel) for kernel in kernels(ours)[0]}
    return forms | {
        peer.name: peer.by_row for peer in peers if type(peer).by_row is not Peer.by_row
    }


def measure(
    forms: Mapping[str, ByRow], family: Family, dtype: str, sizes: Mapping[int, int], seed: int = 0
) -> list[Result]:
    """Return the worst errors of every form on one family's rows; `sizes` is {classes: rows}."""
    worst: dict[str, Errors] = {}
    for classes, rows in sizes.items():
        logits, target = family.sample(np.random.default_rng([seed, classes]), rows, classes)
        logits = logits.astype(dtype)
        if target.ndim > 1:
            target = target.astype(dtype)
        truth = exact_cross_entropy(logits, target, family.smoothing)
        options = {"label_smoothing": family.smoothing} if family.smoothing else {}
        for name, form in forms.items():
            computed = _quietly(form, logits, target, options)
            if computed is not None:
                errors = truth.errors(*computed)
                worst[name] = worse(worst[name], errors) if name in worst else errors
    return [Result(name, family.name, dtype, errors) for name, errors in worst.items()]


def _quietly(
    form: ByRow, logits: NDArray[Any], target: NDArray[Any], options: dict[str, float]
) -> Any:
    """Overflow and log 0 are what is looked for here, and no reason to warn."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return form(logits, target, **options)


def worse(a: Errors, b: Errors) -> Errors:
    """The larger of each error; NaN is the largest."""
    pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in fields(Errors))
    return Errors(*(float(np.maximum(*pair)) for pair in pairs))


def over_families(results: Sequence[Result]) -> list[Result]:
    """The worst of all families, for each form and dtype."""
    worst: dict[tuple[str, str], Errors] = {}
    for each in results:
        key = each.form, each.dtype
        worst[key] = worse(worst[key], each.errors) if key in worst else each.errors
    return [Result(form, WORST, dtype, errors) for (form, dtype), errors in worst.items()]


# Showing ------------------------------------------------------------------------------------------


def in_ulps(error: float, dtype: str) -> str:
    """An error as text: one decimal, "all" where no digit is right, "inf" or "NaN"."""
    if math.isnan(error):
        return "NaN"
    if math.isinf(error):
        return "inf"
    if error >= 2.0 ** (np.finfo(dtype).nmant):
        return "all"
    return f"{error:.1f}" if error < 1000 else f"{error:.0e}".replace("e+0", "e").replace("e+", "e")


def grid(results: Sequence[Result], dtype: str, quantity: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table for one quantity: a row for each form, families across."""
    some = [each for each in results if each.dtype == dtype]
    families = list(dict.fromkeys(each.family for each in some))
    found = {(r.form, r.family): in_ulps(getattr(r.errors, quantity), dtype) for r in some}
    forms = list(dict.fromkeys(each.form for each in some))
    return ["form", *families], [[f, *(found.get((f, x), "") for x in families)] for f in forms]


def summary_grid(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the worst of all families: dtypes and quantities across."""
    dtypes = [d for d in DTYPES if any(each.dtype == d for each in results)]
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for each in over_families(results):
        for quantity in QUANTITIES:
            text = in_ulps(getattr(each.errors, quantity), each.dtype)
            cells.setdefault(each.form, {})[each.dtype, quantity] = text
    columns = [(dtype, quantity) for dtype in dtypes for quantity in QUANTITIES]
    header = ["form", *(f"{dtype} {QUANTITIES[quantity]}" for dtype, quantity in columns)]
    return header, [[form, *(row.get(c, "") for c in columns)] for form, row in cells.items()]


def titled_grids(
    results: Sequence[Result],
) -> Iterator[tuple[str, tuple[list[str], list[list[str]]]]]:
    """Every table with its title, the two summaries last."""
    kinds = {"right classes": False, "smoothed and soft targets": True}
    some = {
        kind: [r for r in results if (r.family in SOFT) == soft] for kind, soft in kinds.items()
    }
    for kind, own in some.items():
        for dtype in dict.fromkeys(each.dtype for each in own):
            for quantity, name in QUANTITIES.items():
                title = f"{kind}, {dtype}, {name}: worst error in ULP"
                yield title, grid(own, dtype, quantity)
    for kind, own in some.items():
        if own:
            yield f"worst of all families, {kind}, in ULP", summary_grid(own)


def verdict(results: Sequence[Result]) -> str:
    """One sentence on whether the fused node keeps the promise."""
    fused = (each.errors for each in results if each.form.startswith("fused"))
    errors = [value for each in fused for value in asdict(each).values()]
    worst = float(np.max(errors))
    kept = "within" if worst <= PROMISE else "NOT within"
    return f"The fused node's worst error is {worst:.2f} ULP, {kept} the promised {PROMISE:g}."


def show(results: Sequence[Result], to: Console) -> None:
    """Print all tables and the verdict."""
    for title, (header, rows) in titled_grids(results):
        table = Table(title=title, title_justify="left")
        for name in header:
            table.add_column(name, justify="left" if name == "form" else "right")
        for row in rows:
            table.add_row(*map(escape, row))
        to.print(table)
    to.print(verdict(results))


def as_markdown(results: Sequence[Result]) -> bytes:
    """The tables for a README, the summaries first."""
    lines = [verdict(results)]
    for title, (header, rows) in reversed(list(titled_grids(results))):
        lines += ["", f"**{title}**", "", *markdown_table(header, rows)]
    return ("\n".join(lines) + "\n").encode()


def as_json(
    results: Sequence[Result], versions: Mapping[str, str], sizes: Mapping[int, int]
) -> bytes:
    """Everything that was measured; infinite and undefined errors are text."""
    whole = {
        "versions": versions,
        "rows_by_classes": {str(classes): rows for classes, rows in sizes.items()},
        "verdict": verdict(results),
        "results": [
            {"form": r.form, "family": r.family, "dtype": r.dtype, **_finite(asdict(r.errors))}
            for r in results
        ],
    }
    return (json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _finite(errors: Mapping[str, float]) -> dict[str, float | str]:
    """JSON has no NaN and no inf."""
    return {name: x if math.isfinite(x) else str(x) for name, x in errors.items()}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@output_option
@click.option("--quick", is_flag=True, help="Fewer rows, and at most 1000 classes.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the logits.")
def command(folder: Path, quick: bool, seed: int) -> int:
    """Hold every form of softmax-cross-entropy, ours and the peers', against 60 exact digits.

    Prints the worst errors; writes accuracy.json and accuracy.md. The exit status is 1 if the
    fused node is less accurate than promised.
    """  # fmt: skip
    ours, *peers = contestants(threads=2)
    assert isinstance(ours, Ours)
    sizes = QUICK_SIZES if quick else SIZES
    results = measure_all(forms_of(ours, peers), sizes, seed)
    show(results, console())
    versions = {peer.name: peer.version for peer in (ours, *peers)}
    files = {
        "accuracy.json": as_json(results, versions, sizes),
        "accuracy.md": as_markdown(results),
    }
    for path in write_files(folder, files):
        click.echo(path)
    return 1 if "NOT" in verdict(results) else 0


def measure_all(forms: Mapping[str, ByRow], sizes: Mapping[int, int], seed: int) -> list[Result]:
    """Measure every family in every dtype, with a progress bar."""
    work = [(family, dtype) for dtype in DTYPES for family in (*FAMILIES, *DISTRIBUTIONS)]
    steps = track(work, "Measuring", console=Console(stderr=True), transient=True)
    return [
        result for family, dtype in steps for result in measure(forms, family, dtype, sizes, seed)
    ]


if __name__ == "__main__":
    sys.exit(run(command, "python -m benchmarks.accuracy", sys.argv[1:]))
