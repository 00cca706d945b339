"""The tutorial runs as a reader would run it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_write_a_rule(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "write_a_rule.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "became one node, softplus_of_a_rule" in done.stdout
    assert "the added number is not 1" in done.stdout
    assert "does not lower the cost" in done.stdout
