"""What users give, as plain arrays that are fit to compute with, or a sentence on why it is not."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType, NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_among, kind_of, leaf_of, of_a_kind
from tinygrad_sm.arrays.refused import check_not_refused
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


def read_only(array: np.ndarray, locked: bool = True) -> np.ndarray:
    """Return a read-only view; `locked` makes what is behind it read-only too, its `base`."""
    if type(array) is not _ndarray and kind_of(array) is not None:
        return array
    view = array.view()
    view.setflags(write=False)
    owner = view.base
    while locked and isinstance(owner, np.ndarray):
        owner.setflags(write=False)
        owner = owner.base
    return view


def described(x: Any) -> str:
    """Say in a few words what was given."""
    if isinstance(x, np.ndarray):
        return f"an array of dtype {x.dtype}"
    return f"{type(x).__name__} {shown(x):.40}"


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


# Calls of primitives ------------------------------------------------------------------------------


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
        if type(x) in _NUMBERS or hasattr(type(x), "__primitive__"):
            continue
        if x.dtype.kind not in "biuf" if type(x) is _ndarray else not isinstance(x, np.generic):
            found[i] = x = real_numbers(x, f"{primitive.name}: argument {i + 1}")
        if x.dtype.kind == "f" or primitive.integers or primitive.vjps(len(args))[i] is None:
            if own is not None and kind_of(x) is None:
                found[i] = own(x)
        elif kind_of(x) is None:
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
        raise InvalidTypeError(
            f"{primitive.name} takes {arity} array argument{'s' * (arity != 1)}"
            f"{allowed}, but {len(args)} positional argument"
            f"{'s were' if len(args) != 1 else ' was'} given"
        )
    found = dict(zip(primitive.parameters, extra, strict=False))
    for name in params:
        if name in found:
            raise InvalidTypeError(f"{primitive.name} was given the argument {name!r} twice")
        if name not in primitive.parameters:
            allowed = f"; its parameters are {known}" if known else ""
            raise InvalidTypeError(f"{primitive.name} does not take the argument {name!r}{allowed}")
    return args[:arity], found | params


def check_definition(
    name: Any,
    forward: Any,
    vjps: tuple[Any, ...],
    variadic: bool,
    kind: Any,
    kinds: Sequence[str],
    taken: bool,
) -> None:
    """Raise InvalidTypeError or InvalidValueError if no primitive can be defined of these."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"def_primitive: name must be a str; got {type(name).__name__}")
    if not callable(forward):
        raise InvalidTypeError(
            f"def_primitive: forward of {name!r} must be a function; got {type(forward).__name__}"
        )
    if not vjps:
        raise InvalidTypeError(f"def_primitive needs a vjp for each argument of {name!r}; got none")
    for i, vjp in enumerate(vjps):
        if vjp is not None and not callable(vjp):
            raise InvalidTypeError(
                f"def_primitive: vjp {i} of {name!r} must be a function or None; "
                f"got {type(vjp).__name__}"
            )
    if variadic and (len(vjps) > 1 or vjps[0] is None):
        raise InvalidTypeError(
            f"def_primitive: a variadic primitive has one vjp for all arguments; {name!r} got "
            f"{'None' if len(vjps) == 1 else len(vjps)}"
        )
    if taken:
        raise InvalidValueError(f"def_primitive: the name {name!r} is taken; choose another")
    if kind is not None and kind not in kinds:
        raise InvalidValueError(
            f"def_primitive: kind of {name!r} must be one of {', '.join(kinds)}; got {shown(kind)}"
        )
