"""Run a function of a user's file, for a command line that says ``FILE.py:function``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.tensor import Tensor


def output_of(place: str) -> Tensor:
    """Return the Tensor that a function returns, called without arguments.

    The file is executed, as Python would do on import; its folder is where it may import from.

    Args:
        place: ``"FILE.py:function"``.

    Raises:
        InvalidValueError: the place is not of that form, the file or the function is not there, or
            one of them fails; the message says where.
        InvalidTypeError: the function does not return a Tensor.
    """
    path, colon, name = place.rpartition(":")
    if not colon or not path or not name.isidentifier():
        raise InvalidValueError(f"the place must look like FILE.py:function; got {place!r}")
    function = getattr(_module(Path(path)), name, None)
    if not callable(function):
        raise InvalidValueError(f"{path} has no function {name!r}")
    try:
        output = function()
    except Exception as error:
        raise InvalidValueError(f"{name} of {path} failed: {_in_one_line(error)}") from error
    if not isinstance(output, Tensor):
        raise InvalidTypeError(
            f"{name} of {path} must return a Tensor; it returned {type(output).__name__}"
        )
    return output


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InvalidValueError(f"{path} is not a Python file that can be read")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidValueError(f"{path} failed: {_in_one_line(error)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
