"""What several integration tests begin with."""

import pytest
from gateway_site import new_site


@pytest.fixture
def site():
    """A gateway's home and port with upstreams, gone after the test."""
    with new_site() as made:
        yield made
