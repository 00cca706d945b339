"""What a primitive is, and who answers when one is called.

A primitive is a forward function on plain arrays and one vector-Jacobian product (vjp) per array
argument. Called on plain arrays it runs its forward, on integers as float64. An argument whose
type defines ``__primitive__(primitive, args, params)`` answers instead: a Tensor computes and
records. So the vjps, which are written with the same public operations, run on whatever they are
given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from tinygrad_sm.engine.intake import bound, check_definition, computed

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import Definition

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

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Run the forward function, or let the first argument that can answer do so."""
        if len(args) != self.arity or (params and not self._known.issuperset(params)):
            args, params = bound(self, args, params)
        for arg in args:
            answer = getattr(type(arg), "__primitive__", None)
            if answer is not None:
                return answer(arg, self, args, params)
        return computed(self, args, params)

    def vjps(self, count: int) -> tuple[Vjp | None, ...]:
        """Return the vjps for a call with `count` array arguments."""
        if self.arity is not None:
            return self._vjps
        one = self._vjps[0]
        assert one is not None
        return tuple(_for_argument(one, i) for i in range(count))


def _for_argument(vjp: Vjp, index: int) -> Vjp:
    return lambda *args, **params: vjp(index, *args, **params)


def _typed(function: Any) -> Definition:
    """Say to type checkers how `def_primitive` may be called."""
    return cast("Definition", function)


@_typed
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
    gradcheck and fusion go by; none of them knows it by its name.

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
            unasked.
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
    check_definition(name, forward, vjps, kind, KINDS, taken=name in TABLE)
    primitive = TABLE[name] = Primitive(
        name, forward, vjps, variadic=variadic, integers=integers,
        kind=kind, linear=linear, analytic=analytic, notation=notation,
    )  # fmt: skip
    functions = [numpy] if callable(numpy) else list(numpy)
    NUMPY.update(dict.fromkeys(functions, primitive))
    if isinstance(forward, np.ufunc):
        NUMPY.setdefault(forward, primitive)  # a second primitive on it must ask, by `numpy`
    return primitive
