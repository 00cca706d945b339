"""What a primitive is called with, or defined by: made fit to compute with, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_among, kind_of
from tinygrad_sm.engine.intake import real_numbers
from tinygrad_sm.errors import (
    InvalidIndexError,
    InvalidTypeError,
    InvalidValueError,
    TinygradError,
    shown,
)

if TYPE_CHECKING:
    from tinygrad_sm.engine.primitive import Primitive

_ndarray = np.ndarray
_NUMBERS = (bool, int, float)


def computed(primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """Run a primitive on plain arguments: integers become float64, or the float dtype beside them.

    Raises:
        InvalidTypeError, InvalidValueError, InvalidIndexError: it cannot be run on these.
    """
    ready = False
    for x in args:
        if type(x) is _ndarray and x.dtype.kind == "f":
            ready = True
        elif type(x) is not float and type(x) is not int:
            ready = False
            break
    try:
        if not ready:
            kind = kind_among(args)
            if kind is not None:
                return kind.run(primitive, args, params)
            args = settled(primitive, args)
        return primitive.forward(*args, **params)
    except TinygradError:  # already says what is wrong
        raise
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise misfit(primitive.name, args, error) from error


def settled(
    primitive: Primitive, args: tuple[Any, ...], own: Callable[[np.ndarray], Any] | None = None
) -> tuple[Any, ...]:
    """Return a call's arguments as numbers, arrays and Tensors to compute with.

    Integers have no precision of their own to impose: they take that of the floating-point numbers
    beside them. `own` gives what is to stand for an array that its giver may change.
    """
    found, whole = list(args), []
    for i, x in enumerate(args):
        if type(x) is not _ndarray or x.dtype.kind not in "biuf":
            if type(x) in _NUMBERS or hasattr(type(x), "__primitive__"):
                continue
            if not isinstance(x, np.generic):
                found[i] = x = real_numbers(x, f"{primitive.name}: argument {i + 1}")
            if kind_of(x) is not None:
                continue
        if x.dtype.kind == "f" or primitive.integers or primitive.vjps(len(args))[i] is None:
            if own is not None:
                found[i] = own(x)
        else:
            whole.append(i)
    if whole:
        floats = [x.dtype for x in found if type(x) not in _NUMBERS and x.dtype.kind == "f"]
        dtype = np.result_type(*floats) if floats else np.dtype(np.float64)
        for i in whole:
            found[i] = found[i].astype(dtype)
    elif not primitive.integers and all(type(x) in _NUMBERS for x in args):
        found = [float(x) for x in args]
    return tuple(found)


def bound(
    primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Sort a call's arguments into arrays and parameters, or say what does not fit."""
    arity = len(args) if primitive.arity is None else primitive.arity
    extra = args[arity:]
    known = ", ".join(primitive.parameters)
    if len(args) < arity or len(extra) > len(primitive.parameters):
        allowed = f" and the parameters {known}" if known else ""
        takes = f"{arity} array argument{'s' * (arity != 1)}{allowed}"
        given = f"{len(args)} positional argument{'s were' if len(args) != 1 else ' was'} given"
        raise InvalidTypeError(f"{primitive.name} takes {takes}, but {given}")
    found = dict(zip(primitive.parameters, extra, strict=False))
    for name in params:
        if name in found:
            raise InvalidTypeError(f"{primitive.name} was given the argument {name!r} twice")
        if name not in primitive.parameters:
            allowed = f"; its parameters are {known}" if known else ""
            raise InvalidTypeError(f"{primitive.name} does not take the argument {name!r}{allowed}")
    return args[:arity], found | params


def misfit(name: str, arrays: Sequence[Any], error: Exception) -> Exception:
    """The error for arguments that NumPy refused in the operation called `name`."""
    shapes = ", ".join(str(np.shape(a)) for a in arrays)
    kind: Callable[[str], Exception] = InvalidValueError
    if isinstance(error, TypeError):
        kind = InvalidTypeError
    elif isinstance(error, IndexError) and not isinstance(error, ValueError):
        kind = InvalidIndexError  # NumPy's AxisError is both
    return kind(f"{name} of shape {shapes} is not possible: {error}")


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


def check_definition(
    name: Any,
    forward: Any,
    vjps: Sequence[Any],
    variadic: bool,
    kind: Any,
    kinds: Sequence[str],
    taken: bool,
) -> None:
    """Raise InvalidTypeError or InvalidValueError if no primitive can be defined of these."""
    error: type[Exception] = InvalidTypeError
    wrong = [i for i, vjp in enumerate(vjps) if vjp is not None and not callable(vjp)]
    if not isinstance(name, str):
        problem = f"name must be a str; got {type(name).__name__}"
    elif not callable(forward):
        problem = f"forward of {name!r} must be a function; got {type(forward).__name__}"
    elif not vjps:
        problem = f"{name!r} needs a vjp for each argument; got none"
    elif wrong:
        got = type(vjps[wrong[0]]).__name__
        problem = f"vjp {wrong[0]} of {name!r} must be a function or None; got {got}"
    elif variadic and (len(vjps) > 1 or vjps[0] is None):
        got = "None" if len(vjps) == 1 else str(len(vjps))
        problem = f"a variadic primitive has one vjp for all arguments; {name!r} got {got}"
    elif taken:
        error, problem = InvalidValueError, f"the name {name!r} is taken; choose another"
    elif kind is not None and kind not in kinds:
        allowed = f"one of {', '.join(kinds)}; got {shown(kind)}"
        error, problem = InvalidValueError, f"kind of {name!r} must be {allowed}"
    else:
        return
    raise error(f"def_primitive: {problem}")
