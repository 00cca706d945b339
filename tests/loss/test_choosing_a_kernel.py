"""Which kernel computes the loss: said by a call or the environment; what happens without Numba."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.loss.kernels import choosing, in_numpy

needs_numba = pytest.mark.skipif(
    not choosing._is_usable(), reason="the compiled kernel needs Numba, the extra fast"
)


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    environment(monkeypatch, "")
    choosing._is_installed.cache_clear()
    yield
    tg.set_kernel(None)
    choosing._from_environment.cache_clear()
    choosing._is_installed.cache_clear()


def environment(monkeypatch, name):
    """As in a process that was started so."""
    monkeypatch.setenv(choosing.KERNEL_VARIABLE, name)
    choosing._from_environment.cache_clear()


def run(program, **variables):
    """What a new process prints."""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_numpy_when_asked(monkeypatch):
    tg.set_kernel("numpy")
    assert tg.kernel() == "numpy"
    assert choosing.kernel_for(10**9, np.dtype(np.float32)) is in_numpy.fill_in
    tg.warm_up()  # nothing to do
    tg.set_kernel(None)
    environment(monkeypatch, "numpy")
    assert tg.kernel() == "numpy"
    assert choosing.kernel_for(10**9, np.dtype(np.float32)) is in_numpy.fill_in


@needs_numba
def test_compiled_when_asked(monkeypatch):
    tg.set_kernel("compiled")
    assert tg.kernel() == "compiled"
    assert choosing.kernel_for(1, np.dtype(np.float16)) is not in_numpy.fill_in
    tg.set_kernel(None)
    environment(monkeypatch, "compiled")
    assert choosing.kernel_for(1, np.dtype(np.float64)) is not in_numpy.fill_in
    tg.set_kernel("numpy")  # a call counts more
    assert tg.kernel() == "numpy"


@needs_numba
def test_unasked_the_size_decides():
    assert tg.kernel() == "compiled"
    assert choosing.kernel_for(choosing.WORTH, np.dtype(np.float32)) is not in_numpy.fill_in
    assert choosing.kernel_for(choosing.WORTH - 1, np.dtype(np.float32)) is in_numpy.fill_in


@pytest.mark.parametrize("name", ["torch", "", "NumPy", 3])
def test_another_name(name):
    with pytest.raises(ValueError, match=r"^name must be 'numpy' or 'compiled'; got"):
        tg.set_kernel(name)


def test_another_name_in_the_environment(monkeypatch):
    environment(monkeypatch, "fast")
    message = "^the environment variable TINYGRAD_SM_KERNEL must be 'numpy' or 'compiled'; got"
    with pytest.raises(ValueError, match=message):
        tg.cross_entropy(np.zeros((1, 3)), [0])
    environment(monkeypatch, "")
    assert tg.kernel() in ("numpy", "compiled")


def test_asked_for_without_numba(monkeypatch):
    searches = []
    monkeypatch.setattr(choosing, "find_spec", searches.append)
    monkeypatch.setattr(choosing, "_ready", {})
    assert tg.kernel() == "numpy"
    assert choosing.kernel_for(10**9, np.dtype(np.float32)) is in_numpy.fill_in
    assert searches == ["numba"]  # once, not at every loss
    message = r"name is 'compiled': that needs Numba: python -m pip install 'tinygrad_sm\[fast\]'"
    with pytest.raises(tg.TinygradError, match=message):
        tg.set_kernel("compiled")
    environment(monkeypatch, "compiled")
    with pytest.raises(tg.TinygradError, match="TINYGRAD_SM_KERNEL is 'compiled': that needs"):
        tg.cross_entropy(np.zeros((1, 3)), [0])


def test_numba_that_cannot_be_imported(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs another NumPy')")
    found = run(
        """
        import warnings, numpy as np, tinygrad_sm as tg
        a, y = np.zeros((256, 128)), np.zeros(256, int)
        with warnings.catch_warnings(record=True, action="always") as told:
            print(tg.cross_entropy(a, y) == tg.cross_entropy(a, y))
        print(*[each.message for each in told])
        print(tg.kernel())
        try:
            tg.set_kernel("compiled")
        except tg.TinygradError as error:
            print(error)
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]),
    )
    reason = "Numba cannot compile it here: ImportError: Numba needs another NumPy"
    assert found.splitlines() == [
        "True",
        f"the loss is computed by NumPy's kernel, not by the compiled one: {reason}",
        "numpy",
        f"name is 'compiled': {reason}",
    ]


def test_numba_is_not_imported_before_it_is_needed():
    assert run("""
        import sys, numpy as np, tinygrad_sm as tg
        a = tg.Tensor([[2.0, 1.0, 0.1]])
        tg.cross_entropy(a, [0]).backward()
        tg.kernel()
        print("numba" in sys.modules)
    """) == "False\n"  # fmt: skip


LARGE = """
    import numpy as np, tinygrad_sm as tg, sys
    tg.set_kernel("compiled")
    a = np.random.default_rng(0).normal(size=(500, 100))
    loss, gradient = tg.cross_entropy_with_gradient(a, np.arange(500) % 100)
    print(loss, gradient.sum(axis=0)[:5].tolist(), gradient[7, 7])
"""


@needs_numba
def test_a_cache_that_is_empty_full_damaged_or_impossible(tmp_path):
    here = str(tmp_path)
    first = run(LARGE, NUMBA_CACHE_DIR=here)
    kept = [x for x in tmp_path.glob("**/*") if x.suffix in (".nbi", ".nbc")]
    assert kept
    assert run(LARGE, NUMBA_CACHE_DIR=here) == first
    for path in kept:
        path.write_bytes(b"damaged")
    assert run(LARGE, NUMBA_CACHE_DIR=here) == first
    assert run(LARGE, NUMBA_CACHE_DIR="/dev/null/none") == first


@needs_numba
def test_first_calls_at_the_same_time(tmp_path):
    given = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(LARGE)], env=given, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    found = {program.communicate(timeout=100)[0] for program in programs}
    assert len(found) == 1
    assert found != {b""}


@needs_numba
def test_forks_spawned_processes_and_threads():
    assert run("""
        import multiprocessing, threading, warnings
        import numpy as np, tinygrad_sm as tg
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
        tg.set_kernel("compiled")
        tg.set_threads(2)
        A = np.random.default_rng(0).normal(size=(2000, 100))
        def loss(_=None):
            return float(tg.cross_entropy(A, np.arange(2000) % 100))
        found = [None] * 4
        def work(i): found[i] = loss()
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        with multiprocessing.get_context("fork").Pool(2) as processes:
            found += processes.map(loss, range(4))
        print(len(set(found)))
    """) == "1\n"  # fmt: skip


@needs_numba
def test_a_line_while_it_compiles(monkeypatch):
    told = []

    class Told:
        def __enter__(self):
            told.append("begins")

        def __exit__(self, *_):
            told.append("ends")

    monkeypatch.setattr(choosing, "_ready", {})
    monkeypatch.setattr(choosing, "_announce", Told)
    tg.warm_up()
    assert told == ["begins", "ends"] * 2


@needs_numba
def test_the_command_tells_of_it_on_a_terminal(tmp_path):
    pty = pytest.importorskip("pty", reason="there are no terminals like these on this system")
    np.savetxt(tmp_path / "logits.csv", np.zeros((400, 100)), delimiter=",")
    arguments = ["compare", "--logits", "logits.csv", "--target", ",".join(["0", "1"] * 200)]
    command = [sys.executable, "-m", "tinygrad_sm", *arguments]
    master, slave = pty.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=slave,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "TERM": "xterm"},
    ) as program:  # fmt: skip
        os.close(slave)
        told = b""
        while b"being compiled" not in told:
            told += os.read(master, 1000)
        program.kill()
    os.close(master)
