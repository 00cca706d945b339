"""The benchmarks are run from a checkout and not installed, so tests have to find them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
