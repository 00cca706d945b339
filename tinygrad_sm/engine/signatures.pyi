"""How a primitive may be called, for type checkers and editors; at run time it is a Primitive.

Where a Tensor is among the arrays the result is a Tensor, else an array.
"""

from collections.abc import Callable, Iterable
from typing import (
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import numpy as np

from tinygrad_sm.engine.primitive import Kind, Primitive, Vjp
from tinygrad_sm.engine.tensor import Tensor

P = ParamSpec("P")
AnyArray = TypeVar("AnyArray", Tensor, np.ndarray)
"""A Tensor or an array: a function written once for both gives what it is given."""

class OfOne(Generic[P]):
    """Takes one array, and what else the function behind it takes."""

    @overload
    def __call__(self, x: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...
    @overload
    def __call__(self, x: Any, /, *args: P.args, **kwargs: P.kwargs) -> np.ndarray: ...

class OfTwo(Generic[P]):
    """Takes two arrays, and what else the function behind it takes."""

    @overload
    def __call__(self, x: Tensor, y: Any, /, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...
    @overload
    def __call__(self, x: Any, y: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...
    @overload
    def __call__(self, x: Any, y: Any, /, *args: P.args, **kwargs: P.kwargs) -> np.ndarray: ...

class OneArray(OfOne[P], Primitive):
    """A primitive of one array, such as `sum`."""

class TwoArrays(OfTwo[P], Primitive):
    """A primitive of two arrays, such as `maximum`."""

Unary: TypeAlias = OneArray[[]]
Binary: TypeAlias = TwoArrays[[]]

class Choice(Primitive):
    """A function of two arrays and a condition: `where`."""

    @overload
    def __call__(self, condition: Any, x: Tensor, y: Any, /) -> Tensor: ...
    @overload
    def __call__(self, condition: Any, x: Any, y: Tensor, /) -> Tensor: ...
    @overload
    def __call__(self, condition: Any, x: Any, y: Any, /) -> np.ndarray: ...

class Said(TypedDict, total=False):
    """What else `def_primitive` can be told."""

    numpy: Callable[..., Any] | Iterable[Callable[..., Any]]
    variadic: bool
    integers: bool
    kind: Kind | None
    linear: bool
    analytic: bool
    notation: str | None

class Definition:
    """How `def_primitive` may be called: what it returns follows from the forward function."""

    @overload
    def __call__(
        self, name: str, forward: np.ufunc, vjp: Vjp | None, /, **said: Unpack[Said]
    ) -> Unary: ...
    @overload
    def __call__(
        self,
        name: str,
        forward: np.ufunc,
        vjp: Vjp | None,
        vjp2: Vjp | None,
        /,
        **said: Unpack[Said],
    ) -> Binary: ...
    @overload
    def __call__(
        self,
        name: str,
        forward: Callable[[Any, Any, Any], Any],
        no_vjp: None,
        vjp: Vjp | None,
        vjp2: Vjp | None,
        /,
        **said: Unpack[Said],
    ) -> Choice: ...
    @overload
    def __call__(
        self,
        name: str,
        forward: Callable[Concatenate[Any, P], Any],
        *vjps: Vjp | None,
        **said: Unpack[Said],
    ) -> OneArray[P]: ...
