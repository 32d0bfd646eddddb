"""Engines of a user who is not root: what is true of root's is true of his, as the same tests find."""

import pytest
from without_root import lacks, pytest_as_nobody

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

LIFE = "tests/e2e/test_engines.py"


@pytest.mark.rootless_docker
@pytest.mark.parametrize(
    "suite",
    [
        pytest.param(["tests/contract/test_engines.py", "-k", "TestDocker"], id="contract"),
        pytest.param(["tests/integration/test_isolation_matrix.py", "-k", "docker"], id="isolation"),
        pytest.param([LIFE, "-k", "docker"], id="life"),
    ],
)
def test_it_is_docker_all_the_same(suite, capsys):
    passes("docker", suite, capsys)


@pytest.mark.podman
def test_it_is_podman_all_the_same(capsys):
    if why := lacks():
        pytest.skip(why)
    # Its life alone: between tests the fixtures end the process that keeps his namespace, too.
    passes("podman", [LIFE, "-k", "podman and not device"], capsys)


def passes(engine, suite, capsys):
    done = pytest_as_nobody("-q", f"--need={engine}", "--tb=short", *suite, timeout_s=380)
    assert (done.returncode, "skipped" in done.stdout) == (0, False), done.stdout + done.stderr
    with capsys.disabled():
        print(f"\n  without root:\n{done.stdout}")
