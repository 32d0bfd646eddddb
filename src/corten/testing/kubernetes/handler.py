"""The HTTP side of the small API server: who asks, answers, watches."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from corten.testing.kubernetes import discovery, statuses
from corten.testing.kubernetes.rest import Call, is_chosen, stored

if TYPE_CHECKING:
    from corten.testing.kubernetes.server import FakeApiServer

_HANDSHAKE_S = 10.0
_LONGEST_WATCH_S = 60.0


class Handler(BaseHTTPRequestHandler):
    """One connection. `site` is set by a subclass for each server."""

    site: ClassVar[FakeApiServer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client to say that it has the head

    def setup(self) -> None:
        """TLS is agreed on here, in the connection's own thread: who is slow at it keeps nobody else waiting."""
        self.request.settimeout(_HANDSHAKE_S)
        try:
            self.request = self.site.tls.wrap_socket(self.request, server_side=True)
        except OSError:
            self.close_connection = True  # a client that does not trust us
        self.request.settimeout(None)
        super().setup()

    def handle(self) -> None:
        """Nothing is read from a connection that is none."""
        if isinstance(self.request, ssl.SSLSocket):
            super().handle()

    def finish(self) -> None:
        """The server closes the connection it knows, from which TLS took the socket."""
        with suppress(OSError):
            super().finish()
        self.request.close()

    def do_GET(self) -> None:
        """Every method goes the same way."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        try:
            user = self._known()
            media_type = self.headers.get("Content-Type", "")
            agent = self.headers.get("User-Agent", "")
            told = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, parts.path, query, media_type, body, user, agent, told)
            self.site.note(call)
            if query.get("watch") in ("true", "1"):
                self._watch(call)
                return
            with self.site.objects.changed:
                status, headers, answer = self._routed(call)
            if call.method == "POST" and "/proxy/" in call.path:
                self.site.pause(self.site.pods.thinking_s)
            self._send(status, answer, headers)
        except statuses.RefusedError as refused:
            after = refused.body["details"].get("retryAfterSeconds")
            headers = {"Content-Type": "application/json", **({"Retry-After": str(after)} if after else {})}
            self._send(refused.status, json.dumps(refused.body).encode(), headers)
        except _BrokenError:
            self.close_connection = True

    do_PATCH = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 -- the stdlib's name
        """Not to the terminal."""
        del format

    def _known(self) -> str:
        """Who asks, by token or certificate. Raises RefusedError."""
        rules = self.site.rules
        if rules.down:
            raise _BrokenError
        if rules.broken > 0:
            rules.broken -= 1
            raise _BrokenError
        if rules.busy > 0:
            rules.busy -= 1
            raise statuses.busy()
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in rules.tokens:
            return rules.tokens[token]
        shown: Mapping[str, Any] = self.request.getpeercert() or {}
        if not token and shown and ssl.cert_time_to_seconds(shown["notAfter"]) > time.time():
            return next(str(value) for ((name, value),) in shown["subject"] if name == "commonName")
        raise statuses.unauthorized()

    def _routed(self, call: Call) -> tuple[int, Mapping[str, str], bytes]:
        site = self.site
        found = discovery.document(call.path, site.version, site.groups)
        if found is not None:
            return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()
        return site.rest.answer(call)

    def _watch(self, call: Call) -> None:
        """Chunked, as long as it lasts. From no version, or 0, what is there is told first."""
        site, rest = self.site, self.site.rest
        kind, namespace, name, _, _ = rest.parsed(call.path)
        with site.objects.changed:
            rest.allow(call, kind, namespace, name)
            asked = call.query.get("resourceVersion") or "0"
            if not (asked.isascii() and asked.isdecimal()):
                raise statuses.no_version(kind.plural, kind.group, asked)
            at = int(asked)
            before = [] if at else site.objects.now(stored(kind), namespace)
            at = at or site.objects.version
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if site.rules.compacted or at < site.objects.oldest:
            # Told within the stream: it had begun when the cache of watches found out.
            gone = statuses.expired(f"too old resource version: {at} ({site.objects.version})")
            self._chunk({"type": "ERROR", "object": gone.body})
            self._write(b"0\r\n\r\n")
            return
        for one in before:
            self._tell("ADDED", one, call)
        until_s = time.monotonic() + min(float(call.query.get("timeoutSeconds", "10")), _LONGEST_WATCH_S)
        while time.monotonic() < until_s and not site.over:
            with site.objects.changed:
                events = site.objects.since(at, stored(kind), namespace)
                if not events:
                    site.objects.changed.wait(0.05)
                    events = site.objects.since(at, stored(kind), namespace)
                at = site.objects.version
            for _, change, one in events:
                self._tell(change, one, call)
            if call.query.get("allowWatchBookmarks") == "true":
                told = {"kind": kind.name, "apiVersion": kind.api, "metadata": {"resourceVersion": str(at)}}
                self._chunk({"type": "BOOKMARK", "object": told})
            if site.rules.down:
                raise _BrokenError
            if site.rules.drop_watches > 0:
                site.rules.drop_watches -= 1
                self.close_connection = True
                return
        self._write(b"0\r\n\r\n")

    def _tell(self, change: str, one: Mapping[str, Any], call: Call) -> None:
        if is_chosen(dict(one), call.query):
            self._chunk({"type": change, "object": one})

    def _chunk(self, event: Mapping[str, Any]) -> None:
        data = json.dumps(event).encode() + b"\n"
        self._write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError as error:
            raise _BrokenError from error

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


class _BrokenError(Exception):
    """The connection ends without an answer."""
