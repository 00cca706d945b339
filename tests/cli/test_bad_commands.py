"""Bad input on the command line: one sentence on stderr, status 2, nothing written. Add rows."""

import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_sm.cli.entry import run

OK = ["--logits", "ok.csv", "--target", "0,1"]  # two rows of three classes
ON = ["--logits", "ok.csv", "--target"]
IN = ["--logits", "-", "--target"]


class Opened:
    """What a pickle must not do: leave a file when it is loaded."""

    def __reduce__(self):
        return open, ("pickle was run", "w")


def npy(array, cut=None):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()[:cut]


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def with_bytes_changed(raw, at, new):
    return raw[:at] + new + raw[at + len(new) :]


MANY = npz(x=np.ones(3), y=np.ones(3))
DAMAGED = with_bytes_changed(npz(logits=np.arange(900.0)), 150, b"\xff" * 40)
OBJECTS = npy(np.array([Opened()], dtype=object))
HUGE = b"\x93NUMPY\x01\x00\x76\x00" + (
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999999,), }".ljust(117) + b"\n"
)
TEXT = npy(np.array(["a", "b", "c"]))
COMPLEX = npy(np.array([1j, 2, 3]))

ROWS = [
    # id, arguments after `compare`, standard input, sentence
    # targets
    ("label too large", [*ON, "0,3"], b"", r"indices from 0 to 2 .*; got 3 at \(1,\)$"),
    ("label negative", [*ON, "-1,0"], b"", "from 0 to 2 .*; got -1"),
    ("label fractional", [*ON, "0.5,1"], b"", "must be integers; got dtype float64"),
    ("label too large, one row", [*IN, "3"], b"1,2,3", "from 0 to 2 .*; got 3$"),
    ("label huge", [*ON, "0,99999999999999999999"], b"", "must be integers"),
    ("too many labels", [*ON, "0,1,2"], b"", r"target must have the logits' shape \(2, 3\)"),
    ("one label for two rows", [*ON, "0"], b"", r"or \(2,\) \(class indices\); got \(\)"),
    ("target is words", [*ON, "cat,dog"], b"", "--target must be a class index, .* got 'cat,dog'"),
    ("target is empty", [*ON, ""], b"", "--target is empty; give a class index"),
    ("underscores", [*ON, "0,1_0"], b"", "--target must be a class index, .* got '0,1_0'"),
    ("target is a comma", [*ON, ","], b"", "--target is empty"),
    ("target is missing", ["--logits", "ok.csv"], b"", "--logits needs --target"),
    ("target beyond the example", ["--target", "3"], b"", "must be class indices from 0 to 2"),
    ("target file missing", [*ON, "no.npy"], b"", "--target no.npy: cannot be read .No such file"),
    (
        "target file of text",
        [*ON, "header.csv"],
        b"",
        "line 1 holds 'a', .*a header is not allowed",
    ),
    ("target is a folder", [*ON, "folder.csv"], b"", "--target folder.csv: cannot be read"),
    (
        "target of many arrays",
        [*ON, "many.npz"],
        b"",
        "arrays x, y; it must hold one array, or one",
    ),
    ("target NaN", [*ON, "nan,0,0,0,0,0"], b"", "target must have"),
    ("target NaN in a file", [*ON, "nan.csv"], b"", r"target must be finite; got nan at \(0, 0\)"),
    (
        "target complex",
        [*ON, "complex.npy"],
        b"",
        "--target complex.npy: must hold real numbers; got dtype complex128",
    ),
    ("both from stdin", [*IN, "-"], b"1,2,3", "cannot both be read from standard input"),
    # logits
    (
        "no such file",
        ["--logits", "no.csv", "--target", "0"],
        b"",
        "no.csv: cannot be read .No such",
    ),
    (
        "Korean name",
        ["--logits", "없음.csv", "--target", "0"],
        b"",
        "--logits 없음.csv: cannot be read",
    ),
    (
        "folder",
        ["--logits", "folder.csv", "--target", "0"],
        b"",
        r"cannot be read \(Is a directory\)",
    ),
    (
        "below a file",
        ["--logits", "ok.csv/a", "--target", "0"],
        b"",
        r"cannot be read \(Not a direc",
    ),
    ("name too long", ["--logits", "x" * 300, "--target", "0"], b"", r"\(File name too long\)"),
    ("no name", ["--logits", "", "--target", "0"], b"", "--logits is empty; give the path of a"),
    ("empty file", [*IN, "0"], b"", "--logits -: is empty; it must hold at least one row"),
    ("blank file", [*IN, "0"], b"\n\n", "is empty"),
    ("NaN", [*IN, "0"], b"1,nan,3", "they hold NaN or"),
    ("NaN in a row", [*IN, "0,0"], b"1,2\n3,nan", "row 1 of the logits holds NaN"),
    ("inf", [*IN, "0,0"], b"inf,2\n3,4", "row 0 of the logits holds NaN or"),
    ("1e400 is inf", [*IN, "0"], b"1,1e400", "they hold NaN or"),
    ("400 digits are inf", [*IN, "0"], b"1," + b"9" * 400, "they hold NaN or"),
    ("5000 digits are inf", [*IN, "0"], b"1," + b"9" * 5000, "they hold NaN or"),
    ("header", [*IN, "0,0"], b"a,b\n1,2\n3,4", "line 1 holds 'a', which is not a number; a header"),
    ("word", [*IN, "0,0"], b"1,2\n3,four", "line 2 holds 'four', which is not a number$"),
    ("long word", [*IN, "0"], b"1," + b"x" * 999, "line 1 holds 'x{40}', which"),
    ("empty cell", [*IN, "0"], b"1,,3", "line 1 holds '', which is not a number"),
    ("semicolons", [*IN, "0"], b"1;2;3", "line 1 holds '1;2;3', which is not a number"),
    ("blank line", [*IN, "0,0"], b"1,2\n\n3,4", "line 2 is blank"),
    ("ragged", [*IN, "0,0"], b"1,2,3\n4,5", "line 2 has 2 numbers, but the first has 3"),
    ("open quote", [*IN, "0"], b'"1,2', "is not a number"),
    ("null byte", [*IN, "0"], b"1,\0,2", "is not a number|line contains NUL"),
    ("bare CR", [*IN, "0"], b"1,2\r3,4", r"target must have the logits' shape \(2, 2\)"),
    ("not UTF-8", [*IN, "0"], b"1,2,\xff\xfe", "is neither a NumPy file nor text in UTF-8"),
    ("UTF-16", [*IN, "0"], "1,2".encode("utf-16"), "nor text in UTF-8"),
    ("picture", [*IN, "0"], b"\x89PNG\r\n\x1a\n\x00", "nor text in UTF-8"),
    ("one field of 200 kB", [*IN, "0"], b"1" * 200_000, "they hold NaN|field larger than"),
    (
        "text named .npy",
        ["--logits", "text.npy", "--target", "0"],
        b"",
        "is not a NumPy file, whatev",
    ),
    ("truncated npy", [*IN, "0"], npy(np.ones(9), -8), "--logits -: is a damaged NumPy file"),
    ("npy header only", [*IN, "0"], npy(np.ones(9), 40), "is a damaged NumPy file"),
    ("npy magic only", [*IN, "0"], b"\x93NUMPY", "is a damaged NumPy file"),
    ("npy of a wrong version", [*IN, "0"], b"\x93NUMPY\x09\x00" + bytes(99), "is a damaged NumPy"),
    ("npy that claims 8 PB", [*IN, "0"], HUGE, "damaged NumPy file|not enough memory"),
    ("pickle in npy", [*IN, "0"], OBJECTS, "holds pickled objects, which are refused"),
    ("bare pickle", ["--logits", "pickle.npy", "--target", "0"], b"", "is not a NumPy file"),
    ("text in npy", [*IN, "0"], TEXT, "--logits -: must hold real numbers; got dtype <U1"),
    ("complex npy", [*IN, "0"], COMPLEX, "must hold real numbers; got .* complex128"),
    ("structured npy", [*IN, "0"], npy(np.zeros(3, "f8,i4")), "must hold real numbers"),
    ("empty npy", [*IN, "0"], npy(np.ones(0)), "at least one class"),
    (
        "no classes",
        [*IN, "0"],
        npy(np.ones((2, 0))),
        r"at least one class; their shape is \(2, 0\)",
    ),
    ("single number npy", [*IN, "0"], npy(np.array(1.0)), "a class axis; got a single number"),
    (
        "npz of many",
        [*IN, "0"],
        MANY,
        "holds the arrays x, y; it must hold one array, or one named",
    ),
    ("npz of none", [*IN, "0"], npz(), "the archive holds no arrays"),
    ("npz truncated", [*IN, "0"], MANY[:-30], "is a damaged .npz archive"),
    ("npz damaged", [*IN, "0"], DAMAGED, "is a damaged .npz archive"),
    ("npz with a pickle", [*IN, "0"], npz(a=np.array([Opened()], dtype=object)), "pickled objects"),
    # options
    (
        "weights too few",
        [*OK, "--weight", "1,2"],
        b"",
        r"shape \(3,\), one number per class; got \(2,",
    ),
    ("weight negative", [*OK, "--weight", "1,-2,3"], b"", "got -2.0 for class 1"),
    ("weight NaN", [*OK, "--weight", "1,2,nan"], b"", "got nan for class 2"),
    (
        "weight word",
        [*OK, "--weight", "1,b,3"],
        b"",
        "--weight must be one number per class, .*'1,b,3'",
    ),
    ("weight empty", [*OK, "--weight", ""], b"", r"one number per class; got \(0,\)"),
    ("smoothing above 1", [*OK, "--label-smoothing", "1.5"], b"", r"in \[0, 1\]; got 1.5"),
    ("smoothing negative", [*OK, "--label-smoothing", "-0.1"], b"", "got -0.1"),
    ("smoothing NaN", [*OK, "--label-smoothing", "nan"], b"", "got nan"),
    ("smoothing word", [*OK, "--label-smoothing", "a"], b"", "'a' is not a valid float"),
    ("temperature 0", [*OK, "--temperature", "0"], b"", "must be positive and finite; got 0.0"),
    ("temperature negative", [*OK, "--temperature", "-1"], b"", "got -1.0"),
    ("temperature inf", [*OK, "--temperature", "inf"], b"", "got inf"),
    ("reduction", [*OK, "--reduction", "avg"], b"", "'avg' is not one of 'mean', 'sum', 'none'"),
    ("form", [*OK, "--form", "fast"], b"", "'fast' is not one of 'naive', 'shifted', 'logsumexp'"),
    (
        "dtype",
        [*OK, "--dtype", "int8"],
        b"",
        "'int8' is not one of 'float16', 'float32', 'float64'",
    ),
    ("axis", [*OK, "--axis", "2"], b"", "axis must lie between -2 and 1"),
    ("axis word", [*OK, "--axis", "x"], b"", "'x' is not a valid integer"),
    (
        "ignore_index of a distribution",
        [*ON, "soft.csv", "--ignore-index", "1"],
        b"",
        "class indices",
    ),
    ("unknown option", [*OK, "--wieght", "1"], b"", "No such option:? '?--wieght"),
    ("option without value", ["--logits"], b"", "requires an argument"),
    ("stray argument", ["ok.csv"], b"", "unexpected extra argument .ok.csv."),
    # pictures
    (
        "format",
        [*OK, "-o", "out", "--format", "gif"],
        b"",
        "svg, png, pdf, tex, dot, mmd; got 'gif'$",
    ),
    ("one format of two", [*OK, "-o", "out", "--format", "svg,gif"], b"", "got 'gif'$"),
    ("no format", [*OK, "-o", "out", "--format", ","], b"", "--format must be among .*; got ','"),
    ("format without output", [*OK, "--format", "gif"], b"", "got 'gif'$"),
    (
        "output is a file",
        [*OK, "-o", "ok.csv"],
        b"",
        r"--output ok.csv: is not a folder .*\(is a file\)",
    ),
    ("no output", [*OK, "-o", ""], b"", "--output is empty; give the path of a folder"),
    ("output below a file", [*OK, "-o", "ok.csv/out"], b"", "is not a folder to write to"),
    ("output, then bad logits", [*IN, "0", "-o", "new"], b"a", "is not a number"),
    ("output, then bad label", [*ON, "0,9", "-o", "new/deep"], b"", "class indices from 0 to 2"),
]

DRAW = [
    ("unknown graph", ["both"], "'both' is not one of 'composite', 'fused', 'comparison'"),
    ("unknown suffix", ["-o", "a.gif"], "--output must end in one of .svg, .png.*; got 'a.gif'"),
    ("no suffix", ["-o", "a"], "--output must end in one of"),
    ("target beyond the example", ["--target", "3"], "must be class indices from 0 to 2"),
    ("missing folder", ["-o", "no/a.svg"], "no/a.svg"),
    ("folder as a file", ["-o", "folder.svg"], "folder.svg"),
    ("bad label", [*ON, "0,9", "-o", "a.svg"], "class indices from 0 to 2"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ok.csv").write_text("2,1,0.1\n0,3,-1\n")
    Path("soft.csv").write_text("1,0,0\n0,1,0\n")
    Path("nan.csv").write_text("nan,0,0\n0,1,0\n")
    Path("header.csv").write_text("a,b,c\n1,2,3\n")
    Path("text.npy").write_text("1,2,3")
    Path("pickle.npy").write_bytes(b"\x80\x04N.")
    Path("many.npz").write_bytes(MANY)
    Path("complex.npy").write_bytes(npy(np.ones((2, 3)) * 1j))
    Path("folder.csv").mkdir()
    Path("folder.svg").mkdir()
    return tmp_path


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def refuse(arguments, stdin, sentence, folder, capsys, monkeypatch):
    before = contents(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    status = run(arguments)
    out, err = capsys.readouterr()
    assert status == 2, out
    assert out == ""
    assert err.startswith("tinygrad-sm: ")
    assert err.count("\n") == 1
    assert len(err) < 600
    assert re.search(sentence, err.rstrip("\n")), err
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_compare_refuses(arguments, stdin, sentence, folder, capsys, monkeypatch):
    refuse(["compare", *arguments], stdin, sentence, folder, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "sentence"), [row[1:] for row in DRAW], ids=[row[0] for row in DRAW]
)
def test_draw_refuses(arguments, sentence, folder, capsys, monkeypatch):
    refuse(["draw", *arguments], b"", sentence, folder, capsys, monkeypatch)


@pytest.mark.parametrize("name", ["comparee", "--colour"])
def test_unknown_commands_and_options(name, folder, capsys, monkeypatch):
    refuse([name], b"", f"No such (command|option):? '?{name}", folder, capsys, monkeypatch)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read and write all")
def test_no_permission(folder, capsys, monkeypatch):
    Path("ok.csv").chmod(0)
    refuse(["compare", *OK], b"", r"\(Permission denied\)", folder, capsys, monkeypatch)
    Path("ok.csv").chmod(0o600)
    Path("folder.csv").chmod(0o500)
    for output in ("folder.csv", "folder.csv/new"):
        arguments = ["compare", *OK, "-o", output]
        refuse(arguments, b"", "no permission", folder, capsys, monkeypatch)


def test_ids_are_unique():
    for table in (ROWS, DRAW):
        assert len({row[0] for row in table}) == len(table)
