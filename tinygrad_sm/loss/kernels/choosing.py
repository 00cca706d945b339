"""Which kernel computes the losses: NumPy's, or the compiled one, which the extra `fast` brings.

Unasked the compiled one takes the tasks of many logits where Numba is installed: for few of them it
is not worth being imported. That depends on the size alone, so that results never depend on what
was computed before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from tinygrad_sm.errors import InvalidValueError, TinygradError, shown
from tinygrad_sm.loss.kernels import in_numpy
from tinygrad_sm.loss.kernels.rows import FLOAT32, FLOAT64, Kernel, kernel_dtype
from tinygrad_sm.loss.options import warn

KERNEL_VARIABLE = "TINYGRAD_SM_KERNEL"
NAMES = ("numpy", "compiled")
WORTH = 1 << 15  # logits of a call from which on it is worth to import the compiler unasked

_chosen: str | None = None
_ready: dict[np.dtype[Any], Kernel] = {}  # by dtype: the compiled one, where it has been asked for
_broken: str | None = None  # why it cannot run
_lock = threading.RLock()
_announce: Callable[[], AbstractContextManager[object]] = nullcontext


def set_kernel(name: str | None) -> None:
    """Choose what computes the losses: "numpy" or "compiled".

    None goes back to what holds without a call: the environment variable TINYGRAD_SM_KERNEL, or the
    compiled one for calls of 32768 logits or more where the extra `fast` is installed. Both keep
    the same promises, within which their last bits may differ.

    Raises:
        InvalidValueError: another name.
        TinygradError: "compiled" without the extra `fast`.
    """
    global _chosen
    if name is not None:
        _checked(name, "name")
    _chosen = name


def kernel() -> str:
    """The name of the kernel that runs: "numpy" or "compiled" (unasked, for calls of many logits).

    Raises InvalidValueError, TinygradError as `set_kernel`, about the environment variable.
    """
    asked = _asked()
    return asked if asked else "compiled" if _is_usable() else "numpy"


def warm_up() -> None:
    """Compile the kernel now, or take it from its cache: it is then ready for the first loss.

    Nothing happens where NumPy's kernel runs. Compiling takes some seconds, once; the machine code
    is kept in Numba's cache (see the environment variable NUMBA_CACHE_DIR), where it can.
    """
    if kernel() == "compiled":
        for dtype in (FLOAT32, FLOAT64):
            _compiled(dtype)


def kernel_for(size: int, dtype: Any) -> Kernel:
    """The kernel for a call of so many logits of a dtype."""
    asked = _asked()
    if asked == "numpy" or (asked is None and (size < WORTH or not _is_usable())):
        return in_numpy.fill_in
    computed = kernel_dtype(dtype)
    return _ready.get(computed) or _compiled(computed)


def announce_with(announce: Callable[[], AbstractContextManager[object]]) -> None:
    """Enter a context whenever the kernel is being compiled, as to show a line while it lasts."""
    global _announce
    _announce = announce


def _asked() -> str | None:
    """What was asked for, by a call or the environment."""
    if _chosen is not None:
        return _chosen
    return _from_environment()


@cache
def _from_environment() -> str | None:
    name = os.environ.get(KERNEL_VARIABLE)
    return _checked(name, f"the environment variable {KERNEL_VARIABLE}") if name else None


def _checked(name: str, where: str) -> str:
    if name not in NAMES:
        raise InvalidValueError(f"{where} must be 'numpy' or 'compiled'; got {shown(name)}")
    if name == "compiled" and not _is_usable():
        reason = _broken or "that needs Numba: python -m pip install 'tinygrad_sm[fast]'"
        raise TinygradError(f"{where} is 'compiled': {reason}")
    return name


def _is_usable() -> bool:
    return bool(_ready) or (_broken is None and _is_installed())


@cache
def _is_installed() -> bool:
    """Whether Numba is there: looked for once, since that takes as long as a small loss."""
    return find_spec("numba") is not None


def _compiled(dtype: np.dtype[Any]) -> Kernel:
    """Compile the kernel for a dtype; NumPy's, with a warning, if that cannot be."""
    global _broken
    with _lock:
        if dtype not in _ready and _broken is None:
            try:
                with _announce():
                    from tinygrad_sm.loss.kernels import compiled, loops  # noqa: PLC0415

                    loops.machine_code(dtype.name)
                _ready[dtype] = compiled.fill_in
            except Exception as error:
                _broken = f"Numba cannot compile it here: {type(error).__name__}: {error}"
                warn(f"the loss is computed by NumPy's kernel, not by the compiled one: {_broken}")
        return _ready.get(dtype, in_numpy.fill_in)
