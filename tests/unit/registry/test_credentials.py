import base64
import json

import pytest

from corten.errors import UsageError
from corten.registry.credentials import Credential, credential_files, find, host_of_key


def auth(pair):
    return {"auth": base64.b64encode(pair.encode()).decode()}


@pytest.fixture
def config(tmp_path):
    def write(document):
        path = tmp_path / "config.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return [path]

    return write


def test_a_password_may_hold_colons(config):
    found = find(config({"auths": {"r.example": auth("ada:a:b:c")}}), "r.example", "x", {})
    assert (found.user, found.password) == ("ada", "a:b:c")


def test_the_longest_path_wins_and_another_registry_is_nobody(config):
    files = config({"auths": {"r.example": auth("all:1"), "r.example/team": auth("team:2")}})
    assert find(files, "r.example", "team/iris", {}).user == "team"
    assert find(files, "r.example", "teammates/iris", {}).user == "all"
    assert find(files, "r.example.evil.org", "team/iris", {}) is None
    assert find(files, "example", "iris", {}) is None


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("http://r.example:5000/v2/", "r.example:5000"),
        ("r.example", "r.example"),
        ("r.example/team", "r.example/team"),
    ],
)
def test_keys_are_hosts_however_docker_wrote_them(key, host):
    assert host_of_key(key) == host


def test_an_identity_token_is_one(config):
    found = find(config({"auths": {"r.example": {"identitytoken": "t"}}}), "r.example", "x", {})
    assert found.identity_token == "t"


def test_files_that_are_not_there_are_passed_over_and_the_first_that_knows_wins(config, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"auths": {"r.example": auth("second:2")}}))
    files = [tmp_path / "missing.json", *config({"auths": {"elsewhere.example": auth("a:b")}}), other]
    assert find(files, "r.example", "x", {}).user == "second"


@pytest.mark.parametrize(
    "document",
    ["{", "[]", {"auths": [1]}, {"auths": {"r.example": {"auth": "canary-not-base64!"}}}, {"credHelpers": "x"}],
)
def test_a_broken_file_is_told_without_its_content(config, document):
    with pytest.raises(UsageError) as refused:
        find(config(document), "r.example", "x", {})
    assert refused.value.code == "registry.bad_config"
    assert "canary" not in str(refused.value.as_dict())


@pytest.mark.parametrize("name", ["../x", "a b", "-x", "x;y", "$(x)"])
def test_a_helper_is_a_plain_name(config, name):
    with pytest.raises(UsageError) as refused:
        find(config({"credsStore": name}), "r.example", "x", {})
    assert refused.value.code == "registry.helper_failed"


def test_secrets_are_not_part_of_what_a_credential_shows():
    assert "canary" not in repr(Credential("ada", "canary", "canary"))


def test_files_are_looked_for_where_docker_and_podman_put_them():
    env = {"HOME": "/h", "DOCKER_CONFIG": "/d", "XDG_RUNTIME_DIR": "/x", "REGISTRY_AUTH_FILE": "/a.json"}
    found = ["/a.json", "/d/config.json", "/x/containers/auth.json", "/h/.docker/config.json"]
    assert [str(path) for path in credential_files(env)] == found
