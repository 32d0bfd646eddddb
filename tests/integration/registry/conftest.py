"""Homes to push from and pull into, and registries to do it with."""

import pytest
from registries import DockerRegistry, certificates_in

from corten.core.home import Home
from corten.testing.registry import TestRegistry


@pytest.fixture
def here(tmp_path):
    return Home(tmp_path / "here")


@pytest.fixture
def there(tmp_path):
    return Home(tmp_path / "there")


@pytest.fixture
def env(tmp_path):
    """Nobody's credentials."""
    return {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}


@pytest.fixture
def fake():
    with TestRegistry() as registry:
        yield registry


@pytest.fixture
def docker_registry(tmp_path):
    folder = tmp_path / "registry"
    folder.mkdir()
    registry = DockerRegistry(folder).start()
    yield registry
    registry.kill()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority of our own and a certificate for localhost: (ca, certificate, key)."""
    return certificates_in(tmp_path_factory.mktemp("tls"))
