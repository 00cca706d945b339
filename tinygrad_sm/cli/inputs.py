"""Reading logits and targets from files, standard input and arguments."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import math
import os
import re
import stat
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from tinygrad_sm.errors import InvalidValueError

_NPY = b"\x93NUMPY"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is of an empty archive
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_HEADERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): npy.read_array_header_2_0,  # differs in the names of fields alone
}
SUFFIXES = (".npy", ".npz", ".csv")
SEED_LOGITS, SEED_TARGET = np.array([2.0, 1.0, 0.1]), np.array([1, 0, 0])  # the article's example


def read_input(source: str | None, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and the target that `--logits` and `--target` name.

    Without either, they are those of the article's example; with a target alone, the logits are.
    The label of a single row may be a number or a list of one.

    Raises:
        InvalidValueError: something cannot be read, or there is no target.
    """
    if source == "-" and target == "-":
        raise InvalidValueError("--logits and --target cannot both be read from standard input")
    logits = SEED_LOGITS
    found: np.ndarray | None = SEED_TARGET
    if source is not None:
        logits, found = read_logits(source, with_target=target is None)
    if target is not None:
        found = read_target(target)
    if found is None:
        raise InvalidValueError("--logits needs --target: a class index, a list or a file")
    one_row = logits.size == max(logits.shape, default=0)
    if one_row and found.size == 1 and found.shape != logits.shape:
        found = found.reshape((1,) * (logits.ndim - 1))
    return logits, found


def read_logits(source: str, with_target: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the logits that an argument gives, and the target if a file has one beside them.

    Args:
        source: numbers such as 2,1.5,0.1; or the path of a .npy, .npz or text file, or "-" for
            standard input. An .npz holds either one array, or one named "logits" and perhaps one
            named "target".
        with_target: whether the target is wanted; one that is not is not read.

    Raises:
        InvalidValueError: the file cannot be read or does not hold numbers.
    """
    numbers = _numbers(source)
    if numbers is not None and numbers.size:
        return numbers.astype(np.float64), None
    names = ("logits", "target") if with_target else ("logits",)
    found = _read("logits", source, names)
    return found["logits"], _whole(found["target"]) if "target" in found else None


def read_target(value: str) -> np.ndarray:
    """Return the target that an argument gives: an index, a list such as 1,0,0, or a file.

    What can be read as numbers is numbers, also where a file has that name. Whole numbers become
    integers, since class indices are and np.savetxt writes 1 as 1.000000000000000000e+00.

    Raises:
        InvalidValueError: it is neither numbers nor a readable file of numbers.
    """
    numbers = _numbers(value)
    if numbers is not None:
        if not numbers.size:
            raise InvalidValueError("--target is empty; give a class index, a list or a file")
        return _whole(numbers[0] if numbers.size == 1 and "," not in value else numbers)
    is_file = value == "-" or Path(value).suffix.lower() in SUFFIXES or os.path.lexists(value)
    if not is_file:
        raise InvalidValueError(
            f"--target must be a class index, a list of numbers such as 1,0,0, or a file "
            f"({', '.join(SUFFIXES)}); got {value!r}"
        )
    numbers = _read("target", value, ("target",))["target"]
    one_column = numbers.ndim == 2 and numbers.shape[1] == 1
    return _whole(numbers[:, 0] if one_column else numbers)


def read_weight(value: str | None) -> np.ndarray | None:
    """Return the class weights in a list such as 1,2,0.5.

    Raises:
        InvalidValueError: it is not a list of numbers.
    """
    if value is None:
        return None
    numbers = _numbers(value)
    if numbers is None:
        raise InvalidValueError(
            f"--weight must be one number per class, such as 1,2,0.5; got {value!r}"
        )
    return numbers.astype(np.float64)


def _numbers(value: str) -> np.ndarray | None:
    """The numbers in a list with spaces or commas; None if it is anything else."""
    try:
        return np.array([_number(word) for word in value.replace(",", " ").split()])
    except ValueError:
        return None


def shipped_logits() -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and class indices of the classifier that ships with the package."""
    with resources.files("tinygrad_sm").joinpath("data/iris_logits.csv").open("rb") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1].astype(np.int64)


def _read(what: str, source: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays in a file that have these names; where it holds but one, that has the first."""
    if not source:
        raise InvalidValueError(f"--{what} is empty; give the path of a file, or -")
    label = f"--{what} {source}"
    suffix = Path(source).suffix.lower()
    try:
        with _open(source) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            magic = file.read(len(_NPY))
            file.seek(0)
            if magic.startswith(_ZIP) or suffix == ".npz":
                return _arrays(label, file, names)
            if magic == _NPY or suffix == ".npy":
                return {names[0]: _array(label, file, size)}
            return {names[0]: _parse_csv(label, file.read())}
    except OSError as error:
        why = dangling(source) or error.strerror or type(error).__name__
        raise InvalidValueError(f"{label}: cannot be read ({why})") from None


def _open(source: str) -> BinaryIO:
    if source == "-":
        if sys.stdin is None:  # the shell closed it
            raise OSError(errno.EBADF, "standard input is closed")
        return io.BytesIO(sys.stdin.buffer.read())
    if os.path.isfile(source):
        return open(source, "rb")
    with open(source, "rb") as file:
        if stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty():
            raise OSError(errno.EINVAL, "it is a device, which may have no end")
        return io.BytesIO(file.read())  # a pipe, such as <(…), has no way back


@contextlib.contextmanager
def _damaged(
    sentence: str, passed: tuple[type[Exception], ...] = (InvalidValueError,)
) -> Iterator[None]:
    """Give one sentence for the dozen exceptions that NumPy, zipfile and the decoders let out."""
    try:
        yield
    except passed:
        raise
    except Exception:
        raise InvalidValueError(sentence) from None


def _array(label: str, file: IO[bytes], size: int) -> np.ndarray:
    """The array in a .npy file; no memory is asked for before the file is known to fill it."""
    if file.read(len(_NPY)) != _NPY:
        raise InvalidValueError(f"{label}: is not a NumPy file, whatever its name says")
    file.seek(0)
    damaged = f"{label}: is a damaged NumPy file"
    with _damaged(damaged), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header as Python 2 wrote it is a header
        shape, by_columns, dtype = _HEADERS[npy.read_magic(file)](file)
    if dtype.hasobject:
        raise InvalidValueError(
            f"{label}: holds pickled objects, which are refused; it must hold plain numbers"
        )
    if dtype.kind not in "biuf":
        raise InvalidValueError(f"{label}: must hold real numbers; got dtype {dtype}")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise InvalidValueError(
            f"{damaged}, or holds more than one array: its header promises another number of "
            "bytes than follow"
        )
    data = file.read()
    with _damaged(damaged):
        return np.ndarray(shape, dtype, data, order="F" if by_columns else "C")


def _arrays(label: str, file: BinaryIO, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of an archive that are asked for; the others are not decompressed."""
    damaged = _damaged(f"{label}: is a damaged .npz archive", (InvalidValueError, MemoryError))
    with damaged, zipfile.ZipFile(file) as archive:
        held = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        if not held:
            raise InvalidValueError(f"{label}: the archive holds no arrays")
        if len(held) > 1 and names[0] not in held:
            raise InvalidValueError(
                f"{label}: the archive holds the arrays {', '.join(sorted(held))}; "
                f"it must hold one array, or one named {names[0]}"
            )
        chosen = {names[0]: held.popitem()[1]} if len(held) == 1 else held
        found = {}
        for name in names:
            if name in chosen:
                with archive.open(chosen[name]) as member:
                    place = f"{label}, {chosen[name].filename}"
                    found[name] = _array(place, member, chosen[name].file_size)
        return found


def _parse_csv(label: str, raw: bytes) -> np.ndarray:
    """Numbers, commas or blanks, and line ends; a file of one line is one row (1-D)."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        hint = " (it is UTF-16; save it as UTF-8)" if raw[:2] in _UTF_16 else ""
        raise InvalidValueError(
            f"{label}: is neither a NumPy file nor text in UTF-8{hint}"
        ) from None
    written: Iterable[str] = io.StringIO(text, newline=None)
    separator = ","
    if separator not in text:
        written = (" ".join(line.split()) for line in written)
        separator = " "
    try:
        lines = list(csv.reader(written, delimiter=separator))
    except csv.Error as error:
        raise InvalidValueError(f"{label}: is not a table of numbers ({error})") from None
    while lines and not any(cell.strip() for cell in lines[-1]):
        lines.pop()
    if not lines:
        raise InvalidValueError(f"{label}: is empty; it must hold at least one row of numbers")
    rows = [_parse_line(label, i, cells) for i, cells in enumerate(lines, start=1)]
    for i, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise InvalidValueError(
                f"{label}: line {i} has {len(row)} numbers, but the first has {len(rows[0])}"
            )
    numbers = np.array(rows)
    return numbers[0] if len(numbers) == 1 else numbers


def _parse_line(label: str, number: int, cells: list[str]) -> list[float]:
    if not any(cell.strip() for cell in cells):
        raise InvalidValueError(f"{label}: line {number} is blank")
    row = []
    for cell in cells:
        try:
            row.append(_number(cell))
        except ValueError:
            hint = "; a header is not allowed" if number == 1 else ""
            if re.search(r"\d[;\s]", cell):
                hint = "; separate numbers with commas, and write 1.5 for one and a half"
            raise InvalidValueError(
                f"{label}: line {number} holds {cell.strip()[:40]!r}, which is not a number{hint}"
            ) from None
    return row


def _number(word: str) -> Any:
    """An int where it is one, so that a list of class indices stays integers."""
    if "_" in word:  # 1_000 is Python's way of writing, not a file's
        raise ValueError(word)
    try:
        number = int(word)
    except ValueError:
        return float(word)
    return number if abs(number) < 2**63 else float(word)


def _whole(numbers: np.ndarray) -> np.ndarray:
    """As integers, if all of them are."""
    if numbers.dtype.kind != "f" or not (np.abs(numbers.astype(np.float64)) < 2.0**53).all():
        return numbers
    whole = numbers.astype(np.int64)
    return whole if (whole == numbers).all() else numbers


def dangling(path: str | Path) -> str | None:
    """Where a link points to that points nowhere, as half a sentence; None for all else."""
    if os.path.exists(path) or not os.path.islink(path):
        return None
    return f"it is a link to {os.readlink(path)}, which does not exist"
