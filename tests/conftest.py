"""How many examples hypothesis tries: HYPOTHESIS_PROFILE=deep for 10 000, else a quick run that is
the same every time."""

import gc
import os

from hypothesis import HealthCheck, settings

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=60, derandomize=True, **_common)  # same every run
settings.register_profile("deep", max_examples=10_000, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config):
    """Jax, once a test of the peers has imported it, warns at every fork of a later test."""
    config.addinivalue_line("filterwarnings", r"ignore:os\.fork\(\) was called:RuntimeWarning")


def pytest_collection_finish():
    """Ten thousand collected tests are no garbage: without them a collection takes no time."""
    gc.freeze()
