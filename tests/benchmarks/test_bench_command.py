"""The two command lines: what they refuse, and what they leave in the folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from benchmarks import accuracy, page
from benchmarks.__main__ import command, make_contestants, usable_kernels
from benchmarks.command import run, write_files
from benchmarks.machine import describe
from benchmarks.peers import Peer
from benchmarks.report import as_json
from benchmarks.results import Row
from benchmarks.timing import Ratio

ROOT = Path(__file__).parent.parent.parent


def refusal(capsys, of, *arguments):
    """The one sentence with which a command refuses."""
    assert run(of, "bench", list(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("bench: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--only", "speed"],
            "--only must be among fused, threads, engine, composite, linear, fusion, growth",
        ),
        (["--only", ","], "--only must be among"),
        (["--threads", "0"], "0 is not in the range"),
        (["--threads", "two"], "'two' is not a valid integer"),
        (["--budget", "-1"], "-1.0 is not in the range"),
        (["--peers", "numpy"], "--peers must be among torch, jax, autograd, mygrad, dezero, scipy"),
        (["extra"], "unexpected extra argument"),
        (["--fast"], "No such option"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.__main__.claim_threads", lambda threads: None)
    assert sentence in refusal(capsys, command, "-o", str(tmp_path), *arguments)


@pytest.mark.parametrize("of", [command, accuracy.command])
def test_an_output_folder_that_is_a_file_is_refused_at_once(of, capsys, tmp_path):
    (tmp_path / "file").write_text("here first")
    assert "it is a file" in refusal(capsys, of, "-o", str(tmp_path / "file"))


def test_a_run_leaves_tables_and_pictures(tmp_path):
    arguments = [
        "--quick",
        "--only",
        "engine",
        "--peers",
        "none",
        "--budget",
        "0",
        "--threads",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "-o", str(tmp_path), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Threads: BLAS" in done.stdout
    names = {"benchmarks.json", "benchmarks.md", "ratios.png", "ratios.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    parsed = json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))
    assert parsed["machine"]["threads"]["tinygrad_sm"] == 1


def test_what_is_left_out_is_said_in_one_line_each(capsys, monkeypatch):
    class Absent(Peer):
        name, package = "absent", "no_such_package"

    monkeypatch.setattr("benchmarks.peers.PEERS", (Absent,))
    monkeypatch.setenv("TINYGRAD_SM_THREADS", "1")
    (ours,) = make_contestants(1, "absent")
    monkeypatch.setattr("benchmarks.peers.kernels", lambda ours: (("numpy",), "it needs Numba"))
    assert usable_kernels(ours) == ("numpy",)
    peers, kernel = capsys.readouterr().out.splitlines()
    assert peers == "Left out, since not installed: absent (the extra bench)."
    assert kernel == "Left out, the compiled kernel: it needs Numba"


def a_run(folder, ratio, **fields):
    """The file of a run that measured one row."""
    numbers = {"value": 1.0, "limit": 7.0, "target": 0.9, "ratio": Ratio(ratio, ratio, ratio)}
    row = Row("fused", "1×10 float32", "fused, numpy", "torch", **numbers | fields)
    folder.mkdir()
    path = folder / "benchmarks.json"
    path.write_bytes(as_json([row], describe(1, {"tinygrad_sm": ("1.0", 1)}), {}))
    return str(path)


def test_some_runs_become_a_table_of_the_page(tmp_path):
    written = tmp_path / "speed.md"
    written.write_text(f"before\n{page.BEGIN}old\n{page.END}after\n", encoding="utf-8")
    runs = [a_run(tmp_path / str(ratio), ratio) for ratio in (0.5, 0.8, 0.7)]
    runs += ["--page", str(written)]
    assert run(page.command, "page", runs) == 0
    text = written.read_text(encoding="utf-8")
    line = "| 1×10 float32 | fused, numpy / torch | 0.7 (0.5, 0.8, 0.7) | 7 | ≤ 0.9 |"
    assert line in text.splitlines()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    busy = [a_run(tmp_path / "busy", 1.2, others=0.5), "--page", str(written)]
    assert run(page.command, "page", busy) == 0
    assert "| 1.2 *busy* | 7 | ≤ 0.9 missed |" in written.read_text(encoding="utf-8")


def test_a_page_is_left_alone_where_a_run_is_none(tmp_path, capsys):
    before = page.PAGE.read_bytes()
    (tmp_path / "run.json").write_text("[1]", encoding="utf-8")
    assert "is not a benchmarks.json" in refusal(capsys, page.command, str(tmp_path / "run.json"))
    assert page.PAGE.read_bytes() == before
    assert page.BEGIN.encode() in before
    assert page.END.encode() in before


def test_all_files_or_none(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    whole = Path.write_bytes

    def full(path, content):
        if content == b"one too many":
            raise OSError(28, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(click.ClickException, match="No space left"):
        write_files(tmp_path, {"a": b"new", "b": b"one too many"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_the_environment_is_set_before_numpy_is_imported():
    """BLAS reads its number of threads when it is loaded."""
    code = (
        "import sys; from benchmarks.__main__ import command; from benchmarks.machine import *; "
        "claim_threads(1); import os; print('numpy' in sys.modules, os.environ['OMP_NUM_THREADS'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["False", "1"]


def test_instructions_that_are_refused_are_used_by_neither_kernel(tmp_path):
    code = """
from benchmarks.machine import claim_instructions
claim_instructions("avx2")
import numpy as np
extensions = np.show_config(mode="dicts")["SIMD Extensions"]
print("X86_V4" in extensions.get("found", []))
try:
    from tinygrad_sm.loss.kernels.loops import machine_code
except ImportError:  # no Numba
    print(False)
else:
    print("zmm" in "".join(machine_code("float32").inspect_asm().values()))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["False", "False"]
