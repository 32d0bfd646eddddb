"""Homes to push from and pull into, and registries to do it with."""

import subprocess

import pytest
from registries import DockerRegistry

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
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, cwd=folder, capture_output=True, timeout=30)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    openssl("req", *key, "-keyout", "key.pem", "-out", "req.pem", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:registry.test")
    openssl(
        "x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem",
        "-days", "2", "-extfile", "names",
    )  # fmt: skip
    return folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
