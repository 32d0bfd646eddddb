"""What tests of the connection to a cluster share."""

import pytest

from corten.testing import FakeApiServer


@pytest.fixture
def cluster():
    with FakeApiServer() as server:
        yield server
