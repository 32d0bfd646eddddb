"""One request to the model on its way: what must be known to answer, count and log it."""

from __future__ import annotations

import math
import os

import msgspec

from corten.core.headers import AGAIN_HEADER, ATTEMPT_HEADER
from corten.http import Request
from corten.http.repeated import Head
from corten.http.request import HeaderPairs
from corten.observe.trace import trace_fields
from corten.serve.job import LARGE_BYTES

_LONGEST_ID = 128
# What people's clients send JSON as: curl's `-d` declares a form, `fetch` with a string declares plain text.
_JSON_TYPES = frozenset({b"application/json", b"application/x-www-form-urlencoded", b"text/plain", b"text/json", b""})
_ARROW, _FORM = "application/vnd.apache.arrow.stream", "multipart/form-data"
_READ_THROUGH = frozenset({_ARROW, _FORM, "text/csv"})
_ANY_ANSWER = frozenset({b"*/*", b"application/json", b"application/json, text/plain, */*"})


class Reading(msgspec.Struct, frozen=True):
    """What a head says of how to answer; made once for requests that repeat it.

    `plain`: whether both sides are JSON: the body is declared so, or as something clients say when they mean it, and no
    other answer is asked for. `timeout_s` is how long the caller waits (`X-Request-Timeout`), infinite unless said, NaN
    where what it says is no time. `usual`: a plain POST of `/predict` without such a time.
    """

    plain: bool
    request_id: str  # the caller's, empty without one
    timeout_s: float
    usual: bool = False

    @property
    def reply_headers(self) -> tuple[tuple[str, str], ...]:
        """The caller's request id is given back."""
        return (("X-Request-Id", self.request_id),) if self.request_id else ()


class Call(msgspec.Struct, eq=False):  # as with Request, a class would take three times as long to make
    """A request to the model; `started_s` is loop time, `reading` what `reading_of` says."""

    request: Request
    started_s: float
    reading: Reading

    @property
    def request_id(self) -> str:
        """The caller's, or one made up; empty without either."""
        return self.reading.request_id

    @property
    def timeout_s(self) -> float:
        """See Reading."""
        return self.reading.timeout_s

    @property
    def reply_headers(self) -> tuple[tuple[str, str], ...]:
        """What each answer to this request carries."""
        return self.reading.reply_headers

    @property
    def patient(self) -> bool:
        """Whether it may take as long as a job that nobody waits for (`limits.job_timeout_s`)."""
        return False

    @property
    def second_chance(self) -> HeaderPairs:
        """What has a gateway of ours ask another replica, once: it may be this one that is broken (decision 0036)."""
        first = not self.patient and self.request.headers.get(ATTEMPT_HEADER) == "1"
        return ((AGAIN_HEADER, "1"),) if first else ()

    @property
    def is_long(self) -> bool:
        """Whether it takes long to read: much text, or a form or table; arrays and files are taken as they are."""
        size_bytes, headers = len(self.request.body), self.request.headers
        # The Open Inference Protocol's binary tensors follow some JSON.
        if (head := headers.get("inference-header-content-length")) is not None:
            size_bytes = int(head[:20]) if head.isascii() and head.isdigit() else 0
        if size_bytes < LARGE_BYTES:
            return False
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return kind in _READ_THROUGH or is_json(kind.encode("latin-1"))

    @property
    def imports(self) -> bool:
        """Whether a library is imported to read or answer it, the first time one like it comes."""
        if self.reading.plain:
            return False
        headers = self.request.headers
        said = f"{headers.get('content-type', '')} {headers.get('accept', '')}".lower()
        # In a form it is the file's type, or the end of its name.
        if _ARROW not in said and not (_FORM in said and b"arrow" in bytes(self.request.body).lower()):
            return False
        from corten.serve.arrow import is_there

        return not is_there()

    @property
    def wanted(self) -> bool:
        """Whether someone still waits for the answer."""
        return not self.request.gone and not self.request.leaving

    def respond(self, status: int, body: bytes, content_type: str, headers: HeaderPairs) -> None:
        """Answer in the form the request asked for."""
        self.request.respond(status, body, content_type, headers)

    def finish(self) -> None:
        """All pieces of an answer are out."""
        raise NotImplementedError  # for those that are answered so

    def fail(self, status: int, code: str, message: str, path: str, headers: HeaderPairs) -> None:
        """Answer that it cannot be answered, in the shape the caller's protocol has for it."""
        self.request.fail(status, code, message, path=path, headers=headers)

    def need_id(self) -> None:
        """Make up a request id where the caller gave none, so that an answer leads to its log line."""
        if not self.request_id:
            self.reading = msgspec.structs.replace(self.reading, request_id=os.urandom(12).hex())

    def log_fields(self, now_s: float) -> dict[str, object]:
        """What a log line says of this request; never its content."""
        request = self.request
        fields: dict[str, object] = {
            "method": request.method,
            "path": request.path,
            "duration_ms": round((now_s - self.started_s) * 1e3, 3),
            "body_bytes": len(request.body),
        }
        if self.request_id:
            fields["request_id"] = self.request_id
        if traceparent := request.headers.get("traceparent"):
            fields |= trace_fields(traceparent)
        return fields


def reading_of(request: Request) -> Reading:
    """What its head says, read now or when the first like it came."""
    found: Reading = request.head.note or read(request.head)
    return found


def read(head: Head) -> Reading:
    """Read a head, and leave the result there. All headers once, only those that matter: a dict would cost more."""
    plain, request_id, timeout_s = True, "", math.inf
    for name, value in head.lines(0):
        size = len(name)
        if size == 12:
            lower = name.lower()
            if lower == b"x-request-id":
                request_id = _clean_id(value)
            elif lower == b"content-type" and value not in _JSON_TYPES:
                plain = plain and is_json(value)
        elif size == 6:
            lower = name.lower()
            if lower == b"prefer" or (lower == b"accept" and value not in _ANY_ANSWER):
                plain = False
        elif size == 16:
            if name.lower() == b"content-encoding":
                plain = False
        elif size == 17 and name.lower() == b"x-request-timeout":
            timeout_s = _seconds(value)
    usual = plain and head.method == b"POST" and head.target == b"/predict" and timeout_s == math.inf
    reading = head.note = Reading(plain, request_id, timeout_s, usual)
    return reading


def is_json(content_type: bytes) -> bool:
    """Whether a body of this type is read as JSON."""
    kind = content_type.partition(b";")[0].strip().lower()
    return kind in _JSON_TYPES or kind.endswith(b"+json")


def _seconds(value: bytes) -> float:
    """A time a caller gives, in seconds; NaN where it is none."""
    try:
        seconds = float(value)
    except ValueError:
        return math.nan
    return seconds if seconds > 0 else math.nan


def _clean_id(value: bytes) -> str:
    """An id fit for a header and a log line, or none: visible ASCII and not too long."""
    text = value.strip().decode("ascii", "replace")
    fits = 0 < len(text) <= _LONGEST_ID and text.isascii() and text.isprintable() and " " not in text
    return text if fits else ""
