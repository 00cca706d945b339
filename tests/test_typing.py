"""The types that a user's checker and editor see, of the package as it is installed."""

import builtins
import importlib.util
import inspect
import pydoc
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import tinygrad_sm as tg
from tinygrad_sm.engine import more, rules

SAMPLE = Path(__file__).parent / "typing_sample.py"


def check(command, tmp_path):
    """Run a type checker on the sample, away from the sources."""
    files = metadata.files("tinygrad_sm") or []
    if any("finder" in file.name for file in files):
        pytest.skip("installed by an older build of the project: pip install --editable . again")
    shutil.copy(SAMPLE, tmp_path)
    return subprocess.run(
        [sys.executable, "-m", *command, SAMPLE.name], cwd=tmp_path, capture_output=True, text=True
    )


def test_a_users_script_passes_mypy_strict(tmp_path):
    # strict also finds a `type: ignore` too many, so the mistakes in the sample are seen
    found = check(["mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}"], tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow  # it looks at what mypy looks at
@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright is not installed")
def test_a_users_script_passes_pyright(tmp_path):
    found = check(["pyright", "--pythonpath", sys.executable], tmp_path)
    if found.returncode not in (0, 1):
        pytest.skip("pyright found no node to run on")
    assert found.returncode == 0, found.stdout + found.stderr


def test_all_names_are_written_out_for_type_checkers():
    offered = {*rules.__all__, *more.__all__}
    assert offered <= set(dir(tg))
    assert set(tg.__all__) >= offered - {"abs", "max", "min", "pow", "sum"}
    assert not set(tg.__all__) & set(dir(builtins))


def test_help_shows_how_a_primitive_is_called():
    assert str(inspect.signature(tg.sum)) == "(x, /, axis=None, keepdims=False)"
    assert str(inspect.signature(tg.add)) == "(x, y, /)"
    assert "sum(x, /, axis=None, keepdims=False)" in pydoc.plain(pydoc.render_doc(tg.sum))
    assert "np.exp element by element" in tg.exp.__doc__
    assert "element" not in tg.matmul.__doc__
    own = tg.def_primitive("signed_of_the_test", lambda x, n=2: n * x, lambda g, y, x, n=2: n * g)
    assert own.__doc__.startswith("signed_of_the_test(x, /, n=2)")
