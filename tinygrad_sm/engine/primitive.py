"""What a primitive is, and who answers when one is called.

A primitive is a forward function on plain arrays and one vector-Jacobian product (vjp) per array
argument. Called on plain arrays it runs its forward; integers become float64 first. An argument
whose type defines ``__primitive__(primitive, args, params)`` answers instead: a Tensor computes and
records. So a vjp, which is written with these same operations, gives arrays when it is given
arrays, and Tensors that can be differentiated again when it is given Tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from tinygrad_sm.engine.arguments import bound, check_definition, computed

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import Definition

Vjp = Callable[..., Any]
Kind = Literal["elementwise", "reduction", "view", "move", "loss"]

TABLE: dict[str, Primitive] = {}
"""Every primitive that was defined, by name."""

KINDS: tuple[Kind, ...] = get_args(Kind)
"""How a primitive's result can be made of its arguments; see `def_primitive`."""

NUMPY: dict[Callable[..., Any], Callable[..., Any]] = {}
"""NumPy's functions, and the operation of ours that answers for each on a Tensor."""


class Primitive:
    """One row of the table: a forward function and its vjps, callable on arrays and on Tensors.

    Attributes:
        name: the operation's name in graphs, e.g. ``"exp"``.
        forward: maps plain arrays (and keyword parameters) to a plain array.
        arity: number of array arguments; None when there may be any number.
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
        self._vjps = vjps
        self.arity = None if variadic else len(vjps)
        self.integers = integers
        self.kind = kind
        self.linear = linear
        self.analytic = analytic or linear or kind in ("view", "move")
        self.notation = name if notation is None else notation
        # What `forward` takes and does; a ufunc's own text tells of out= and where=, refused here
        if isinstance(forward, np.ufunc):
            each = " element by element" if forward.signature is None else ""
            text = f"np.{forward.__name__}{each}, with a gradient."
            takes = [Parameter(x, Parameter.POSITIONAL_ONLY) for x in "xyz"[: len(vjps)]]
            if kind is None and each and forward.nout == 1:
                self.kind = "elementwise"
        else:
            text = inspect.getdoc(forward) or f"The primitive `{name}`."
            takes = list(inspect.signature(forward).parameters.values())
        takes = [x.replace(annotation=Parameter.empty) for x in takes]
        named = [x for x in takes if x.kind is not x.VAR_POSITIONAL]  # all but *args
        count = self.arity or 0
        self.arguments = tuple(x.name for x in named[:count])
        self.parameters = {x.name: x.default for x in named[count:]}
        self._parameter_names = frozenset(self.parameters)
        arrays = [x.replace(kind=x.POSITIONAL_ONLY) for x in takes[:count]]
        self.__signature__ = inspect.Signature([*arrays, *takes[count:]])  # which help() shows
        self.__doc__ = f"{name}{self.__signature__}\n\n{text}"

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Run the forward function, or let the first argument that can answer do so."""
        if len(args) != self.arity or (params and not self._parameter_names.issuperset(params)):
            args, params = bound(self, args, params)  # parameters may be given by position, too
        for arg in args:
            answer = getattr(type(arg), "__primitive__", None)
            if answer is not None:
                return answer(arg, self, args, params)
        return computed(self, args, params)

    def vjps(self, count: int) -> tuple[Vjp | None, ...]:
        """Return the vjps for a call with `count` array arguments, one for each.

        Each is called as ``vjp(g, out, *args, **params)``, where ``g`` is the cotangent of the
        output ``out``, and returns what it contributes to the cotangent of its argument, or None
        for nothing. An argument that is never differentiated (an index, a condition) has None in
        the place of a vjp.
        """
        if self.arity is not None:
            return self._vjps
        one = self._vjps[0]
        assert one is not None
        return tuple(partial(one, i) for i in range(count))


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

    The rest is optional. It is all that diagnosis, pictures, gradcheck and fusion go by: none of
    them knows a primitive by its name.

    Args:
        name: a new name; it becomes the `op` of the nodes that the primitive makes.
        forward: takes the array arguments positionally and its parameters by keyword, returns a
            new floating-point array and changes none of its arguments.
        vjps: ``vjp(g, out, *args, **params)`` per array argument, or None for one that is never
            differentiated. Written with operators and the functions of this package, so that it
            also runs on Tensors and second derivatives come for free. Where the argument was
            broadcast, the result is summed down to its shape; nothing else is corrected.
        numpy: NumPy functions that are to call this primitive when they meet a Tensor. A
            `forward` that is itself a ufunc is added unasked, if it has no primitive yet.
        variadic: any number of array arguments; the one vjp gets the argument's index first.
        integers: leave integer arrays as they are, since they count or index; by default they
            take the floating-point dtype of what stands beside them, float64 if nothing does.
        kind: how the result is made of the arguments. "elementwise": each element from those at
            its place, after broadcasting. "reduction": each from all along `axis`, which goes
            unless `keepdims`. "view": the same elements in another shape. "move": elements of
            the arguments, picked or joined. "loss": a loss against the argument `target`. A ufunc
            without signature is elementwise unasked. Of large arrays what is elementwise, or a
            reduction along the last axis, may get some rows at a time, in several threads.
        linear: it is linear in all of its array arguments together, like a sum.
        analytic: `forward` computes the same function on complex arrays, from which gradcheck
            gets more digits. What is linear, a view or a move is analytic unasked.
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
    check_definition(name, forward, vjps, variadic, kind, KINDS, taken=name in TABLE)
    primitive = TABLE[name] = Primitive(
        name, forward, vjps, variadic=variadic, integers=integers,
        kind=kind, linear=linear, analytic=analytic, notation=notation,
    )  # fmt: skip
    functions = [numpy] if callable(numpy) else list(numpy)
    NUMPY.update(dict.fromkeys(functions, primitive))
    if isinstance(forward, np.ufunc):
        NUMPY.setdefault(forward, primitive)  # a second primitive on it must ask, by `numpy`
    return primitive
