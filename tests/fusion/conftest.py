"""What the tests of fusion share."""

import pytest

from tinygrad_sm.engine.primitive import TABLE


@pytest.fixture
def table_as_it_was():
    """Primitives that a test defines are gone after it."""
    before = dict(TABLE)
    yield
    for name in set(TABLE) - set(before):
        del TABLE[name]
