"""Where a container engine is looked for."""

from pathlib import Path

import pytest

from corten.engine.endpoint import Kind, find, nobody_there
from corten.errors import UsageError


def found(kind, env, uid, *there):
    endpoint = find(kind, env, uid=uid, exists=lambda path: str(path) in there)
    return str(endpoint.path) if endpoint else None


def test_what_the_user_says_counts_also_when_nobody_is_there():
    assert found(Kind.DOCKER, {"DOCKER_HOST": "unix:///a/s"}, 0, "/var/run/docker.sock") == "/a/s"
    assert found(Kind.PODMAN, {"CONTAINER_HOST": "unix:///a/s"}, 1000) == "/a/s"


def test_each_engine_has_a_variable_of_its_own():
    assert found(Kind.PODMAN, {"DOCKER_HOST": "unix:///a/s"}, 0) is None
    assert found(Kind.DOCKER, {"CONTAINER_HOST": "unix:///a/s"}, 0) is None


def test_root_and_users_have_their_usual_places():
    assert found(Kind.PODMAN, {}, 0, "/run/podman/podman.sock") == "/run/podman/podman.sock"
    assert found(Kind.PODMAN, {}, 1000, "/run/podman/podman.sock") is None
    own = "/run/user/1000/podman/podman.sock"
    assert found(Kind.PODMAN, {}, 1000, own) == own
    assert found(Kind.PODMAN, {"XDG_RUNTIME_DIR": "/x"}, 1000, "/x/podman/podman.sock") == "/x/podman/podman.sock"


def test_a_users_own_docker_comes_before_the_systems():
    both = ("/run/user/7/docker.sock", "/var/run/docker.sock")
    assert found(Kind.DOCKER, {}, 7, *both) == both[0]
    assert found(Kind.DOCKER, {}, 7, both[1]) == both[1]
    assert found(Kind.DOCKER, {}, 0, *both) == both[1]


@pytest.mark.parametrize("host", ["tcp://1.2.3.4:2375", "ssh://a@b", "unix://relative", "/var/run/docker.sock", "x"])
def test_an_engine_elsewhere_is_refused(host):
    with pytest.raises(UsageError) as caught:
        find(Kind.DOCKER, {"DOCKER_HOST": host}, uid=0)
    assert caught.value.code == "engine.bad_host"
    assert host in caught.value.what


def test_who_may_not_open_the_socket_is_told_so():
    endpoint = find(Kind.DOCKER, {}, uid=0, exists=lambda _: True)
    error = nobody_there(Kind.DOCKER, endpoint, PermissionError(13, "Permission denied"))
    assert error.where == str(Path("/var/run/docker.sock"))
    assert "Permission denied" in error.why
    assert "group" in error.hint
