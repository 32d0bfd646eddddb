"""What tests of a cluster share: one to connect to, and the command line."""

import pytest

from corten.cli import main as cli
from corten.testing import FakeApiServer


@pytest.fixture
def cluster():
    with FakeApiServer() as server:
        yield server


@pytest.fixture
def run(capsys):
    def call(*words, code=0):
        seen = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert seen == code, out + err
        return out, err

    return call
