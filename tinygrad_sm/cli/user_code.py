"""Running a function of the user's own file, which an argument names as FILE.py:function."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.tensor import Tensor

_MODULE = "tinygrad_sm_user_code"


def is_place(argument: str) -> bool:
    """Whether an argument looks like FILE.py:function."""
    path, colon, _ = argument.rpartition(":")
    return bool(colon) and path.endswith(".py")


def output_of(place: str) -> Tensor:
    """Return the Tensor that a function of the user's returns, called without arguments.

    The file runs as if it were imported; its folder is where it may import from. What it prints
    goes to stderr, since stdout is the command's own, and NumPy does not warn of overflows there:
    what the commands show says where they are.

    Args:
        place: ``"FILE.py:function"``.

    Raises:
        InvalidValueError: `place` is not of that form, there is no such file or function, the
            function wants arguments, or something in there raises; the message names the line.
        InvalidTypeError: the function does not return a Tensor.
    """
    path, _, name = place.rpartition(":")
    if not is_place(place) or not name.isidentifier():
        raise InvalidValueError(f"{place!r} must be FILE.py:function, such as model.py:loss")
    with _as_if_imported(Path(path)):
        module = _module(Path(path))
        function = _function(module, path, name)
        output = _run(Path(path), f"{path}:{name}", function)
    if not isinstance(output, Tensor):
        raise InvalidTypeError(
            f"{path}:{name} returned {_a(type(output).__name__)}; it must return the output, "
            "a Tensor"
        )
    return output


@contextlib.contextmanager
def _as_if_imported(path: Path) -> Iterator[None]:
    """Let the file import its neighbours, and keep stdout to ourselves."""
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr), np.errstate(all="ignore"):
            yield
    finally:
        sys.modules.pop(_MODULE, None)
        with contextlib.suppress(ValueError):  # the file may have changed the path itself
            sys.path.remove(folder)


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidValueError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses and pickles look their module up
    _run(path, str(path), lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    return module


def _function(module: ModuleType, path: str, name: str) -> Callable[[], Any]:
    function: Callable[[], Any] | None = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items()
               if inspect.isfunction(value) and value.__module__ == _MODULE]  # fmt: skip
        has = f"it has {', '.join(own)}" if own else "it has none"
        raise InvalidValueError(f"{path} has no function {name!r}; {has}")
    wanted = _arguments(function)
    if wanted:
        raise InvalidValueError(
            f"{path}:{name} wants arguments ({', '.join(wanted)}); give a function that needs none"
        )
    return function


def _arguments(function: Callable[[], Any]) -> list[str]:
    """The names of the arguments that a function cannot do without, as far as it tells."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [x.name for x in parameters if x.default is x.empty and x.kind not in optional]


def _run(path: Path, what: str, function: Callable[[], Any]) -> Any:
    """Call the user's code; if it raises, say what and where in one sentence."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        said = " ".join(text.split())
        raise InvalidValueError(
            f"{what} raised {type(error).__name__}{_line(path, error)}{f': {said}' if said else ''}"
        ) from error


def _line(path: Path, error: BaseException) -> str:
    """On which line of the user's file an exception arose; empty if it was before any."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename) == path.resolve():
        return f" on line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if Path(frame.filename).resolve() == path.resolve()]  # fmt: skip
    return f" on line {lines[-1]}" if lines else ""


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
