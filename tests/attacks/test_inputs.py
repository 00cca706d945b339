"""Logits and targets as strangers give them: other tools' text, pipes, links, odd names."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tinygrad_sm.cli.entry import run
from tinygrad_sm.cli.inputs import read_logits, read_target
from tinygrad_sm.cli.pictures import output_folder
from tinygrad_sm.errors import InvalidValueError

LOGITS = np.array([[2.0, 1.0, 0.1], [0.0, 3.0, -1.0]])
LABELS = np.array([0.0, 1.0])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ok.csv").write_text("2,1,0.1\n0,3,-1\n")
    return tmp_path


@pytest.fixture
def command(capsys, monkeypatch):
    def call(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return run(list(arguments)), *capsys.readouterr()

    return call


def piped(content):
    """The path of a pipe that a thread writes to, as the shell's <(…) makes one."""
    reading, writing = os.pipe()

    def write():
        with open(writing, "wb") as file:
            file.write(content)

    threading.Thread(target=write).start()
    return reading, f"/dev/fd/{reading}"


def saved(save, *arguments, **options):
    buffer = io.BytesIO()
    save(buffer, *arguments, **options)
    return buffer.getvalue()


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="this system has no /dev/fd")
@pytest.mark.parametrize("kind", ["npy", "npz", "savetxt", "one line"])
def test_logits_and_target_from_pipes(kind):
    contents = {
        "npy": (saved(np.save, LOGITS), saved(np.save, LABELS)),
        "npz": (saved(np.savez, logits=LOGITS, other=1), saved(np.savez, LABELS)),
        "savetxt": (saved(np.savetxt, LOGITS), saved(np.savetxt, LABELS)),
        "one line": (b"2 1 0.1\n0\t3  -1\n", b"0 1"),
    }
    ends = [piped(content) for content in contents[kind]]
    try:
        np.testing.assert_array_equal(read_logits(ends[0][1])[0], LOGITS)
        target = read_target(ends[1][1])
    finally:
        for reading, _ in ends:
            os.close(reading)
    assert target.dtype == np.int64
    assert target.tolist() == [0, 1]


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="no bash")
def test_the_shells_own_pipes(folder):
    pipes = "--logits <(cat ok.csv) --target <(echo 0; echo 1)"
    line = f"'{sys.executable}' -m tinygrad_sm compare {pipes}"
    source = Path(__file__).parents[2]
    done = subprocess.run(["/bin/bash", "-c", line], env=os.environ | {"PYTHONPATH": str(source)},
                          capture_output=True, timeout=60)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


TEXTS = {
    "savetxt": saved(np.savetxt, LOGITS),
    "savetxt with commas": saved(np.savetxt, LOGITS, delimiter=","),
    "savetxt in columns": saved(np.savetxt, LOGITS, fmt="%9.3f"),
    "tabs": b"2\t1\t0.1\n0\t3\t-1\n",
    "BOM and CRLF": b"\xef\xbb\xbf2,1,0.1\r\n0,3,-1\r\n",
    "old Mac": b"2,1,0.1\r0,3,-1\r",
    "quoted": b'"2","1","0.1"\n"0","3","-1"\n',
    "quoted, blanks": b'"2" "1" "0.1"\n"0" "3" "-1"\n',
    "blanks everywhere": b" 2 , 1 , 0.1 \n 0 , 3 , -1 \n  \n",
    "empty rows of a spreadsheet": b"2,1,0.1\n0,3,-1\n,,\n,,\n",
    "plus signs": b"+2,+1,+.1\n0,3.,-1e0\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_tables_of_other_tools(text):
    Path("a.txt").write_bytes(text)
    np.testing.assert_array_equal(read_logits("a.txt")[0], LOGITS)


HINT = "; separate numbers with commas, and write 1.5 for one and a half"
REFUSED = {
    "semicolons": ("2;1\n0;3", f"line 1 holds '2;1', which is not a number{HINT}"),
    "decimal commas": ("2,5;1,5\n0;3", f"line 1 holds '5;1', which is not a number{HINT}"),
    "decimal commas, tabs": ("2,5\t1", f"line 1 holds '5\\t1', which is not a number{HINT}"),
    "Korean header": ("고양이,개\n1,2", "line 1 holds '고양이', which is not a number; a header"),
    "comment": ("# logits\n1 2", "line 1 holds '#', which is not a number; a header"),
    "thousands": ("1_000,2", "line 1 holds '1_000', which is not a number"),
    "complex": ("1+2j,2", "line 1 holds '1+2j', which is not a number"),
    "JSON": ("[[1, 2], [3, 4]]", "line 1 holds '[[1', which is not a number"),
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED)
def test_tables_that_are_refused_with_a_reason(text, sentence):
    Path("a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValueError) as raised:
        read_logits("a.csv")
    assert sentence in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp949"])
def test_other_encodings(encoding):
    Path("a.csv").write_text("\ufeff고,1" if encoding.endswith("le") else "고,1", encoding=encoding)
    with pytest.raises(InvalidValueError, match="nor text in UTF-8") as raised:
        read_logits("a.csv")
    assert ("it is UTF-16; save it as UTF-8" in str(raised.value)) == (encoding != "cp949")


def test_whole_numbers_are_labels_and_others_are_not():
    np.savetxt("labels.txt", LABELS)
    np.save("labels.npy", LABELS.astype(np.float32))
    np.savez("both.npz", logits=LOGITS, target=LABELS)
    found = [read_target("labels.txt"), read_target("labels.npy"), read_target("0.0,1e0"),
             read_logits("both.npz")[1]]  # fmt: skip
    for target in found:
        assert target.dtype == np.int64
        assert target.tolist() == [0, 1]
    for value in ("0.5,1", "nan,1", "inf,1", "1e300,1"):
        assert read_target(value).dtype == np.float64


def test_a_number_is_a_number_also_where_a_file_has_that_name():
    Path("1").write_text("0")
    Path("0,1").write_text("1,0")
    assert read_target("1") == 1
    assert read_target("0,1").tolist() == [0, 1]
    assert read_target("./1").tolist() == [0]


@pytest.mark.parametrize("option", ["--logits", "--target"])
def test_a_link_that_points_nowhere_says_so(command, option):
    os.symlink("gone.csv", "link")
    arguments = {"--logits": "ok.csv", "--target": "0,1"} | {option: "link"}
    status, out, err = command("compare", *(word for pair in arguments.items() for word in pair))
    assert (status, out) == (2, "")
    assert err == (
        f"tinygrad-sm: {option} link: cannot be read "
        "(it is a link to gone.csv, which does not exist)\n"
    )


def test_an_output_folder_that_is_a_link(folder):
    os.symlink("gone", "link")
    os.symlink("loop", "loop")
    for path, reason in [
        ("link", "(it is a link to gone, which does not exist)"),
        ("link/deep", "link: it is a link to gone, which does not exist)"),
        ("loop", "(it is a link to loop, which does not exist)"),
        ("ok.csv", "(is a file)"),
        ("ok.csv/deep", "ok.csv: is a file)"),
    ]:
        with pytest.raises(InvalidValueError) as raised:
            output_folder(path)
        assert reason in str(raised.value)
    Path("gone").mkdir()
    assert output_folder("link/deep") == Path("link/deep")


@pytest.mark.parametrize("name", ["로짓.csv", "a b.csv", "-a.csv", "a:b.csv", "%s.csv", "é.npy"])
def test_names_of_files(command, name):
    if name.endswith("npy"):
        np.save(name, LOGITS)
    else:
        Path(name).write_text("2 1 0.1\n0 3 -1")
    assert command("compare", f"--logits={name}", "--target", "0,1")[0] == 0


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="POSIX's")
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
@pytest.mark.parametrize("option", ["--logits", "--target"])
def test_a_device_without_an_end_is_not_read(command, option, device):
    inputs = {"--logits": "1,2", "--target": "0"} | {option: device}
    status, _, err = command("compare", *[word for pair in inputs.items() for word in pair])
    assert status == 2
    assert err.endswith(f"{device}: cannot be read (it is a device, which may have no end)\n")


@pytest.mark.parametrize("dtype", ["float16", "float32", "longdouble"])
def test_labels_of_every_float_dtype_are_read_without_a_warning(dtype):
    np.save("y.npy", np.array([0, 2, 1], dtype))
    assert read_target("y.npy").tolist() == [0, 2, 1]
    assert read_target("y.npy").dtype.kind == "i"
