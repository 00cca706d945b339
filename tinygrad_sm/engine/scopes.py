"""What holds for the operations run inside a `with`: `no_grad`, `group`, and their like."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from tinygrad_sm.engine.intake import described, text
from tinygrad_sm.engine.node import Recording, now
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError

F = TypeVar("F", bound=Callable[..., Any])


class Scope:  # a class, since a generator costs as much as an operation
    """Something that holds for what is recorded inside; also a decorator of functions.

    It holds for one thread, or one asyncio task. What to go back to is kept there too, so that
    several of them may enter one object.
    """

    __slots__ = ("_inside", "_name")

    def __init__(self, name: str, inside: Callable[[Recording], Recording]) -> None:
        self._name = name
        self._inside = inside

    def __enter__(self) -> None:
        now.set(self._inside(now.get()))

    def __exit__(self, *error: object) -> None:
        now.set(now.get().outside)

    def __call__(self, function: F) -> F:
        """Return the function with each of its calls inside; it may be a coroutine function.

        Raises InvalidTypeError for a generator function: its caller runs between its steps.
        """
        what = self._name
        if not callable(function):
            raise InvalidTypeError(f"{what} decorates a function; got {described(function)}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidTypeError(
                f"{what} cannot decorate the generator {function.__name__!r}, since its caller "
                f"runs between its steps; write `with tg.{what}(...):` inside, around no yield"
            )

        @wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        return cast(F, awaited if inspect.iscoroutinefunction(function) else inside)


def no_grad() -> Scope:
    """Compute without recording: results inside take part in no gradient.

    Also a decorator, of a function that is to run so.
    """
    return Scope("no_grad", lambda here: here._replace(on=False, defer=None, outside=here))


def recording() -> Scope:
    """Record, inside `no_grad` too, and in no group."""
    return Scope("recording", lambda here: Recording(True, (), {}, outside=here))


def deferring(defer: Callable[..., Any]) -> Scope:
    """Let `defer` answer first for what is recorded inside: with a Tensor, or None to run it."""
    return Scope(
        "deferring", lambda here: here._replace(defer=defer if here.on else None, outside=here)
    )


def group(name: str) -> Scope:
    """Mark the operations recorded inside as one named stage of the graph; groups may nest.

    Also a decorator, of a function whose operations are that stage.

    Raises:
        InvalidTypeError, InvalidValueError: the name is no text, or blank.
    """
    if not text(name).strip():
        raise InvalidValueError("group: name must not be blank")
    return Scope(
        "group", lambda here: here._replace(groups=(*here.groups, name), known={}, outside=here)
    )


def is_recording() -> bool:
    """Return whether operations are recorded here, that is, not inside `no_grad`."""
    return now.get().on
