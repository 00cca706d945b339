"""What is measured: six sections of cases, with the targets that each is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.fusion import SPELLINGS, fusion_runs
from benchmarks.memory import bytes_per_operation, peak_in_fresh_process
from benchmarks.peers import OPERANDS, Ours, Peer
from benchmarks.problems import KINDS, make_linear_problem, make_problem
from benchmarks.results import Row, amount_row, timed_row
from benchmarks.timing import Outcome, Run, interleave

OURS = Ours.name
COPY = "copying logits"

# Shape (rows, classes) → the largest ratio to PyTorch's kernel that is acceptable in float32
FUSED_TARGETS = {
    (1, 10): 0.6,
    (128, 10): 0.6,
    (1024, 1000): 1.0,
    (256, 50257): 0.35,
    (64, 128256): 0.25,
}
FLOAT64_TARGET = 1.0
COPY_TARGET, COPY_SHAPES = 3.0, ((256, 50257), (64, 128256))
OPTION_TARGET = 1.3
BEYOND_GRADIENT_TARGET = 0.1  # of the logits: "nothing of their size"
CHAIN_TARGETS = {"torch": 0.6, "autograd": 0.3, "mygrad": 0.3, "dezero": 0.3}
COMPOSITE_TARGETS = {"torch": 1.2, "autograd": 0.7, "mygrad": 0.7, "dezero": 0.7}
BYTES_TARGET = 400.0
LINEAR_SHAPES = ((2048, 512, 32000), (1024, 256, 50257))
LINEAR_TARGET, LINEAR_MEMORY_TARGET = 0.6, 0.1
FLAT_TARGET = 1.3
# Shape → pairs of contestants in `fusion_runs`, with the largest ratio that is acceptable
FUSION_TARGETS: dict[tuple[int, int], dict[tuple[str, str], float]] = {
    (128, 10): {("fusing()", "composite"): 1.5},
    (1024, 1000): {
        ("search, seen before", "fusing()"): 0.03,
        ("first search", "fusing()"): 0.03,
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
    memory_peers: tuple[str, ...] = (OURS, "torch")
    growth_elements: int = 1_000_000
    chain_operations: int = 1_000
    operations: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)

    @classmethod
    def quick(cls, peers: Sequence[Peer], threads: int) -> Plan:
        """Everything once and briefly: under a minute."""
        return cls(
            peers,
            threads,
            budget=0.4,
            slow=1.0,
            fewest=3,
            float64_shapes=tuple(FUSED_TARGETS)[:3],
            option_shapes=((128, 10), (1024, 1000)),
            linear_shapes=((512, 256, 8000),),
            memory_peers=(OURS,),
            operations=(1_000, 10_000, 100_000),
        )

    @property
    def ours(self) -> Peer:
        """This project."""
        return self.peers[0]

    def contest(self, contestants: dict[str, Run | None], **options: float) -> Outcome:
        """Time those who take part."""
        taking_part = {name: run for name, run in contestants.items() if run is not None}
        essential = next(iter(taking_part))
        return interleave(
            taking_part,
            self.budget,
            essential=essential,
            slow=self.slow,
            fewest=self.fewest,
            **options,
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure, which gives some rows."""

    section: str
    title: str
    measure: Callable[[], list[Row]]


def by(*sizes: int) -> str:
    """A shape in words, such as 256×50257."""
    return "×".join(map(str, sizes))


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
        yield Case("fused", title, partial(_fused_memory, plan, title, shape))


def _fused_target(against: str, shape: tuple[int, int], dtype: str) -> float | None:
    if against == "torch":
        return FLOAT64_TARGET if dtype == "float64" else FUSED_TARGETS.get(shape)
    return COPY_TARGET if against == COPY and shape in COPY_SHAPES else None


def _fused(plan: Plan, case: str, shape: tuple[int, int], dtype: str) -> list[Row]:
    problem = make_problem(shape, dtype)
    contestants = {peer.name: peer.fused(problem) for peer in plan.peers}
    outcome = plan.contest({**contestants, COPY: partial(np.copy, problem.logits)})
    return [
        timed_row(
            outcome,
            OURS,
            name,
            ("fused", name),
            section="fused",
            case=case,
            target=_fused_target(name, shape, dtype),
        )
        for name, run in [*contestants.items(), (COPY, np.copy)]
        if run is not None and name != OURS
    ]


def _option(plan: Plan, case: str, shape: tuple[int, int], kind: str) -> list[Row]:
    plain, problem = make_problem(shape, "float32"), make_problem(shape, "float32", kind)
    torch = next((peer for peer in plan.peers if peer.name == "torch"), None)
    outcome = plan.contest(
        {
            OURS: plan.ours.fused(problem),
            "plain": plan.ours.fused(plain),
            "torch": None if torch is None else torch.fused(problem),
        }
    )
    row = partial(timed_row, outcome, OURS, section="fused", case=case)
    rows = [row("plain", ("fused", "plain case"), target=OPTION_TARGET)]
    if torch is not None:
        rows.append(row("torch", ("fused", "torch")))
    return rows


def _fused_memory(plan: Plan, case: str, shape: tuple[int, int]) -> list[Row]:
    size = 4 * shape[0] * shape[1]  # the gradient's and the logits'
    return [
        _memory_row(plan, "fused", case, ("loss", name, shape), (size, size), _memory_target(name))
        for name in _measured_for_memory(plan)
    ]


def _memory_target(name: str) -> float | None:
    return BEYOND_GRADIENT_TARGET if name == OURS else None


def _measured_for_memory(plan: Plan) -> list[str]:
    return [peer.name for peer in plan.peers if peer.name in plan.memory_peers]


def _memory_row(
    plan: Plan,
    section: str,
    case: str,
    job: tuple[str, str, tuple[int, ...]],
    sizes: tuple[int, int],
    target: float | None,
) -> Row:
    """The peak beyond the gradients (`sizes[0]` bytes) as a share of the logits (`sizes[1]`)."""
    name, peer, shape = job
    peak = peak_in_fresh_process(name, peer, "float32", shape, plan.threads)
    return amount_row(
        None if peak is None else max(peak - sizes[0], 0),
        sizes[1],
        section=section,
        case=case,
        subject=f"extra by {peer}",
        against="logits' bytes",
        unit="bytes",
        target=target,
    )


# Engine -------------------------------------------------------------------------------------------


def engine_cases(plan: Plan) -> Iterator[Case]:
    """What one operation costs: time forward and backward, and what is kept for backward."""
    for operands in OPERANDS:
        title = f"mul, add with {operands}"
        yield Case("engine", title, partial(_chain, plan, title, operands))
    yield Case("engine", "memory", partial(_kept, plan))


def _chain(plan: Plan, case: str, operands: str) -> list[Row]:
    runs = {peer.name: peer.chain(plan.chain_operations, operands) for peer in plan.peers}
    outcome = plan.contest(runs)
    outcome.timings = {
        name: timing.scaled(1 / plan.chain_operations) for name, timing in outcome.timings.items()
    }
    return [
        timed_row(
            outcome,
            OURS,
            name,
            ("engine", name),
            section="engine",
            case=case,
            unit="s/operation",
            target=CHAIN_TARGETS.get(name),
        )
        for name, run in runs.items()
        if run is not None and name != OURS
    ]


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
    runs = {peer.name: peer.composite(problem) for peer in plan.peers}
    outcome = plan.contest(runs)
    return [
        timed_row(
            outcome,
            OURS,
            name,
            ("composite", name),
            section="composite",
            case=case,
            target=COMPOSITE_TARGETS.get(name),
        )
        for name, run in runs.items()
        if run is not None and name != OURS
    ]


# Linear -------------------------------------------------------------------------------------------


def linear_cases(plan: Plan) -> Iterator[Case]:
    """A linear layer and the loss without the logits against both with them."""
    for shape in plan.linear_shapes:
        rows, features, classes = shape
        title = f"{rows}×{features} → {classes}"
        yield Case("linear", title, partial(_linear, plan, title, shape))
        yield Case("linear", f"{title} memory", partial(_linear_memory, plan, title, shape))


def _linear(plan: Plan, case: str, shape: tuple[int, int, int]) -> list[Row]:
    problem = make_linear_problem(shape)
    runs = {peer.name: peer.linear(problem) for peer in plan.peers}
    outcome = plan.contest(runs, settle=LINEAR_SETTLE)
    target = LINEAR_TARGET if shape in LINEAR_SHAPES else None
    return [
        timed_row(
            outcome, OURS, name, ("linear + loss", name), section="linear", case=case, target=target
        )
        for name, run in runs.items()
        if run is not None and name != OURS
    ]


def _linear_memory(plan: Plan, case: str, shape: tuple[int, int, int]) -> list[Row]:
    rows, features, classes = shape
    gradients = 4 * (rows * features + classes * features + classes)
    sizes = gradients, 4 * rows * classes
    met_by_ours = LINEAR_MEMORY_TARGET if shape in LINEAR_SHAPES else None
    return [
        _memory_row(
            plan,
            "linear",
            case,
            ("linear", name, shape),
            sizes,
            met_by_ours if name == OURS else None,
        )
        for name in _measured_for_memory(plan)
    ]


# Fusion -------------------------------------------------------------------------------------------


def fusion_cases(plan: Plan) -> Iterator[Case]:
    """Fusion with its search against the loss as it was written, and against the fused node."""
    for shape in plan.fusion_shapes:
        for spelling in SPELLINGS:
            title = f"{by(*shape)} {spelling}"
            yield Case("fusion", title, partial(_fusion, plan, title, shape, spelling))


def _fusion(plan: Plan, case: str, shape: tuple[int, int], spelling: str) -> list[Row]:
    outcome = plan.contest({**fusion_runs(make_problem(shape, "float32"), spelling)})
    targets = FUSION_TARGETS.get(shape, {})
    return [
        timed_row(outcome, *pair, pair, section="fusion", case=case, target=targets.get(pair))
        for pair in FUSION_PAIRS
    ]


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
    runs = {peer.name: peer.fused(problem) for peer in plan.peers if peer.name in (OURS, "torch")}
    runs[COPY] = partial(np.copy, problem.logits)
    outcome = plan.contest(runs)
    outcome.timings = {
        name: timing.scaled(1 / problem.logits.size) for name, timing in outcome.timings.items()
    }
    return [
        timed_row(
            outcome,
            OURS,
            name,
            ("fused", name),
            section="growth",
            case=case,
            unit="s/element",
            size=classes,
        )
        for name in runs
        if name != OURS
    ]


def _operations(plan: Plan) -> list[Row]:
    lengths = {f"{n} operations": n for n in plan.operations}
    runs = {name: plan.ours.chain(n, "tensors") for name, n in lengths.items()}
    outcome = interleave(
        {name: run for name, run in runs.items() if run is not None},
        plan.budget * len(runs),
        fewest=plan.fewest,
    )
    outcome.timings = {
        name: timing.scaled(1 / lengths[name]) for name, timing in outcome.timings.items()
    }
    first, *others = lengths
    return [
        timed_row(
            outcome,
            name,
            first,
            ("engine", first),
            section="growth",
            case=name,
            unit="s/operation",
            size=lengths[name],
            target=FLAT_TARGET,
        )
        for name in others
    ]


SECTIONS: dict[str, Callable[[Plan], Iterator[Case]]] = {
    "fused": fused_cases,
    "engine": engine_cases,
    "composite": composite_cases,
    "linear": linear_cases,
    "fusion": fusion_cases,
    "growth": growth_cases,
}


def cases_of(plan: Plan, sections: Sequence[str]) -> list[Case]:
    """The cases of the named sections, in order."""
    return [case for name in sections for case in SECTIONS[name](plan)]
