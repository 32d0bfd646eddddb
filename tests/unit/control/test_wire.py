"""What the daemon reads and how errors travel."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.control import wire
from corten.control.views import front_view
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.front import Front
from corten.errors import CortenError, EngineError, NotFoundError, PolicyError, RemoteError, UnhealthyError, UsageError
from corten.gateway.certificate import Certificate

IMAGE = str(Digest.of(b""))


def change(**parts):
    return json.dumps({"image": IMAGE, **parts}).encode()


def test_a_change_is_read_with_defaults():
    read = wire.read(change(), wire.Change)
    assert read.settings == Settings()
    assert read.generation is None


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"replicas": 0}, "replicas"),
        ({"replicas": 65}, "replicas"),
        ({"drain_s": -1}, "drain_s"),
        ({"ready_timeout_s": 0}, "ready_timeout_s"),
        ({"request_timeout_s": 1e9}, "request_timeout_s"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"env": {"A B": "1"}}, "env"),
        ({"env": {"A": "x\0y"}}, "env"),
        ({"env": {"CORTEN_LISTEN": "0.0.0.0:1"}}, "env"),
        ({"env": {"A": "x" * 70_000}}, "env"),
    ],
)
def test_settings_nothing_can_run_under_are_refused_by_name(settings, key):
    with pytest.raises(UsageError) as caught:
        wire.read(change(settings=settings), wire.Change)
    assert caught.value.code == "control.bad_settings"
    assert key in caught.value.what


def test_a_value_of_the_environment_is_never_repeated_in_an_error():
    with pytest.raises(UsageError) as caught:
        wire.read(change(settings={"env": {"CORTEN_X": "secret"}}), wire.Change)
    assert "secret" not in json.dumps(caught.value.as_dict())


def test_secrets_come_beside_the_settings_which_only_name_them():
    body = json.loads(change()) | {"secrets": {"KEY": "dmFsdWU="}}
    assert wire.read(json.dumps(body).encode(), wire.Change).secrets == {"KEY": b"value"}
    with pytest.raises(UsageError, match="secret_ids"):
        wire.read(change(settings={"secret_ids": {"KEY": "id"}}), wire.Change)


@pytest.mark.parametrize(
    "secrets", [{"KEY": "aHVudGVyMg"}, {"KEY": ["aHVudGVyMg=="]}, {"A B": "aHVudGVyMg=="}, {"CORTEN_X": "aHVudGVyMg=="}]
)
def test_a_value_of_a_secret_is_never_repeated_in_an_error(secrets):
    with pytest.raises(UsageError) as caught:
        wire.read(json.dumps(json.loads(change()) | {"secrets": secrets}).encode(), wire.Change)
    told = json.dumps(caught.value.as_dict())
    assert "hunter2" not in told
    assert "aHVudGVyMg" not in told


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"image": 1}', b'{"image": "latest"}', b"\xff", b'{"x": 1}'])
def test_what_is_no_change_is_a_usage_error(body):
    with pytest.raises(UsageError):
        wire.read(body, wire.Change)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    for kind in (wire.Change, wire.Back, wire.FrontChange, wire.Ending):
        with suppress(UsageError):
            wire.read(body, kind)


@pytest.mark.parametrize(
    "family", [CortenError, UsageError, NotFoundError, RemoteError, EngineError, UnhealthyError, PolicyError]
)
def test_an_error_comes_out_as_it_went_in(family):
    error = family("a.code", "what", where="there", why="because", hint="do it")
    again = wire.rebuild(json.loads(json.dumps(wire.error_body(error)))["error"])
    assert type(again) is family
    assert again.as_dict() == error.as_dict()


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_answer_becomes_an_error(parts):
    assert isinstance(wire.rebuild(parts), CortenError)


def test_a_conflict_has_its_own_status():
    assert wire.http_status(CortenError("control.conflict", "x")) == 409
    assert wire.http_status(NotFoundError("x", "x")) == 404


@pytest.mark.parametrize(
    "change",
    [
        {"port": 0},
        {"port": 70_000},
        {"host": "nowhere"},
        {"certificate": "/a.crt"},
        {"http_port": 8081},
        {"certificate": "/a.crt", "key": "/a.key", "http_port": 8080},
    ],
)
def test_a_front_nothing_can_listen_on_is_refused(change):
    with pytest.raises(UsageError) as refused:
        wire.read(json.dumps(change).encode(), wire.FrontChange).of(Front())
    assert refused.value.code == "control.bad_request"


def test_what_a_change_of_the_front_does_not_name_stays():
    before = Front(port=9000, certificate="/a.crt", key="/a.key", http_port=9001)
    assert wire.FrontChange(host="0.0.0.0").of(before) == replace(before, host="0.0.0.0")
    assert wire.FrontChange(certificate="", key="", http_port=0).of(before) == Front(port=9000)


@pytest.mark.parametrize(
    ("front", "names", "url"),
    [
        (Front(), (), "http://127.0.0.1:8080"),
        (Front(host="0.0.0.0", port=80), (), "http://127.0.0.1:80"),
        (Front(host="::"), (), "http://[::1]:8080"),
        (Front(certificate="c", key="k"), ("*.example", "models.example"), "https://models.example:8080"),
        (Front(certificate="c", key="k"), ("models.example", "localhost"), "https://localhost:8080"),
        (Front(host="::1", certificate="c", key="k"), ("::1",), "https://[::1]:8080"),
        (Front(certificate="c", key="k"), ("*.example",), "https://127.0.0.1:8080"),
    ],
)
def test_the_url_of_a_front_has_a_name_its_clients_can_verify(front, names, url):
    found = Certificate("chain", "key", names, 1.0) if front.tls else None
    assert front_view(front, found).url == url
