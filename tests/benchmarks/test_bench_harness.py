"""The harness with tiny sizes: what it reports, never how long anything takes."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import cases, report
from benchmarks.fusion import SPELLINGS, fusion_runs
from benchmarks.machine import Others, describe, in_words
from benchmarks.memory import bytes_per_operation, peak_in_fresh_process
from benchmarks.peers import OPERANDS, PEERS, Ours, Peer, contestants, kernels
from benchmarks.picture import draw
from benchmarks.problems import KINDS, LinearProblem, make_linear_problem, make_problem
from benchmarks.results import Row, timed_row
from benchmarks.timing import WARM_UP, Ratio, Timing, interleave

SHAPE = (6, 4)


@pytest.fixture(scope="module")
def ours():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGRAD_SM_THREADS", "1")
        yield Ours(1)


@pytest.fixture(scope="module")
def plan(ours):
    return cases.Plan(
        [ours, Sleepy(1)],
        threads=2,
        budget=0.0,
        fewest=2,
        shapes=(SHAPE,),
        float64_shapes=(SHAPE,),
        option_shapes=(SHAPE,),
        linear_shapes=((6, 2, 4),),
        fusion_shapes=(SHAPE,),
        memory_peers=(),
        growth_elements=100,
        chain_operations=4,
        operations=(4, 8),
    )


class Sleepy(Ours):
    """A peer that is always there, since it is this project once more."""

    name = "torch"


class Idle(Peer):
    """A peer that can do nothing."""

    name = "idle"
    package = "no_such_package"


def measured(plan, *sections):
    return [row for case in cases.cases_of(plan, sections) for row in case.measure()]


@pytest.fixture(scope="module")
def rows(plan):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "SHARED", 0)  # threads are compared at this small shape, too
        return measured(plan, *cases.SECTIONS)


# Timing -------------------------------------------------------------------------------------------


def test_contestants_take_turns_and_the_order_rotates():
    calls = []

    def contestant(name):
        def run():
            calls.append(name)
            time.sleep(WARM_UP)  # so that one call warms up and one is timed

        return run

    outcome = interleave({n: contestant(n) for n in "abc"}, 0.0, settle=0.0, fewest=3)
    assert [len(outcome.timings[n].seconds) for n in "abc"] == [3, 3, 3]
    assert calls[-18:] == [name for name in "abcbcacab" for _ in range(2)]


def test_a_peer_that_fails_or_is_too_slow_is_left_out_and_named():
    def fail():
        raise RecursionError

    contestants = {"ours": lambda: None, "slow": lambda: None, "broken": fail}
    outcome = interleave(contestants, 0.0, essential=("ours",), slow=0.0, settle=0.0)
    assert set(outcome.timings) == {"ours"}
    assert outcome.dropped["broken"] == "failed (RecursionError)"
    assert outcome.dropped["slow"].startswith("too slow")


def test_a_failure_of_the_essential_contestant_is_an_error():
    with pytest.raises(ZeroDivisionError):
        interleave({"ours": lambda: 1 / 0}, 0.0, essential=("ours",))


def test_what_comes_before_a_contestant_comes_before_each_of_its_samples():
    chosen = []

    def contestant(name):
        return lambda: chosen[-1] == name or pytest.fail(f"{name} runs as {chosen[-1]}")

    names = ("a", "b")
    before = {name: lambda name=name: chosen.append(name) for name in names}
    interleave({n: contestant(n) for n in names}, 0.0, before=before, essential=names, settle=0.0)
    assert set(chosen) == set(names)


def test_a_ratio_is_that_of_the_medians_over_the_rounds_that_both_took_part_in():
    outcome = interleave({}, 0.0)
    outcome.timings = {"a": Timing((1.0, 2.0, 3.0, 100.0)), "b": Timing((2.0, 4.0, 6.0))}
    row = timed_row(outcome, "a", "b", section="s", case="c", target=0.5)
    assert row.ratio == Ratio(0.5, 0.5, 0.5)
    assert row.verdict == "met"


# Rows ---------------------------------------------------------------------------------------------


def test_every_section_has_rows_with_numbers(rows):
    assert {row.section for row in rows} == set(cases.SECTIONS)
    assert all(row.ratio is not None and math.isfinite(row.ratio.median) for row in rows)
    assert {row.case.split()[1] for row in rows if row.section == "fused"} >= set(KINDS[1:])


def test_the_targets_are_those_of_the_named_shapes_only(plan):
    named = replace(plan, shapes=((1, 10),))
    some = [row for row in measured(named, "fused") if row.case == "1×10 float32"]
    targets = {(row.subject, row.against): row.target for row in some}
    assert targets == {("fused, numpy", "torch"): 0.9}


def test_times_have_a_limit_and_amounts_have_none(rows):
    timed = [row for row in rows if row.unit.startswith("s") and row.case != "operations"]
    assert all(row.limit > 0 for row in timed)
    assert all(row.limit is None for row in rows if row.unit.startswith("bytes"))


def test_each_kernel_has_rows_of_its_own_and_runs_in_them(plan, ours, monkeypatch):
    pytest.importorskip("numba", reason="the extra fast brings the compiled kernel")
    monkeypatch.setattr(cases, "SHARED", 0)
    ran = set()
    loss = ours.tg.cross_entropy
    monkeypatch.setattr(
        ours.tg, "cross_entropy", lambda *a, **o: ran.add(ours.tg.kernel()) or loss(*a, **o)
    )
    both, reason = kernels(ours)
    assert (both, reason) == (("numpy", "compiled"), "")
    found = measured(replace(plan, kernels=both), "fused", "threads")
    assert ran == set(both)
    subjects = {row.subject.split(" on ")[0] for row in found}
    assert subjects == {"fused, numpy", "fused, compiled", "numpy", "compiled", "torch"}


def test_a_kernel_that_does_not_work_is_left_out_with_its_reason(ours, monkeypatch):
    def absent(name):
        if name == "compiled":
            raise ours.tg.TinygradError("that needs Numba")

    monkeypatch.setattr(ours.tg, "set_kernel", absent)
    assert kernels(ours) == (("numpy",), "that needs Numba")


@pytest.mark.parametrize(
    ("ratio", "target", "verdict"),
    [
        (Ratio(0.5, 0.4, 0.6), 0.6, "met"),
        (Ratio(0.7, 0.4, 0.8), 0.6, "missed"),
        (Ratio(0.7, 0.4, 0.8), None, "no target"),
        (None, 0.6, "not measured"),
    ],
)
def test_the_verdict_is_in_words(ratio, target, verdict):
    row = Row("fused", "1×10", "fused", "torch", ratio=ratio, target=target)
    assert row.verdict == verdict
    assert verdict in report.cells(row)[-1]


def test_times_on_a_busy_machine_are_marked():
    row = Row("fused", "1×10", "fused", "torch", ratio=Ratio(1, 1, 1), others=0.5)
    assert report.cells(row)[-1] == "no target (busy)"
    assert "mean little" in report.summary([replace(row, target=1.0)])
    assert not replace(row, unit="bytes").disturbed


def test_memory_that_cannot_be_measured_is_said(plan, monkeypatch):
    monkeypatch.setattr(cases, "peak_in_fresh_process", lambda *_: None)
    rows = measured(replace(plan, memory_peers=(Ours.name,)), "linear")
    unknown = [row for row in rows if row.unit == "bytes"]
    assert [row.note for row in unknown] == ["cannot be measured on this system"]


# Peers --------------------------------------------------------------------------------------------


def test_absent_peers_are_skipped(monkeypatch):
    monkeypatch.setattr("benchmarks.peers.PEERS", (Idle,))
    assert [peer.name for peer in contestants(1)] == [Ours.name]


@pytest.mark.parametrize("kind", [Ours, *PEERS], ids=lambda kind: kind.name)
def test_leaves_are_made_before_the_time_and_hold_one_gradient(kind, monkeypatch):
    if not kind.installed():
        pytest.skip(f"{kind.name} is not installed")
    peer = kind(1)
    problem, linear = make_problem(SHAPE, "float64"), make_linear_problem((6, 2, 4), "float64")
    made = [peer.fused(problem), peer.composite(problem), peer.linear(linear)]
    monkeypatch.setattr(peer, "_leaf", lambda array: pytest.fail("a leaf is made"), raising=False)
    for run in filter(None, made):
        first, second = ([np.array(np.asarray(each)) for each in run()] for _ in range(2))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_peer_without_a_function_has_no_row(plan):
    rows = measured(replace(plan, peers=[plan.ours, Idle(None)]), "composite")
    assert "idle" not in {row.against for row in rows}


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.name)
def test_peers_compute_the_same_as_we_do(kind, ours):
    if not kind.installed():
        pytest.skip(f"{kind.name} is not installed")
    peer = kind(1)
    losses = [make_problem(SHAPE, "float64", each) for each in KINDS]
    pairs = [(each.fused(p), p) for p in losses for each in (ours, peer)]
    pairs += [(each.composite(losses[0]), losses[0]) for each in (ours, peer)]
    pairs += [(each.chain(6, o), o) for o in OPERANDS for each in (ours, peer)]
    linear = make_linear_problem((6, 2, 4), "float64")
    pairs += [(each.linear(linear), linear) for each in (ours, peer)]
    for (mine, what), (theirs, _) in zip(pairs[::2], pairs[1::2], strict=True):
        if theirs is None:
            continue
        found = [run() if isinstance(what, LinearProblem) else [run()] for run in (mine, theirs)]
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(np.asarray(b), a, rtol=1e-9, atol=1e-15)


# Fusion -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_way_to_fuse_finds_the_same_gradient(spelling):
    runs = fusion_runs(make_problem(SHAPE, "float64"), spelling)
    assert {name for pair in cases.FUSION_PAIRS for name in pair} == set(runs)
    expected = runs["composite"]()
    for name in ("fused node", "fusing()", "fuse(L)"):
        np.testing.assert_allclose(runs[name](), expected, rtol=1e-9, atol=1e-15)
    for search in ("first search", "search, seen before"):
        assert [found.made.op for found in runs[search]().found] == ["@loss"]


def test_fusion_has_its_targets_at_its_own_shapes_only(plan):
    rows = measured(replace(plan, fusion_shapes=((128, 10),)), "fusion")
    assert len(rows) == len(SPELLINGS) * len(cases.FUSION_PAIRS)
    aimed = {(row.subject, row.against, row.target) for row in rows if row.target is not None}
    assert aimed == {("fusing()", "composite", 1.5)}


# Memory -------------------------------------------------------------------------------------------


def test_the_peak_of_a_fresh_process_holds_at_least_the_gradient():
    shape = (256, 8192)
    peak = peak_in_fresh_process("loss", Ours.name, "float32", shape, 1)
    assert peak is None or 4 * 256 * 8192 * 0.9 < peak < 4 * 256 * 8192 * 10


def test_bytes_per_operation_leave_the_arrays_out():
    def arrays_and_a_tuple(operations):
        return [(np.full(3, 1.5), i) for i in range(1000, 1000 + operations)]

    assert 56 <= bytes_per_operation(arrays_and_a_tuple, 500) <= 120


# Report -------------------------------------------------------------------------------------------


@pytest.fixture
def machine():
    return describe(1, {"tinygrad_sm": ("1.0", 1), "torch": ("2.0", 3), "mygrad": ("2.3", None)})


def test_unequal_threads_and_slowing_variables_are_noted(machine, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    text = "\n".join(in_words(describe(1, {"torch": ("2.0", 3)})))
    assert "Vector instructions: " in text
    assert "torch uses 3 threads, not 1" in text
    assert "OPENBLAS_CORETYPE=Prescott" in text
    assert "mygrad as NumPy" in "\n".join(in_words(machine))


def test_the_json_is_valid_and_complete(rows, machine):
    parsed = json.loads(report.as_json(rows, machine, {"quick": True}))
    assert len(parsed["rows"]) == len(rows)
    assert set(parsed) == {"machine", "options", "summary", "rows"}
    assert {"ratio", "target", "verdict", "others"} <= set(parsed["rows"][0])


def test_the_markdown_has_a_line_for_each_row(rows, machine):
    lines = report.as_markdown(rows, machine).decode().splitlines()
    assert sum(line.startswith("|") for line in lines) == len(rows) + 2 * len(cases.SECTIONS)


def test_the_pictures_are_pictures(rows, machine):
    files = draw([row for row in rows if row.section in ("engine", "growth")], machine)
    assert set(files) == {"ratios.png", "ratios.svg", "growth.png", "growth.svg"}
    assert all(files[name].startswith(b"\x89PNG") for name in files if name.endswith("png"))
    assert draw([], machine) == {}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.41e-6, "s/operation", "3.41 µs/op"),
        (0.0123, "s", "12.3 ms"),
        (2.0, "s", "2 s"),
        (5 * 2**20, "bytes", "5 MiB"),
        (212.0, "bytes/operation", "212 B/op"),
        (None, "s", ""),
    ],
)
def test_quantities_have_the_unit_that_suits_them(value, unit, text):
    assert report.quantity(value, unit) == text


def test_the_share_of_others_is_a_share():
    share = Others().share()
    assert share is None or 0 <= share <= 1
