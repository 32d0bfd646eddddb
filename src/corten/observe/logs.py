"""Logs as JSON lines: `{"ts", "level", "logger", "message", ...}`, one event a line whatever it contains.

Control characters cannot get out of a line: JSON escapes those below 0x20, and the rest that terminals and log viewers
act on (DEL, C1, line separators, bidirectional overrides) are escaped here.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import msgspec

_LONGEST_TEXT = 8192
_TRACEBACK_FRAMES = 8
# What every LogRecord has; anything else was given as `extra`.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_UNSAFE = [
    0x7F,
    *range(0x80, 0xA0),
    0x061C,
    0x200E,
    0x200F,
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0xFEFF,
]
_ESCAPES = {code: f"\\u{code:04x}" for code in _UNSAFE}


class JsonFormatter(logging.Formatter):
    """Makes one line of a record; what was given as `extra` becomes keys, an exception the key `error`."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        event: dict[str, Any] = {
            "ts": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _shortened(_message(record)),
            **self._fields,
        }
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                event.setdefault(key, _shortened(value) if isinstance(value, str) else value)
        if record.exc_info and record.exc_info[1] is not None:
            event["error"] = describe(record.exc_info[1])
        return encode_line(event)


def configure(stream: TextIO | None = None, *, level: str = "info", fields: Mapping[str, str] | None = None) -> None:
    """Send everything that is logged, warned of or not caught to `stream` (stderr) as JSON lines.

    `fields` go into every line. To be called once, by a process' main function.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(fields))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A reader that went away must not add tracebacks of its own to every line.
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def describe(error: BaseException) -> dict[str, Any]:
    """An exception for a log line: type, message, the last frames of its traceback."""
    frames = [frame for frame in traceback.format_tb(error.__traceback__) if "<frozen importlib" not in frame]
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    described: dict[str, Any] = {
        "type": name,
        "message": _shortened(_text(error)),
        "traceback": frames[-_TRACEBACK_FRAMES:],
    }
    if error.__cause__ is not None:
        described["cause"] = f"{type(error.__cause__).__qualname__}: {_shortened(_text(error.__cause__))}"
    return described


def encode_line(event: Mapping[str, Any]) -> str:
    """One line of JSON without newline; values JSON has no form for become their text."""
    try:
        data = msgspec.json.encode(event, enc_hook=_text)
    except Exception:
        # An object may be able to break any encoder: cycles, keys, a __str__ that raises.
        data = msgspec.json.encode({str(key): _text(value) for key, value in event.items()})
    return data.decode("utf-8", "replace").translate(_ESCAPES)


def rfc3339(unix_time_s: float) -> str:
    """`2026-01-31T12:00:00.123Z`."""
    return datetime.fromtimestamp(unix_time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        return _text(record.msg)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception:
        text = f"<{type(value).__qualname__} that cannot be printed>"
    # A lone surrogate cannot be encoded.
    return text.encode("utf-8", "backslashreplace").decode()


def _shortened(text: str) -> str:
    text = _text(text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("corten").critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
