"""Attacks on the terminal: no width, streams that are full or closed. No figure is lost to them."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from tinygrad_sm.cli import stability as stability_cli
from tinygrad_sm.cli.entry import run
from tinygrad_sm.study.stability.report import survey

ROOT = Path(__file__).parents[2]
WIDTHS = [
    "0",
    "1",
    "20",
    "40",
    "60",
    "80",
    "100",
    "abc",
    "-5",
    "1e9",
    "²",
    "9" * 30,
    "9" * 5000,
    "",
]
WIDE = {}  # the words of each command where there is room for all of them
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX's")


@cache
def report(dtype, tolerance):
    return survey(dtype, tolerance=tolerance)


def words(text):
    """All that was printed but for lines of tables, in order; measured times are all alike."""
    text = re.sub(r"[\d.]+ (ms|µs|s), median of \d+", "1 s, median of 1", text)
    return re.sub(r"[─━│┃┏┓┗┛┡┩├┤└┘┼╇╈┳┴┬╃╄]", " ", text).split()


@pytest.fixture
def printed(capsys, monkeypatch):
    monkeypatch.setattr(
        stability_cli, "survey", lambda dtype, *, tolerance: report(dtype, tolerance)
    )

    def at(width, *arguments):
        monkeypatch.setenv("COLUMNS", width)
        status = run(list(arguments))
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return at


@pytest.mark.parametrize("command", ["compare", "fuse", "stability"])
@pytest.mark.parametrize("width", WIDTHS, ids=lambda width: width[:8])
def test_every_word_is_printed_at_every_width(printed, command, width):
    if command not in WIDE:
        WIDE[command] = words(printed("1000", command))
    expected = WIDE[command]
    assert sum(bool(re.search(r"\d", word)) for word in expected) > 30
    assert words(printed(width, command)) == expected


def test_stability_prints_the_start_of_every_band(printed):
    out = printed("20", "stability")
    bands = [band for swept in report("float64", 1e-3).sweeps for form in swept.forms
             for band in (*form.gradient[1:], *form.loss[1:])]  # fmt: skip
    assert len(bands) > 20
    for band in bands:
        assert f"{band.state} from {band.start_text}" in out


@pytest.mark.parametrize("width", ["0", "20"])
def test_the_names_of_pictures_are_whole(printed, tmp_path, width):
    folder = tmp_path / ("long name " * 12).strip()
    out = printed(width, "compare", "--format", "dot", "-o", str(folder))
    assert [line.strip() for line in out.splitlines() if line.endswith(".dot")] == sorted(
        map(str, folder.iterdir()), key=lambda path: ("seed" not in path, path)
    )


# Streams ------------------------------------------------------------------------------------------

BAD = ["compare --logits nowhere.npy --target 0", "compare --colour", "nothing", "fuse no.py:f",
       "compare -o /dev/null/x", "stability --tolerance 7", "draw -o x.gif"]  # fmt: skip


def shell(command, **environment):
    return subprocess.run(
        f'"{sys.executable}" -m tinygrad_sm {command}', shell=True, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True,
    )  # fmt: skip


@posix
@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full",
                                     ">/dev/full 2>&1", ">&- 2>/dev/full"])  # fmt: skip
def test_bad_input_is_status_2_whoever_hears_it(streams):
    if "full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("Linux has this device")
    done = shell(f"{BAD[0]} {streams}")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_in_this_process_with_a_full_stderr(monkeypatch, arguments, capsys):
    class Full:
        encoding, errors = "utf-8", "strict"

        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = write

    monkeypatch.setattr(sys, "stderr", Full())
    assert run(arguments.split()) == 2
    assert capsys.readouterr().out == ""


@posix
def test_a_warning_that_nobody_hears_ends_no_run():
    row = "echo 2,-inf | "
    command = f'{row}"{sys.executable}" -m tinygrad_sm compare --logits - --target 0 2>/dev/full'
    done = subprocess.run(
        command, shell=True, check=False, timeout=60, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode in (0, 1)
    assert b"verdict:" in done.stdout


@pytest.mark.parametrize("stdout", ["none", "closed"])
def test_bad_input_without_a_stdout(monkeypatch, stdout, tmp_path, capsys):
    with open(tmp_path / "x", "w") as closed:
        pass
    monkeypatch.setattr(sys, "stdout", None if stdout == "none" else closed)
    assert run(["compare", "--logits", "nowhere", "--target", "0"]) == 2
    assert "nowhere: cannot be read" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
def test_figures_that_are_lost_are_status_2():
    for arguments in ("compare", "draw"):
        done = shell(f"{arguments} >/dev/full 2>/dev/full")
        assert done.returncode == 2


# Ctrl-C -------------------------------------------------------------------------------------------

COMMAND = "import tinygrad_sm_command; tinygrad_sm_command.main()"
STOPPED = """
import os, signal, sys, time
try:
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.1)
except BaseException:
    pass  # as some imports do
sys.exit(7)
"""


@posix
@pytest.mark.parametrize("module", ["numpy", "click", "rich"])
@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_the_command_loads(tmp_path, module, ignored):
    """By a stand-in for what it loads. Where the signal is ignored, loading goes on to the end."""
    (tmp_path / f"{module}.py").write_text(STOPPED)
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {COMMAND}"
    done = subprocess.run(
        [sys.executable, "-c", program if ignored else COMMAND, "--version"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (7 if ignored else 130, b"")


@posix
@pytest.mark.slow
@pytest.mark.parametrize("delay", [k / 50 for k in range(10, 60)])
def test_ctrl_c_at_any_moment(delay):
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "compare"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGINT)  # the last when Python has ended
    assert error in (b"", b"\n")  # the second goes with the ^C of a terminal


def test_the_command_runs():
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "--version"], capture_output=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"tinygrad-sm, version ")
