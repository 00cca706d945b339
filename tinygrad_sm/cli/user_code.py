"""Running a function of the user's own file, which an argument names as FILE.py:function."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import io
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click
import numpy as np

from tinygrad_sm.arrays.jaxpr import from_jax
from tinygrad_sm.cli.inputs import dangling
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError

_MODULE = "tinygrad_sm_user_code"
_SAID = 300  # characters of an exception's text; --traceback shows all
_OURS = Path(__file__).resolve().parents[1]
_NOT_THEIRS = (Path(sysconfig.get_path("stdlib")).resolve(), _OURS, _OURS.with_name("viz"))

traceback_option = click.option(
    "--traceback", "show_all", is_flag=True, help="Show all of an exception that your code raises."
)


def is_place(argument: str) -> bool:
    """Whether an argument looks like FILE.py:function."""
    return argument.rpartition(":")[0].endswith(".py")


@contextlib.contextmanager
def guarded(place: str | None, show_all: bool) -> Iterator[TextIO | None]:
    """Run what may call the user's code; give the stream for the command's own output.

    The folder of the user's file is where it may import from. What it writes to stdout, from any
    thread or process, now or at exit, goes to stderr, since stdout is the command's own. The
    working directory is what it was afterwards. NumPy does not warn of overflows there: what the
    commands show says where they are.

    Args:
        place: ``"FILE.py:function"``, or None if no code of the user's is run.
        show_all: print the traceback of what the user's code raises.

    Raises:
        InvalidValueError: the user's code raises; the message names the line.
    """
    if place is None:
        if show_all:
            raise InvalidValueError("--traceback is for FILE.py:function only")
        yield None
        return
    file = Path(place.rpartition(":")[0]).resolve()
    try:
        with contextlib.chdir(os.curdir), _stdout_kept() as own, np.errstate(all="ignore"):
            yield own
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if _lines(error):  # a rule of theirs, which backward or fuse has called
            error = _Raised(file, place, error)
        if isinstance(error, _Raised) and show_all:
            traceback.print_exception(_from_theirs(error.cause))
        elif isinstance(error, _Raised):
            error.args = (f"{error} (--traceback shows all of it)",)
        raise error from error.__cause__
    finally:
        sys.modules.pop(_MODULE, None)
        _forget(file.parent)


def output_of(place: str) -> Tensor:
    """Return the Tensor that a function of the user's returns, called without arguments.

    The file runs as if it were imported. To be called within `guarded`.

    Args:
        place: ``"FILE.py:function"``.

    Raises:
        InvalidValueError: `place` is not of that form, there is no such file or function, the
            function wants arguments, or something in there raises; the message names the line.
        InvalidTypeError: the function does not return a Tensor.
    """
    name = place.rpartition(":")[2]
    path = Path(place.rpartition(":")[0])
    if not is_place(place) or not name.isidentifier():
        raise InvalidValueError(f"{place!r} must be FILE.py:function, such as model.py:loss")
    if not path.is_file():
        missing = "is a folder" if path.is_dir() else "there is no such file"
        raise InvalidValueError(f"{path}: {dangling(path) or missing}")
    file = path.resolve()
    sys.path.insert(0, str(file.parent))
    try:
        function, amiss = _called(file, str(path), lambda: _function(path, name))
        if amiss:
            raise InvalidValueError(f"{path}{amiss}")
        output, fits = _called(file, place, lambda: _output(function))
    finally:
        _forget(file.parent)
        sys.path.append(str(file.parent))  # for a rule that imports; what we import comes first
        if _is_theirs(getattr(sys.modules.get("viz"), "__file__", None) or ""):
            for other in [key for key in sys.modules if key.partition(".")[0] == "viz"]:
                del sys.modules[other]  # theirs, which they keep; ours is the one to draw with
    if not fits:
        jax = ", or take arrays as arguments with defaults, as JAX's" if _is_jax(output) else ""
        raise InvalidTypeError(
            f"{place} returned {_a(type(output).__name__)}; it must return the output, a Tensor"
            f"{jax}"
        )
    assert isinstance(output, Tensor)
    return output


def _forget(folder: Path) -> None:
    with contextlib.suppress(ValueError):  # the user's file may have changed the path itself
        sys.path.remove(str(folder))


@contextlib.contextmanager
def _stdout_kept() -> Iterator[TextIO]:
    """Give a stream to where stdout went; stdout itself becomes stderr.

    For good, unless it was captured: what the user's code left behind may write at exit.
    """
    stdout: TextIO = sys.stdout
    captured = stdout is not sys.__stdout__
    if stdout is None or captured:  # None where the shell closed it
        with contextlib.redirect_stdout(sys.stderr):
            yield stdout or io.StringIO()
        return
    stdout.flush()
    stderr: TextIO = sys.stderr
    if stderr is None:  # closed, so that the next file would be stderr
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    own = _stream(os.dup(1), stdout)
    if command := click.get_current_context(silent=True):
        command.call_on_close(lambda: _closed(own))
    os.dup2(2, 1)
    # theirs to wrap or to close; whoever wraps one counts on the second name to keep it alive
    sys.stdout = sys.__stdout__ = _stream(1, stdout)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, stdout)  # type: ignore[misc]
    try:
        yield own
    finally:
        os.dup2(2, 1)  # in case that they closed it
        sys.stdout, sys.stderr = _stream(1, stdout), stderr


def _closed(stream: TextIO) -> None:
    """Close it, so that what a reader who has gone refused is not told once more at the end."""
    with contextlib.suppress(OSError):
        stream.close()


def _stream(number: int, like: TextIO) -> io.TextIOWrapper:
    return open(number, "w", 1, encoding=like.encoding, errors=like.errors, closefd=False)


def _function(path: Path, name: str) -> tuple[Any, str]:
    """The function of this name, and what speaks against calling it."""
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items()
               if inspect.isfunction(value) and value.__module__ == _MODULE]  # fmt: skip
        has = f"it has {', '.join(own)}" if own else "it has none"
        return None, f" has no function {name!r}; {has}"
    wanted = ", ".join(_arguments(function))
    amiss = f":{name} wants arguments ({wanted}); give a function that needs none"
    return function, amiss if wanted else ""


def _arguments(function: Callable[[], Any]) -> list[str]:
    """The names of the arguments that a function cannot do without, as far as it tells."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [x.name for x in parameters if x.default is x.empty and x.kind not in optional]


def _output(function: Callable[[], Any]) -> tuple[Any, bool]:
    output = function()
    if inspect.iscoroutine(output):
        output.close()  # or Python says that it was never awaited
    if _is_jax(output):
        defaults = [x.default for x in inspect.signature(function).parameters.values()]
        output = from_jax(function, *defaults) if defaults else output
    return output, isinstance(output, Tensor)  # which asks the output itself, if it is none


def _is_jax(output: Any) -> bool:
    return type(output).__module__.partition(".")[0] in ("jax", "jaxlib")


def _called(file: Path, what: str, function: Callable[[], Any]) -> Any:
    """Call what runs the user's code; if it raises, say what and where in one sentence."""
    try:
        return function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _Raised(file, what, error) from error


class _Raised(InvalidValueError):
    """The sentence for an exception that the user's code in `file`, or what it calls, raised."""

    def __init__(self, file: Path, what: str, cause: BaseException) -> None:
        self.cause = self.__cause__ = cause
        try:
            said = str((isinstance(cause, SyntaxError) and cause.msg) or cause)
        except BaseException as worse:
            said = f"its text cannot be shown, since that raises {type(worse).__name__}"
        said = " ".join(said.split())
        said = said if len(said) <= _SAID else f"{said[:_SAID]}…"
        where = ""
        if lines := _lines(cause):
            other, line = lines[-1]
            where = f" on line {line}"
            if other != file:
                where += f" of {os.path.relpath(other, file.parent)}"
        super().__init__(f"{what} raised {type(cause).__name__}{where}{said and f': {said}'}")


def _lines(error: BaseException) -> list[tuple[Path, int | None]]:
    """The lines of the user's files that an exception came through, the one it arose on last."""
    lines = [(frame.f_code.co_filename, line)
             for frame, line in traceback.walk_tb(error.__traceback__)]  # fmt: skip
    if isinstance(error, SyntaxError) and isinstance(error.filename, str):
        lines.append((error.filename, error.lineno or 1))
    return [(Path(file).resolve(), line) for file, line in lines if _is_theirs(file)]


@functools.cache
def _is_theirs(file: str) -> bool:
    """Whether a file is the user's: none of Python's, of an installed package or of ours."""
    path = Path(file).resolve()
    return (
        os.path.isabs(file)  # <string> and the like are not
        and not {"site-packages", "dist-packages"} & set(path.parts)
        and not any(path.is_relative_to(folder) for folder in _NOT_THEIRS)
    )


def _from_theirs(error: BaseException) -> BaseException:
    """The exception without the frames of ours that led to the user's code."""
    where = error.__traceback__
    while where is not None and not _is_theirs(where.tb_frame.f_code.co_filename):
        where = where.tb_next
    return error.with_traceback(where)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
