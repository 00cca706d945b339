"""The rest of NumPy's functions, written with the table's rows.

What is made of other operations is a plain function; what cannot be, without losing digits or the
gradient at a special point, is a row of the table. Names, parameters and defaults are NumPy's.

Of NumPy this leaves out complex numbers, `np.fft`, and of `np.linalg` all but `norm`; element by
element `remainder` (and `%`), `fmod`, `fmax`, `fmin`, `logaddexp2`, `sinc`, `cbrt`, `float_power`;
of products `kron`, `cross`, `vdot`, `convolve`; `cumprod`, `gradient`, `average`, `ptp`, `median`,
`partition`, `percentile`, `unique`, `pad`, `insert`, `delete`, `rollaxis`, `block`, `meshgrid`,
`select`, `linspace`, the functions for NaN; `out=`, `dtype=` and `where=`. What it leaves out
refuses a Tensor by name. ``np.array([t, t])``, ``np.mean([t, t])`` and ``np.r_[t, t]`` never ask
a Tensor how they should be computed: `stack` and `concatenate` do.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np

from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine import shapes
from tinygrad_sm.engine.arguments import unusual
from tinygrad_sm.engine.primitive import NUMPY, Primitive, def_primitive
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, TinygradError, shown

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import OfOne, OfTwo, OneArray, Unary

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


def _stands_for(*functions: Callable[..., Any]) -> Callable[[F], F]:
    """Let a composition answer for NumPy functions, and refuse as a row of the table does."""

    def registered(operation: F) -> F:
        @wraps(operation)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return operation(*args, **unusual(kwargs))
            except TinygradError:
                raise
            except (TypeError, ValueError) as error:
                kind = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
                raise kind(f"{operation.__name__}: {error}") from error
            except (IndexError, ZeroDivisionError) as error:  # of shape[axis], of axis % ndim
                few = f"{operation.__name__}: an array has too few axes"
                raise InvalidValueError(few) from error

        NUMPY.update(dict.fromkeys(functions, call))
        return cast(F, call)

    return registered


def _of_one(
    *functions: Callable[..., Any],
) -> Callable[[Callable[Concatenate[Any, P], Any]], OfOne[P]]:
    """`_stands_for`, of what takes one array."""
    return _stands_for(*functions)  # type: ignore[return-value]


def _of_two(
    *functions: Callable[..., Any],
) -> Callable[[Callable[Concatenate[Any, Any, P], Any]], OfTwo[P]]:
    """`_stands_for`, of what takes two arrays."""
    return _stands_for(*functions)  # type: ignore[return-value]


def _array(x: Any) -> Any:
    return x if hasattr(type(x), "__primitive__") else np.asarray(x)


# Element by element -------------------------------------------------------------------------------

sin: Unary = def_primitive("sin", np.sin, lambda g, y, x: g * cos(x), analytic=True)
cos: Unary = def_primitive("cos", np.cos, lambda g, y, x: -g * sin(x), analytic=True)
tan = def_primitive("tan", np.tan, lambda g, y, x: g * (1 + y * y), analytic=True)
arcsin = def_primitive("arcsin", np.arcsin, lambda g, y, x: g / p.sqrt((1 - x) * (1 + x)))
arccos = def_primitive("arccos", np.arccos, lambda g, y, x: -g / p.sqrt((1 - x) * (1 + x)))
arctan = def_primitive("arctan", np.arctan, lambda g, y, x: g / (1 + x * x), analytic=True)
sinh: Unary = def_primitive("sinh", np.sinh, lambda g, y, x: g * cosh(x), analytic=True)
cosh: Unary = def_primitive("cosh", np.cosh, lambda g, y, x: g * sinh(x), analytic=True)
arcsinh = def_primitive("arcsinh", np.arcsinh, lambda g, y, x: g / p.sqrt(x * x + 1))
arccosh = def_primitive("arccosh", np.arccosh, lambda g, y, x: g / p.sqrt((x - 1) * (x + 1)))
arctanh = def_primitive("arctanh", np.arctanh, lambda g, y, x: g / ((1 - x) * (1 + x)))

expm1 = def_primitive("expm1", np.expm1, lambda g, y, x: g * p.exp(x), analytic=True)
exp2 = def_primitive("exp2", np.exp2, lambda g, y, x: g * y * math.log(2), analytic=True)
log2 = def_primitive("log2", np.log2, lambda g, y, x: g / (x * math.log(2)), analytic=True)
log10 = def_primitive("log10", np.log10, lambda g, y, x: g / (x * math.log(10)), analytic=True)


@_of_one(np.deg2rad, np.radians)
def deg2rad(x: Any) -> Any:
    """Degrees as radians."""
    return p.mul(x, math.pi / 180)


@_of_one(np.rad2deg, np.degrees)
def rad2deg(x: Any) -> Any:
    """Radians as degrees."""
    return p.mul(x, 180 / math.pi)


def _difference(x: Any, y: Any) -> Any:
    """x - y, and 0 for two equal infinities."""
    same = np.isinf(x) & (x == y)
    return p.sub(p.where(same, 0, x), p.where(same, 0, y))


logaddexp = def_primitive(  # two equal infinities share the gradient, as any tie does
    "logaddexp",
    np.logaddexp,
    lambda g, z, x, y: g * p.sigmoid(_difference(x, y)),
    lambda g, z, x, y: g * p.sigmoid(_difference(y, x)),
)


hypot = def_primitive(  # a norm, so that its slope at 0 is taken as 0, too
    "hypot",
    np.hypot,
    lambda g, z, x, y: g * x / p.where(z == 0, 1, z),
    lambda g, z, x, y: g * y / p.where(z == 0, 1, z),
)
arctan2 = def_primitive(  # divided twice, since a square might overflow
    "arctan2",
    np.arctan2,
    lambda g, z, x, y: g * (y / hypot(x, y)) / hypot(x, y),
    lambda g, z, x, y: -g * (x / hypot(x, y)) / hypot(x, y),
)


def _nth_root(x: Any, n: float = 2) -> Any:
    """The n-th root, whose slope at 0 is taken as 0: a norm's, or a standard deviation's."""
    return np.sqrt(x) if n == 2 else np.power(x, 1 / n)


_root = def_primitive(
    "root",
    _nth_root,
    lambda g, y, x, n=2: g * p.where(x == 0, 0, y) / p.where(x == 0, 1, n * x),
    kind="elementwise",
    notation="√",
)


def _nan_to_num(
    x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Any:
    """Elements that are finite; numbers in the place of those that are not, with slope 0."""
    return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


nan_to_num = def_primitive(
    "nan_to_num",
    _nan_to_num,
    lambda g, y, x, **numbers: p.where(np.isfinite(x), g, 0),
    numpy=np.nan_to_num,
    kind="elementwise",
)

_clip = def_primitive(  # an element at a bound is not clipped; the bound is
    "clip",
    lambda x, low, high: np.clip(x, low, high),
    lambda g, z, x, low, high: p.where(z == x, g, 0),
    lambda g, z, x, low, high: p.where((z != x) & (z == low), g, 0),
    lambda g, z, x, low, high: p.where((z != x) & (z != low), g, 0),
    kind="elementwise",
)


@_of_one(np.clip)
def clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """Elements kept between `a_min` and `a_max` (also called `min` and `max`; None: no bound).

    The slope is 1 from bound to bound, both included, as PyTorch's is, and 0 outside.
    """
    low = min if a_min is None else a_min
    high = max if a_max is None else a_max
    return _clip(x, -np.inf if low is None else low, np.inf if high is None else high)


@_of_one(np.square)
def square(x: Any) -> Any:
    """Element by element x · x."""
    return p.mul(x, x)


@_of_one(np.reciprocal)
def reciprocal(x: Any) -> Any:
    """Element by element 1 / x."""
    return 1 / _array(x)


# Reductions ---------------------------------------------------------------------------------------


def _min(x: Any, axis: p.Axis = None, keepdims: bool = False) -> Any:
    """Smallest element along `axis`; elements that tie for it share its cotangent evenly."""
    return np.min(x, axis=axis, keepdims=keepdims)


def _prod(x: Any, axis: p.Axis = None, keepdims: bool = False) -> Any:
    """Product of the elements along `axis` (an int, a tuple, or None for all)."""
    return np.prod(x, axis=axis, keepdims=keepdims)


def _of_the_others(x: Any) -> Any:
    """For each element the product of all others along the last axis, without a division.

    Each of a pair gets its partner times what the pair gets: right also where an element is 0.
    """
    n = x.shape[-1]
    if n <= 1:
        return x**0  # ones, of any kind of array
    if n % 2:
        x = shapes.concatenate([x, x[..., :1] ** 0], axis=-1)
    even, odd = x[..., ::2], x[..., 1::2]
    of_pairs = _of_the_others(even * odd)
    both = shapes.stack([of_pairs * odd, of_pairs * even], axis=-1)
    return shapes.reshape(both, x.shape)[..., :n]


def _axes_of(x: Any, axis: p.Axis) -> tuple[int, ...]:
    return tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)


def _prod_vjp(g: Any, y: Any, x: Any, axis: p.Axis = None, keepdims: bool = False) -> Any:
    axes = _axes_of(x, axis)
    last = tuple(range(-len(axes), 0))
    moved = moveaxis(x, axes, last)
    free = moved.shape[: x.ndim - len(axes)]
    rows = shapes.reshape(moved, (*free, math.prod(moved.shape[len(free) :])))
    others = moveaxis(shapes.reshape(_of_the_others(rows), moved.shape), last, axes)
    return p._kept(g, x, axis, keepdims) * others


min = def_primitive("min", _min, p._max_vjp, numpy=(np.min, np.amin), kind="reduction")
prod = def_primitive(
    "prod", _prod, _prod_vjp, numpy=np.prod, kind="reduction", analytic=True, notation="Π"
)


def _cumsum(x: Any, axis: int | None = None) -> Any:
    """Running sum along an axis; of all elements in a row if `axis` is None."""
    return np.cumsum(x, axis=axis)


cumsum: OneArray[...] = def_primitive(
    "cumsum",
    _cumsum,
    lambda g, y, x, axis=None: shapes.reshape(flip(cumsum(flip(g, axis), axis), axis), x.shape),
    numpy=np.cumsum,
    linear=True,
)


@_of_one(np.diff)
def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """Differences of neighbours along an axis, taken `n` times."""
    x = _array(x)
    before = (slice(None),) * (axis % x.ndim)
    for _ in range(n):
        x = p.sub(x[(*before, slice(1, None))], x[(*before, slice(None, -1))])
    return x


@_of_one(np.var)
def var(x: Any, axis: p.Axis = None, ddof: float = 0, keepdims: bool = False) -> Any:
    """Mean square of the distance from the mean along `axis`; the divisor is n - `ddof`."""
    away = p.sub(x, p.mean(x, axis=axis, keepdims=True))
    squared = p.mean(away * away, axis=axis, keepdims=keepdims)
    if not ddof or not squared.size:
        return squared
    n = away.size // squared.size
    return squared * float(np.divide(n, np.maximum(n - ddof, 0)))


@_of_one(np.std)
def std(x: Any, axis: p.Axis = None, ddof: float = 0, keepdims: bool = False) -> Any:
    """Square root of the variance along `axis`; its slope is 0 where all elements are equal."""
    return _root(var(x, axis, ddof, keepdims))


@_of_one(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: p.Axis = None, keepdims: bool = False) -> Any:
    """A norm of vectors (`axis` an int) or matrices (two axes); of all elements if both are None.

    `ord` is any number but 0 for vectors; "fro", 1, -1, inf or -inf for matrices. At 0 the slope of
    a root is taken as 0, as PyTorch does.

    Raises:
        InvalidValueError: another `ord`, such as 0, "nuc" or a matrix's 2.
    """
    x = _array(x)
    if x.dtype.kind in "biu":  # their squares would not fit
        x = x.astype(np.float64)
    axes = _axes_of(x, axis)
    count = len(axes)
    if (ord is None and (axis is None or count <= 2)) or (count, ord) in ((1, 2), (2, "fro")):
        return _root(p.sum(x * x, axis=axis, keepdims=keepdims))
    if count == 1 and ord in (np.inf, -np.inf):
        return (p.max if ord > 0 else min)(p.abs(x), axis=axis, keepdims=keepdims)
    if count == 1 and not isinstance(ord, str) and ord:
        return _root(p.sum(p.abs(x) ** ord, axis=axis, keepdims=keepdims), n=ord)
    if count == 2 and ord in (1, -1, np.inf, -np.inf):
        inner, outer = axes if ord in (1, -1) else axes[::-1]
        sums = p.sum(p.abs(x), axis=inner, keepdims=True)
        found = (p.max if ord > 0 else min)(sums, axis=outer, keepdims=True)
        return found if keepdims else squeeze(found, axes)
    raise InvalidValueError(
        'norm: ord must be a number other than 0 for vectors, and "fro", 1, -1, inf or -inf for '
        f"matrices; got {shown(ord)} for {count} axes"
    )


# Moving elements ----------------------------------------------------------------------------------


def _move(function: Callable[..., Any], numpy: Any, *, repeats: bool = False) -> OneArray[...]:
    """A row that moves elements as a function does; where each came from, its cotangent goes."""

    def vjp(g: Any, y: Any, x: Any, **params: Any) -> Any:
        origin = function(np.arange(x.size).reshape(x.shape), **params)
        z = shapes.scatter(g, index=origin, shape=(x.size,), distinct=not repeats)
        return shapes.reshape(z, x.shape)

    return def_primitive(numpy.__name__, function, vjp, numpy=numpy, kind="move")


def _tile(x: Any, reps: Any) -> Any:
    """The whole array several times along each axis."""
    return np.tile(x, np.asarray(reps))  # a Tensor among reps would ask for `tile` again


def _take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """The elements at integer positions along `axis`; of all in a row if it is None."""
    return np.take(x, indices, axis)


flip: OneArray[...] = _move(np.flip, np.flip)
flipud = _move(np.flipud, np.flipud)
fliplr = _move(np.fliplr, np.fliplr)
rot90 = _move(np.rot90, np.rot90)
roll = _move(np.roll, np.roll)
diagonal = _move(np.diagonal, np.diagonal)
repeat = _move(np.repeat, np.repeat, repeats=True)
tile = _move(_tile, np.tile, repeats=True)
take = _move(_take, np.take, repeats=True)


def _shaped(x: Any, function: Callable[..., Any], *args: Any) -> Any:
    """x in the shape that a NumPy function gives it."""
    return shapes.reshape(x, function(np.broadcast_to(0, np.shape(x)), *args).shape)


def _reordered(x: Any, function: Callable[..., Any], *args: Any) -> Any:
    """x with its axes in the order that a NumPy function gives them."""
    numbered = np.empty(tuple(range(np.ndim(x))))  # the length of each axis is its number
    return shapes.transpose(x, function(numbered, *args).shape)


@_of_one(np.squeeze)
def squeeze(x: Any, axis: p.Axis = None) -> Any:
    """Without the axes of length 1, or without those of them that `axis` names."""
    return _shaped(x, np.squeeze, axis)


@_of_one(np.ravel)
def ravel(x: Any) -> Any:
    """All elements in a row, of shape (size,)."""
    return shapes.reshape(x, (-1,))


@_stands_for(np.atleast_1d)
def atleast_1d(*arrays: Any) -> Any:
    """With one axis if there was none; of several arrays a tuple."""
    return _each(np.atleast_1d, arrays)


@_stands_for(np.atleast_2d)
def atleast_2d(*arrays: Any) -> Any:
    """With axes of length 1 in front until there are two; of several arrays a tuple."""
    return _each(np.atleast_2d, arrays)


@_stands_for(np.atleast_3d)
def atleast_3d(*arrays: Any) -> Any:
    """With axes of length 1 until there are three; of several arrays a tuple."""
    return _each(np.atleast_3d, arrays)


def _each(function: Callable[..., Any], arrays: Sequence[Any]) -> Any:
    shaped = tuple(_shaped(x, function) for x in arrays)
    return shaped[0] if len(arrays) == 1 else shaped


@_of_one(np.swapaxes)
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    return _reordered(x, np.swapaxes, axis1, axis2)


@_of_one(np.moveaxis)
def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """The axes `source` moved to the positions `destination`, the others in their order."""
    return _reordered(x, np.moveaxis, source, destination)


@_of_one(np.copy)
def copy(x: Any) -> Any:
    """The same values again; the gradient flows through."""
    return shapes.astype(x, _array(x).dtype)


@_of_one(np.sort)
def sort(x: Any, axis: int | None = -1) -> Any:
    """Ascending along an axis; equal elements stay in order. All in a row if `axis` is None."""
    x, axis = (ravel(x), -1) if axis is None else (_array(x), axis)
    return shapes.take_along_axis(x, np.argsort(x, axis=axis, kind="stable"), axis=axis)


# Joining and splitting ----------------------------------------------------------------------------


@_stands_for(np.concatenate)
def _concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    return hstack([ravel(x) for x in arrays]) if axis is None else shapes.concatenate(arrays, axis)


@_stands_for(np.vstack)
def vstack(arrays: Sequence[Any]) -> Any:
    """Joined along the first axis; a vector is a row."""
    return shapes.concatenate([atleast_2d(x) for x in arrays])


@_stands_for(np.hstack)
def hstack(arrays: Sequence[Any]) -> Any:
    """Joined along the second axis; vectors along their only one."""
    arrays = [atleast_1d(x) for x in arrays]
    return shapes.concatenate(arrays, axis=1 if arrays and arrays[0].ndim > 1 else 0)


@_stands_for(np.dstack)
def dstack(arrays: Sequence[Any]) -> Any:
    """Joined along the third axis, which arrays of one or two axes get first."""
    return shapes.concatenate([atleast_3d(x) for x in arrays], axis=2)


@_stands_for(np.column_stack)
def column_stack(arrays: Sequence[Any]) -> Any:
    """Joined along the second axis; a vector is a column."""
    return hstack([x if np.ndim(x) > 1 else shapes.reshape(x, (-1, 1)) for x in arrays])


@_of_two(np.append)
def append(x: Any, values: Any, axis: int | None = None) -> Any:
    """`x` and then `values` along an axis; all in a row if `axis` is None."""
    return _concatenate([x, values], axis)


def _split(function: Callable[..., Any], x: Any, sections: Any, axis: int) -> list[Any]:
    x = _array(x)
    length = x.shape[axis]
    before = (slice(None),) * (axis % x.ndim)
    parts = function(np.arange(length), sections)
    starts = [int(part[0]) if part.size else 0 for part in parts]
    return [
        shapes.getitem(x, index=(*before, slice(start, start + part.size)))
        for start, part in zip(starts, parts, strict=True)
    ]


@_stands_for(np.split)
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """A list of equal parts along an axis, or of those between the given positions."""
    return _split(np.split, x, indices_or_sections, axis)


@_stands_for(np.array_split)
def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """A list of about equal parts along an axis, or of those between the given positions."""
    return _split(np.array_split, x, indices_or_sections, axis)


@_stands_for(np.vsplit)
def vsplit(x: Any, indices_or_sections: Any) -> list[Any]:
    """`split` along the first axis."""
    return split(x, indices_or_sections, 0)


@_stands_for(np.hsplit)
def hsplit(x: Any, indices_or_sections: Any) -> list[Any]:
    """`split` along the second axis; of a vector along its only one."""
    return split(x, indices_or_sections, 1 if np.ndim(x) > 1 else 0)


@_stands_for(np.dsplit)
def dsplit(x: Any, indices_or_sections: Any) -> list[Any]:
    """`split` along the third axis."""
    return split(x, indices_or_sections, 2)


# Matrices -----------------------------------------------------------------------------------------


def _below(x: Any, k: int) -> Any:
    """Where the last two axes are on or below the `k`-th diagonal."""
    shape = np.shape(x)[-2:]
    return np.arange(shape[0])[:, None] + k >= np.arange(shape[-1])


@_of_one(np.triu)
def triu(x: Any, k: int = 0) -> Any:
    """Zeros below the `k`-th diagonal of the last two axes."""
    return p.where(_below(x, k - 1), 0, x)


@_of_one(np.tril)
def tril(x: Any, k: int = 0) -> Any:
    """Zeros above the `k`-th diagonal of the last two axes."""
    return p.where(_below(x, k), x, 0)


@_of_one(np.diag)
def diag(x: Any, k: int = 0) -> Any:
    """The `k`-th diagonal of a matrix; of a vector the square matrix with it there."""
    x = _array(x)
    if x.ndim != 1:
        return diagonal(x, k)
    i, j = np.diag_indices(x.size)
    n = x.size + np.absolute(k)
    index = (i + np.maximum(-k, 0), j + np.maximum(k, 0))
    return shapes.scatter(x, index=index, shape=(n, n), distinct=True)


@_of_one(np.trace)
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Sum of the elements (i, i + `offset`) of two axes."""
    return p.sum(diagonal(x, offset, axis1, axis2), axis=-1)


@_of_two(np.dot)
def dot(x: Any, y: Any) -> Any:
    """Matrix product; of N-d arrays over the last axis of x and the last but one of y."""
    x, y = _array(x), _array(y)
    if x.ndim == 0 or y.ndim == 0:
        return p.mul(x, y)
    return shapes.matmul(x, y) if y.ndim <= 2 else tensordot(x, y, (-1, -2))


@_of_two(np.inner)
def inner(x: Any, y: Any) -> Any:
    """Sums of products over the last axis of both."""
    x, y = _array(x), _array(y)
    if x.ndim == 0 or y.ndim == 0:
        return p.mul(x, y)
    return shapes.matmul(x, y) if y.ndim == 1 else tensordot(x, y, (-1, -1))


@_of_two(np.outer)
def outer(x: Any, y: Any) -> Any:
    """Every element of x times every element of y, of shape (x.size, y.size)."""
    return p.mul(shapes.reshape(x, (-1, 1)), shapes.reshape(y, (1, -1)))


@_of_two(np.tensordot)
def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """Sums of products over pairs of axes: the last and first `axes`, or two lists of axes.

    Raises:
        InvalidValueError: the lists, or the lengths of the axes in them, differ.
    """
    x, y = _array(x), _array(y)
    if np.ndim(axes) == 0:
        axes = range(x.ndim - axes, x.ndim), range(axes)
    of_x, of_y = (
        [int(i) % z.ndim for i in np.atleast_1d(a)] for z, a in zip((x, y), axes, strict=True)
    )
    lengths = [x.shape[i] for i in of_x]
    if lengths != [y.shape[i] for i in of_y]:
        raise InvalidValueError(
            f"tensordot: the axes {of_x} of shape {x.shape} and {of_y} of shape {y.shape} differ "
            "in number or length"
        )
    free_x, free_y = ([i for i in range(z.ndim) if i not in a] for z, a in ((x, of_x), (y, of_y)))
    rows, columns = [x.shape[i] for i in free_x], [y.shape[i] for i in free_y]
    n = math.prod(lengths)
    left = shapes.reshape(shapes.transpose(x, free_x + of_x), (math.prod(rows), n))
    right = shapes.reshape(shapes.transpose(y, of_y + free_y), (n, math.prod(columns)))
    return shapes.reshape(shapes.matmul(left, right), (*rows, *columns))


def _einsum(*operands: Any, subscripts: str) -> Any:
    """Sums of products over the indices that the output does not have."""
    return np.einsum(subscripts, *operands, optimize=True)


def _explicit(subscripts: str, operands: Sequence[Any]) -> tuple[list[str], str]:
    """The indices of each operand and of the output, one letter for each axis."""
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    free = "".join(c for c in string.ascii_letters if c not in subscripts)
    filled, dots = [], ""
    for part, x in zip(inputs.split(","), operands, strict=False):
        rest = x.ndim - len(part.replace("...", ""))  # axes that the dots stand for, from the back
        mine = free[len(free) - rest :] if "..." in part else ""
        dots = mine if len(mine) > len(dots) else dots
        filled.append(part.replace("...", mine))
    if not arrow:
        letters = inputs.replace(",", "").replace(".", "")
        output = "..." + "".join(c for c in sorted(set(letters)) if letters.count(c) == 1)
    return filled, output.replace("...", dots)


def _einsum_vjp(i: int, g: Any, z: Any, *operands: Any, subscripts: str) -> Any:
    """The output takes the operand's place.

    An index that nothing else has, or only with length 1, is repeated along ones; an index that the
    operand has twice is a diagonal.
    """
    inputs, output = _explicit(subscripts, operands)
    factors = [
        (part, x) for k, (part, x) in enumerate(zip(inputs, operands, strict=True)) if k != i
    ]
    factors.append((output, g))
    unused = iter(c for c in string.ascii_letters if c not in "".join([*inputs, output]))
    wanted = ""
    for c, n in zip(inputs[i], operands[i].shape, strict=True):
        if c in wanted:
            fresh = next(unused)
            factors.append((c + fresh, np.eye(n, dtype=g.dtype)))
            c = fresh
        elif n not in [x.shape[part.index(c)] for part, x in factors if c in part]:
            factors.append((c, np.ones(n, g.dtype)))
        wanted += c
    parts, arrays = zip(*factors, strict=True)
    return _contract(*arrays, subscripts=f"{','.join(parts)}->{wanted}")


_contract: Primitive = def_primitive("einsum", _einsum, _einsum_vjp, variadic=True, analytic=True)


@_stands_for(np.einsum)
def einsum(subscripts: Any, *operands: Any) -> Any:
    """Einstein's summation, ``einsum("ij,jk->ik", x, y)``; also ``einsum(x, [0, 1], y, [1, 2])``.

    The order of the contractions is chosen as by ``np.einsum(..., optimize=True)``.
    """
    if not isinstance(subscripts, str):
        given = (subscripts, *operands)
        count = len(given) // 2
        operands, lists = given[: 2 * count : 2], [*given[1::2], *given[2 * count :]]
        letters = dict(enumerate(string.ascii_uppercase + string.ascii_lowercase))
        words = ["".join(letters.get(i, "...") for i in part) for part in lists]
        subscripts = "->".join([",".join(words[:count]), *words[count:]])
    return _contract(*(_array(x) for x in operands), subscripts=subscripts)


NUMPY[np.fabs] = p.abs
NUMPY[np.positive] = copy

__all__ = [
    "append", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "clip", "column_stack", "copy",
    "cos", "cosh", "cumsum", "deg2rad", "diag", "diagonal", "diff", "dot", "dsplit", "dstack",
    "einsum", "exp2", "expm1", "flip", "fliplr", "flipud", "hsplit", "hstack", "hypot", "inner",
    "log2", "log10", "logaddexp", "min", "moveaxis", "nan_to_num", "norm", "outer", "prod",
    "rad2deg", "ravel", "reciprocal", "repeat", "roll", "rot90", "sin", "sinh", "sort", "split",
    "square", "squeeze", "std", "swapaxes", "take", "tan", "tensordot", "tile", "trace", "tril",
    "triu", "var", "vsplit", "vstack",
]  # fmt: skip
