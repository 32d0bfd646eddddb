"""Where credentials of package indexes come from, and in which order."""

from urllib.parse import urlsplit

import pytest

from corten.builder.keyring import Keyring
from corten.builder.remote import Access, authorization_of

INDEX = "https://index.example/simple"
FILE = urlsplit("https://index.example/files/a.whl")
ON = {"UV_KEYRING_PROVIDER": "subprocess", "HOME": "/nonexistent"}


@pytest.fixture
def asked(monkeypatch):
    """What the keyring was asked for; it knows a password of ada's."""
    questions = []

    def answer(_, service, user):
        questions.append((service, user))
        return (user or "ada", "kept") if service == "index.example" else None

    monkeypatch.setattr(Keyring, "_asked", answer)
    return questions


def test_the_keyring_is_asked_by_address_then_by_host_and_once(asked):
    access = Access.from_env({**ON, "UV_INDEX": "https://ada@index.example/simple"})
    assert [access.authorization_for(FILE) for _ in range(2)] == [authorization_of("ada", "kept")] * 2
    assert asked == [(INDEX, "ada"), ("index.example", "ada")]


def test_without_a_user_it_is_asked_for_a_pair(asked):
    assert Access.from_env({**ON, "UV_DEFAULT_INDEX": INDEX}).authorization_for(FILE) == authorization_of("ada", "kept")
    assert asked[-1] == ("index.example", "")


@pytest.mark.parametrize(
    "env",
    [
        {"UV_INDEX": "https://ada:told@index.example/simple"},
        {"UV_INDEX": f"own={INDEX}", "UV_INDEX_OWN_USERNAME": "ada", "UV_INDEX_OWN_PASSWORD": "told"},
    ],
    ids=["in the URL", "by name"],
)
def test_a_password_that_is_told_wins(asked, env):
    assert Access.from_env({**ON, **env}).authorization_for(FILE) == authorization_of("ada", "told")
    assert asked == []


def test_netrc_wins_too(asked, tmp_path):
    (tmp_path / ".netrc").write_text("machine index.example login ada password noted\n")
    access = Access.from_env({**ON, "HOME": str(tmp_path), "UV_INDEX": "https://ada@index.example/simple"})
    assert access.authorization_for(FILE) == authorization_of("ada", "noted")
    assert asked == []


def test_it_is_not_asked_for_other_hosts_nor_without_being_told_to(asked):
    other = urlsplit("https://files.example/a.whl")
    assert Access.from_env({**ON, "UV_INDEX": INDEX}).authorization_for(other) == ""
    quiet = Access.from_env({"HOME": "/nonexistent", "UV_INDEX": "https://ada@index.example/simple"})
    assert quiet.authorization_for(FILE) == authorization_of("ada", "")
    assert asked == []
