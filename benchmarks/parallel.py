"""`python -m benchmarks.parallel`: rows whose classes lie in several processes, beside PyTorch.

Every round has fresh logits, half of the classes in each of two processes of one thread: first
PyTorch's `loss_parallel` finds loss and gradient of them (gloo, both processes on this machine),
then ours does, under Dask's workers that hold their halves already. In turn, medians. Needs the
extra `dask`, distributed and torch.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from statistics import median
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.command import run
from benchmarks.peers import Torch

WORKERS = 2


def logits(seed: int, part: int, rows: int, classes: int) -> Any:
    """The float32 logits of one process, from N(0, 1)."""
    generator = np.random.default_rng((seed, part))
    return generator.standard_normal((rows, classes // WORKERS), np.float32)


def torch_process(part: int, port: int, rows: int, classes: int, seeds: Any, answers: Any) -> None:
    """One of PyTorch's processes: a loss and a gradient for every seed, until there is none."""
    import torch  # noqa: PLC0415  a peer
    import torch.distributed as dist  # noqa: PLC0415
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh  # noqa: PLC0415
    from torch.distributed.tensor.parallel import loss_parallel  # noqa: PLC0415

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=part, world_size=WORKERS)
    mesh = init_device_mesh("cpu", (WORKERS,))
    target = torch.arange(rows) % classes
    while (seed := seeds.get()) is not None:
        local = torch.from_numpy(logits(seed, part, rows, classes)).requires_grad_()
        dist.barrier()
        start = time.perf_counter()
        with loss_parallel():
            whole = DTensor.from_local(local, mesh, [Shard(1)])
            loss = torch.nn.functional.cross_entropy(whole, target)
            loss.backward()
        dist.barrier()
        seconds = time.perf_counter() - start
        assert local.grad is not None
        answers.put((part, seconds, loss.full_tensor().item(), float(local.grad.abs().sum())))
    dist.destroy_process_group()


class Ours:
    """Dask's workers, one for each part of the classes."""

    def __init__(self, client: Any, rows: int, classes: int, cut: int) -> None:
        self.client, self.rows, self.classes, self.cut = client, rows, classes, cut
        self.workers = list(client.scheduler_info()["workers"])
        self.labels = np.arange(rows) % classes

    def timed(self, seed: int) -> tuple[float, float, float]:
        """Seconds, the loss, and the sum of the gradient's absolute values."""
        import dask.array as da  # noqa: PLC0415  an extra
        from dask.distributed import wait  # noqa: PLC0415

        import tinygrad_sm as tg  # noqa: PLC0415

        height, width = self.rows // self.cut, self.classes // WORKERS
        halves = []
        for part, worker in enumerate(self.workers):
            whole = self.client.submit(
                logits, seed, part, self.rows, self.classes, workers=[worker], pure=False
            )
            some = [
                self.client.submit(rows_of, whole, i * height, height, workers=[worker])
                for i in range(self.cut)
            ]
            halves.append(
                da.concatenate(
                    [da.from_delayed(x, (height, width), np.float32) for x in some], axis=0
                )
            )
        a = self.client.persist(da.concatenate(halves, axis=1))
        wait(a)
        start = time.perf_counter()
        t = tg.Tensor(a)
        loss = tg.cross_entropy(t, self.labels)
        loss.backward()
        found, gradient = self.client.persist([loss.data, t.grad])
        wait([found, gradient])
        seconds = time.perf_counter() - start
        return seconds, float(found.compute()), float(abs(gradient).sum().compute())


def rows_of(x: Any, start: int, count: int) -> Any:
    """Some of the rows."""
    return x[start : start + count]


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rows", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--classes", type=click.IntRange(2), default=50_000, show_default=True)
@click.option(
    "--cut", type=click.IntRange(1), default=1, show_default=True,
    help="Into how many chunks the rows are cut besides; they must divide them.",
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=11, show_default=True)
def command(rows: int, classes: int, cut: int, rounds: int) -> int:
    """Time loss and gradient of rows whose classes lie in two processes, ours beside PyTorch's."""
    from dask.distributed import Client, LocalCluster  # noqa: PLC0415  an extra

    if not Torch.installed():  # which only the peer's own processes import
        raise ModuleNotFoundError(name=Torch.package)
    for name, number, parts in (("--classes", classes, WORKERS), ("--rows", rows, cut)):
        if number % parts:
            raise click.ClickException(f"{name} must be a multiple of {parts}; got {number}")
    processes = multiprocessing.get_context("spawn")
    answers, port = processes.Queue(), free_port()
    seeds = [processes.Queue() for _ in range(WORKERS)]
    peers = [
        processes.Process(
            target=torch_process, args=(part, port, rows, classes, seeds[part], answers)
        )
        for part in range(WORKERS)
    ]
    for peer in peers:
        peer.start()
    times: list[tuple[float, float]] = []
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        ours = Ours(client, rows, classes, cut)
        for seed in track(range(rounds + 1), console=Console(stderr=True), transient=True):
            for queue in seeds:
                queue.put(seed)
            said = [answers.get(timeout=600) for _ in peers]
            seconds, loss, size = ours.timed(seed)
            np.testing.assert_allclose([loss], [said[0][2]], rtol=1e-5)
            np.testing.assert_allclose([size], [said[0][3] + said[1][3]], rtol=1e-4)
            if seed:  # the first is to warm up
                times.append((seconds, max(x[1] for x in said)))
        for queue in seeds:
            queue.put(None)
    for peer in peers:
        peer.join(60)
    ratios = sorted(mine / peer for mine, peer in times)
    table = Table("rows × classes", "chunks", "ours", "loss_parallel", "ratio", "of the rounds")
    table.add_row(
        f"{rows} × {classes}",
        f"{rows // cut} × {classes // WORKERS}",
        f"{median(mine for mine, _ in times):.2f} s",
        f"{median(peer for _, peer in times):.2f} s",
        f"{median(ratios):.2f}",
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
    )
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(command, "python -m benchmarks.parallel", sys.argv[1:]))
