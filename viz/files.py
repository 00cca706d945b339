"""Files that are written completely or not at all, one or several together."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from tinygrad_sm.errors import TinygradError

_ROOMS = f".tinygrad_sm-{platform.node()}-"  # and the process, to know what killed runs left


class SaveError(TinygradError, OSError):
    """A file could not be written where it should go."""


def write_whole(path: Path, content: bytes) -> None:
    """Write one file as `write_all` does."""
    write_all({path: content})


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write every file beside its place, then move all into place, or leave all as it was.

    A link stays a link, to a new file; a file that is there keeps its mode and owner. One that is
    read-only, or no regular file, is refused.

    Raises:
        SaveError: a file cannot be written; the cause is the system's error.
    """
    path = Path()
    moves: list[_Move] = []
    try:
        with ExitStack() as rooms, ExitStack() as undoing:
            for path in files:
                target = _replaceable(path)
                if any(target == move.target for move in moves):
                    raise OSError(errno.EINVAL, "two of these files are the same one")
                moves.append(_Move(path, target, Path(rooms.enter_context(_room(target.parent)))))
            for move in moves:
                path = move.path
                move.prepare(files[path])
            for move in moves:
                path = move.path
                undoing.callback(move.undo)
                undoing.callback(move.undo)  # twice, since an interrupt may end one of them
                os.replace(move.new, move.target)
            undoing.pop_all()
    except (OSError, ValueError) as error:  # a path with a null byte is the latter
        why = getattr(error, "strerror", None) or error
        raise SaveError(f"{path} cannot be written: {why}") from error


class _Move:
    """A file on its way: the draft `new` goes to `target`; `old` is what stood there."""

    def __init__(self, path: Path, target: Path, room: Path) -> None:
        self.path, self.target = path, target
        self.new, self.old = room / "new", room / "old"
        self._replaces = False

    def prepare(self, content: bytes) -> None:
        """Write the draft, with the mode and the owner of what it will replace."""
        self.new.write_bytes(content)
        with suppress(FileNotFoundError):
            was, now = self.target.stat(), self.new.stat()
            self._replaces = True
            if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
                with suppress(PermissionError):
                    os.chown(self.new, was.st_uid, was.st_gid)
            self.new.chmod(stat.S_IMODE(was.st_mode))
            try:
                os.link(self.target, self.old)
            except OSError:  # not every file system has links
                shutil.copy2(self.target, self.old)

    def undo(self) -> None:
        """Put back what stood there, as far as the system lets us; a second call does no harm."""
        with suppress(OSError):
            if self.new.exists():
                return  # it has not been moved
            if not self._replaces:
                os.replace(self.target, self.new)
            elif self.old.exists():
                os.replace(self.old, self.target)


def _replaceable(path: Path) -> Path:
    """The file that a path leads to, which need not exist; OSError if it must not be replaced."""
    target = Path(os.path.realpath(path))
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
            raise OSError(errno.EEXIST, f"it is {what}, not a file")
        if not mode & 0o222 or not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only")
    return target


def _room(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A hidden folder for drafts, of our own and on the same disk; others' are removed if dead."""
    for left in folder.glob(f"{_ROOMS}*"):
        if not _is_alive(left.name.removeprefix(_ROOMS).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{_ROOMS}{os.getpid()}-", dir=folder)


def _is_alive(process: str) -> bool:
    if os.name != "posix" or not process.isdecimal():
        return True  # who knows; on Windows signal 0 would end it
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
