"""Reading logits and targets from files, standard input and arguments."""

from __future__ import annotations

import csv
import errno
import io
import os
import sys
import zipfile
import zlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_sm.errors import InvalidValueError

_NPY = b"\x93NUMPY"
_ZIP = b"PK"
SUFFIXES = (".npy", ".npz", ".csv")


def read_logits(source: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the logits in a file, and the target if the file has one beside them.

    Args:
        source: path of a .npy, .npz or .csv file, or "-" for standard input. An .npz holds
            either one array, or one named "logits" and perhaps one named "target".

    Raises:
        InvalidValueError: the file cannot be read or does not hold numbers.
    """
    found = _read("logits", source)
    if isinstance(found, np.ndarray):
        return found, None
    if len(found) == 1:
        return next(iter(found.values())), None
    if "logits" not in found:
        raise InvalidValueError(
            f"--logits {source}: the archive holds the arrays {', '.join(sorted(found))}; "
            "it must hold one array, or one named logits"
        )
    return found["logits"], found.get("target")


def read_target(value: str) -> np.ndarray:
    """Return the target that an argument gives: an index, a list such as 1,0,0, or a file.

    Raises:
        InvalidValueError: it is neither numbers nor a readable file of numbers.
    """
    if value == "-" or Path(value).suffix.lower() in SUFFIXES or os.path.isfile(value):
        found = _read("target", value)
        if isinstance(found, np.ndarray):
            one_column = found.ndim == 2 and found.shape[1] == 1
            return found[:, 0] if one_column else found
        if len(found) != 1 and "target" not in found:
            raise InvalidValueError(
                f"--target {value}: the archive holds the arrays {', '.join(sorted(found))}; "
                "it must hold one array, or one named target"
            )
        return found["target"] if "target" in found else next(iter(found.values()))
    words = value.replace(",", " ").split()
    try:
        numbers = np.array([_number(word) for word in words])
    except ValueError:
        raise InvalidValueError(
            f"--target must be a class index, a list of numbers such as 1,0,0, or a file "
            f"({', '.join(SUFFIXES)}); got {value!r}"
        ) from None
    if not words:
        raise InvalidValueError("--target is empty; give a class index, a list or a file")
    return numbers[0] if len(words) == 1 and "," not in value else numbers


def read_weight(value: str | None) -> np.ndarray | None:
    """Return the class weights in a list such as 1,2,0.5.

    Raises:
        InvalidValueError: it is not a list of numbers.
    """
    if value is None:
        return None
    try:
        return np.array([float(_number(word)) for word in value.replace(",", " ").split()])
    except ValueError:
        raise InvalidValueError(
            f"--weight must be one number per class, such as 1,2,0.5; got {value!r}"
        ) from None


def shipped_logits() -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and class indices of the classifier that ships with the package."""
    with resources.files("tinygrad_sm").joinpath("data/iris_logits.csv").open("rb") as file:
        table = _parse_csv("iris_logits.csv", file.read(), skip=1)
    return table[:, :-1], table[:, -1].astype(np.int64)


def _read(what: str, source: str) -> np.ndarray | Mapping[str, np.ndarray]:
    if not source:
        raise InvalidValueError(f"--{what} is empty; give the path of a file, or -")
    label = f"--{what} {source}"
    try:
        raw = _standard_input() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise InvalidValueError(f"{label}: cannot be read ({_why(error)})") from None
    if raw.startswith(_NPY):
        return _load_npy(label, raw)
    if raw.startswith(_ZIP):
        return _load_npz(label, raw)
    if Path(source).suffix.lower() in (".npy", ".npz"):
        raise InvalidValueError(f"{label}: is not a NumPy file, whatever its name says")
    return _parse_csv(label, raw)


def _standard_input() -> bytes:
    if sys.stdin is None:  # the shell closed it
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def _load_npy(label: str, raw: bytes) -> np.ndarray:
    try:
        array: np.ndarray = np.load(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        refused = "pickle" in str(error) or "Object arrays" in str(error)
        raise InvalidValueError(
            f"{label}: holds pickled objects, which are refused; it must hold plain numbers"
            if refused
            else f"{label}: is a damaged NumPy file"
        ) from None
    if array.dtype.kind not in "biuf":
        raise InvalidValueError(f"{label}: must hold real numbers; got dtype {array.dtype}")
    return array


def _load_npz(label: str, raw: bytes) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                if name.endswith(".npy"):
                    found[name.removesuffix(".npy")] = _load_npy(label, archive.read(name))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError):
        raise InvalidValueError(f"{label}: is a damaged .npz archive") from None
    if not found:
        raise InvalidValueError(f"{label}: the archive holds no arrays")
    return found


def _parse_csv(label: str, raw: bytes, skip: int = 0) -> np.ndarray:
    """Numbers, commas and line ends; a file of one line is one row (1-D)."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidValueError(f"{label}: is neither a NumPy file nor text in UTF-8") from None
    try:
        lines = list(csv.reader(io.StringIO(text, newline=None)))[skip:]
    except csv.Error as error:
        raise InvalidValueError(f"{label}: is not a table of numbers ({error})") from None
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InvalidValueError(f"{label}: is empty; it must hold at least one row of numbers")
    rows = [_parse_line(label, i + skip, cells) for i, cells in enumerate(lines, start=1)]
    for i, row in enumerate(rows, start=1 + skip):
        if len(row) != len(rows[0]):
            raise InvalidValueError(
                f"{label}: line {i} has {len(row)} numbers, but the first has {len(rows[0])}"
            )
    table = np.array(rows)
    return table[0] if len(table) == 1 else table


def _parse_line(label: str, number: int, cells: list[str]) -> list[float]:
    if not any(cell.strip() for cell in cells):
        raise InvalidValueError(f"{label}: line {number} is blank")
    row = []
    for cell in cells:
        try:
            row.append(_number(cell))
        except ValueError:
            hint = "; a header is not allowed" if number == 1 else ""
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


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
