"""What the daemon reads and how errors travel."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.control import wire
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.errors import CortenError, EngineError, NotFoundError, PolicyError, RemoteError, UnhealthyError, UsageError

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


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"image": 1}', b'{"image": "latest"}', b"\xff", b'{"x": 1}'])
def test_what_is_no_change_is_a_usage_error(body):
    with pytest.raises(UsageError):
        wire.read(body, wire.Change)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    for kind in (wire.Change, wire.Back, wire.PortChange, wire.Ending):
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
