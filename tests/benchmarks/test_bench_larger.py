"""Benchmarks of logits larger than a machine: how they cut, what they model, what they refuse."""

import numpy as np
import pytest

from benchmarks.larger import MIB, Case, Measured, chunks_of, modelled
from benchmarks.parallel import WORKERS, logits, rows_of


@pytest.mark.parametrize("size", [1, 16, 64, 5000])
@pytest.mark.parametrize("shape", [(10_000, 50_000), (500_000, 1000), (2, 10)])
def test_chunks_are_as_large_as_asked_or_all_there_is(shape, size):
    for cut in ("rows", "classes", "both"):
        rows, classes = chunks_of(shape, cut, size)
        assert 1 <= rows <= shape[0]
        assert 1 <= classes <= shape[1]
        assert 4 * rows * classes <= max(size * MIB, 4 * rows, 4 * classes)
    assert chunks_of(shape, "rows", size)[1] == shape[1]
    assert chunks_of(shape, "classes", size)[0] == shape[0]


def test_the_model_finds_what_the_times_were_made_of():
    found = []
    for tasks, rows, workers in [(1000, 5000, 2), (100, 5000, 2), (20, 9000, 1)]:
        case = Case((rows, 1000), (100, 1000), workers)
        seconds = (tasks * 0.004 + case.size / MIB * 0.002) / workers
        found.append((case, Measured(seconds, seconds, 1.0, 1.0, tasks, 0)))
    said, table = modelled(found)
    assert "tasks × 4.0 ms + MiB × 2.0 ms" in said
    assert table.row_count == 4


def test_each_process_has_its_own_part_in_every_round():
    one, other, later = logits(1, 0, 4, 6), logits(1, 1, 4, 6), logits(2, 0, 4, 6)
    assert one.shape == (4, 6 // WORKERS)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, later)
    assert np.array_equal(rows_of(one, 1, 2), one[1:3])
