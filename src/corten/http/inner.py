"""Requests that did not come over one of our connections: a message of gRPC, a job that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self, cast

from corten.http.repeated import Head
from corten.http.request import JSON, HeaderPairs, Request, Stream

if TYPE_CHECKING:
    from corten.http.connection import Connection

Answered = Callable[[int, bytes, str, HeaderPairs], None]  # status, body, content type, headers


class InnerRequest(Request, kw_only=True):
    """A request whose answer is given to a function."""

    _answered: Answered
    _left: bool = False

    @classmethod
    def of(cls, path: str, body: bytes | bytearray, headers: Mapping[str, str], answered: Answered) -> Self:
        """One that was posted to a path."""
        pairs = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        head = Head(b"POST", path.encode("latin-1"), pairs, keep_alive=False, version="1.1")
        # No connection: all that would ask for it is answered here.
        return cls(cast("Connection", None), head, body, head.keep_alive, _answered=answered)

    @property
    def gone(self) -> bool:
        """See Request."""
        return self._left

    @property
    def leaving(self) -> bool:
        """See Request."""
        return self._left

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self._left = True
        self.lost()

    def respond(
        self, status: int, body: bytes | bytearray = b"", content_type: str = JSON, headers: HeaderPairs = ()
    ) -> None:
        """See Request."""
        if self.started:
            self._begin()
        self.started = self.done = True
        if not self._left:
            self._answered(status, bytes(body), content_type, headers)

    def stream(self, status: int, content_type: str, headers: HeaderPairs = (), *, length: int | None = None) -> Stream:
        """See Request. Whoever asks this way gets whole answers."""
        raise NotImplementedError

    def abandon(self) -> None:
        """See Request."""
        self.leave()
