"""What a primitive is, and who answers when one is called.

A primitive is a forward function on plain arrays and one vector-Jacobian product (vjp) per array
argument. Called on plain arrays it runs its forward, on integers as float64. An argument whose
type defines ``__primitive__(primitive, args, params)`` answers instead: a Tensor computes and
records. So the vjps, which are written with the same public operations, run on whatever they are
given.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Unpack, get_args, overload

import numpy as np

from tinygrad_sm.engine.intake import misfit, real_numbers
from tinygrad_sm.engine.threads.large import Shared
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, TinygradError

_ndarray = np.ndarray

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import Binary, Choice, OneArray, Said, Unary

P = ParamSpec("P")
Vjp = Callable[..., Any]
Kind = Literal["elementwise", "reduction", "view", "move", "loss"]

TABLE: dict[str, Primitive] = {}
"""Every primitive that was defined, by name."""

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a primitive's result can be made of; see `def_primitive`."""

NUMPY: dict[Callable[..., Any], Callable[..., Any]] = {}
"""NumPy's functions, and the operation of ours that answers for each on a Tensor."""


_POSITIONAL = inspect.Parameter.POSITIONAL_ONLY
_NONE = inspect.Parameter.empty


class Primitive:
    """One row of the table: `forward` and its `vjps`, callable on arrays and on Tensors.

    Attributes:
        name: the operation's name in graphs, e.g. ``"exp"``.
        forward: maps plain arrays (and keyword parameters) to a plain array.
        vjps: one per array argument, called as ``vjp(g, out, *args, **params)`` where ``g`` is
            the cotangent of the output ``out``; returns the cotangent of its argument. ``None``
            marks an argument that is never differentiated (an index, a condition).
        arity: number of array arguments; ``None`` when there may be any number. The one vjp of
            such a primitive is called as ``vjp(i, g, out, *args, **params)`` for argument ``i``.
        integers: whether integer arrays reach `forward` as they are; else they take the
            floating-point dtype of the Tensors or arrays beside them, float64 if there are none.
        arguments: names of the array arguments in `forward`.
        parameters: names of the keyword parameters, in the order of `forward`, with the defaults.
        kind, linear, analytic, notation: see `def_primitive`.
        shares: whether `forward` and `vjps` get large arrays as views whose ufuncs are dealt out to
            several threads (see `sharing`), and may return such views.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        vjps: tuple[Vjp | None, ...],
        *,
        variadic: bool,
        integers: bool,
        kind: Kind | None,
        linear: bool,
        analytic: bool,
        notation: str | None,
    ) -> None:
        self.name = self.__name__ = name
        self.forward = forward
        self.arity = None if variadic else len(vjps)
        self.integers = integers
        self._vjps = vjps
        self._free = vjps.index(None) if None in vjps else None  # may be integers or booleans
        if isinstance(forward, np.ufunc):  # its own text tells of out= and where=, refused here
            each = " element by element" if forward.signature is None else ""
            text = f"np.{forward.__name__}{each}, with a gradient."
            takes = [inspect.Parameter(x, _POSITIONAL) for x in ("x", "y", "z")[: len(vjps)]]
            if kind is None and each and forward.nout == 1:
                kind = "elementwise"
        else:
            text = inspect.getdoc(forward) or f"The primitive `{name}`."
            takes = list(inspect.signature(forward).parameters.values())
        named = [x for x in takes if x.kind is not x.VAR_POSITIONAL]
        count = self.arity or 0
        self.arguments = tuple(x.name for x in named[:count])
        self.parameters = {x.name: x.default for x in named[count:]}
        self._known = frozenset(self.parameters)
        arrays = [x.replace(kind=_POSITIONAL, annotation=_NONE) for x in takes[:count]]
        others = [x.replace(annotation=_NONE) for x in takes[count:]]
        self.__signature__ = inspect.Signature([*arrays, *others])
        self.__doc__ = f"{name}{self.__signature__}\n\n{text}"
        self.kind = kind
        self.linear = linear
        self.analytic = analytic or linear or kind in ("view", "move")
        self.notation = name if notation is None else notation
        self.shares = kind in ("elementwise", "reduction")

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Run the forward function, or let the first argument that can answer do so."""
        if len(args) != self.arity or (params and not self._known.issuperset(params)):
            args, params = self._bind(args, params)
        settled = unsettled = False  # whether there is an array; whether anything is not fit
        free = None if self._free is None else args[self._free]
        for arg in args:
            kind = type(arg)
            if kind is _ndarray:
                settled = True
                if arg.dtype.kind != "f" and arg is not free:
                    unsettled = True
            elif kind is not float and kind is not int:
                answer = getattr(kind, "__primitive__", None)
                if answer is not None:
                    return answer(arg, self, args, params)
                unsettled = True
        try:
            if unsettled or not settled:
                args = self._settled(args)
            return self.forward(*args, **params)
        except TinygradError:  # already says what is wrong
            raise
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise misfit(self.name, args, error) from error

    def _settled(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Plain arguments as numbers and arrays to compute with: integers as floats."""
        given = [
            x
            if isinstance(x, (np.generic, Shared)) or type(x) in (bool, int, float)
            else real_numbers(x, f"{self.name}: argument {i + 1}")
            for i, x in enumerate(args)
        ]
        if self.integers:
            return tuple(given)
        arrays = [x for x in given if isinstance(x, (np.ndarray, np.generic))]
        floats = [x.dtype for x in arrays if x.dtype.kind == "f"]
        dtype = np.result_type(*floats) if floats else np.dtype(np.float64)
        for i, vjp in enumerate(self.vjps(len(given))):
            x = given[i]
            if isinstance(x, (np.ndarray, np.generic)):
                if x.dtype.kind != "f" and vjp is not None:  # conditions and positions stay
                    given[i] = x.astype(dtype)
            elif not arrays:
                given[i] = float(x)
        return tuple(given)

    def vjps(self, count: int) -> tuple[Vjp | None, ...]:
        """Return the vjps for a call with `count` array arguments."""
        if self.arity is not None:
            return self._vjps
        one = self._vjps[0]
        assert one is not None
        return tuple(_for_argument(one, i) for i in range(count))

    def _bind(
        self, args: tuple[Any, ...], params: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Sort a call's arguments into arrays and parameters, or say what does not fit."""
        arity = len(args) if self.arity is None else self.arity
        extra = args[arity:]
        known = ", ".join(self.parameters)
        if len(args) < arity or len(extra) > len(self.parameters):
            allowed = f" and the parameters {known}" if known else ""
            raise InvalidTypeError(
                f"{self.name} takes {arity} array argument{'s' * (arity != 1)}"
                f"{allowed}, but {len(args)} positional argument"
                f"{'s were' if len(args) != 1 else ' was'} given"
            )
        bound = dict(zip(self.parameters, extra, strict=False))
        for name in params:
            if name in bound:
                raise InvalidTypeError(f"{self.name} was given the argument {name!r} twice")
            if name not in self.parameters:
                allowed = f"; its parameters are {known}" if known else ""
                raise InvalidTypeError(f"{self.name} does not take the argument {name!r}{allowed}")
        return args[:arity], bound | params


def _for_argument(vjp: Vjp, index: int) -> Vjp:
    return lambda *args, **params: vjp(index, *args, **params)


@overload
def def_primitive(
    name: str, forward: np.ufunc, vjp: Vjp | None, /, **said: Unpack[Said]
) -> Unary: ...
@overload
def def_primitive(
    name: str, forward: np.ufunc, vjp: Vjp | None, vjp2: Vjp | None, /, **said: Unpack[Said]
) -> Binary: ...
@overload
def def_primitive(
    name: str,
    forward: Callable[[Any, Any, Any], Any],
    no_vjp: None,
    vjp: Vjp | None,
    vjp2: Vjp | None,
    /,
    **said: Unpack[Said],
) -> Choice: ...
@overload
def def_primitive(
    name: str,
    forward: Callable[Concatenate[Any, P], Any],
    *vjps: Vjp | None,
    **said: Unpack[Said],
) -> OneArray[P]: ...
def def_primitive(
    name: str,
    forward: Callable[..., Any],
    *vjps: Vjp | None,
    numpy: Callable[..., Any] | Iterable[Callable[..., Any]] = (),
    variadic: bool = False,
    integers: bool = False,
    kind: Kind | None = None,
    linear: bool = False,
    analytic: bool = False,
    notation: str | None = None,
) -> Any:
    """Define a primitive: its name, its forward function and one vjp per array argument.

    All else is optional. What more is said here of a primitive is what diagnosis, pictures,
    gradcheck, fusion and threads go by; none of them knows it by its name.

    Args:
        name: a new name; it becomes the `op` of the nodes that the primitive makes.
        forward: takes the array arguments positionally and its parameters by keyword, returns a
            new floating-point array and changes none of its arguments.
        vjps: ``vjp(g, out, *args, **params)`` per array argument, or None for one that is never
            differentiated. Written with operators and the functions of this package, so that it
            also runs on Tensors and second derivatives come for free. A result that is larger
            than its argument by broadcasting is summed down to it; nothing else is corrected.
        numpy: NumPy functions that are to call this primitive when they meet a Tensor. A
            `forward` that is itself a ufunc is registered without asking, unless one is already.
        variadic: any number of array arguments; the one vjp gets the argument's index first.
        integers: leave integer arrays as they are, since they count or index; by default they
            take the floating-point dtype of what stands beside them, float64 if nothing does.
        kind: what the result is made of: "elementwise", each element of those at its place, as
            broadcast; "reduction", of all along `axis`, which goes unless `keepdims`; "view", the
            same elements in another shape; "move", elements of the arguments, picked or joined;
            "loss", a loss against the argument `target`. A ufunc without signature is elementwise
            unasked. What is elementwise or a reduction computes large arrays on several threads:
            `forward` and `vjps` are then given views of them.
        linear: it is linear in all of its array arguments together, like a sum.
        analytic: `forward` computes the same function on complex arrays, by which gradcheck has
            more digits; what is linear, a view or a move is.
        notation: how formulas write it, e.g. ``"{} + {}"``; a mere word is called like a function.

    Returns:
        The Primitive, callable on arrays and Tensors.

    Raises:
        InvalidTypeError: if there is no vjp at all, or the name is no text, or `forward` or a vjp
            no function.
        InvalidValueError: if the name is taken, or `kind` is none of these.

    Examples:
        >>> import numpy as np, tinygrad_sm as tg
        >>> softplus = tg.def_primitive(
        ...     "softplus_example", lambda x: np.logaddexp(0, x), lambda g, y, x: g * tg.sigmoid(x)
        ... )
    """
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
    if name in TABLE:
        raise InvalidValueError(f"def_primitive: the name {name!r} is taken; choose another")
    if kind is not None and kind not in KINDS:
        raise InvalidValueError(
            f"def_primitive: kind of {name!r} must be one of {', '.join(KINDS)}; got {kind!r}"
        )
    primitive = TABLE[name] = Primitive(
        name, forward, vjps, variadic=variadic, integers=integers,
        kind=kind, linear=linear, analytic=analytic, notation=notation,
    )  # fmt: skip
    functions = [numpy] if callable(numpy) else list(numpy)
    NUMPY.update(dict.fromkeys(functions, primitive))
    if isinstance(forward, np.ufunc):
        NUMPY.setdefault(forward, primitive)  # a second primitive on it must ask, by `numpy`
    return primitive


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
