"""A small, bounded pool of threads for NumPy loops, which release the interpreter's lock.

The calling thread always works too, so `threads=2` means one helper.  Tasks are handed out one by
one from a shared counter: which thread runs a task is left to chance, what the task computes is
not, so results cannot depend on the number of threads.

`run` never leaves a helper behind: whoever has taken a task is waited for, whatever is raised in
the meantime, and what no helper can be started for is done by the caller.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import re
import threading
from collections.abc import Callable
from functools import partial
from numbers import Integral
from queue import SimpleQueue

from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown

THREADS_VARIABLE = "TINYGRAD_SM_THREADS"
MAX_THREADS = 16

_lock = threading.Lock()
_calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
_helpers = 0  # threads that answer calls
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
        raise InvalidValueError(f"n must be a positive integer or None; got {shown(n)}")
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
    digits = re.fullmatch(r"\s*0*([1-9][0-9]*)\s*", text)
    if digits is None:
        raise InvalidValueError(f"{THREADS_VARIABLE} must be a positive integer, not {text[:40]!r}")
    return min(int(digits[1][:4]), MAX_THREADS)  # of thousands of digits, the first are too many


def run(task: Callable[[int], None], count: int, threads: int) -> None:
    """Call task(0), ..., task(count - 1), each once, on up to `threads` threads; wait for all.

    The first exception of a task is raised here, after every started task has ended; no other
    task is started then.
    """
    helpers = min(threads, count, MAX_THREADS) - 1
    if helpers < 1:
        for number in range(count):
            task(number)
        return
    job = _Job(task, count)
    try:
        _call(job.help, helpers)
        job.work()
    except BaseException:
        job.stop()
        raise
    finally:
        job.close()
    for error in job.errors:
        raise error


class _Job:
    """The tasks of one `run`, handed out one by one; and the helpers that are at work on them."""

    def __init__(self, task: Callable[[int], None], count: int) -> None:
        self.errors: list[BaseException] = []
        self._task = task
        self._count = count
        self._numbers = itertools.count()  # next() is atomic in CPython: no lock needed
        self._at_work: list[threading.Lock] = []  # one for each helper, held until it has ended

    def work(self) -> None:
        """Take tasks until none is left."""
        while (number := next(self._numbers)) < self._count:
            self._task(number)

    def help(self) -> None:
        """Work, in another thread; what a task raises is left for the caller."""
        lock = threading.Lock()
        with lock:
            self._at_work.append(lock)  # first: whoever takes a task now is seen by `close`
            try:
                self.work()
            except BaseException as error:
                self.errors.append(error)
                self.stop()

    def stop(self) -> None:
        """Start no other task, not even one that was just taken: something was raised."""
        self._count = 0

    def close(self) -> None:
        """Wait for all helpers, however often that is interrupted; no task is left to take."""
        interrupt: BaseException | None = None
        while self._at_work:
            try:
                with self._at_work[-1]:
                    pass
                self._at_work.pop()
            except BaseException as error:
                interrupt = error
        del self._task  # the pool may hold the job for a while yet, but not the arrays of its tasks
        if interrupt is not None:
            raise interrupt


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # respects taskset and most containers
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _call(work: Callable[[], None], copies: int) -> None:
    """Let up to `copies` helpers run `work`, in the caller's context (NumPy's error state)."""
    global _helpers
    with _lock:
        while _helpers < copies:
            try:
                threading.Thread(target=_answer, args=(_calls,), daemon=True).start()
            except (RuntimeError, MemoryError):  # a limit on threads, or the interpreter ends
                break
            _helpers += 1
        copies = min(copies, _helpers)
    for _ in range(copies):
        _calls.put(partial(contextvars.copy_context().run, work))


def _answer(calls: SimpleQueue[Callable[[], None]]) -> None:
    """A helper's life; it ends with the interpreter."""
    while True:
        calls.get()()


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and a lock may have been held."""
    global _lock, _calls, _helpers
    _lock, _calls, _helpers = threading.Lock(), SimpleQueue(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
