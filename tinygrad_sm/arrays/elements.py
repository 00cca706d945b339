"""Formulas and exact numbers: NumPy's arrays of SymPy's expressions, or of mpmath's numbers.

Arithmetic is the elements' own. What a ufunc means for an element is looked up by name in its home:
`np.exp` of a `sympy.Symbol` is `sympy.exp` of it, and of mpmath's number it is `exp` of the context
that the number belongs to, which holds how many digits it has.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from itertools import product
from numbers import Integral, Real
from typing import Any

import numpy as np

from tinygrad_sm.arrays.kinds import Kind, along
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown

NAMES: dict[np.ufunc, str] = {
    f: f.__name__
    for f in (np.exp, np.log, np.sqrt, np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh)
} | {
    np.arcsin: "asin", np.arccos: "acos", np.arctan: "atan", np.arctan2: "atan2",
    np.arcsinh: "asinh", np.arccosh: "acosh", np.arctanh: "atanh",
    np.log1p: "log1p", np.expm1: "expm1", np.maximum: "Max", np.minimum: "Min",
    np.equal: "Eq", np.not_equal: "Ne", np.less: "Lt", np.less_equal: "Le",
    np.greater: "Gt", np.greater_equal: "Ge",
}  # fmt: skip
"""What NumPy's ufuncs are called where elements are at home; what has no name is Python's."""
COMPOSED: dict[np.ufunc, Callable[..., Any]] = {
    np.log1p: lambda home, x: home.log(1 + x),
    np.expm1: lambda home, x: home.exp(x) - 1,
    np.hypot: lambda home, x, y: home.sqrt(x * x + y * y),
    np.logaddexp: lambda home, x, y: home.log(home.exp(x) + home.exp(y)),
}
"""What SymPy or mpmath has no name for."""
SIMPLE = 10**6
"""A number of Python's in a formula is read as the fraction with a denominator up to this."""


class Elements(np.ndarray):
    """An array of objects that know their own mathematics; what is made of it is such, too.

    Comparisons of formulas are formulas: ``a == b`` is `sympy.Eq` of the elements.
    """

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Run a ufunc element by element, by the function of that name in the elements' home."""
        if any(hasattr(type(x), "__primitive__") for x in inputs):
            return NotImplemented  # it is a Tensor's turn
        home = home_of(*inputs)
        plain = [
            x.view(np.ndarray) if isinstance(x, Elements) else _exact(np.asarray(x), home)
            for x in inputs
        ]
        if ufunc in (np.isfinite, np.isinf, np.isnan):
            found = np.frompyfunc(lambda x: _is(ufunc, x, home), 1, 1)(*plain)
            return np.asarray(found, bool)
        if home is not None:
            function = getattr(home, NAMES.get(ufunc, ""), None)
            if function is None and ufunc in COMPOSED:
                function = partial(COMPOSED[ufunc], home)
            if function is not None:
                more = {} if ufunc.nin == 1 else {"identity": None}  # so that axes may be reduced
                ufunc = np.frompyfunc(function, ufunc.nin, 1, **more)
        try:
            found = getattr(ufunc, method)(*plain, **kwargs)
        except TypeError as error:
            if home is None or "ufunc" not in str(error):
                raise
            raise TypeError(f"{OfElements.name} have no {ufunc.__name__}") from error
        return of_objects(found)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Keep the class through `np.reshape` and its like, and for objects alone."""
        found = super().__array_function__(function, types, args, kwargs)
        if not isinstance(found, np.ndarray):
            return found
        return found.view(Elements if found.dtype.kind == "O" else np.ndarray)

    def __reduce__(self) -> Any:
        context = home_of(self)
        if context is None or _is_sympy(context):
            return of_objects, (self.view(np.ndarray),)
        parts = [context.mpf(x)._mpf_ for x in self.flat]  # a context's numbers are no one's else
        return _of_parts, (context.dps, parts, self.shape)

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the elements as numbers of NumPy's, if they are numbers."""
        found = self.view(np.ndarray).astype(dtype, *args, **kwargs)
        return of_objects(found)

    def each(self, function: Callable[[Any], Any]) -> Elements:
        """Return what a function makes of each element: ``a.grad.each(sympy.simplify)``."""
        found: Elements = of_objects(np.frompyfunc(function, 1, 1)(self.view(np.ndarray)))
        return found


def of_objects(x: Any) -> Any:
    """Return objects as a read-only array of them; truth values and positions as they are."""
    if isinstance(x, np.ndarray) and x.dtype.kind != "O":
        return x.view(np.ndarray)
    if isinstance(x, (np.generic, bool)):
        return x
    array = np.asarray(x, object).view(Elements)
    array.setflags(write=False)
    return array


def home_of(*arrays: Any) -> Any:
    """Return where the first object is at home: SymPy, a context of mpmath, or None if nowhere."""
    for array in arrays:
        for x in np.asarray(array, object).flat if isinstance(array, np.ndarray) else (array,):
            if type(x) in (int, float, bool):
                continue
            package = type(x).__module__.partition(".")[0]
            if package == "sympy":
                return sys.modules["sympy"]
            if package == "mpmath":
                return x.context
    return None


def _is_sympy(home: Any) -> bool:
    return home is not None and home is sys.modules.get("sympy")


def _exact(x: np.ndarray, home: Any) -> np.ndarray:
    """Numbers as numbers of that home: 1.0 is a 1 in a formula, and 0.1 is 1/10."""
    if home is None or x.dtype.kind not in "iufO":
        return x
    with np.errstate(invalid="ignore"):  # of a NaN among them
        return np.asarray(np.frompyfunc(lambda v: _number(v, home), 1, 1)(x), object)


def _number(x: Any, home: Any) -> Any:
    if isinstance(x, (int, np.integer)) and not isinstance(x, bool):
        return _whole(int(x), home)
    if not isinstance(x, (float, np.floating)):
        return x
    if not _is_sympy(home):
        numerator, denominator = x.as_integer_ratio() if np.isfinite(x) else (float(x), 1)
        return home.mpf(numerator) / denominator
    if not np.isfinite(x):
        return home.sympify(float(x))
    near = Fraction(float(x)).limit_denominator(SIMPLE)
    return (
        home.Rational(near.numerator, near.denominator)
        if float(near) == x
        else home.Float(float(x))
    )


def _whole(x: int, home: Any) -> Any:
    if home is None:
        return x
    return home.Integer(x) if _is_sympy(home) else home.mpf(x)


def _is(ufunc: np.ufunc, x: Any, home: Any) -> bool:
    """Whether an element is finite, infinite or NaN; a formula that may be finite is."""
    if isinstance(x, (int, float)):
        return bool(ufunc(float(x)))
    if _is_sympy(home):
        infinite, nan = x.is_infinite is True, x is home.nan
    else:
        infinite, nan = home.isinf(x), home.isnan(x)
    if ufunc is np.isfinite:
        return not (infinite or nan)
    return bool(infinite if ufunc is np.isinf else nan)


# What runs the rows whose forward is written for numbers ------------------------------------------


_add_up: Callable[..., Any] = np.add.reduce
_largest: Callable[..., Any] = np.maximum.reduce
_smallest: Callable[..., Any] = np.minimum.reduce


def _sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _add_up(x, axis=axis, keepdims=keepdims)


def _mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    total = _sum(x, axis, keepdims)
    return total / (x.size // max(np.size(total), 1))


def _where(condition: Any, x: Any, y: Any) -> Any:
    home = home_of(x, y, condition)
    x, y = _exact(np.asarray(x), home), _exact(np.asarray(y), home)
    if not isinstance(condition, Elements):
        return np.where(condition, x, y)
    choose = np.frompyfunc(lambda c, x, y: home.Piecewise((x, c), (y, True)), 3, 1)
    return choose(condition.view(np.ndarray), x, y)


def _scatter(g: Any, index: Any, shape: Any, distinct: bool = False) -> Any:
    z = np.full(shape, _whole(0, home_of(g)), object)
    np.add.at(z, index, g.view(np.ndarray) if g.ndim else g.item())
    return z


def _softmax(a: Any, axis: Any = -1) -> Any:
    e = np.exp(a)
    total = _sum(e, axis, keepdims=True)
    home = home_of(a)
    if not _is_sympy(home):
        total = _where(np.asarray(total == 0, bool), _whole(1, home), total)  # all is masked: p = 0
    return e / total


def _logsumexp(a: Any, axis: Any = -1, keepdims: bool = False) -> Any:
    return np.log(_sum(np.exp(a), axis, keepdims))


class OfElements(Kind):
    """Arrays of objects. No exponential overflows here, so that nothing is shifted unasked."""

    name = "formulas and exact numbers"
    forwards = {  # noqa: RUF012
        "astype": lambda x, dtype: x,
        "max": lambda x, axis=None, keepdims=False: _largest(x, axis=axis, keepdims=keepdims),
        "min": lambda x, axis=None, keepdims=False: _smallest(x, axis=axis, keepdims=keepdims),
        "mean": _mean,
        "scatter": _scatter,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "sum": _sum,
        "where": _where,
        "softmax": _softmax,
        "log_softmax": lambda a, axis=-1: a - _logsumexp(a, axis, keepdims=True),
        "logsumexp": _logsumexp,
    }

    def array(self, data: Any) -> Any:
        """Return an array of our own of SymPy's or mpmath's numbers, expressions, or arrays."""
        if isinstance(data, Elements) and not data.flags.writeable:
            return data
        given = np.array(data, object)
        return of_objects(_exact(given, home_of(given)))

    def leaf(self, data: Any, dtype: Any = None) -> Any:
        """As `array` does, of real numbers alone; a dtype would take their digits away."""
        if dtype not in (None, np.dtype(object)):
            raise InvalidTypeError(
                f"dtype is for numbers of NumPy's; these are {self.name}; got {shown(dtype)}"
            )
        array = self.array(data)
        formula: Any = getattr(sys.modules.get("sympy"), "Expr", ())
        for x in array.flat:
            if not isinstance(x, Real) and not (isinstance(x, formula) and x.is_real is not False):
                raise InvalidTypeError(
                    f"data must be real numbers or formulas of them; got {shown(x)}"
                )
        return array

    def beside(self, data: Any, like: Any) -> Any:
        """Numbers as SymPy's own, or with as many digits."""
        return of_objects(_exact(np.array(data, object), home_of(like)))

    def run(self, primitive: Any, args: Any, params: Any) -> Any:
        """Run a primitive, and give the result its class."""
        return of_objects(super().run(primitive, args, params))

    def ones(self, like: Any) -> Any:
        """The whole number 1 for each element, which a division leaves exact."""
        return of_objects(np.full(like.shape, _whole(1, home_of(like)), object))

    def plain(self, array: Any) -> np.ndarray:
        """The elements in an array of NumPy's own class."""
        found: np.ndarray = array.view(np.ndarray)
        return found

    def show(self, array: Any) -> str:
        """The elements as their library writes them, with all digits."""
        return np.array2string(
            array.view(np.ndarray), separator=", ", threshold=20, prefix="Tensor(",
            formatter={"object": str},
        )  # fmt: skip

    def elements(self, array: Any) -> str:
        """What the elements are: "formulas", or how many digits they have."""
        home = home_of(array)
        return "formulas" if _is_sympy(home) else f"{home.dps} digits" if home else "objects"

    def pictured(self, array: Any) -> Any:
        """Formulas, or numbers with a few digits, as texts."""
        return np.frompyfunc(_text, 1, 1)(array.view(np.ndarray))

    def shift(self, a: Any, axis: int) -> Any:
        """The largest number; for formulas a symbol m, since any shift gives the same loss."""
        home = home_of(a)
        if not _is_sympy(home):
            largest = _largest(a, axis=axis, keepdims=True)
            return _where(np.isinf(largest), _whole(0, home), largest)  # as where all is masked
        taken = {s.name for x in a.flat for s in getattr(x, "free_symbols", ())}
        name = next(name for name in ("m", *(f"m_{i}" for i in range(a.size))) if name not in taken)
        shape = tuple(1 if i == axis else n for i, n in enumerate(a.shape))
        return symbols(name, shape) if a.ndim > 1 else symbols(name).reshape(1)

    def masked(self, logits: Any) -> Any:
        """Which numbers are -inf, if one is; no formula is."""
        home = home_of(logits)
        if home is None or _is_sympy(home):
            return None
        found = np.asarray(logits == home.ninf, bool)
        return found if found.any() else None

    def one_hot(self, index: Any, like: Any, axis: int) -> Any:
        """Whole numbers, which leave formulas as they are."""
        hit = along(np.arange(like.shape[axis]), axis, like.ndim) == index
        return of_objects(_exact(hit.astype(int), home_of(like)))


def _text(x: Any) -> str:
    home = home_of(x)
    text = home.nstr(x, 8).removesuffix(".0") if hasattr(home, "nstr") else str(x)
    return text.replace("**", "^").replace("*", "·").replace("-", "−")


# What users call ----------------------------------------------------------------------------------


def symbols(name: str, shape: int | tuple[int, ...] = (), **assumptions: bool) -> Any:
    """Return an array of SymPy's symbols, real unless said otherwise, for a Tensor to hold.

    Args:
        name: what they are called: ``symbols("a", 3)`` holds a0, a1 and a2.
        shape: length of each axis, a number if there is one; () for a single symbol, `name` itself.
        assumptions: what `sympy.Symbol` takes, such as ``positive=True``.

    Raises:
        InvalidTypeError: `name` is no text, or SymPy is missing.
        InvalidValueError: `shape` is no shape.
    """
    sympy = _library("sympy", "symbols")
    if not isinstance(name, str) or not name:
        raise InvalidTypeError(f"symbols: name must be text; got {shown(name)}")
    try:
        found = np.empty(shape, object)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"symbols: shape must be a shape; got {shown(shape)}") from error
    between = "" if max(found.shape, default=0) <= 10 else "_"
    for at in product(*map(range, found.shape)):
        number = between.join(map(str, at))
        found[at] = sympy.Symbol(f"{name}{number}", **{"real": True, **assumptions})
    return of_objects(found)


def precise(x: Any, digits: int = 50) -> Any:
    """Return an array of numbers with so many decimal digits, for a Tensor to hold.

    Each operation on them rounds to `digits` digits, by mpmath; exponents have no end, so that
    nothing overflows. A difference such as p - y still loses the digits in which p and y agree.

    Args:
        x: numbers, nested lists or an array. A float is taken for what it is exactly, so that 0.1
            is 0.1000000000000000055…; a text is read as it is written.
        digits: at least 1.

    Raises:
        InvalidTypeError: `x` is no real number, `digits` no integer, or mpmath is missing.
        InvalidValueError: a text is no number, or `digits` is less than 1.
    """
    mpmath = _library("mpmath", "precise")
    if not isinstance(digits, Integral) or isinstance(digits, bool):
        raise InvalidTypeError(f"precise: digits must be an integer; got {shown(digits)}")
    if digits < 1:
        raise InvalidValueError(f"precise: digits must be at least 1; got {digits}")
    context = _context(mpmath, int(digits))
    given = np.array(x.numpy() if hasattr(type(x), "__primitive__") else x, object)
    return of_objects(np.frompyfunc(lambda v: _mpf(v, context), 1, 1)(given))


@cache
def _context(mpmath: Any, digits: int) -> Any:
    """Mpmath's functions with so many digits, whatever others set; numbers know theirs."""
    context = mpmath.mp.clone()
    context.dps = digits
    return context


def _of_parts(digits: int, parts: list[Any], shape: tuple[int, ...]) -> Any:
    """Numbers that were pickled."""
    context = _context(_library("mpmath", "unpickling"), digits)
    found = np.empty(len(parts), object)
    found[:] = [context.make_mpf(part) for part in parts]
    return of_objects(found.reshape(shape))


def _mpf(x: Any, context: Any) -> Any:
    if isinstance(x, (float, np.floating)):
        return _number(x, context)
    if isinstance(x, (Fraction, np.integer)):
        return context.mpf(int(x.numerator)) / int(x.denominator)
    try:
        return context.mpf(x)
    except ValueError as error:
        raise InvalidValueError(f"precise: x must be numbers; got {shown(x)}") from error
    except TypeError as error:
        raise InvalidTypeError(f"precise: x must be real numbers; got {shown(x)}") from error


def _library(name: str, caller: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidTypeError(
            f"{caller} needs the package {name}, which is not installed: "
            "python -m pip install 'tinygrad_sm[symbolic]'"
        ) from error


KIND = OfElements()
