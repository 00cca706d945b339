"""A small, bounded pool of threads for NumPy loops, which release the interpreter's lock.

The calling thread always works too, so `threads=2` means one helper.  Tasks are handed out one by
one from a shared counter: which thread runs a task is left to chance, what the task computes is
not, so results cannot depend on the number of threads.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Integral

from tinygrad_sm.errors import InvalidTypeError, InvalidValueError

THREADS_VARIABLE = "TINYGRAD_SM_THREADS"
MAX_THREADS = 16

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None
_chosen: int | None = None


def set_threads(n: int | None) -> None:
    """Let large losses and operations use up to n threads, the calling one among them, at most 16.

    None goes back to what holds without a call: the environment variable TINYGRAD_SM_THREADS, or
    the usable cores.  Results are the same bits for any number.

    Raises:
        InvalidTypeError, InvalidValueError: n is neither None nor a positive integer.
    """
    global _chosen
    if n is None:
        _chosen = None
        return
    if isinstance(n, bool) or not isinstance(n, Integral):
        raise InvalidTypeError(f"n must be a positive integer or None; got {type(n).__name__}")
    if n < 1:
        raise InvalidValueError(f"n must be a positive integer or None; got {n}")
    _chosen = min(int(n), MAX_THREADS)


def default_threads() -> int:
    """Threads to use when a call names no number: `set_threads`, the variable, the usable cores.

    Raises InvalidValueError when the environment variable counts and is not a positive integer.
    """
    if _chosen is not None:
        return _chosen
    text = os.environ.get(THREADS_VARIABLE)
    if text is None:
        return min(_usable_cores(), MAX_THREADS)
    if not text.strip().isdecimal() or int(text) < 1:
        raise InvalidValueError(f"{THREADS_VARIABLE} must be a positive integer, not {text!r}")
    return min(int(text), MAX_THREADS)


def run(task: Callable[[int], None], count: int, threads: int) -> None:
    """Call task(0), ..., task(count - 1), each once, on up to `threads` threads; wait for all.

    The first exception of a task is raised here, after every started task has ended.
    """
    helpers = min(threads, count, MAX_THREADS) - 1
    if helpers < 1:
        for number in range(count):
            task(number)
        return
    numbers = itertools.count()  # next() is atomic in CPython: no lock needed
    tasks = [task]

    def work() -> None:
        while (number := next(numbers)) < count:
            tasks[0](number)

    futures = _submit(work, helpers)
    try:
        work()
    finally:
        # A helper that never started (the pool is busy elsewhere) has nothing left to do.
        started = [future for future in futures if not future.cancel()]
        errors = [future.exception() for future in started]
        tasks.clear()  # the pool may hold `work` for a while yet, but not the arrays of its tasks
    for error in errors:
        if error is not None:
            raise error


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # respects taskset and most containers
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _submit(work: Callable[[], None], copies: int) -> list[Future[None]]:
    """Start copies of `work` in the pool; none at the interpreter's exit, when it is closed."""
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(MAX_THREADS - 1, thread_name_prefix="tinygrad-sm")
        executor = _executor
    try:
        # NumPy's error state is part of the context.
        return [executor.submit(contextvars.copy_context().run, work) for _ in range(copies)]
    except RuntimeError:
        return []


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and a lock may have been held."""
    global _lock, _executor
    _lock = threading.Lock()
    _executor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
