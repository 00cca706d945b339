"""Damaged .npy and .npz files: what NumPy cannot read is one sentence, whatever it raises there."""

import io
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tinygrad_sm.cli.entry import run
from tinygrad_sm.cli.inputs import read_logits, read_target
from tinygrad_sm.errors import InvalidValueError

ARRAY = np.arange(6.0).reshape(2, 3)
ZIPPED = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED,
          "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}  # fmt: skip


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **options)
    return buffer.getvalue()


def with_header(header, data=bytes(48), version=b"\x01\x00"):
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header + data


def archive(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def flips(raw, bits):
    for bit in bits:
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(damaged)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read bytes as the logits, of a file or of stdin: the array, or the sentence that refuses."""

    def call(raw, suffix=".npy", by_stdin=False):
        path = tmp_path / f"a{suffix}"
        if by_stdin:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        else:
            path.write_bytes(raw)
        try:
            return read_logits("-" if by_stdin else str(path))[0]
        except InvalidValueError as error:
            return str(error)

    return call


def numpys(raw):
    """What NumPy itself reads, or None; also where it leaves some of the file unread."""
    file = io.BytesIO(raw)
    try:
        array = np.load(file, allow_pickle=False)
    except Exception:
        return None
    return None if file.read() else array


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_every_flipped_bit_of_a_header(read, version):
    raw = npy(ARRAY, version=version)
    refused = 0
    for bit, damaged in flips(raw, range((len(raw) - ARRAY.nbytes) * 8)):
        found, expected = read(damaged, by_stdin=True), numpys(damaged)
        if isinstance(found, str):
            refused += 1
            assert expected is None, bit
            assert "NumPy file" in found or "real numbers" in found, (bit, found)
        else:
            assert found.dtype == expected.dtype, bit
            np.testing.assert_array_equal(found, expected)
    assert refused > 100


@pytest.mark.parametrize("length", range(0, 128, 7))
def test_every_truncation(read, length):
    assert "NumPy file" in read(npy(ARRAY)[:length])


HEADER = "{'descr': %s, 'fortran_order': False, 'shape': %s}"
HEADERS = {
    "8 PB": HEADER % ("'<f8'", "(999999999999999,)"),
    "more than 64 bits": HEADER % ("'<f8'", "(99999999999999999999999,)"),
    "overflows to the right size": HEADER % ("'<f8'", f"({2**61 + 6},)"),
    "4000 digits twice": HEADER % ("'<f8'", "(" + ("9" * 4000 + ", ") * 2 + ")"),
    "5000 digits": HEADER % ("'<f8'", f"({'9' * 5000},)"),
    "negative": HEADER % ("'<f8'", "(-6,)"),
    "twice negative": HEADER % ("'<f8'", "(-2, -3)"),
    "empty and absurd": HEADER % ("'<f8'", f"(0, {10**30})"),
    "70 axes": HEADER % ("'<f8'", "(6," + "1," * 70 + ")"),
    "shape of floats": HEADER % ("'<f8'", "(6.0,)"),
    "no such dtype": HEADER % ("'<q9'", "(6,)"),
    "dtype is a number": HEADER % ("8", "(6,)"),
    "names missing": "{'descr': '<f8'}",
    "a list": "[1, 2, 3]",
    "minus signs": "-" * 9000 + "1",
    "brackets": "(" * 9000,
    "a call": "__import__('os').getcwd()",
    "open string": "{'descr",
    "null bytes": "\0" * 50,
    "empty": "",
    "too long": " " * 60_000,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_absurd_headers(read, header):
    assert "is a damaged NumPy file" in read(with_header(header.encode()))


@pytest.mark.parametrize("version", [b"\x00\x00", b"\x01\x01", b"\x03\x01", b"\x04\x00"])
def test_versions_that_do_not_exist(read, version):
    header = (HEADER % ("'<f8'", "(6,)")).encode()
    assert "is a damaged NumPy file" in read(with_header(header, version=version))


def test_an_absurd_shape_asks_for_no_memory(read):
    raw = with_header((HEADER % ("'<f8'", "(2000000000,)")).encode())
    tracemalloc.start()
    assert "its header promises another number of bytes than follow" in read(raw)
    assert "promises another" in read(archive({"logits.npy": raw}), ".npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_headers_as_other_versions_write_them_are_read(read):
    header = b"{'descr': '<f8', 'fortran_order': True, 'shape': (2L, 3L)}\n"  # of Python 2
    np.testing.assert_array_equal(read(with_header(header, ARRAY.tobytes("F"))), ARRAY)
    np.testing.assert_array_equal(read(npy(ARRAY, version=(3, 0))), ARRAY)
    np.testing.assert_array_equal(read(npy(np.asfortranarray(ARRAY.astype(">f4")))), ARRAY)
    assert read(npy(np.zeros((3, 0)))).shape == (3, 0)
    assert read(npy(7.0)) == 7


def test_two_arrays_in_one_file_are_not_one(read):
    assert "holds more than one array" in read(npy(ARRAY) + npy(ARRAY))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ZIPPED)
def test_every_flipped_bit_of_an_archive(read, method):
    raw = archive({"logits.npy": npy(ARRAY)}, ZIPPED[method])
    for bit, damaged in flips(raw, range(len(raw) * 8)):
        found = read(damaged, by_stdin=True)
        if isinstance(found, str):
            assert "NumPy file" in found or "archive" in found, bit
        else:
            np.testing.assert_array_equal(found, ARRAY)  # its checksum held


@pytest.mark.parametrize("length", range(4, 294, 29))
def test_every_truncation_of_an_archive(read, length):
    raw = archive({"logits.npy": npy(ARRAY)})
    assert "is a damaged .npz archive" in read(raw[:length], ".npz")


def test_members_that_are_no_arrays(read):
    members = {"logits.npy": b"2,1,0", "notes.txt": b"hello"}
    assert read(archive(members), ".npz").endswith(
        "a.npz, logits.npy: is not a NumPy file, whatever its name says"
    )
    assert "holds no arrays" in read(archive({"notes.txt": b"hello"}), ".npz")
    assert "is a damaged NumPy file" in read(archive({"logits.npy": npy(ARRAY)[:50]}), ".npz")
    objects = npy(np.array([None], dtype=object))
    assert "logits.npy: holds pickled objects" in read(archive({"logits.npy": objects}), ".npz")


def test_only_the_arrays_that_are_asked_for_are_read(tmp_path):
    """The neighbours are damaged, so that reading one would be refused."""
    path = tmp_path / "a.npz"
    path.write_bytes(archive({"weights.npy": b"", "logits.npy": npy(ARRAY), "target.npy": b"no"}))
    np.testing.assert_array_equal(read_logits(str(path), with_target=False)[0], ARRAY)
    with pytest.raises(InvalidValueError, match=r"target\.npy: is not a NumPy file"):
        read_logits(str(path))
    path.write_bytes(archive({"logits.npy": b"", "target.npy": npy([0, 2])}))
    assert read_target(str(path)).tolist() == [0, 2]


def test_a_text_that_begins_like_an_archive_is_a_text(read):
    assert "line 1 holds 'PK', which is not a number; a header" in read(b"PK,a\n1,2", ".csv")


@pytest.mark.parametrize("command", ["compare", "draw"])
def test_the_commands_exit_2(command, tmp_path, monkeypatch, capsys):
    """LZMA's error, tokenize's, and a seek before the file's start, which were tracebacks."""
    monkeypatch.chdir(tmp_path)
    zipped = archive({"logits.npy": npy(ARRAY)}, zipfile.ZIP_LZMA)
    end = zipped.rindex(b"PK\x05\x06")
    files = {
        "lzma.npz": zipped.replace(zipped[45:60], b"\xff" * 15),
        "token.npy": npy(ARRAY).replace(b"{", b"("),
        "seek.npz": zipped[:end + 12] + b"\xff" * 4 + zipped[end + 16:],
    }  # fmt: skip
    for name, content in files.items():
        Path(name).write_bytes(content)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        for source in (name, "-"):
            status = run([command, "--logits", source, "--target", "0,1"])
            out, err = capsys.readouterr()
            assert (status, out) == (2, "")
            assert f"--logits {source}: is a damaged" in err
            assert err.count("\n") == 1
