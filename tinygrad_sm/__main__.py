"""`python -m tinygrad_sm` is the command `tinygrad-sm`."""

import sys
from pathlib import Path

# -m lets the current folder go first, where a viz.py of the user's would stand for ours
if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from tinygrad_sm_command import main

main()
