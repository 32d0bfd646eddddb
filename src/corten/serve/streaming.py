"""Answers of `/predict` that come piece by piece: server-sent events, or a JSON value a line.

Events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import Any, Self

from corten.http import Request, Stream
from corten.http.request import HeaderPairs, error_body
from corten.serve.call import Call, reading_of
from corten.serve.dialect import Refusal
from corten.serve.job import Inputs, Runner
from corten.serve.media import accepted, decode_as_declared
from corten.serve.sink import Framing, Sink
from corten.serve.values import to_json

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
_LINES = frozenset({NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"})


class Events:
    """`data:` lines of JSON, an `event: end` after the last, an `event: error` where there is one."""

    content_type = SSE
    ping = b":\n\n"  # a comment

    def piece(self, value: Any) -> bytes:
        """See Framing. JSON has no line ends outside of its strings, and none within."""
        return b"data: %b\n\n" % to_json(value)

    def last(self) -> bytes:
        """See Framing."""
        return b"event: end\ndata: {}\n\n"

    def error(self, code: str, message: str, path: str) -> bytes:
        """See Framing."""
        return b"event: error\ndata: %b\n\n" % error_body(code, message, path)


class Lines:
    """A JSON value a line; an error is a last line `{"error": {...}}`."""

    content_type = NDJSON
    ping = b""

    def piece(self, value: Any) -> bytes:
        """See Framing."""
        return to_json(value) + b"\n"

    def last(self) -> bytes:
        """See Framing."""
        return b""

    def error(self, code: str, message: str, path: str) -> bytes:
        """See Framing."""
        return error_body(code, message, path) + b"\n"


def framing(request: Request) -> Framing | None:
    """The form the client wants the pieces in; None when it wants JSON, the whole answer at once."""
    for kind in accepted(request.headers.get("accept", "*/*")):
        if kind in {SSE, "text/*"}:
            return Events()
        if kind in _LINES or kind == "*/*":
            return Lines()
        if kind in {"application/json", "application/*"}:
            return None
    return Lines()


class StreamCall(Call):
    """A request that is answered piece by piece. Its status is told with the first piece, or the first ping."""

    sink: Sink
    _refuse: Refusal | None = None

    @classmethod
    def of(cls, request: Request, started_s: float, framing: Framing, refuse: Refusal | None = None) -> Self:
        """One whose pieces go out in this form; `refuse` where the protocol tells errors in its own."""

        def begin() -> Stream:
            # Proxies (nginx asks for the second) must not gather pieces.
            headers = (*call.reply_headers, ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
            return request.stream(200, framing.content_type, headers)

        call = cls(request, started_s, reading_of(request), Sink(framing, begin), refuse)
        request.on_gone(call.sink.close)
        return call

    def decode(self, runner: Runner, request: Request) -> Inputs:
        """The inputs of `/predict`, whose pieces go to the client. Raises RequestError."""
        return runner.streamed(decode_as_declared(runner, request), self.sink)

    def finish(self) -> None:
        """All pieces are there."""
        self.sink.finish(self.sink.framing.last())

    def fail(self, status: int, code: str, message: str, path: str, headers: HeaderPairs) -> None:
        """See Call. After the first piece the status is told, so the error is the last of the pieces."""
        self.sink.refuse_more()
        if self.sink.began:
            self.sink.finish(self.sink.framing.error(code, message, path))
            return
        self.sink.close()
        if self._refuse is not None:
            self._refuse(self.request, status, code, message, path, headers)
        else:
            super().fail(status, code, message, path, headers)
