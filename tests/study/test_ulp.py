"""ulp_distance counts the floats between two numbers: against np.nextafter and np.spacing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_sm.study.ulp import ulp_distance

DTYPES = [np.float16, np.float32, np.float64]


def distance(a, b, dtype=np.float64):
    return ulp_distance(np.asarray(a, dtype), np.asarray(b, dtype)).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_a_walk_of_n_steps_is_n_apart(dtype, data):
    start = data.draw(hnp.arrays(dtype, (), elements={"allow_nan": False, "allow_infinity": False}))
    n = data.draw(st.integers(0, 30))
    end = start.copy()
    with np.errstate(all="ignore"):  # the last step may reach infinity
        for _ in range(n):
            end = np.nextafter(end, dtype(np.inf))
    if np.isfinite(end):
        assert distance(start, end, dtype) == distance(end, start, dtype) == n


def test_known_distances():
    assert distance([1.0, -1.0, 0.0, 0.0], [1 + 2**-52, -1 - 2**-52, 5e-324, -0.0]) == [1, 1, 1, 0]
    assert distance(-5e-324, 5e-324) == 2
    assert distance(1.0, 2.0) == 2**52
    assert distance(0.0, 1.0, np.float32) == 127 * 2**23
    assert distance(1.0, -1.0, np.float16) == 2 * 15 * 2**10
    assert distance(np.finfo(float).max, np.inf) == 1


def test_far_apart_does_not_wrap_around():
    largest = np.finfo(float).max
    assert distance(largest, -largest) == pytest.approx(2 * (2**63 - 2**52), rel=1e-12)
    assert distance(np.inf, -np.inf) > 0


def test_nan():
    assert distance([np.nan, np.nan, 1.0], [np.nan, 1.0, np.nan]) == [0, np.inf, np.inf]


def test_shapes_and_strides():
    a = np.arange(12.0).reshape(3, 4)
    b = np.nextafter(a, np.inf)
    assert ulp_distance(a.T[::2], b.T[::2]).shape == (2, 3)
    assert (ulp_distance(a.T[::2], b.T[::2]) == 1).all()
    assert ulp_distance(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
