"""The command `tinygrad-sm`: what it prints, what it leaves, and its exit status."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.cli.entry import commands, run

ROOT = Path(__file__).parents[2]
LOGITS = np.array([[2.0, 1.0, 0.1], [0.0, 3.0, -1.0]])
CSV = "2,1,0.1\n0,3,-1\n"
SIGNATURES = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF", "dot": b"digraph", "mmd": b""}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def command(capsys, monkeypatch):
    """Run the command line; return the status, what it printed, and what it said on stderr."""

    def call(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def figures(command):
    """The JSON that `compare` prints for these arguments, but for the times it measured."""

    def call(*arguments, stdin=b"", status=0, arrays=True):
        flags = ["--json", "--arrays"] if arrays else ["--json"]
        status_found, out, err = command("compare", *arguments, *flags, stdin=stdin)
        assert (status_found, err) == (status, "")
        found = json.loads(out)
        for case in [found] if "agree" in found else found.values():
            for cost in (case["composite_cost"], case["fused_cost"]):
                assert cost["seconds"] > 0
                assert cost["runs"] > 0
                cost.update(seconds=None, runs=0)
        return found

    return call


def subprocess_run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "tinygrad_sm", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), **options.pop("env", {})},
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )


# compare ------------------------------------------------------------------------------------------


def test_compare_without_arguments_shows_the_article_and_the_shipped_logits(command, folder):
    status, out, err = command("compare")
    assert (status, err) == (0, "")
    p = np.exp([2.0, 1.0, 0.1]) / np.exp([2.0, 1.0, 0.1]).sum()
    for figure in ("0.659001", "0.242433", "0.0985659", "-0.34099886111403"):
        assert figure in out
    assert f"{-np.log(p[0]):.15f}"[:-2] in out
    for word in ("numerator −y", "denominator +p·Σy", "ULP apart", "3 logits", "150×3 logits",
                 "kept for backward, composite", "kept for backward, fused"):  # fmt: skip
        assert word in out
    assert out.count("verdict: agree") == 2
    assert len(re.findall(r"forward and backward, \w+ +[\d.]+ [mµn]?s, median of \d+", out)) == 4
    assert "note:" not in out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("width", ["80", "40", "20"])
def test_a_narrow_terminal_loses_no_digit(command, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    np.save("a.npy", LOGITS * -1e-5 / 7)
    status, out, _ = command("compare", "--logits", "a.npy", "--target", "0,1")
    assert status == 0
    assert "…" not in out
    comparison = tg.compare(np.load("a.npy"), [0, 1])
    row = int(comparison.caption().split()[1])
    for value in (*comparison.composite_grad[row], *comparison.fused_grad[row]):
        assert f"{value:.17g}" in out


def test_the_printed_and_the_json_figures_are_those_of_compare(command, figures):
    Path("a.csv").write_text(CSV)
    expected = tg.compare(LOGITS, [0, 1])
    assert figures("--logits", "a.csv", "--target", "0,1") == expected.to_dict()
    _, out, _ = command("compare", "--logits", "a.csv", "--target", "0,1")
    assert f"verdict: {expected.verdict}" in out


def test_json_without_logits_holds_both_inputs(figures):
    found = figures()
    assert list(found) == ["seed", "iris"]
    assert found["seed"]["shape"] == [3]
    assert found["iris"]["shape"] == [150, 3]


def test_json_is_a_summary_unless_the_arrays_are_asked_for(figures, command):
    np.save("a.npy", np.random.default_rng(0).normal(size=(5000, 20)))
    np.save("t.npy", np.zeros(5000, int))
    given = ("--logits", "a.npy", "--target", "t.npy")
    found = figures(*given, arrays=False)
    assert len(json.dumps(found)) < 2000
    arrays = {"logits", "target", "probabilities", "composite_grad", "fused_grad", "textbook_grad"}
    everything = figures(*given)
    assert set(everything) - set(found) == arrays
    for key in set(found) - {"contributions"}:
        assert found[key] == everything[key]
    assert found["contributions"] == {"add_up": True}
    rows = figures(*given, "--reduction", "none", arrays=False)
    assert "fused_loss" not in rows
    status, out, err = command("compare", "--arrays")
    assert (status, out, err) == (2, "", "tinygrad-sm: --arrays goes with --json\n")


@pytest.mark.parametrize("logits", ["2,1.5,0.1", "2 1.5 0.1", " 2, 1.5 0.1", "2,1.5,1e-1"])
@pytest.mark.parametrize(("target", "y"), [("1", [0, 1, 0]), ("0 1 1", [0, 1, 1])])
def test_logits_as_numbers(figures, logits, target, y):
    found = figures("--logits", logits, "--target", target)
    assert found["logits"] == [2, 1.5, 0.1]
    assert found["target"] == y
    assert figures("--logits", "-1,2,-inf", "--target", "0")["logits"] == [-1, 2, "-Infinity"]


def test_a_target_alone_is_for_the_logits_of_the_article(figures, command):
    found = figures("--target", "1")
    assert found["logits"] == [2, 1, 0.1]
    assert found["target"] == [0, 1, 0]
    status, out, err = command("draw", "fused", "--target", "1")
    assert (status, err) == (0, "")
    assert out != command("draw", "fused")[1]


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 3)])
@pytest.mark.parametrize("label", ["1", "1,", "file", "float file"])
def test_the_label_of_a_single_row(figures, shape, label):
    np.save("a.npy", LOGITS[0].reshape(shape))
    if "file" in label:
        Path("t.csv").write_text("1\n" if label == "file" else "1.000000000000000000e+00\n")
        label = "t.csv"
    assert np.ravel(figures("--logits", "a.npy", "--target", label)["target"]).tolist() == [0, 1, 0]


def test_what_is_likely_a_mistake_is_a_note(command, figures):
    status, out, err = command("compare", "--logits", "0.659,0.242,0.099", "--target", "0")
    assert (status, err) == (0, "")
    assert "note:    the logits look like probabilities" in out
    (note,) = figures("--logits", "0.5,0.5", "--target", "1", arrays=False)["notes"]
    assert "softmax is applied twice" in note


def save(kind):
    if kind == "csv":
        Path("a.csv").write_text(CSV)
    elif kind == "csv with BOM, spaces and CRLF":
        Path("a.csv").write_bytes(b"\xef\xbb\xbf 2, 1,0.1\r\n0 ,3,-1\r\n\r\n")
    elif kind == "npy":
        np.save("a.npy", LOGITS)
    elif kind == "npy, Fortran order and big-endian":
        np.save("a.npy", np.asfortranarray(LOGITS.astype(">f8")))
    elif kind == "npz of one":
        np.savez("a.npz", anything=LOGITS)
    elif kind == "npz of several":
        np.savez_compressed("a.npz", logits=LOGITS, other=np.ones(2))
    elif kind == "npy by another name":
        np.save("a.npy", LOGITS)
        Path("a.npy").rename("logits.bin")
    elif kind == "Korean name":
        Path("로짓.csv").write_text(CSV)
    return next(Path().iterdir())


KINDS = [
    "csv", "csv with BOM, spaces and CRLF", "npy", "npy, Fortran order and big-endian",
    "npz of one", "npz of several", "npy by another name", "Korean name",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_stdin", [False, True])
def test_logits_from_every_kind_of_file(figures, kind, by_stdin):
    path = save(kind)
    if by_stdin:
        found = figures("--logits", "-", "--target", "0,1", stdin=path.read_bytes())
    else:
        found = figures("--logits", path, "--target", "0,1")
    assert found["logits"] == LOGITS.tolist()


def test_an_npz_may_hold_the_target_too(figures):
    np.savez("a.npz", logits=LOGITS, target=np.array([1, 2]))
    assert figures("--logits", "a.npz")["target"] == [[0, 1, 0], [0, 0, 1]]
    assert figures("--logits", "a.npz", "--target", "0,0")["target"] == [[1, 0, 0], [1, 0, 0]]


def test_every_kind_of_target(figures):
    Path("row.csv").write_text("2,1,0.1\n")
    Path("rows.csv").write_text(CSV)
    np.save("t.npy", np.array([2, 0]))
    np.savez("t.npz", np.array([2, 0]))
    np.savez("named.npz", target=np.array([2, 0]), other=np.ones(3))
    Path("column.csv").write_text("2\n0\n")
    Path("one.csv").write_text("2,0\n")
    Path("plain").write_text("2,0")
    Path("soft.csv").write_text("0.5,0.5,0\n1,1,0\n")
    assert figures("--logits", "row.csv", "--target", "1")["target"] == [0, 1, 0]
    assert figures("--logits", "row.csv", "--target", "0.5 0.25,0.25")["target"] == [
        0.5,
        0.25,
        0.25,
    ]
    assert figures("--logits", "row.csv", "--target", "1,1,0")["target"] == [1, 1, 0]
    for target in ("2,0", "2 0", "t.npy", "t.npz", "named.npz", "column.csv", "one.csv", "plain"):
        assert figures("--logits", "rows.csv", "--target", target)["target"] == [
            [0, 0, 1],
            [1, 0, 0],
        ]
    found = figures("--logits", "rows.csv", "--target", "soft.csv")
    assert found["target"] == [[0.5, 0.5, 0], [1, 1, 0]]
    assert "Σy is 2" in found["reason"]
    found = figures("--logits", "rows.csv", "--target", "-", stdin=b"2\n0\n")
    assert found["target"] == [[0, 0, 1], [1, 0, 0]]


def test_a_long_list_of_labels_is_no_file_name(figures):
    labels = [0, 1] * 300
    np.save("a.npy", np.tile(LOGITS, (300, 1)))
    found = figures("--logits", "a.npy", "--target", ",".join(map(str, labels)))
    assert np.argmax(found["target"], axis=1).tolist() == labels


def test_every_option_of_the_loss(figures):
    Path("a.csv").write_text(CSV)
    options = {
        "form": "logsumexp", "dtype": "float32", "reduction": "none", "weight": [1.0, 2.0, 0.5],
        "label_smoothing": 0.1, "temperature": 2.0, "ignore_index": 7,
    }  # fmt: skip
    found = figures(
        "--logits", "a.csv", "--target", "1,7", "--form", "logsumexp", "--dtype", "float32",
        "--reduction", "none", "--weight", "1,2,0.5", "--label-smoothing", "0.1",
        "--temperature", "2", "--ignore-index", "7",
    )  # fmt: skip
    assert found == tg.compare(LOGITS, [1, 7], **options).to_dict()
    found = figures("--logits", "a.csv", "--target", "1,0,0", "--axis", "0")
    assert found == tg.compare(LOGITS, [1, 0, 0], axis=0).to_dict()


@pytest.mark.parametrize("form", ["naive", "shifted", "logsumexp"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_forms_dtypes_and_reductions_without_logits(command, form, dtype, reduction):
    status, out, err = command(
        "compare", "--form", form, "--dtype", dtype, "--reduction", reduction
    )
    assert (status, err) == (0, "")
    assert out.count(f"({dtype}), {form} composite") == 2
    assert out.count(f"reduction '{reduction}'") == 2


def test_a_difference_is_status_1(command, figures):
    status, out, err = command("compare", "--logits", "-", "--target", "1", stdin=b"1000,0,0")
    assert (status, err) == (1, "")
    assert "verdict: differ: one of the gradients is not a number" in out
    assert "exp overflowed: exp(1000)" in out
    found = figures("--logits", "-", "--target", "1", stdin=b"1000,0,0", status=1)
    assert found["agree"] is False
    assert "NaN" in found["composite_grad"]
    assert found["fused_grad"] == [1, -1, 0]


def test_one_difference_of_two_inputs_is_status_1(command):
    """So cold that exp overflows for the shipped logits, not for the article's."""
    status, out, _ = command("compare", "--temperature", "0.01")
    assert status == 1
    assert out.count("verdict: agree") == out.count("verdict: differ") == 1


def test_a_masked_class_and_numbers_beyond_the_largest(figures):
    found = figures("--logits", "-", "--target", "0", stdin=b"2,-inf,1e-400")
    assert found["logits"] == [2, "-Infinity", 0]
    row = b"2,-1e400,100000000000000000000000"
    found = figures("--logits", "-", "--target", "0", "--form", "logsumexp", stdin=row)
    assert found["logits"] == [2, "-Infinity", 1e23]


def test_warnings_of_the_loss_are_one_sentence_each(command):
    status, _, err = command("compare", "--logits", "-", "--target", "1", stdin=b"2,-inf")
    assert status == 1
    assert err.startswith("tinygrad-sm: the loss is inf, since a right class is masked")
    assert err.count("\n") == 1
    ignored = ["--target", "-100,-100"]
    status, _, err = command("compare", "--logits", "-", *ignored, stdin=b"1,2\n3,4")
    assert status == 0
    assert err.startswith("tinygrad-sm: no row counts towards the mean")
    assert err.count("\n") == 1


# Pictures -----------------------------------------------------------------------------------------


def test_output_holds_every_picture_in_every_format(command, folder):
    Path("a.csv").write_text("2,1,0.1\n")
    status, out, err = command(
        "compare", "--logits", "a.csv", "--target", "0",
        "-o", "new/그림", "--format", "svg,png,pdf,dot,mmd",
    )  # fmt: skip
    assert (status, err) == (0, "")
    written = {path.name for path in Path("new/그림").iterdir()}
    graphs = ("comparison", "composite", "fused")
    assert written == {f"input-{graph}.{suffix}" for graph in graphs for suffix in SIGNATURES}
    for name in written:
        content = Path("new/그림", name).read_bytes()
        assert content.lstrip().startswith(SIGNATURES[name.rpartition(".")[2]])
        assert str(Path("new/그림", name)) in out


def test_output_of_the_default_run_is_svg_of_both(command):
    status, _, err = command("compare", "-o", "out")
    assert (status, err) == (0, "")
    graphs = ("comparison", "composite", "fused")
    expected = [f"{case}-{graph}.svg" for case in ("iris", "seed") for graph in graphs]
    assert sorted(path.name for path in Path("out").iterdir()) == expected


def test_pictures_and_json(command):
    status, out, err = command("compare", "-o", "out", "--format", "dot", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["seed"]["agree"]
    assert len(list(Path("out").iterdir())) == 6


def test_a_picture_of_what_broke(command):
    status, _, err = command(
        "compare", "--logits", "-", "--target", "1", "-o", "out", stdin=b"1000,0"
    )
    assert (status, err) == (1, "")
    assert "overflowed" in Path("out/input-comparison.svg").read_text(encoding="utf-8")


def test_the_same_run_leaves_the_same_bytes(command):
    for folder in ("one", "two"):
        command("compare", "-o", folder, "--format", "svg,dot,mmd")
    for path in Path("one").iterdir():
        assert path.read_bytes() == Path("two", path.name).read_bytes()


def test_a_disk_that_fills_up_leaves_nothing(command, monkeypatch):
    Path("out").mkdir()
    Path("out/seed-fused.dot").write_text("old")
    real, written = Path.write_bytes, []

    def fills_up(path, content):
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path)
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", fills_up)
    status, out, err = command("compare", "-o", "out", "--format", "dot")
    assert (status, out) == (2, "")
    assert err == "tinygrad-sm: --output out: cannot be written to (No space left on device)\n"
    assert [path.name for path in Path("out").iterdir()] == ["seed-fused.dot"]
    assert Path("out/seed-fused.dot").read_text() == "old"


# draw ---------------------------------------------------------------------------------------------


def test_draw_prints_dot(command):
    for which in ((), ("composite",), ("fused",), ("comparison",)):
        status, out, err = command("draw", *which)
        assert (status, err) == (0, "")
        assert out.startswith(("digraph", "//"))


@pytest.mark.parametrize("suffix", [*SIGNATURES, "SVG"])
def test_draw_writes_the_format_of_the_suffix(command, suffix):
    status, out, err = command("draw", "fused", "-o", f"그림.{suffix}")
    assert (status, out, err) == (0, f"그림.{suffix}\n", "")
    assert Path(f"그림.{suffix}").read_bytes().startswith(SIGNATURES[suffix.lower()])


def test_draw_takes_the_options_of_the_loss(command):
    status, out, _ = command(
        "draw", "--logits", "-", "--target", "0", "--form", "logsumexp", stdin=b"2,1"
    )
    assert status == 0
    assert "lse" in out


# The rest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("compare",), ("draw",)])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_enough(command, arguments, flag):
    status, out, err = command(*arguments, flag)
    assert (status, err) == (0, "")
    if not arguments:
        assert "compare" in out
        assert "draw" in out
        return
    for option in ("--logits", "--target", "--form", "--dtype", "--reduction", "--weight",
                   "--ignore-index", "--label-smoothing", "--temperature", "--axis",
                   "--output", "Examples:"):  # fmt: skip
        assert option in out
    if arguments == ("compare",):
        assert "0 if the gradients agree, 1 if they differ, 2 on bad input" in out
    assert "[default: naive]" in out.replace("\n", " ").replace("  ", " ")


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_help_keeps_the_lines_of_its_examples(command, name):
    _, out, _ = command(name, "--help")
    assert "\\b" not in out
    assert re.search(rf"Examples:\n +tinygrad-sm {name}", out)


def test_no_command_is_help_and_status_2(command):
    status, out, err = command()
    assert (status, err) == (2, "")
    assert out.startswith("Usage: tinygrad-sm")


def test_version(command):
    status, out, err = command("--version")
    assert (status, err) == (0, "")
    assert out.startswith("tinygrad-sm, version ")


def test_as_a_module():
    done = subprocess_run("compare", "--logits", "-", "--target", "1", input=b"1000,0,0")
    assert (done.returncode, done.stderr) == (1, b"")
    assert "exp overflowed" in done.stdout.decode()
    done = subprocess_run("compare", "--logits", "없다.npy", "--target", "0")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (
        "tinygrad-sm: --logits 없다.npy: cannot be read (No such file or directory)\n"
    )


def test_an_old_code_page_prints_question_marks_and_no_traceback():
    done = subprocess_run("compare", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"-0.34099886111403" in done.stdout


def test_a_reader_that_leaves_early():
    """As in `tinygrad-sm compare | head -1`."""
    np.save("a.npy", np.random.default_rng(0).normal(size=(300, 300)))
    for arguments in (["--json", "--arrays"], []):
        with subprocess.Popen(
            [sys.executable, "-m", "tinygrad_sm", "compare", "--logits", "a.npy",
             "--target", ",".join(["0"] * 300), *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            process.stdout.close()
            error = process.stderr.read()
            assert process.wait(60) == 141  # not 1, which says that the gradients differ
        assert error == b""


@pytest.mark.skipif(os.name == "nt", reason="the shell is POSIX's")
@pytest.mark.parametrize(
    ("arguments", "status"),
    [("compare >&-", 0), ("compare --json >&-", 0), ("compare --logits - --target 0 <&-", 2)],
)
def test_streams_that_the_shell_has_closed(arguments, status):
    done = subprocess.run(
        f'"{sys.executable}" -m tinygrad_sm {arguments}',
        shell=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert done.stderr.count(b"\n") == (status == 2)
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
def test_output_that_cannot_be_written():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tinygrad_sm", "compare"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    sentence = b"tinygrad-sm: the output cannot be written (No space left on device)\n"
    assert done.stderr == sentence


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_leaves_no_traceback():
    with subprocess.Popen(
        [sys.executable, "-m", "tinygrad_sm", "compare", "--logits", "-", "--target", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"1,")
        process.stdin.flush()
        wait_until_reading(process)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert b"Traceback" not in error


def wait_until_reading(process):
    """Until it sleeps in the read of its standard input: its modules are loaded by then."""
    deadline = time.monotonic() + 60
    channel = Path(f"/proc/{process.pid}/wchan")
    while time.monotonic() < deadline:
        try:
            if "pipe" in channel.read_text():
                return
        except OSError:
            break
        time.sleep(0.05)
    time.sleep(3)


@pytest.mark.parametrize("name", ["viz", "graphviz", "click"])
def test_a_file_named_like_a_package_of_ours_does_not_stand_for_it(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('taken for ours')")
    (tmp_path / "mine.py").write_text("import tinygrad_sm as tg\nf = lambda: tg.Tensor(1.0).exp()")
    done = subprocess.run(
        [sys.executable, "-m", "tinygrad_sm", "draw", "mine.py:f", "-o", "f.svg"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "f.svg\n"), done.stderr
