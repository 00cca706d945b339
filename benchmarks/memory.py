"""Memory: the peak of one call in a fresh process, and what a recorded operation keeps.

`python -m benchmarks.memory loss torch float32 256 50257` prints one number, the bytes by which
the process grew at most while it ran forward and backward.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.peers import PEERS, Ours, Peer
from benchmarks.problems import make_linear_problem, make_problem
from benchmarks.timing import Run

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"  # see proc(5), clear_refs


def peak_in_fresh_process(
    job: str, peer: str, dtype: str, shape: tuple[int, ...], threads: int, kernel: str | None = None
) -> int | None:
    """Return the peak growth in bytes; None where it cannot be measured.

    `job` is "loss" (with shape (rows, classes)) or "linear" (with (rows, features, classes)),
    `kernel` that of this project's loss; None for the one that runs by default.
    """
    command = [sys.executable, "-m", "benchmarks.memory", job, peer, dtype, str(threads)]
    done = subprocess.run(
        [*command, *map(str, shape)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=False,
        env=os.environ | ({"TINYGRAD_SM_KERNEL": kernel} if kernel else {}),
    )
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def bytes_per_operation(record: Callable[[int], object], operations: int) -> float:
    """Return what one recorded operation keeps beyond its result's array."""
    record(operations)  # whatever is made once is made now
    kept = _traced(lambda: record(operations))
    arrays = _traced(lambda: [np.full(3, 1.5) for _ in range(operations)])
    return (kept - arrays) / operations


def _traced(make: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del made
    return after - before


def _job(job: str, peer: Peer, dtype: str, shape: tuple[int, ...]) -> Run | None:
    if job == "linear":
        rows, features, classes = shape
        return peer.linear(make_linear_problem((rows, features, classes), dtype))
    rows, classes = shape
    return peer.fused(make_problem((rows, classes), dtype))


def _peak_growth(run: Run) -> int | None:
    """Bytes by which resident memory grew at most during one call."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)  # else the call is served from what was freed before
    if _CLEAR_REFS.exists():
        _CLEAR_REFS.write_text(_FORGET_PEAK, encoding="ascii")
        before = _status("VmRSS")
        run()
        return _status("VmHWM") - before
    if importlib.util.find_spec("resource") is None:
        return None
    before = _high_water()
    run()
    return _high_water() - before


def _status(key: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _high_water() -> int:
    import resource  # noqa: PLC0415  not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main(arguments: list[str]) -> None:
    job, name, dtype, threads, *shape = arguments
    kinds: tuple[type[Peer], ...] = (Ours, *PEERS)
    peer = next(kind for kind in kinds if kind.name == name)(int(threads))
    if isinstance(peer, Ours):
        peer.tg.warm_up()  # the default compiles for many logits only
    small = _job(job, peer, dtype, tuple(8 for _ in shape))
    if small is not None:
        small()  # what is loaded and started once is not part of the peak
    run = _job(job, peer, dtype, tuple(map(int, shape)))
    growth = None if run is None else _peak_growth(run)
    if growth is not None:
        sys.stdout.write(str(growth))


if __name__ == "__main__":
    _main(sys.argv[1:])
