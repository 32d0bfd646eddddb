"""Texts in settings: each key with each thing that has no business in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.source import Table, read_project
from corten.builder.texts import check_texts
from corten.errors import CortenError, UsageError

NEWLINE, NUL, ESCAPE = "a\nb", "a\0b", "a\x1b[2Jb"
LONG = "x" * 10_000
SHELL = ["a; rm -rf /", "$(touch /tmp/pwned)", "`id`", "a && b", "a | b", "'\"", "%s%n"]
KEYS = [
    "source",
    "files",
    "requirements",
    "packages",
    "python",
    "base",
    "method",
    "webhook_hosts",
    "labels",
    "env",
    "name",
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.joblib").write_bytes(b"x")
    return tmp_path


def table(key, text):
    match key:
        case "files" | "requirements" | "packages" | "webhook_hosts":
            return f"{key} = [{json.dumps(text)}]\n"
        case "labels" | "env":
            return f"[{key}]\n{json.dumps(text)} = 'value'\n"
        case _:
            return f"{key} = {json.dumps(text)}\n"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", [NEWLINE, NUL, ESCAPE, LONG, *SHELL], ids=range(11))
def test_whatever_stands_in_a_setting_is_harmless_or_refused_by_its_key(folder, key, text) -> None:
    (folder / "corten.toml").write_text(table(key, text))
    error, project = outcome(folder)
    if project:
        # One line for uv, which reads it from its standard input; a host nobody has; one string of a JSON document.
        kept = {"requirements": project.source.requirements, "webhook_hosts": project.webhook_hosts}
        assert text in kept.get(key, tuple(project.labels))
        return
    codes = {"name": "name.malformed", "source": "source.no_class"}
    # A path that is not there was looked for, nothing else.
    assert error.code in (
        "source.bad_config",
        codes.get(key, ""),
        "source.missing" if key in ("source", "files") else "",
    )
    assert key in error.what or error.code != "source.bad_config"
    told = f"{error}{error.hint}"
    assert "\n" not in told
    assert "\x1b" not in told
    assert len(told) < 1000


def outcome(folder):
    try:
        return None, read_project(folder)
    except CortenError as error:
        return error, None


@pytest.mark.parametrize("key", ["labels", "env"])
@pytest.mark.parametrize("text", [NEWLINE, ESCAPE, LONG, *SHELL])
def test_values_of_labels_and_variables_are_theirs_whatever_they_say(key, text) -> None:
    check_texts(Table(**{key: {"a": text}}), "corten.toml", "")


@pytest.mark.parametrize(
    ("key", "text"), [("labels", NUL), ("env", NUL), ("labels", "x" * 100_000), ("env", "x" * 131_072)]
)
def test_but_not_what_no_process_or_document_can_have(key, text) -> None:
    with pytest.raises(UsageError) as caught:
        check_texts(Table(**{key: {"mine": text}}), "corten.toml", "")
    assert f"`{key}.mine`" in caught.value.what


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-1"])
@pytest.mark.parametrize("key", ["drain_s", "ready_timeout_s", "max_image_mb", "max_cold_start_s", "request_timeout_s"])
def test_a_number_that_is_no_amount_is_refused(folder, key, number) -> None:
    (folder / "corten.toml").write_text(f"{key} = {number}\n")
    with pytest.raises(UsageError) as caught:
        read_project(folder)
    assert (caught.value.code, key in caught.value.what) == ("source.bad_config", True)


@given(st.sampled_from(KEYS[:-1]), st.text(max_size=200))
def test_every_text_is_taken_or_refused_with_the_key(key, text) -> None:
    many = {"files", "requirements", "packages", "webhook_hosts"}
    value = (text,) if key in many else {text: text} if key in ("labels", "env") else text
    error = None
    try:
        check_texts(Table(**{key: value}), "corten.toml", "here")
    except UsageError as refused:
        error = refused
    if error:
        assert error.code == "source.bad_config"
        assert key in error.what
        assert error.hint
