"""What is measured: seven sections of cases, with the targets that each is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.fusion import SPELLINGS, fusion_runs
from benchmarks.memory import bytes_per_operation, peak_in_fresh_process
from benchmarks.peers import OPERANDS, Ours, Peer
from benchmarks.problems import KINDS, Floats, make_linear_problem, make_problem
from benchmarks.results import LIMIT, Row, amount_row, timed_row
from benchmarks.timing import Outcome, Run, interleave

OURS = Ours.name

# Shape (rows, classes) → the largest ratio to PyTorch's kernel that is acceptable in either dtype
FUSED_TARGETS: dict[tuple[int, int], dict[str, float]] = {
    (1, 10): {"numpy": 0.9, "compiled": 0.4},
    (128, 10): {"numpy": 0.9, "compiled": 0.4},
    (1024, 100): {"numpy": 1.2, "compiled": 0.4},
    (1024, 1000): {"numpy": 1.0, "compiled": 0.3},
    (256, 50257): {"numpy": 0.4, "compiled": 0.22},
    (64, 128256): {"numpy": 0.4, "compiled": 0.22},
}
OPTION_TARGETS = {"numpy": 1.5, "compiled": 1.2}  # ratio to the plain case
LIMIT_TARGET, MANY = 1.5, 1_000_000  # the compiled kernel / copying, for so many logits and more
MEMORY_TARGET = 0.01  # of the logits, beyond the gradient
SHARED = 1 << 15  # logits of a loss that threads may share
CHAIN_TARGETS = {"torch": 0.6, "autograd": 0.3, "mygrad": 0.3, "dezero": 0.3}
COMPOSITE_TARGETS = {"torch": 1.2, "autograd": 1.0, "mygrad": 1.0, "dezero": 1.0}
PAGING_SHAPE, PAGING_TARGET = (1024, 1000), 0.8  # where page faults dominate, to NumPy's peers
BYTES_TARGET = 400.0
LINEAR_SHAPES = ((2048, 512, 32000), (1024, 256, 50257))
LINEAR_TARGET, LINEAR_MEMORY_TARGET = 1.0, 0.1
FLAT_TARGET = 1.3
# Shape → pairs of contestants in `fusion_runs`, with the largest ratio that is acceptable
FUSION_TARGETS: dict[tuple[int, int], dict[tuple[str, str], float | None]] = {
    (128, 10): {("fusing()", "composite"): 1.5},
    (1024, 1000): {
        ("search, seen before", "fusing()"): 0.03,
        ("first search", "fusing()"): None,  # once for each structure
        ("fuse(L)", "fused node"): 1.1,
        ("fusing()", "fused node"): 1.1,
    },
}
FUSION_PAIRS = tuple(pair for targets in FUSION_TARGETS.values() for pair in targets)

LINEAR_SETTLE = 0.04  # seconds: BLAS threads spin longer than others before they sleep


@dataclass(frozen=True, slots=True)
class Plan:
    """How thorough a run is.

    Attributes:
        peers: the contestants, this project first.
        threads: of each.
        budget: seconds for each case.
        slow: peers are left out of a case when a call takes longer than this many seconds.
        fewest: rounds, even if the budget is spent.
        shapes: of the loss in float32, (rows, classes).
        float64_shapes: the same in float64.
        option_shapes: where the options are measured.
        linear_shapes: (rows, features, classes).
        fusion_shapes: where fusion is measured, (rows, classes).
        kernels: of this project's loss, each a contestant of its own.
        memory_peers: whose memory is measured.
        growth_elements: logits in each case of growing classes.
        chain_operations: length of the chain that the peers run as well.
        operations: lengths of the chains that show growth; the first is the yardstick.
    """

    peers: Sequence[Peer]
    threads: int
    budget: float = 4.0
    slow: float = 8.0
    fewest: int = 5
    shapes: tuple[tuple[int, int], ...] = tuple(FUSED_TARGETS)
    float64_shapes: tuple[tuple[int, int], ...] = tuple(FUSED_TARGETS)
    option_shapes: tuple[tuple[int, int], ...] = tuple(FUSED_TARGETS)
    linear_shapes: tuple[tuple[int, int, int], ...] = LINEAR_SHAPES
    fusion_shapes: tuple[tuple[int, int], ...] = tuple(FUSION_TARGETS)
    kernels: tuple[str, ...] = ("numpy",)
    memory_peers: tuple[str, ...] = (OURS, "torch")
    growth_elements: int = 1_000_000
    chain_operations: int = 1_000
    operations: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)

    @classmethod
    def quick(cls, peers: Sequence[Peer], threads: int, **fields: Any) -> Plan:
        """Everything once and briefly: under a minute."""
        return cls(
            peers,
            threads,
            budget=0.4,
            slow=1.0,
            fewest=3,
            float64_shapes=tuple(FUSED_TARGETS)[:4],
            option_shapes=((128, 10), (1024, 1000)),
            linear_shapes=((512, 256, 8000),),
            memory_peers=(OURS,),
            operations=(1_000, 10_000, 100_000),
            **fields,
        )

    @property
    def ours(self) -> Peer:
        """This project."""
        return self.peers[0]

    def contest(self, contestants: Mapping[str, Run | None], limit: Run, **options: Any) -> Outcome:
        """Time those who take part; the first and all kernels of this project always do."""
        taking_part = {name: run for name, run in contestants.items() if run is not None}
        essential = next(iter(taking_part)), *options.get("before", ())
        plan = {"essential": essential, "slow": self.slow, "fewest": self.fewest}
        try:
            return interleave({**taking_part, LIMIT: limit}, self.budget, **plan, **options)
        finally:
            self.ours.use_kernel(None)
            for peer in self.peers:
                peer.use_threads(self.threads)

    def by_kernel(self, what: str) -> dict[str, Run]:
        """What to do before each contestant, such as "fused, numpy": choose its kernel."""
        use = self.ours.use_kernel
        return {f"{what}, {kernel}": partial(use, kernel) for kernel in self.kernels}

    def of_peers(self, make: Callable[[Peer], Run | None]) -> dict[str, Run]:
        """What the peers have to run, by name, without this project."""
        runs = {peer.name: make(peer) for peer in self.peers[1:]}
        return {name: run for name, run in runs.items() if run is not None}


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure, which gives some rows."""

    section: str
    title: str
    measure: Callable[[], list[Row]]


def by(*sizes: int) -> str:
    """A shape in words, such as 256×50257."""
    return "×".join(map(str, sizes))


def kernel_of(name: str) -> str:
    """The kernel of a contestant such as "fused, numpy"."""
    return name.rpartition(", ")[2]


def copying(array: Floats) -> Run:
    """The limit: an array's bytes are read and written once, by one thread."""
    return partial(np.copyto, np.ones_like(array), array)


def pairs(subjects: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Each subject with each of the others; one case's rows of one pair of kinds stand together."""
    mine = list(subjects)
    return [(subject, against) for against in others for subject in mine]


# Fused --------------------------------------------------------------------------------------------


def fused_cases(plan: Plan) -> Iterator[Case]:
    """The fused node against the peers' own, with every option, and its memory."""
    for dtype, shapes in (("float32", plan.shapes), ("float64", plan.float64_shapes)):
        for shape in shapes:
            title = f"{by(*shape)} {dtype}"
            yield Case("fused", title, partial(_fused, plan, title, shape, dtype))
    for shape in plan.option_shapes:
        for kind in KINDS[1:]:
            title = f"{by(*shape)} {kind}"
            yield Case("fused", title, partial(_option, plan, title, shape, kind))
    for shape in plan.shapes[-2:]:
        title = f"{by(*shape)} memory"
        size = 4 * shape[0] * shape[1]  # the gradient's and the logits'
        job = partial(_memory, plan, "fused", title, "loss", shape, (size, size), MEMORY_TARGET)
        yield Case("fused", title, job)


def _fused(plan: Plan, case: str, shape: tuple[int, int], dtype: str) -> list[Row]:
    problem = make_problem(shape, dtype)
    before = plan.by_kernel("fused")
    ours, peers = plan.ours.fused(problem), plan.of_peers(lambda peer: peer.fused(problem))
    runs = {**dict.fromkeys(before, ours), **peers}
    outcome = plan.contest(runs, copying(problem.logits), before=before)
    found = {pair: FUSED_TARGETS.get(shape, {}).get(kernel_of(pair[0])) if pair[1] == "torch"
             else None for pair in pairs(before, peers)}  # fmt: skip
    if problem.logits.size >= MANY and "compiled" in plan.kernels:
        found["fused, compiled", LIMIT] = LIMIT_TARGET
    return [
        timed_row(outcome, *pair, section="fused", case=case, target=target)
        for pair, target in found.items()
    ]


def _option(plan: Plan, case: str, shape: tuple[int, int], kind: str) -> list[Row]:
    plain, problem = make_problem(shape, "float32"), make_problem(shape, "float32", kind)
    options, plains = plan.by_kernel("fused"), plan.by_kernel("plain")
    torch = plan.of_peers(lambda peer: peer.fused(problem) if peer.name == "torch" else None)
    runs = {
        **dict.fromkeys(options, plan.ours.fused(problem)),
        **dict.fromkeys(plains, plan.ours.fused(plain)),
        **torch,
    }
    outcome = plan.contest(runs, copying(problem.logits), before={**options, **plains})
    row = partial(timed_row, outcome, section="fused", case=case)
    return [
        row(*pair, target=OPTION_TARGETS[kernel_of(pair[0])])
        for pair in zip(options, plains, strict=True)
    ] + [row(*pair) for pair in pairs(options, torch)]


def _memory(
    plan: Plan,
    section: str,
    case: str,
    job: str,
    shape: tuple[int, ...],
    sizes: tuple[int, int],
    target: float | None,
) -> list[Row]:
    """The peak beyond the gradients (`sizes[0]` bytes) as a share of the logits (`sizes[1]`)."""
    whose = [(name, None) for name in plan.memory_peers if name != OURS]
    if OURS in plan.memory_peers:
        whose = [(OURS, kernel) for kernel in plan.kernels] + whose
    rows = []
    for name, kernel in whose:
        peak = peak_in_fresh_process(job, name, "float32", shape, plan.threads, kernel)
        rows.append(
            amount_row(
                None if peak is None else max(peak - sizes[0], 0),
                sizes[1],
                section=section,
                case=case,
                subject=f"extra, {kernel or name}",
                against="logits",
                unit="bytes",
                target=target if name == OURS else None,
            )
        )
    return rows


# Threads ------------------------------------------------------------------------------------------


def threads_cases(plan: Plan) -> Iterator[Case]:
    """The loss on all threads against one, of each kernel and of PyTorch."""
    for shape in plan.shapes if plan.threads > 1 else ():
        if shape[0] * shape[1] >= SHARED:
            title = f"{by(*shape)} float32"
            yield Case("threads", title, partial(_threads, plan, title, shape))


def _threads(plan: Plan, case: str, shape: tuple[int, int]) -> list[Row]:
    problem = make_problem(shape, "float32")
    runs: dict[str, Run | None] = {}
    before: dict[str, Run] = {}

    def enter(what: str, peer: Peer, kernel: str | None) -> None:
        for threads in (plan.threads, 1):
            runs[f"{what} on {threads}"] = peer.fused(problem)
            before[f"{what} on {threads}"] = partial(peer.use, kernel, threads)

    for kernel in plan.kernels:
        enter(kernel, plan.ours, kernel)
    torch = [peer for peer in plan.peers if peer.name == "torch"]
    for peer in torch:
        enter(peer.name, peer, None)
    outcome = plan.contest(runs, copying(problem.logits), before=before)
    names = [*plan.kernels, *(peer.name for peer in torch)]
    compared = [(f"{name} on {plan.threads}", f"{name} on 1") for name in names]
    compared += pairs([f"{kernel} on 1" for kernel in plan.kernels],
                      [f"{peer.name} on 1" for peer in torch])  # fmt: skip
    return [timed_row(outcome, *pair, section="threads", case=case) for pair in compared]


# Engine -------------------------------------------------------------------------------------------


def engine_cases(plan: Plan) -> Iterator[Case]:
    """What one operation costs: time forward and backward, and what is kept for backward."""
    for operands in OPERANDS:
        title = f"mul, add with {operands}"
        yield Case("engine", title, partial(_chain, plan, title, operands))
    yield Case("engine", "memory", partial(_kept, plan))


def _chain(plan: Plan, case: str, operands: str) -> list[Row]:
    operations = plan.chain_operations
    peers = plan.of_peers(lambda peer: peer.chain(operations, operands))
    copy = copying(np.ones(3))
    outcome = plan.contest(
        {"engine": plan.ours.chain(operations, operands), **peers},
        lambda: [copy() for _ in range(operations)],
    ).scaled(1 / operations)
    row = partial(timed_row, outcome, section="engine", case=case, unit="s/operation")
    return [row("engine", name, target=CHAIN_TARGETS.get(name)) for name in peers]


def _kept(plan: Plan) -> list[Row]:
    rows = []
    for peer in plan.peers:
        if peer.record(2) is None:
            continue
        kept = bytes_per_operation(peer.record, 10 * plan.chain_operations)
        rows.append(
            amount_row(
                kept,
                BYTES_TARGET,
                section="engine",
                case="kept beyond the array",
                subject=peer.name,
                against=f"{BYTES_TARGET:.0f} bytes",
                unit="bytes/operation",
                target=1.0 if peer is plan.ours else None,
            )
        )
    return rows


# Composite ----------------------------------------------------------------------------------------


def composite_cases(plan: Plan) -> Iterator[Case]:
    """The naive composite against the same primitives of the peers."""
    for shape in plan.shapes:
        title = f"{by(*shape)} float32"
        yield Case("composite", title, partial(_composite, plan, title, shape))


def _composite(plan: Plan, case: str, shape: tuple[int, int]) -> list[Row]:
    problem = make_problem(shape, "float32")
    peers = plan.of_peers(lambda peer: peer.composite(problem))
    runs = {"composite": plan.ours.composite(problem), **peers}
    outcome = plan.contest(runs, copying(problem.logits))
    targets = dict(COMPOSITE_TARGETS)
    if shape == PAGING_SHAPE:
        targets |= {name: PAGING_TARGET for name in targets if name != "torch"}
    row = partial(timed_row, outcome, "composite", section="composite", case=case)
    return [row(name, target=targets.get(name)) for name in peers]


# Linear -------------------------------------------------------------------------------------------


def linear_cases(plan: Plan) -> Iterator[Case]:
    """A linear layer and the loss without the logits against both with them."""
    for shape in plan.linear_shapes:
        rows, features, classes = shape
        title = f"{rows}×{features} → {classes}"
        yield Case("linear", title, partial(_linear, plan, title, shape))
        sizes = 4 * (rows * features + classes * features + classes), 4 * rows * classes
        target = LINEAR_MEMORY_TARGET if shape in LINEAR_SHAPES else None
        title = f"{title} memory"
        job = partial(_memory, plan, "linear", title, "linear", shape, sizes, target)
        yield Case("linear", title, job)


def _linear(plan: Plan, case: str, shape: tuple[int, int, int]) -> list[Row]:
    problem = make_linear_problem(shape)
    before = plan.by_kernel("linear")
    peers = plan.of_peers(lambda peer: peer.linear(problem))
    runs = {**dict.fromkeys(before, plan.ours.linear(problem)), **peers}
    logits = np.ones((shape[0], shape[2]), np.float32)
    outcome = plan.contest(runs, copying(logits), before=before, settle=LINEAR_SETTLE)
    target = LINEAR_TARGET if shape in LINEAR_SHAPES else None
    row = partial(timed_row, outcome, section="linear", case=case, target=target)
    return [row(*pair) for pair in pairs(before, peers)]


# Fusion -------------------------------------------------------------------------------------------


def fusion_cases(plan: Plan) -> Iterator[Case]:
    """Fusion with its search against the loss as it was written, and against the fused node."""
    for shape in plan.fusion_shapes:
        for spelling in SPELLINGS:
            title = f"{by(*shape)} {spelling}"
            yield Case("fusion", title, partial(_fusion, plan, title, shape, spelling))


def _fusion(plan: Plan, case: str, shape: tuple[int, int], spelling: str) -> list[Row]:
    problem = make_problem(shape, "float32")
    outcome = plan.contest(fusion_runs(problem, spelling), copying(problem.logits))
    targets = FUSION_TARGETS.get(shape, {})
    row = partial(timed_row, outcome, section="fusion", case=case)
    return [row(*pair, target=targets.get(pair)) for pair in FUSION_PAIRS]


# Growth -------------------------------------------------------------------------------------------


def growth_cases(plan: Plan) -> Iterator[Case]:
    """Cost per element as classes grow, and per operation as the graph grows."""
    classes = 10
    while classes <= plan.growth_elements:
        title = f"{classes} classes"
        yield Case("growth", title, partial(_classes, plan, title, classes))
        classes *= 10
    yield Case("growth", "operations", partial(_operations, plan))


def _classes(plan: Plan, case: str, classes: int) -> list[Row]:
    problem = make_problem((plan.growth_elements // classes, classes), "float32")
    before = plan.by_kernel("fused")
    torch = plan.of_peers(lambda peer: peer.fused(problem) if peer.name == "torch" else None)
    runs = {**dict.fromkeys(before, plan.ours.fused(problem)), **torch}
    outcome = plan.contest(runs, copying(problem.logits), before=before)
    outcome = outcome.scaled(1 / problem.logits.size)
    row = partial(timed_row, outcome, section="growth", case=case, unit="s/element", size=classes)
    return [row(*pair) for pair in pairs(before, [*torch, LIMIT])]


def _operations(plan: Plan) -> list[Row]:
    lengths = {f"{n} operations": n for n in plan.operations}
    runs = {name: plan.ours.chain(n, "tensors") for name, n in lengths.items()}
    outcome = interleave(runs, plan.budget * len(runs), fewest=plan.fewest)
    outcome.timings = {
        name: timing.scaled(1 / lengths[name]) for name, timing in outcome.timings.items()
    }
    first, *others = lengths
    row = partial(timed_row, outcome, section="growth", unit="s/operation", target=FLAT_TARGET)
    return [row(name, first, case="operations", size=lengths[name]) for name in others]


SECTIONS: dict[str, Callable[[Plan], Iterator[Case]]] = {
    "fused": fused_cases,
    "threads": threads_cases,
    "engine": engine_cases,
    "composite": composite_cases,
    "linear": linear_cases,
    "fusion": fusion_cases,
    "growth": growth_cases,
}


def cases_of(plan: Plan, sections: Sequence[str]) -> list[Case]:
    """The cases of the named sections, in order."""
    return [case for name in sections for case in SECTIONS[name](plan)]
