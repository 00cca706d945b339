"""What users give, as plain arrays that are fit to compute with, or a sentence on why it is not."""

from __future__ import annotations

import operator
from types import EllipsisType, NoneType
from typing import Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_of, leaf_of, of_a_kind
from tinygrad_sm.arrays.refused import check_not_refused
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, TinygradError, shown

_ndarray = np.ndarray
_BOUNDS = frozenset({int, NoneType})
_POINTS = (int, np.integer, np.bool_, NoneType, EllipsisType)  # parts of an index that stay as is


def rectangular(data: Any, what: str) -> np.ndarray:
    """Return data as an array, of whatever dtype it has; an array of a known kind as it is.

    Raises:
        InvalidTypeError: data are sparse, or of a library's own that NumPy cannot read.
        InvalidValueError: nested lists have unequal lengths, or elements are masked: nothing here
            would honour a mask.
    """
    if type(data) is np.ndarray:
        return data
    if kind_of(data) is not None:
        found: np.ndarray = of_a_kind(data)
        return found
    check_not_refused(data, what)
    for part in data if isinstance(data, (list, tuple)) else (data,):
        if isinstance(part, np.ndarray) and np.any(getattr(part, "mask", False)):
            raise InvalidValueError(
                f"{what} has masked elements, which nothing here leaves out: give plain numbers, "
                "such as its filled(0); a loss leaves out the rows whose target is ignore_index"
            )
    try:
        return np.asarray(data)
    except TinygradError:
        raise
    except ValueError:
        raise InvalidValueError(
            f"{what} must be rectangular; the nested lists have unequal lengths"
        ) from None
    except Exception as error:  # whatever another library says of its own arrays
        raise InvalidTypeError(f"{what} cannot be read as an array: {error}") from error


def real_numbers(x: Any, what: str) -> np.ndarray:
    """Return a plain argument of an operation as an array of real (or whole) numbers.

    Raises InvalidTypeError if it is none.
    """
    array = rectangular(x, what)
    if array.dtype.kind not in "biuf":
        foreign: np.ndarray | None = of_a_kind(array)
        if foreign is not None:
            return foreign
        raise InvalidTypeError(
            f"{what} must be a number, an array of real numbers or a Tensor; got {described(x)}"
        )
    return array


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """Return a floating-point dtype, or raise InvalidTypeError."""
    found: np.dtype[Any] | None
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind != "f":
        raise InvalidTypeError(
            "dtype must be a floating-point type such as 'float32' or 'float64'; "
            f"got {shown(dtype)}"
        )
    return found


def float_array(data: Any, dtype: Any, copy: bool = True, what: str = "data") -> np.ndarray:
    """Return an array of real floating-point numbers, made of whatever the user gave."""
    wanted = None if dtype is None else float_dtype(dtype)
    array = rectangular(data, what)
    kind = array.dtype.kind
    if kind not in "biuf" or type(array) is not _ndarray:
        leaf: np.ndarray | None = leaf_of(array, wanted)
        if leaf is not None:
            return leaf
        raise InvalidTypeError(
            f"{what} must be real numbers; got {described(data)}"
            if array.dtype.kind != "O"
            else f"{what} must be real numbers; got an array of objects made from "
            f"{type(data).__name__}"
        )
    if wanted is None:
        wanted = array.dtype if kind == "f" else np.dtype(np.float64)
    if copy:
        return np.array(array, dtype=wanted, order="C")
    return np.asarray(array, dtype=wanted)


def text(name: Any) -> str:
    """Return a name, or raise InvalidTypeError if it is no text."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"name must be text; got {type(name).__name__}")
    return name


def owned(parameter: Any) -> Any:
    """Return a parameter that its giver cannot change before backward reads it again."""
    if not hasattr(type(parameter), "__primitive__") and hasattr(type(parameter), "__array__"):
        immutable = isinstance(parameter, np.generic) or kind_of(parameter) is not None
        return parameter if immutable else np.array(parameter)
    if type(parameter) in (list, tuple):
        return type(parameter)(owned(part) for part in parameter)
    return parameter


def own_index(index: Any) -> Any:
    """Return an index for NumPy that nobody can change later, its arrays plain and our own."""
    if isinstance(index, tuple):
        return tuple([_own_part(part) for part in index])
    return _own_part(index)


def _own_part(part: Any) -> Any:
    if isinstance(part, slice):
        bounds = (part.start, part.stop, part.step)
        return part if _BOUNDS.issuperset(map(type, bounds)) else slice(*map(_own_bound, bounds))
    if isinstance(part, _POINTS):
        return part
    if hasattr(type(part), "__primitive__"):
        raise InvalidTypeError(
            f"an index must be integers, slices or booleans; got a {type(part).__name__}"
        )
    if not isinstance(part, (np.ndarray, list, tuple)) and hasattr(type(part), "__index__"):
        try:
            return operator.index(part)  # as NumPy asks first
        except TypeError:
            pass
    array = np.array(rectangular(part, "an index"))
    return array if array.size or isinstance(part, np.ndarray) else array.astype(np.intp)


def _own_bound(bound: Any) -> Any:
    return operator.index(bound) if isinstance(bound, np.ndarray) and not bound.ndim else bound


def may_repeat(index: Any) -> bool:
    """Return whether an index can name one position twice: it has an array that is no mask."""
    for part in index if isinstance(index, tuple) else (index,):
        if not isinstance(part, (*_POINTS, slice)) and np.asarray(part).dtype != bool:
            return True
    return False


def described(x: Any) -> str:
    """Say in a few words what was given."""
    if isinstance(x, np.ndarray):
        return f"an array of dtype {x.dtype}"
    return f"{type(x).__name__} {shown(x):.40}"
