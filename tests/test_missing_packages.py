"""The engine needs NumPy alone; a package that the command misses is one sentence."""

import subprocess
import sys

import pytest

COMPARE = "import tinygrad_sm_command as c; sys.argv[1:] = ['compare', '-o', {0!r}]; c.main()"
OTHERS = ("graphviz", "pygraphviz", "click", "rich", "matplotlib")


def without(packages, program):
    """Run a program in a Python that has none of these packages."""
    missing = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", missing + program], capture_output=True, text=True, check=False
    )


def test_the_engine_and_the_loss_need_numpy_alone():
    done = without(
        OTHERS,
        "import tinygrad_sm as tg\n"
        "a = tg.Tensor([2.0, 1.0, 0.1])\n"
        "tg.fuse(tg.composite_cross_entropy(a, 0)).output.backward()\n"
        "print(a.grad.round(3), tg.compare(a, 0).verdict[:5])",
    )
    assert done.stderr == ""
    assert done.stdout == "[-0.341  0.242  0.099] agree\n"


@pytest.mark.parametrize("package", ["graphviz", "click", "rich"])
def test_the_command_names_what_it_misses(package, tmp_path):
    done = without((package,), COMPARE.format(str(tmp_path)))
    assert done.returncode == 2
    assert done.stderr == (
        f"tinygrad-sm: the command needs the package {package}, which is not installed: "
        f"python -m pip install {package}\n"
    )


def test_pictures_say_what_renders_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    done = without(
        ("pygraphviz",),
        COMPARE.format(str(tmp_path)),
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pygraphviz" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "arguments"),
    [("sympy", ["prove"]), ("sympy", ["derive"]), ("mpmath", ["derive"]),
     ("mpmath", ["compare", "--exact"])],
)  # fmt: skip
def test_formulas_and_exact_numbers_say_which_extra_they_need(package, arguments):
    """Where SymPy is there and mpmath is not, SymPy itself cannot be imported."""
    program = "import tinygrad_sm_command as c; sys.argv[1:] = {!r}; c.main()"
    done = without((package,), program.format(arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        "which is not installed: python -m pip install 'tinygrad_sm[symbolic]'\n"
    )
    assert len(done.stderr.splitlines()) == 1
