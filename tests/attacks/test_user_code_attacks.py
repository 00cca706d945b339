"""Hostile code of the user's: the output stays ours, and every failure is one sentence."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinygrad_sm.cli.entry import run

SOURCE = Path(__file__).parents[2]
GRAPH = """
import tinygrad_sm as tg
def loss():
    e = tg.Tensor([2.0, 1.0, 0.1], name="a").exp()
    return -(e / e.sum()).log()[0]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "mine.py").write_text(GRAPH)
    return tmp_path


@pytest.fixture
def command(capfd):
    """Run a command on a file of this text; `capfd` also sees what goes around sys.stdout."""

    def call(text, *arguments, name="fuse", function="loss"):
        Path("mine.py").write_text(text, encoding="utf-8")
        status = run([name, f"mine.py:{function}", *arguments])
        return status, *capfd.readouterr()

    return call


def in_a_process(*arguments, shell="", **options):
    """Run the command as a process, with the shell's redirections if there are any."""
    line = f"'{sys.executable}' -m tinygrad_sm {' '.join(arguments)} {shell}"
    return subprocess.run(
        line, shell=True, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(SOURCE)}, **options,
    )  # fmt: skip


NOISE = """
import atexit, io, os, subprocess, sys, threading
print("print")
sys.__stdout__.write("under\\n")
os.write(1, b"written\\n")
os.system("echo system")
subprocess.run([sys.executable, "-c", "print('child')"])
atexit.register(print, "at exit")
atexit.register(os.write, 1, b"written at exit\\n")
threading.Timer(0.1, print, ["thread"]).start()
sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
sys.stderr = io.TextIOWrapper(sys.stderr.buffer, encoding="utf-8")
print("고양이")
"""
HEARD = ("print", "under", "written", "system", "child", "at exit", "written at exit", "thread",
         "고양이")  # fmt: skip


@pytest.mark.parametrize("arguments", ["fuse mine.py:loss --json", "draw mine.py:loss"])
def test_nothing_that_the_code_writes_reaches_stdout(arguments):
    clean = in_a_process(arguments)
    Path("mine.py").write_text(NOISE + GRAPH, encoding="utf-8")
    done = in_a_process(arguments)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert (done.returncode, done.stdout) == (0, clean.stdout)
    assert sorted(done.stderr.split("\n")) == sorted(["", *HEARD])


@pytest.mark.skipif(os.name == "nt", reason="the shell's redirections")
@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", "| head -c 0", "2>&- | cat"])
def test_streams_that_are_closed(shell):
    Path("mine.py").write_text(NOISE + GRAPH, encoding="utf-8")
    done = in_a_process("fuse", "mine.py:loss", "--json", shell=shell)
    assert "Traceback" not in done.stderr
    if "| cat" in shell:
        assert json.loads(done.stdout)["rewrites"]


CLOSING = ["sys.stdout.close(); sys.stderr.close(); sys.__stdout__.close()", "os.close(1)",
           "sys.stdout = sys.stderr = None"]  # fmt: skip


@pytest.mark.parametrize("closing", CLOSING)
def test_code_that_closes_streams(closing):
    Path("mine.py").write_text(f"import os, sys\n{closing}\n{GRAPH}")
    done = in_a_process("fuse", "mine.py:loss", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rewrites"]


def test_code_that_closes_streams_and_fails():
    Path("mine.py").write_text(f"import os, sys\n{'; '.join(CLOSING)}\n1 / 0")
    done = in_a_process("fuse", "mine.py:loss", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tinygrad-sm: mine.py raised ZeroDivisionError on line 3")


@pytest.mark.parametrize("where", ["at import", "in the function", "in a rule"])
def test_a_changed_directory_does_not_move_our_output(command, folder, where):
    (folder / "elsewhere").mkdir()
    go = 'import os; os.chdir("elsewhere")'
    text = {
        "at import": f"{go}\n{GRAPH}",
        "in the function": GRAPH.replace("    e =", f"    {go}\n    e =", 1),
        "in a rule": RULE % go,
    }[where]
    assert command(text, "-o", "a.svg", name="draw")[:2] == (0, "a.svg\n")
    assert command(text, "-o", "out")[0] in (0, 1)
    assert Path.cwd() == folder
    assert list((folder / "elsewhere").iterdir()) == []
    assert Path("a.svg").exists()
    assert Path("out").is_dir()


RULE = """
import numpy as np
import time
import tinygrad_sm as tg
def backward(g, out, x):
    %s
    return g
identity = tg.def_primitive(f"identity_{time.time_ns()}", lambda x: x + 0.0, backward)
def loss():
    return identity(tg.Tensor([2.0], name="a")).sum()
"""


def test_a_rule_of_the_users_that_raises_in_our_backward(command):
    text = RULE % "raise RuntimeError('no gradient')"
    status, out, err = command(text, name="draw")
    assert (status, out) == (2, "")
    assert err == (
        "tinygrad-sm: mine.py:loss raised RuntimeError on line 6: no gradient "
        "(--traceback shows all of it)\n"
    )


RAISING = {
    "base exception": ("raise BaseException('b')", "BaseException on line 3: b"),
    "own base": ("class Own(BaseException): pass\nraise Own", "Own on line 4 "),
    "generator exit": ("raise GeneratorExit('g')", "GeneratorExit on line 3: g"),
    "stop iteration": ("next(iter(()))", "StopIteration on line 3 "),
    "system exit": ("import sys; sys.exit('bye')", "SystemExit on line 3: bye"),
    "system exit 0": ("raise SystemExit(0)", "SystemExit on line 3: 0"),
    "exit": ("exit()", "SystemExit on line 3"),
    "group": ("raise ExceptionGroup('many', [ValueError(1)])", "ExceptionGroup on line 3: many"),
    "recursion": ("f = lambda: f()\nf()", "RecursionError on line 3: maximum recursion depth"),
    "memory": ("import numpy as np; np.ones(2**60)", "on line 3: "),
    "ours": ("tg.cross_entropy(tg.Tensor([1.0, 2.0]), 7)", "LabelError on line 3: target must"),
    "text raises": (
        "class Own(Exception):\n    def __str__(self): 1 / 0\nraise Own",
        "Own on line 5: its text cannot be shown, since that raises ZeroDivisionError",
    ),
    "text exits": (
        "class Own(Exception):\n    def __str__(self): raise SystemExit\nraise Own",
        "Own on line 5: its text cannot be shown, since that raises SystemExit",
    ),
    "text is none": (
        "class Own(Exception):\n    def __str__(self): return None\nraise Own",
        "Own on line 5: its text cannot be shown, since that raises TypeError",
    ),
    "syntax error of no file": ("raise SyntaxError", "SyntaxError on line 3: None"),
    "syntax error of a text": ("eval('1 +')", "SyntaxError on line 3: invalid syntax"),
    "long text": ("raise ValueError('x' * 10**6)", "x" * 300 + "… (--traceback"),
    "many lines": ("raise ValueError('a\\n\\n  b')", "ValueError on line 3: a b"),
    "colours": ("raise ValueError('\\x1b[31mred\\x07')", r"ValueError on line 3: \x1b[31mred\x07"),
    "right to left": ("raise ValueError('\\u202egnp.exe')", r"on line 3: \u202egnp.exe"),
    "lone surrogate": ("raise ValueError('\\udcff')", r"on line 3: \udcff"),
    "Korean": ("raise ValueError('고양이')", "ValueError on line 3: 고양이"),
}


@pytest.mark.parametrize(("code", "sentence"), RAISING.values(), ids=RAISING)
@pytest.mark.parametrize("where", ["module", "function"])
def test_what_the_code_raises_is_one_sentence(command, code, sentence, where):
    if where == "module":
        text, what = f"import tinygrad_sm as tg\n\n{code}", "mine.py"
    else:
        lines = "".join(f"    {line}\n" for line in code.split("\n"))
        text, what = f"import tinygrad_sm as tg\ndef loss():\n{lines}", "mine.py:loss"
    status, out, err = command(text)
    assert (status, out) == (2, "")
    assert err.startswith(f"tinygrad-sm: {what} raised ")
    assert sentence in err
    assert err.endswith(" (--traceback shows all of it)\n")
    assert err.count("\n") == 1


ASKED = {
    "a module's __getattr__": ("def __getattr__(name): raise KeyError(name)", "KeyError on line 1"),
    "a signature": (
        "class Own:\n    @property\n    def __signature__(self): 1 / 0\n"
        "    def __call__(self): pass\nloss = Own()", "ZeroDivisionError on line 3",
    ),
    "the output's class": (
        "class Own:\n    @property\n    def __class__(self): 1 / 0\ndef loss(): return Own()",
        "ZeroDivisionError on line 3",
    ),
    "a value beside it": (
        "class Own:\n    @property\n    def __class__(self): 1 / 0\nx = Own()",
        "ZeroDivisionError on line 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), ASKED.values(), ids=ASKED)
def test_code_that_raises_when_it_is_asked(command, text, sentence):
    status, out, err = command(text)
    assert (status, out) == (2, "")
    assert f" raised {sentence}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("imported", [False, True])
def test_a_viz_of_the_users_is_not_taken_for_ours(imported):
    """Their folder comes first on the path while their code runs, and last while ours does."""
    Path("viz.py").write_text("here = 1" if imported else "1 / 0")
    if imported:
        Path("mine.py").write_text(f"import viz\nassert viz.here\n{GRAPH}")
    line = "from tinygrad_sm.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", line, "draw", "mine.py:loss", "-o", "a.svg"],
        capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.svg\n", "")


def test_a_rule_may_import_a_sibling_when_it_is_called(command):
    Path("late.py").write_text("")
    status, _, err = command(RULE % "import late", name="draw")
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("async def loss(): pass", "mine.py:loss returned a coroutine; it must return"),
        ("def loss(): yield 1", "mine.py:loss returned a generator; it must return"),
        ("loss = type", "mine.py:loss raised TypeError: type"),
        ("class loss: pass", "mine.py:loss returned a loss; it must return"),
    ],
)
def test_what_is_no_plain_function(command, code, sentence):
    status, out, err = command(code)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_warning_of_the_code_names_its_line(folder):
    Path("mine.py").write_text(f"import warnings\nwarnings.warn('careful')\n{GRAPH}")
    done = in_a_process("fuse", "mine.py:loss", "--json")
    assert done.returncode == 0
    assert done.stderr == f"tinygrad-sm: {folder / 'mine.py'}:2: UserWarning: careful\n"


def test_places_that_are_no_files(capsys):
    Path("folder.py").mkdir()
    os.symlink("gone.py", "link.py")
    for place, sentence in [
        ("folder.py:f", "folder.py: is a folder"),
        ("link.py:f", "link.py: it is a link to gone.py, which does not exist"),
        ("none.py:f", "none.py: there is no such file"),
    ]:
        assert run(["fuse", place]) == 2
        assert capsys.readouterr().err == f"tinygrad-sm: {sentence}\n"


def test_an_error_in_a_sibling_is_told_there(command, monkeypatch):
    for name in ("beside", "package", "helper", "numeric"):  # another test's may be loaded
        monkeypatch.delitem(sys.modules, name, raising=False)
    Path("beside.py").write_text("x = 1\ndef f(:\n")
    Path("package").mkdir()
    Path("package/__init__.py").write_text("\n\n1 / 0")
    Path("helper.py").write_text("def f():\n    return {}['k']\n")
    Path("numeric.py").write_text("import numpy as np\n\ndef f():\n    return np.zeros(-1)\n")
    for text, sentence in [
        ("\nimport beside", "mine.py raised SyntaxError on line 2 of beside.py: "),
        ("import package", "mine.py raised ZeroDivisionError on line 3 of package"),
        ("import helper\nloss = helper.f", "mine.py:loss raised KeyError on line 2 of helper.py: "),
        ("import numeric\nloss = numeric.f", "raised ValueError on line 4 of numeric.py: negative"),
        ("import json\nx = json.loads('{')", "raised JSONDecodeError on line 2: Expecting"),
        ("\nimport none_such", "raised ModuleNotFoundError on line 2: No module named 'none_such'"),
    ]:
        status, _, err = command(text)
        assert status == 2
        assert sentence in err
        sys.modules.pop("beside", None)


@pytest.mark.parametrize(
    "content", ["고".encode("cp949"), b"x = '\0'", b"\xff\xfex\x00", b"if 1:\n", b"\tx\n  y", b")"]
)
def test_files_that_are_not_python(content, capsys):
    Path("mine.py").write_bytes(content)
    assert run(["fuse", "mine.py:loss"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match("tinygrad-sm: mine.py raised [A-Z][A-Za-z]+Error", err)
    assert err.count("\n") == 1


def test_traceback_shows_all_of_it(command):
    text = "def g():\n    return {}['k']\n\ndef loss():\n    return g()\n"
    for name in ("fuse", "draw"):
        status, out, err = command(text, "--traceback", name=name)
        assert (status, out) == (2, "")
        lines = err.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert 'mine.py", line 5, in loss' in lines[1]  # no frame of ours before theirs
        assert "return g()" in lines[2]
        assert "KeyError: 'k'" in lines
        assert lines[-1] == "tinygrad-sm: mine.py:loss raised KeyError on line 2: 'k'"
    _, _, err = command("def f(:", "--traceback")
    assert err.splitlines()[1].strip() == "def f(:"
    _, _, err = command(RULE % "1 / 0", "--traceback", name="draw")
    assert 'mine.py", line 6, in backward' in err


def test_traceback_is_refused_where_no_code_is_run(capsys):
    for arguments in (["fuse"], ["draw"], ["draw", "levels"]):
        assert run([*arguments, "--traceback"]) == 2
        assert capsys.readouterr().err == (
            "tinygrad-sm: --traceback is for FILE.py:function only\n"
        )


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_code_that_never_returns_and_ctrl_c():
    Path("mine.py").write_text("import os\nos.write(2, b'on')\nwhile True: pass\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygrad_sm", "fuse", "mine.py:loss"],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr.read(2) == b"on"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\u202eb", "줄\n바꿈", "\x07", "\x85", "\u2028"])
def test_hostile_names_in_sentences(capsys, name):
    for arguments in (["draw", name], ["fuse", f"{name}.py:f"], ["compare", "--logits", name,
                      "--target", "0"], ["compare", "--form", name], [name]):  # fmt: skip
        assert run(arguments) == 2
        err = capsys.readouterr().err
        assert err.endswith("\n")
        assert err[:-1].isprintable()


@pytest.mark.parametrize("arguments", [["fuse"], ["fuse", "--json"], ["draw"]], ids=" ".join)
def test_a_graph_deeper_than_pythons_stack(command, arguments):
    text = (
        "import tinygrad_sm as tg\ndef loss():\n    t = tg.Tensor([1.0, 2.0])\n"
        "    for _ in range(5000): t = t + 1.0\n    return t.sum()\n"
    )
    name, *options = arguments
    status, out, err = command(text, *options, name=name)
    assert (status, err) == (0 if name == "draw" else 1, "")
    assert out
