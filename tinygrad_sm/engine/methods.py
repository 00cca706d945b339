"""Operations as operators and methods: what is written once for all of a kind.

Each is made of a row of the table, or of a function written with such rows, and has its text and
signature. Type checkers see a method that gives a Tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from tinygrad_sm.engine.arguments import misfit, unusual
from tinygrad_sm.engine.calling import call, operated
from tinygrad_sm.engine.intake import real_numbers
from tinygrad_sm.engine.memory import check_changeable, current_of
from tinygrad_sm.engine.node import NO_OPERATION
from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.scopes import is_recording
from tinygrad_sm.errors import InvalidTypeError

if TYPE_CHECKING:
    from tinygrad_sm.engine.signatures import OfOne, OneArray
    from tinygrad_sm.engine.tensor import Tensor

P = ParamSpec("P")
OfSelf = Callable[["Tensor"], "Tensor"]
OfSelfAndOther = Callable[["Tensor", Any], "Tensor"]


def unary(row: Primitive) -> OfSelf:
    """A method without arguments."""
    return _told(row, lambda self: operated(row, self))


def reduction(row: OneArray[P]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """A method that reduces; of ndarray's other parameters it takes the usual values."""

    def reduced(self: Tensor, axis: Any = None, keepdims: bool = False, **others: Any) -> Tensor:
        params = {"axis": axis, "keepdims": keepdims}
        if others:
            found: Tensor = Primitive.__call__(row, self, **params, **unusual(others))
            return found
        return operated(row, self, params=params)

    return _told(row, reduced)


def method(operation: OfOne[P]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """A method with any arguments, of ndarray's other parameters with the usual values."""
    return _told(operation, lambda self, *args, **kw: operation(self, *args, **unusual(kw)))


def _told(operation: Any, method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method, with the operation's text and signature."""
    return update_wrapper(method, operation, updated=())


def operators(row: Primitive, sign: str) -> tuple[OfSelfAndOther, OfSelfAndOther, OfSelfAndOther]:
    """The operators ``self + other``, ``other + self`` and ``self += other`` of a row."""

    def operator(self: Tensor, other: Any) -> Tensor:
        return operated(row, self, other)

    def reflected(self: Tensor, other: Any) -> Tensor:
        return call(row, (other, self))

    def augmented(self: Tensor, other: Any) -> Tensor:
        """Change the data of a leaf inside `no_grad`, else return a new Tensor."""
        if self._operation is not NO_OPERATION or (is_recording() and not self.requires_grad):
            return operated(row, self, other)
        if is_recording():
            name = self.name or "w"
            raise InvalidTypeError(
                f"{name} {sign}= … changes a leaf, which no gradient can follow: write it inside "
                f"`with tg.no_grad():` to train {name}, or {name} = {name} {sign} … for a new one"
            )
        check_changeable(self)
        if type(other) not in (int, float):
            other = real_numbers(current_of(other), f"{sign}=: the right side")
        try:
            row.forward(self.data, other, out=self.data)
        except (ValueError, TypeError, OverflowError) as error:
            raise misfit(f"{sign}=", [self, other], error) from error
        return self

    return operator, reflected, augmented


def comparison(function: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Any]:
    """A comparison: it is piecewise constant, and gives a plain boolean array."""

    def compared(self: Tensor, other: Any) -> Any:
        return function(self._now, current_of(other))

    return compared
