"""What one operation has freed serves the next, and is not fetched from the system again."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import numpy as np
import tinygrad_sm as tg

rng = np.random.default_rng(0)
a = tg.Tensor(rng.standard_normal((1024, 100)), dtype=np.float32)
target = rng.integers(0, 100, 1024)

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        tg.composite_cross_entropy(a, target).backward()
        a.zero_grad()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(5)
print(faults(20) / 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_a_step_fetches_hardly_a_page_from_the_system():
    """In a process of its own, since any program that once freed a large array has no such trouble.

    The arrays of a step are ten of 400 kB, a thousand pages of 4 kB.
    """
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50
