"""Docker of a user who is not root: what is true of Docker is true of his, as the same tests find."""

import pytest
from without_root import lacks, pytest_as_nobody

pytestmark = [pytest.mark.rootless_docker, pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

SUITES = {
    "the engine's contract": ["tests/contract/test_engines.py", "-k", "TestDocker"],
    "what it is kept from": ["tests/integration/test_isolation_matrix.py", "-k", "docker"],
    "its life": ["tests/e2e/test_engines.py", "-k", "docker"],
}


@pytest.mark.parametrize("suite", SUITES)
def test_it_is_docker_all_the_same(suite, capsys):
    if why := lacks():
        pytest.skip(why)
    done = pytest_as_nobody("-q", "--need=docker", "--tb=short", *SUITES[suite], timeout_s=380)
    assert (done.returncode, "skipped" in done.stdout) == (0, False), done.stdout + done.stderr
    with capsys.disabled():
        print(f"\n  of Docker without root, {suite}:\n{done.stdout}")
