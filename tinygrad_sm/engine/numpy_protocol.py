"""What NumPy's own functions do when they meet a Tensor: what stands for each, or a refusal."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinygrad_sm.engine.primitive import NUMPY
from tinygrad_sm.errors import InvalidTypeError

# Keyword arguments of NumPy's functions with the values that change nothing
_USUAL: dict[str, tuple[Any, ...]] = {
    "out": (None,), "dtype": (None,), "where": (True,), "initial": (None,), "order": ("C", "K"),
    "casting": ("same_kind",), "subok": (True,), "optimize": (True, False), "kind": (None,),
    "stable": (None,),
}  # fmt: skip


def unusual(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the keyword arguments that ask for what NumPy does anyway, such as `out=None`."""
    return {
        name: value
        for name, value in kwargs.items()
        if not any(type(value) is type(x) and value == x for x in _USUAL.get(name, ()))
    }


def answer_for_numpy(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Run the operation that stands for a NumPy function, or refuse in one sentence.

    Raises:
        InvalidTypeError: the function has no counterpart here, or an argument has none
            (``out=``, ``where=``, ``dtype=``): a detached array would lose the gradient silently.
    """
    operation = NUMPY.get(function)
    if operation is None:
        close = difflib.get_close_matches(
            getattr(function, "__name__", ""), {f.__name__ for f in NUMPY}, n=2, cutoff=0.8
        )
        hint = f" (such as {' or '.join(close)})" if close else ""
        raise InvalidTypeError(
            f"{_spelled(function)} does not differentiate a Tensor; use an operation of "
            f"tinygrad_sm{hint}, add one with tg.def_primitive, or take t.numpy() for a plain "
            "array without gradient"
        )
    kwargs = unusual(kwargs) if kwargs else {}
    if "out" in kwargs:
        raise InvalidTypeError(
            f"{_spelled(function)} cannot put a Tensor into a plain array (out=, or x += t), since "
            "the gradient would be lost; write x = x + t"
        )
    try:
        return operation(*args, **kwargs)
    except TypeError as error:
        raise InvalidTypeError(f"{_spelled(function)} on a Tensor: {error}") from error


def _spelled(function: Callable[..., Any]) -> str:
    """A function's name as users write it, e.g. ``np.linalg.norm``."""
    name = getattr(function, "__name__", str(function))
    if isinstance(function, np.ufunc):  # which do not know their module
        return f"np.{name}" if getattr(np, name, None) is function else name
    module = function.__module__
    return f"{'np' + module[5:] if module.split('.')[0] == 'numpy' else module}.{name}"
