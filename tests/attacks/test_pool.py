"""Attacks on the pool of threads: limits, interrupts, forks. Nobody writes after `run` is over."""

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinygrad_sm.engine.threads import pool
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.kernels import in_numpy
from tinygrad_sm.loss.kernels.rows import softmax_cross_entropy

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def new_pool():
    pool._forget_after_fork()
    yield
    pool._forget_after_fork()


class Recorded:
    """Tasks that take a moment, and who is at work on them."""

    def __init__(self):
        self.begun, self.ended = [], []

    def __call__(self, number):
        self.begun.append(number)
        time.sleep(0.002)
        self.ended.append(number)


def fail_from(monkeypatch, k, error):
    """From the k-th on, counted from 0, no thread can be started."""
    started = []

    def start(thread):
        if len(started) >= k:
            raise error
        started.append(thread)
        return real(thread)

    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    return started


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
@pytest.mark.parametrize("k", range(5))
def test_helpers_that_cannot_be_started(monkeypatch, k, error):
    started = fail_from(monkeypatch, k, error)
    for _ in range(3):
        tasks = Recorded()
        pool.run(tasks, 40, 5)
        assert sorted(tasks.ended) == list(range(40))
    assert len(started) == min(k, 4)
    if k == 0:
        assert pool._calls.empty()  # nobody would ever take a call out


@pytest.mark.parametrize("k", range(3))
def test_a_gradient_with_helpers_that_cannot_be_started(monkeypatch, k):
    a, index = np.random.default_rng(0).normal(size=(300, 1500)), np.arange(300)
    expected = softmax_cross_entropy(a, index=index, kernel=in_numpy.fill_in, threads=1)
    fail_from(monkeypatch, k, RuntimeError("can't start new thread"))
    found = softmax_cross_entropy(a, index=index, kernel=in_numpy.fill_in, threads=4)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


LIMITED = """
import functools, resource, sys, threading
import numpy as np
from tinygrad_sm.loss.kernels import in_numpy, rows
softmax_cross_entropy = functools.partial(rows.softmax_cross_entropy, kernel=in_numpy.fill_in)
a, index = np.random.default_rng(0).normal(size=(300, 1500)), np.arange(300)
expected = softmax_cross_entropy(a, index=index, threads=1)
into = np.full_like(a, np.nan)
threading.stack_size(2**28)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + int(sys.argv[1]) * (2**28 + 2**20) + 2**26
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
softmax_cross_entropy(a, index=index, threads=5, out=into)
sys.exit(not np.array_equal(into, expected[1]) or threading.active_count() > 1 + int(sys.argv[1]))
"""


def limited(threads):
    command = [sys.executable, "-c", LIMITED, str(threads)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, timeout=60, check=False).returncode


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_for_only_one_helper():
    assert limited(1) == 0


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("time", range(10))
@pytest.mark.parametrize("threads", range(4))
def test_memory_for_only_some_helpers(threads, time):
    assert limited(threads) == 0


# Interrupts ---------------------------------------------------------------------------------------


def test_an_interrupt_while_the_caller_works():
    tasks, home = Recorded(), threading.get_ident()

    def task(number):
        if threading.get_ident() == home and len(tasks.begun) > 3:
            raise KeyboardInterrupt
        tasks(number)

    with pytest.raises(KeyboardInterrupt):
        pool.run(task, 1000, 4)
    begun = len(tasks.begun)
    assert begun == len(tasks.ended) < 1000
    time.sleep(0.02)
    assert len(tasks.begun) == begun


@pytest.mark.parametrize("times", [1, 2, 7])
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_interrupts_while_the_caller_waits(monkeypatch, times, error):
    """By a stand-in for the locks that the caller waits at; a handler may raise anything."""
    home, left = threading.get_ident(), [None] * times

    class Lock:
        def __init__(self):
            self.lock = threading.Lock()

        def __enter__(self):
            if threading.get_ident() == home and left:
                left.pop()
                raise error
            self.lock.acquire()

        def __exit__(self, *_):
            self.lock.release()

    monkeypatch.setattr(pool, "threading", SimpleNamespace(Lock=Lock, Thread=threading.Thread))
    tasks, helping = Recorded(), threading.Event()

    def task(number):
        if threading.get_ident() == home:
            helping.wait(10)
        else:
            helping.set()
            time.sleep(0.01)
        tasks(number)

    with pytest.raises(error):
        pool.run(task, 4, 4)
    assert not left
    assert sorted(tasks.begun) == sorted(tasks.ended)
    begun = len(tasks.begun)
    time.sleep(0.02)
    assert len(tasks.begun) == begun


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("times", [1, 2, 5])
def test_ctrl_c_while_the_caller_waits(times):
    """Signals to the main thread, from the helper that it waits for."""
    main, helping, into = threading.main_thread().ident, threading.Event(), np.zeros(2)

    def task(number):
        if threading.get_ident() == main:
            helping.wait(10)
            return
        helping.set()
        for _ in range(times):
            time.sleep(0.01)
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.01)
        into[:] = 1

    with pytest.raises(KeyboardInterrupt):
        pool.run(task, 2, 2)
    assert (into == 1).all()
    into[:] = 2
    time.sleep(0.02)
    assert (into == 2).all()


def test_the_pool_works_after_an_interrupt():
    def interrupted(number):
        raise KeyboardInterrupt

    for _ in range(20):
        with pytest.raises(KeyboardInterrupt):
            pool.run(interrupted, 9, 3)
    tasks = Recorded()
    pool.run(tasks, 30, 3)
    assert sorted(tasks.ended) == list(range(30))


# Errors, and what is left -------------------------------------------------------------------------


def test_after_an_error_no_task_is_begun():
    begun = []

    def task(number):
        begun.append(number)
        time.sleep(0.001)
        if number == 5:
            raise KeyError(number)

    with pytest.raises(KeyError):
        pool.run(task, 1000, 4)
    assert len(begun) < 100


def test_a_helper_that_comes_too_late_does_nothing():
    done = []
    job = pool._Job(done.append, 3)
    job.work()
    job.close()
    job.help()
    assert done == [0, 1, 2]


def test_what_a_task_holds_is_let_go():
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    pool.run(lambda number, held=held: None, 50, 4)
    del held
    assert gone() is None


def test_runs_within_runs():
    done = []
    pool.run(lambda i: pool.run(lambda j: done.append((i, j)), 6, 4), 6, 4)
    assert sorted(done) == [(i, j) for i in range(6) for j in range(6)]


def test_many_callers_at_once():
    found = [Recorded() for _ in range(8)]
    callers = [threading.Thread(target=pool.run, args=(tasks, 20, 4)) for tasks in found]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(sorted(tasks.ended) == list(range(20)) for tasks in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX's")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_while_the_pool_is_at_work():
    stop = threading.Event()
    other = threading.Thread(
        target=lambda: [pool.run(Recorded(), 10, 4) for _ in iter(stop.is_set, True)]
    )
    other.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                tasks = Recorded()
                pool.run(tasks, 10, 4)
                os._exit(sorted(tasks.ended) != list(range(10)))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        other.join()


def test_work_at_the_interpreters_end():
    """A thread that outlives the main one, and a function that runs at exit."""
    program = (
        "import atexit, threading, time, os\n"
        "from tinygrad_sm.engine.threads import pool\n"
        "def work():\n"
        "    time.sleep(.05); done = []; pool.run(done.append, 50, 4)\n"
        "    if sorted(done) != list(range(50)): os._exit(3)\n"
        "atexit.register(work)\n"
        "threading.Thread(target=work).start()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, timeout=60, check=False,
        capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


# The number of threads ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["9" * 5000, "0" * 5000 + "16", "1" + "0" * 400, " 0016 "])
def test_numbers_of_threads_that_are_long(monkeypatch, text):
    monkeypatch.setenv(pool.THREADS_VARIABLE, text)
    assert pool.default_threads() == pool.MAX_THREADS


@pytest.mark.parametrize("text", ["0" * 5000, "-" + "9" * 5000, "x" * 5000, "1e3", "²", "١٦", " "])
def test_numbers_of_threads_that_are_none(monkeypatch, text):
    monkeypatch.setenv(pool.THREADS_VARIABLE, text)
    with pytest.raises(InvalidValueError, match="must be a positive integer, not") as caught:
        pool.default_threads()
    assert len(str(caught.value)) < 200


class SlowHand:
    """Numbers from 0 on; until a helper has its first, the caller has found none left."""

    def __init__(self, count):
        self.count, self.numbers = count, iter(range(1000))
        self.helper_has_one, self.caller_has_none = threading.Event(), threading.Event()

    def __next__(self):
        caller = threading.current_thread() is threading.main_thread()
        if caller:
            self.helper_has_one.wait(5)
        number = next(self.numbers)
        if caller and number >= self.count:
            self.caller_has_none.set()
        elif not caller and number < self.count:
            self.helper_has_one.set()
            self.caller_has_none.wait(5)
            time.sleep(0.05)  # the caller goes on to wait for all
        return number


def test_a_task_that_is_taken_just_before_the_last_one_ends_is_done(monkeypatch):
    """It had been taken for one that comes too late, and left undone."""
    monkeypatch.setattr(pool, "itertools", SimpleNamespace(count=lambda: SlowHand(5)))
    done = []
    pool.run(done.append, 5, 2)
    assert sorted(done) == [0, 1, 2, 3, 4]
