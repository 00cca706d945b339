"""`python -m benchmarks.larger`: logits that no memory holds, in Zarr, under Dask's workers.

Float32 logits are written to a Zarr store, then copied by Dask, then turned into loss and gradient
by `cross_entropy`, store to store. Each line tells the time, times and processor times beside those
of the copy, and the peak of memory of a worker. Of several sizes of chunks follows what a task and
a byte cost, and from that a model of more workers. Needs the extra `dask`, distributed and zarr.
"""

from __future__ import annotations

import math
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.command import run

MIB = 2**20
OUT = Path("out")


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def numbers(block: Any, block_info: Any = None) -> Any:
    """Logits of one chunk, from N(0, 1)."""
    place = block_info[None]["chunk-location"]
    return np.random.default_rng(place).standard_normal(block.shape, np.float32)


def measured(store: Any, client: Any, out: str) -> tuple[float, float]:
    """Seconds and processor seconds of all workers for something to compute."""
    import dask  # noqa: PLC0415  an extra

    before = sum(client.run(time.process_time).values())
    start = time.perf_counter()
    dask.compute(*store)
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return seconds, sum(client.run(time.process_time).values()) - before


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: logits, the shape of their chunks, and who computes."""

    shape: tuple[int, int]
    chunks: tuple[int, int]
    workers: int

    @property
    def size(self) -> int:
        """Bytes of the logits."""
        return 4 * math.prod(self.shape)

    @property
    def count(self) -> int:
        """The number of chunks."""
        return math.prod(-(-n // m) for n, m in zip(self.shape, self.chunks, strict=True))


@dataclass(frozen=True, slots=True)
class Measured:
    """What a case took, seconds; of the copy beside it, too."""

    seconds: float
    processor: float
    copy_seconds: float
    copy_processor: float
    tasks: int
    peak: int


def chunks_of(shape: tuple[int, int], cut: str, size: int) -> tuple[int, int]:
    """The shape of chunks of so many MiB: of whole rows, of whole columns, or of half rows."""
    rows, classes = shape
    many = size * MIB // 4
    if cut == "classes":
        return rows, max(1, min(classes // 2, many // rows))
    width = classes if cut == "rows" else -(-classes // 2)
    return max(1, min(rows, many // width)), width


def measure(folder: Path, case: Case, limit: str) -> Measured:
    """Measure one case in a new cluster."""
    import dask  # noqa: PLC0415  an extra
    import dask.array as da  # noqa: PLC0415
    import zarr  # noqa: PLC0415
    from dask.distributed import Client, LocalCluster  # noqa: PLC0415

    import tinygrad_sm as tg  # noqa: PLC0415

    given, out = str(folder / "logits.zarr"), str(folder / "out.zarr")
    (rows, classes), chunks = case.shape, case.chunks
    labels = np.arange(rows) % classes
    with LocalCluster(
        n_workers=case.workers, threads_per_worker=1, memory_limit=limit, dashboard_address=None
    ) as cluster, Client(cluster) as client:  # fmt: skip
        made = da.empty(case.shape, chunks=chunks, dtype=np.float32).map_blocks(
            numbers, dtype=np.float32
        )
        stored = {"shape": case.shape, "chunks": chunks, "dtype": "f4", "compressors": None}
        da.store(made, zarr.create_array(given, **stored), lock=False)

        def sink() -> Any:
            return zarr.create_array(out, **stored)

        copies, ours, tasks = [], [], 0
        for _ in range(2):  # in turn; the better of each, since the disk has moods
            copy = da.store(da.from_zarr(given), sink(), lock=False, compute=False)
            copies.append(measured([copy], client, out))
            a = tg.Tensor(da.from_zarr(given))
            loss = tg.cross_entropy(a, labels)
            loss.backward()
            gradient = da.store(a.grad, sink(), lock=False, compute=False)
            both = [loss.data, gradient]
            tasks = len(set().union(*[x.__dask_graph__() for x in dask.optimize(*both)]))
            ours.append(measured(both, client, out))
        peak = max(client.run(peak_bytes).values())
    shutil.rmtree(given)
    return Measured(
        *map(min, zip(*ours, strict=True)), *map(min, zip(*copies, strict=True)), tasks, peak
    )


def line(case: Case, m: Measured) -> list[str]:
    """What was measured, for the table."""
    rows, classes = case.shape
    return [
        f"{rows} × {classes}", f"{case.size / 2**30:.1f} GiB",
        f"{case.chunks[0]} × {case.chunks[1]}", f"{4 * math.prod(case.chunks) / MIB:.0f} MiB",
        f"{case.workers}", f"{m.seconds:.1f} s", f"{m.seconds / m.copy_seconds:.2f}",
        f"{m.processor / m.copy_processor:.2f}", f"{m.tasks}", f"{m.peak / MIB:.0f} MiB",
    ]  # fmt: skip


def modelled(found: list[tuple[Case, Measured]]) -> tuple[str, Table]:
    """What a task and a MiB cost, by least squares of the cases, and what follows for others."""
    worked = np.array([m.seconds * case.workers for case, m in found])
    costs = np.array([[m.tasks, case.size / MIB] for case, m in found]) / worked[:, None]
    (task, mib), *_ = np.linalg.lstsq(costs, np.ones(len(found)), rcond=None)
    a_chunk = min(m.tasks / case.count for case, m in found)
    said = (
        f"time = (tasks × {task * 1e3:.1f} ms + MiB × {mib * 1e3:.1f} ms) / workers, a model, from "
        "the cases above; disks and networks that are shared are not in it. A chunk takes "
        f"{a_chunk:.2f} tasks"
    )
    table = Table("logits", "chunk", *[f"{n} workers, modelled" for n in (4, 16, 64)])
    for name, size in (("12 GB", 12e9), ("1 TB", 1e12)):
        for chunk in (16, 64):
            seconds = a_chunk * size / MIB / chunk * task + size / MIB * mib
            table.add_row(name, f"{chunk} MiB", *[f"{seconds / n:.1f} s" for n in (4, 16, 64)])
    return said, table


HEADER = (
    "rows × classes", "logits", "chunk", "MiB", "workers", "time", "/ copy", "processor / copy",
    "tasks", "peak of a worker",
)  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--gigabytes", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True)
@click.option("--classes", type=click.IntRange(2), default=50_000, show_default=True)
@click.option("--chunk", "chunks", type=click.IntRange(1), multiple=True, help="MiB; repeatable.")
@click.option("--workers", type=click.IntRange(1), multiple=True, help="Repeatable; 2 by default.")
@click.option("--limit", default="2GB", show_default=True, help="Memory of a worker.")
@click.option(
    "--cut", "cuts", type=click.Choice(["rows", "classes", "both"]), multiple=True,
    help="What is cut into chunks; repeatable. Rows by default.",
)  # fmt: skip
def command(
    gigabytes: float, classes: int, chunks: tuple[int, ...], workers: tuple[int, ...], limit: str,
    cuts: tuple[str, ...],
) -> int:  # fmt: skip
    """Time loss and gradient of logits in Zarr beside a copy of them, both by Dask."""
    shape = max(2, int(gigabytes * 1e9 / (4 * classes))), classes
    console, table, found = Console(width=120), Table(*HEADER), []
    for cut, chunk, each in product(cuts or ("rows",), chunks or (64,), workers or (2,)):
        case = Case(shape, chunks_of(shape, cut, chunk), each)
        OUT.mkdir(exist_ok=True)  # not the system's folder, which may be memory
        with tempfile.TemporaryDirectory(dir=OUT) as folder:
            found.append((case, measure(Path(folder), case, limit)))
        table.add_row(*line(*found[-1]))
    console.print(table)
    if len({m.tasks for _, m in found}) > 1:
        for part in modelled(found):
            console.print(part)
    return 0


if __name__ == "__main__":
    sys.exit(run(command, "python -m benchmarks.larger", sys.argv[1:]))
