"""What several integration tests begin with."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_site import new_site
from tiny_service import a_place, a_seed

from corten.core.home import Home
from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage


@pytest.fixture
def site():
    """A gateway's home and port with upstreams, gone after the test."""
    with new_site() as made:
        yield made


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """A home for an engine that replicas of another user may pass."""
    folder = Path(tempfile.mkdtemp(prefix="corten-engine-"))
    folder.chmod(0o755)
    yield Home(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tiny(home: Home) -> TinyImage:
    """Makes images of this machine's own Python in the home's store."""
    if not TinyImage.possible():
        pytest.skip("needs /usr/bin/python3 and ldd to make an image from")
    return TinyImage(Layout(home.store))


@pytest.fixture(scope="module")
def seed():
    """A store with the image of a tiny service, made once."""
    with a_seed() as seed:
        yield seed


@pytest.fixture
def place(seed):
    """A home with that image and a port of its own, with nothing left after the test."""
    with a_place(seed) as place:
        yield place
