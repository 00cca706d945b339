"""Attacks on files: all of them or none, links, modes, devices, left-overs, hostile folders."""

import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import viz
from tinygrad_sm.cli.entry import run
from tinygrad_sm.cli.pictures import write_pictures
from tinygrad_sm.errors import InvalidValueError
from viz import files
from viz.files import write_all, write_whole

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX's")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder="."):
    """Every file's text; folders and what is no file by what they are."""
    kinds = {True: "folder", False: "other"}
    return {
        str(p): p.read_text() if p.is_file() else kinds[p.is_dir()] for p in Path(folder).rglob("*")
    }


# All or none --------------------------------------------------------------------------------------


def test_a_folder_among_the_files():
    Path("d").mkdir()
    Path("d/a").write_text("old")
    Path("d/b").mkdir()
    with pytest.raises(viz.SaveError, match="d/b cannot be written: it is a folder"):
        write_all({Path("d/a"): b"new", Path("d/b"): b"new"})
    assert contents() == {"d": "folder", "d/a": "old", "d/b": "folder"}


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("times", [1, 2])
def test_a_failure_at_the_kth_rename(monkeypatch, k, after, error, times):
    """Before the rename or, as an interrupt can, after it; and at the first that takes one back."""
    if times == 2 and not isinstance(error, KeyboardInterrupt):
        pytest.skip("a disk that fails twice is beyond us")
    for name in "ac":
        Path(name).write_text(f"old {name}")
        Path(name).chmod(0o640)
    before = {name: Path(name).stat() for name in "ac"}
    calls = itertools.count()

    def replace(source, target):
        fails = k <= next(calls) < k + times
        if fails and not after:
            raise error
        real(source, target)
        if fails:
            raise error

    real = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises((viz.SaveError, KeyboardInterrupt)):
            write_all({Path(name): b"new" for name in "abcd"})
    assert contents() == {"a": "old a", "c": "old c"}
    for name, was in before.items():
        now = Path(name).stat()
        assert (now.st_mode, now.st_mtime_ns) == (was.st_mode, was.st_mtime_ns)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("k", range(3))
def test_a_failure_at_the_kth_draft(monkeypatch, k, error):
    Path("a").write_text("old")
    calls = itertools.count()

    def write_bytes(path, content):
        real(path, content[: len(content) // 2])
        if next(calls) == k:
            raise error

    real = Path.write_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises((viz.SaveError, KeyboardInterrupt)):
            write_all({Path(name): b"new" for name in "abc"})
    assert contents() == {"a": "old"}


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_single_file_and_its_link_are_two_names_of_one(names):
    os.symlink("a", "b")
    with pytest.raises(viz.SaveError, match="two of these files are the same one"):
        write_all({Path(name): b"new" for name in names})
    assert not Path("a").exists()


def test_a_file_system_without_links(monkeypatch):
    Path("a").write_text("old")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    write_all({Path("a"): b"new", Path("b"): b"new"})
    assert contents() == {"a": "new", "b": "new"}
    monkeypatch.setattr(os, "chown", None)
    with pytest.raises(viz.SaveError):
        write_all({Path("a"): b"newer", Path("c/d"): b""})
    assert contents() == {"a": "new", "b": "new"}


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "é", "한", "𝄞"])
def test_long_names_that_differ_at_the_end(letter):
    """255 bytes are what a file system allows; of a letter those are up to four."""
    stem = letter * (251 // len(letter.encode()))
    files = {Path(f"{stem}.{i}"): str(i).encode() for i in range(5)}
    write_all(files)
    assert contents() == {str(path): content.decode() for path, content in files.items()}


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "\udcff\0", "no/such/folder", ""])
def test_names_that_no_file_can_have(name):
    with pytest.raises(viz.SaveError, match="cannot be written: "):
        write_all({Path("fine"): b"new", Path(name): b"new"})
    assert contents() == {}


def test_links_planted_in_the_folder_are_not_followed():
    """At the name of the old drafts, and of the hidden folders of a process that is gone."""
    Path("victim").write_text("kept")
    Path("kept").mkdir()
    Path("kept/file").write_text("kept")
    os.symlink("victim", f".a.{os.getpid()}.part")
    os.symlink("kept", f"{files._ROOMS}999999999-a")
    write_whole(Path("a"), b"new")
    found = contents()
    assert found["victim"] == found["kept/file"] == "kept"
    assert found["a"] == "new"


@pytest.mark.parametrize("times", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_threads_that_save_one_path(times):
    path, sizes, errors = Path("a").absolute(), {4000 * n for n in range(1, 5)}, []
    write_whole(path, b"0" * 4000)

    def save(n):
        try:
            for _ in range(times):
                write_whole(path, str(n).encode() * 4000 * n)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        content = path.read_bytes()
        assert len(content) in sizes
        assert len(set(content)) == 1
    assert errors == []
    assert os.listdir() == ["a"]


# Left-overs ---------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from viz.files import write_all
if sys.argv[1] == "draft":
    real = Path.write_bytes
    Path.write_bytes = lambda *a: (real(*a), os.kill(os.getpid(), signal.SIGKILL))
else:
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_all({Path("a"): b"new", Path("b"): b"new"})
"""


@posix
@pytest.mark.parametrize("when", ["draft", "rename"])
def test_what_a_killed_run_left_is_cleaned(when):
    Path("a").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, when],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert Path("a").read_text() == "old"
    assert all(name.startswith(".") for name in os.listdir() if name != "a")
    write_whole(Path("b"), b"new")
    assert contents() == {"a": "old", "b": "new"}


@posix
def test_what_is_in_use_or_not_ours_is_not_cleaned():
    kept = [f"{files._ROOMS}{os.getppid()}-x", ".tinygrad_sm-another.machine-999999999-x",
            f"{files._ROOMS}x-1", ".tinygrad_sm"]  # fmt: skip
    for name in kept:
        Path(name).mkdir()
    Path(f"{files._ROOMS}{10**30}-x").mkdir()
    write_whole(Path("b"), b"new")
    assert sorted(os.listdir()) == sorted([*kept, "b"])


# What stands there --------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "socket", "null", "folder"])
def test_what_is_no_file_is_refused(kind, linked):
    if kind == "null":
        if not linked:
            pytest.skip("the device itself is not put at stake")
        os.symlink("/dev/null", "a")
    else:
        make = {"fifo": os.mkfifo, "socket": make_socket, "folder": os.mkdir}[kind]
        make("real" if linked else "a")
        if linked:
            os.symlink("real", "a")
    before = os.stat("a")
    with pytest.raises(viz.SaveError, match=r"a cannot be written: it is a .*, not a file"):
        write_all({Path("fine"): b"new", Path("a"): b"new"})
    now = os.stat("a")
    assert (now.st_ino, now.st_mode, now.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert os.path.islink("a") == linked
    assert not os.path.lexists("fine")


def make_socket(name):
    import socket

    with socket.socket(socket.AF_UNIX) as made:
        made.bind(name)


@posix
@pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="root's")
def test_a_device_node_is_refused():
    try:
        os.mknod("a", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError:
        pytest.skip("not allowed here")
    with pytest.raises(viz.SaveError, match="it is a device, pipe or socket, not a file"):
        write_whole(Path("a"), b"new")
    assert stat.S_ISCHR(os.stat("a").st_mode)


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660, 0o755, 0o200])
def test_modes_are_kept(mode):
    Path("a").write_text("old")
    Path("a").chmod(mode)
    write_whole(Path("a"), b"new")
    assert stat.S_IMODE(Path("a").stat().st_mode) == mode


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_user_gives_to_new_files(umask):
    old = os.umask(umask)
    try:
        write_whole(Path("a"), b"new")
    finally:
        os.umask(old)
    assert stat.S_IMODE(Path("a").stat().st_mode) == 0o666 & ~umask


@posix
@pytest.mark.parametrize("mode", [0o444, 0o400, 0o555])
@pytest.mark.parametrize("linked", [False, True])
def test_read_only_files_are_refused(mode, linked):
    Path("real").write_text("old")
    Path("real").chmod(mode)
    name = "link" if linked else "real"
    if linked:
        os.symlink("real", "link")
    with pytest.raises(viz.SaveError, match=f"{name} cannot be written: the file is read-only"):
        write_all({Path("fine"): b"new", Path(name): b"new"})
    assert Path("real").read_text() == "old"
    assert not Path("fine").exists()


@posix
@pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="root's")
def test_owners_are_kept():
    Path("a").write_text("old")
    os.chown("a", 12345, 23456)
    Path("a").chmod(0o640)
    write_whole(Path("a"), b"new")
    found = Path("a").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o640)


def test_links_stay_links():
    Path("d").mkdir()
    Path("d/real").write_text("old")
    os.symlink("d/real", "one")
    os.symlink("one", "two")
    os.symlink("d/none", "dangling")
    write_all({Path("two"): b"new", Path("dangling"): b"new"})
    assert [os.readlink(name) for name in ("one", "two", "dangling")] == ["d/real", "one", "d/none"]
    assert contents("d") == {"d/real": "new", "d/none": "new"}


def test_a_link_in_a_circle():
    os.symlink("a", "b")
    os.symlink("b", "a")
    with pytest.raises(viz.SaveError, match="a cannot be written: "):
        write_whole(Path("a"), b"new")
    assert os.readlink("a") == "b"


# Folders, by the commands -------------------------------------------------------------------------


def refused(capsys, *arguments):
    status = run(list(arguments))
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    return err


def test_an_output_folder_a_thousand_folders_deep(capsys):
    """As deep as a path can name; deeper is one sentence, and leaves nothing."""
    deep = Path("/".join("a" * 1000))
    try:
        assert run(["compare", "--format", "dot", "-o", str(deep)]) == 0
        assert len(os.listdir(deep)) == 6
    finally:
        for file in deep.iterdir():
            file.unlink()
        for place in (deep, *deep.parents[:-1]):  # rmtree recurses
            place.rmdir()
    capsys.readouterr()
    err = refused(capsys, "compare", "--format", "dot", "-o", "/".join("a" * 3000))
    assert "cannot be written to (File name too long)" in err
    assert os.listdir() == []


def test_a_folder_that_vanishes(capsys, monkeypatch):
    """Between the check of the folder and the writing; and the current one."""
    Path("out").mkdir()

    def write(files):
        shutil.rmtree("out")
        write_all(files)

    monkeypatch.setattr(files, "write_all", write)
    err = refused(capsys, "compare", "--format", "dot", "-o", "out")
    assert err == "tinygrad-sm: --output out: cannot be written to (No such file or directory)\n"
    assert os.listdir() == []


@posix
@pytest.mark.parametrize(
    "arguments",
    [("compare", "--format", "dot", "-o", "out"), ("draw", "-o", "x.dot"), ("fuse", "-o", "out")],
)
def test_the_current_folder_vanishes(capsys, tmp_path, arguments):
    Path("gone").mkdir()
    os.chdir("gone")
    os.rmdir(tmp_path / "gone")
    try:
        err = refused(capsys, *arguments)
    finally:
        os.chdir(tmp_path)
    assert "(No such file or directory)" in err or "No such file or directory\n" in err
    assert os.listdir() == []


def test_a_failure_takes_away_the_folders_that_were_made(monkeypatch):
    class Drawn:
        def render(self, suffix):
            return b"drawn"

    Path("a").mkdir()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(InvalidValueError, match=r"--output a/b/c: cannot be written to \(broken\)"):
        write_pictures(iter([("x", Drawn())]), Path("a/b/c"), ("svg",))
    assert contents() == {"a": "folder"}
