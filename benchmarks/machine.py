"""The machine, and what of it everyone gets. Imports no NumPy: that is settled before it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "TINYGRAD_SM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip
ALLOCATOR_PREFIXES = ("MALLOC_", "GLIBC_TUNABLES")
FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16",
    "asimd", "sve", "sve2",
)  # fmt: skip
SLOWING_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
INSTRUCTIONS = {
    "avx2": {
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # what NumPy chooses among
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "avx2",  # torch, and the libraries it calls
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "",  # none but those of the name
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",  # jax
    }
}
"""How everyone is told to use no more than some instructions."""


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def claim_threads(threads: int) -> None:
    """Give everyone `threads` threads; call it before NumPy or a peer is imported."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):  # what JAX goes by, which has no setting of its own
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))


def claim_instructions(most: str) -> None:
    """Let nobody use more than some vector instructions; call it before NumPy is imported."""
    os.environ |= INSTRUCTIONS[most]


def describe(threads: int, peers: Mapping[str, tuple[str, int | None]]) -> dict[str, Any]:
    """Return the machine's description for the JSON file and the head of the report.

    Args:
        threads: what was asked for.
        peers: version and threads of each contestant by name; None for none of its own.
    """
    import numpy as np  # noqa: PLC0415  not before the threads are set

    blas = _blas()
    counts = {"BLAS": blas.pop("threads"), **{name: n for name, (_, n) in peers.items()}}
    return {
        "cpu": _cpu_model(),
        "features": _features(),
        "cores": usable_cores(),
        "caches": _caches(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas,
        "versions": {name: version for name, (version, _) in peers.items()},
        "threads": counts,
        "notes": _notes(threads, counts),
    }


def _notes(threads: int, counts: Mapping[str, int | None]) -> list[str]:
    claimed = [most for most, said in INSTRUCTIONS.items() if said.items() <= os.environ.items()]
    notes = [f"nobody uses more than {most}, whatever the processor has" for most in claimed]
    notes += [
        f"{name}={os.environ[name]} is set: NumPy's matrix products may be slower than they need be"
        for name in SLOWING_VARIABLES
        if name in os.environ and not claimed
    ]
    notes += [
        f"{name}={os.environ[name]} is set: it decides what large arrays cost to allocate"
        for name in sorted(os.environ)
        if name.startswith(ALLOCATOR_PREFIXES)
    ]
    notes += [
        f"{name} uses {n} threads, not {threads}: the comparison is not even"
        for name, n in counts.items()
        if n not in (threads, None)
    ]
    if threads > usable_cores():
        notes.append(f"{threads} threads share {usable_cores()} cores")
    return notes


class Others:
    """How much of the cores other processes use, between its making and `share`; Linux only."""

    def __init__(self) -> None:
        self._wall, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def share(self) -> float | None:
        """The share of all cores, from 0 to 1; None where the system does not tell."""
        busy, wall = _busy_seconds(), time.monotonic() - self._wall
        if busy is None or self._busy is None or not wall:
            return None
        others = (busy - self._busy) - (_own_seconds() - self._own)
        return min(max(others / (wall * (os.cpu_count() or 1)), 0.0), 1.0)


def _busy_seconds() -> float | None:
    """What all cores have worked since the start, for anyone."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, first[1:])
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _features() -> list[str]:
    """The vector instructions, as the system calls them; or NumPy, where the system is silent."""
    import numpy as np  # noqa: PLC0415  as above

    named = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    if named:
        return [name for name in FEATURES if name in named]
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    return [*extensions["baseline"], *extensions["found"]]


def _cpuinfo(key: str) -> str:
    """What Linux says of the first core; empty if nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _caches() -> dict[str, str]:
    """Size of each cache of the first core, such as {"L1 Data": "32K", "L2 Unified": "1024K"}."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text(encoding="utf-8").strip()
                for name in ("level", "type", "size")
            )
        except OSError:
            continue
        found[f"L{level} {kind}"] = size
    return found


def _blas() -> dict[str, Any]:
    """What multiplies NumPy's matrices, with which kernel and on how many threads."""
    import numpy as np  # noqa: PLC0415  as above

    np.ones((2, 2)) @ np.ones((2, 2))
    if importlib.util.find_spec("threadpoolctl") is None:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"name": built["name"], "version": built["version"], "kernel": None, "threads": None}
    pools = importlib.import_module("threadpoolctl").threadpool_info()
    pool: dict[str, Any] = next((each for each in pools if each["user_api"] == "blas"), {})
    return {
        "name": pool.get("internal_api"),
        "version": pool.get("version"),
        "kernel": pool.get("architecture"),
        "threads": pool.get("num_threads"),
    }


def in_words(machine: Mapping[str, Any]) -> list[str]:
    """The description as lines of text."""
    blas = machine["blas"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = ", ".join(
        f"{name} {n or ('unknown' if name == 'BLAS' else 'as NumPy')}"
        for name, n in machine["threads"].items()
    )
    return [
        f"{machine['cpu']}, {machine['cores']} cores in use ({caches or 'caches unknown'}), "
        f"{machine['system']}",
        f"Vector instructions: {' '.join(machine['features']) or 'unknown'}",
        f"Python {machine['python']}, NumPy {machine['numpy']}, {blas['name']} {blas['version']} "
        f"(kernel {blas['kernel'] or 'unknown'})",
        f"Contestants: {versions}",
        f"Threads: {threads}",
        *(f"Note: {note}" for note in machine["notes"]),
    ]
