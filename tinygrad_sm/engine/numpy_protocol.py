"""What NumPy's own functions do when they meet a Tensor: what stands for each, or a refusal."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_among
from tinygrad_sm.engine.arguments import unusual
from tinygrad_sm.engine.memory import current_of
from tinygrad_sm.engine.node import Recorded, now
from tinygrad_sm.engine.primitive import NUMPY
from tinygrad_sm.errors import InvalidTypeError

# NumPy functions whose results are booleans, integers or shapes, or constant but for jumps: there
# is nothing to differentiate.
_CONSTANT: frozenset[Callable[..., Any]] = frozenset(
    {
        np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal,
        np.isfinite, np.isinf, np.isnan, np.signbit, np.logical_and, np.logical_or, np.logical_not,
        np.argmax, np.argmin, np.argsort, np.shape, np.ndim, np.size, np.all, np.any,
        np.array_equal, np.allclose, np.isclose, np.count_nonzero, np.nonzero, np.result_type,
        np.zeros_like, np.ones_like, np.empty_like, np.array_repr, np.array_str,
        np.array2string, np.sign, np.floor, np.ceil, np.rint, np.trunc, np.round, np.argpartition,
        np.searchsorted, np.isreal, np.iscomplex, np.isrealobj, np.iscomplexobj,
    }
)  # fmt: skip


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
        asked = kwargs if isinstance(function, np.ufunc) else "out" in kwargs
        if not asked and (function in _CONSTANT or _loses_nothing(args, kwargs)):
            return _on_arrays(function, args, kwargs)
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


def _loses_nothing(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether there are Tensors, of which none is to be differentiated here, e.g. for np.savez."""
    given = [x for x in (*args, *kwargs.values()) if isinstance(x, Recorded)]
    return bool(given) and not (now.get().on and any(x.requires_grad for x in given))


def _on_arrays(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """What NumPy says of the values."""
    plain = tuple(map(current_of, args))
    named = {name: current_of(value) for name, value in kwargs.items()}
    if isinstance(function, np.ufunc) or kind_among((*plain, *named.values())) is not None:
        return function(*plain, **named)
    return np.empty(0).__array_function__(function, (), plain, named)


def _spelled(function: Callable[..., Any]) -> str:
    """A function's name as users write it, e.g. ``np.linalg.norm``."""
    name = getattr(function, "__name__", str(function))
    if isinstance(function, np.ufunc):  # which do not know their module
        return f"np.{name}" if getattr(np, name, None) is function else name
    module = function.__module__
    return f"{'np' + module[5:] if module.split('.')[0] == 'numpy' else module}.{name}"
