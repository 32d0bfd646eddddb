from __future__ import annotations

import io
import json
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.observe.access import AccessLog
from corten.observe.logs import JsonFormatter, encode_line, rfc3339
from corten.observe.trace import trace_fields

BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def line_of(message, *args, fields=None, exc_info=None, **extra):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(fields))
    logger = logging.Logger("test")  # noqa: LOG001 - one that no other test's handlers hear
    logger.addHandler(handler)
    logger.error(message, *args, exc_info=exc_info, extra=extra)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not [char for char in text[:-1] if unicodedata.category(char) in {"Cc", "Zl", "Zp"}]
    assert not [char for char in text if unicodedata.bidirectional(char) in BIDI_CONTROLS]
    return json.loads(text)


def test_a_line_has_time_level_message_and_fields():
    event = line_of("took %d s", 3, fields={"replica": "a-r1-x"}, count=7)
    assert event["message"] == "took 3 s"
    assert (event["level"], event["logger"], event["replica"], event["count"]) == ("error", "test", "a-r1-x", 7)
    assert event["ts"].endswith("Z")


def test_times_are_rfc3339_in_utc():
    assert rfc3339(1769860800.1234) == "2026-01-31T12:00:00.123Z"


def test_an_exception_is_told_with_type_message_cause_and_last_frames():
    try:
        try:
            raise KeyError("inner")  # noqa: TRY301
        except KeyError as error:
            raise ValueError("outer\nline") from error
    except ValueError as error:
        event = line_of("failed", exc_info=error)
    assert event["error"]["type"] == "ValueError"
    assert event["error"]["message"] == "outer\nline"
    assert event["error"]["cause"] == "KeyError: 'inner'"
    assert "test_logs.py" in event["error"]["traceback"][-1]


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_no_text_breaks_out_of_its_line(text):
    event = line_of("%s", text, value=text)
    assert event["message"] == event["value"]


class Awkward:
    def __str__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value", [object(), Awkward(), {1: 2}, {(1, 2): 3}, {"a": Awkward()}, float("nan"), b"\xff", 1 << 100]
)
def test_values_json_has_no_form_for_are_written_as_text(value):
    assert "value" in line_of("x", value=value)


def test_a_value_that_contains_itself_does_not_end_the_log():
    loop = []
    loop.append(loop)
    assert "value" in json.loads(encode_line({"value": loop}))


def test_a_message_that_does_not_fit_its_arguments_is_logged_all_the_same():
    assert line_of("%d of %d", "x")["message"] == "%d of %d"


def test_long_texts_are_cut():
    event = line_of("x" * 100_000, value="y" * 100_000)
    assert len(event["message"]) < 9000
    assert "100000 characters" in event["value"]


def test_each_hundredth_answer_is_logged_at_a_hundredth():
    access = AccessLog(0.01)
    assert sum(access.wants(200, now_s=1.0) for _ in range(1000)) in range(9, 12)
    assert not any(AccessLog(0).wants(200, now_s=1.0) for _ in range(1000))
    assert all(AccessLog(1).wants(404, now_s=1.0) for _ in range(100))


def test_failures_are_logged_up_to_a_rate_and_the_rest_counted(caplog):
    access = AccessLog(0, failures_per_s=5)
    assert sum(access.wants(500, now_s=1.5) for _ in range(100)) == 5
    assert access.wants(500, now_s=2.0)
    access.write(500, {"path": "/"})
    assert caplog.records[0].suppressed == 95


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", False),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("", False),
    ],
)
def test_trace_context_is_read_as_w3c_writes_it(header, found):
    assert bool(trace_fields(header)) is found
