"""`python -m benchmarks.larger`: logits that no memory holds, in Zarr, under Dask's workers.

Float32 logits are written to a Zarr store, then copied by Dask, then turned into loss and gradient
by `cross_entropy`, store to store. Each line tells the time, times and processor times beside those
of the copy, and the peak of memory of a worker. Needs the extra `dask`, distributed and zarr.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
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


def line(folder: Path, rows: int, classes: int, chunk: int, workers: int, limit: str) -> list[str]:
    """Measure one case in a new cluster."""
    import dask.array as da  # noqa: PLC0415  an extra
    import zarr  # noqa: PLC0415
    from dask.distributed import Client, LocalCluster  # noqa: PLC0415

    import tinygrad_sm as tg  # noqa: PLC0415

    height = max(1, chunk * MIB // (4 * classes))
    given, out = str(folder / "logits.zarr"), str(folder / "out.zarr")
    labels = np.arange(rows) % classes
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, memory_limit=limit, dashboard_address=None
    ) as cluster, Client(cluster) as client:  # fmt: skip
        shape, chunks = (rows, classes), (height, classes)
        made = da.empty(shape, chunks=chunks, dtype=np.float32).map_blocks(
            numbers, dtype=np.float32
        )
        target = zarr.create_array(given, shape=shape, chunks=chunks, dtype="f4", compressors=None)
        da.store(made, target, lock=False)

        def sink() -> Any:
            return zarr.create_array(out, shape=shape, chunks=chunks, dtype="f4", compressors=None)

        copies, ours = [], []
        for _ in range(2):  # in turn; the better of each, since the disk has moods
            copy = da.store(da.from_zarr(given), sink(), lock=False, compute=False)
            copies.append(measured([copy], client, out))
            a = tg.Tensor(da.from_zarr(given))
            loss = tg.cross_entropy(a, labels)
            loss.backward()
            gradient = da.store(a.grad, sink(), lock=False, compute=False)
            ours.append(measured([loss.data, gradient], client, out))
        seconds, processor = map(min, zip(*ours, strict=True))
        copy_seconds, copy_processor = map(min, zip(*copies, strict=True))
        peak = max(client.run(peak_bytes).values())
    shutil.rmtree(given)
    return [
        f"{rows} × {classes}", f"{4 * rows * classes / 2**30:.1f} GiB", f"{chunk} MiB",
        f"{workers}", f"{seconds:.1f} s",
        f"{seconds / copy_seconds:.2f}", f"{processor / copy_processor:.2f}",
        f"{peak / MIB:.0f} MiB",
    ]  # fmt: skip


HEADER = (
    "rows × classes", "logits", "chunk", "workers", "time", "/ copy", "processor / copy",
    "peak of a worker",
)  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--gigabytes", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True)
@click.option("--classes", type=click.IntRange(2), default=50_000, show_default=True)
@click.option("--chunk", "chunks", type=click.IntRange(1), multiple=True, help="MiB; repeatable.")
@click.option("--workers", type=click.IntRange(1), multiple=True, help="Repeatable; 2 by default.")
@click.option("--limit", default="2GB", show_default=True, help="Memory of a worker.")
def command(
    gigabytes: float, classes: int, chunks: tuple[int, ...], workers: tuple[int, ...], limit: str
) -> int:
    """Time loss and gradient of logits in Zarr beside a copy of them, both by Dask."""
    rows = max(1, int(gigabytes * 1e9 / (4 * classes)))
    table = Table(*HEADER)
    for chunk in chunks or (64,):
        for each in workers or (2,):
            OUT.mkdir(exist_ok=True)  # not the system's folder, which may be memory
            with tempfile.TemporaryDirectory(dir=OUT) as folder:
                table.add_row(*line(Path(folder), rows, classes, chunk, each, limit))
    Console(width=110).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(command, "python -m benchmarks.larger", sys.argv[1:]))
