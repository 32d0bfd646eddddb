"""A small registry on loopback for tests: the distribution API in memory, and the faults real ones have.

Unlike docker-registry 2.8 it has the referrers API and takes up an upload where it broke off.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

from corten.core.image import INDEX

_ROUTE = re.compile(r"/v2/(.+)/(manifests|blobs|referrers)/(?:(uploads)/)?([^/]*)")
_PIECE_BYTES = 64 << 10


@dataclass
class Faults:
    """What goes wrong. Counts go down as it happens; 0 is never."""

    refuse: int = 0  # so many requests get `refuse_status`
    refuse_status: int = 429
    retry_after: str = ""
    drop_uploads: int = 0  # so many uploads break off after `drop_after_bytes`, which are kept
    drop_downloads: int = 0
    drop_after_bytes: int = 1 << 20
    hang_downloads: int = 0  # so many blobs never come
    flip_downloads: int = 0  # so many blobs come with a bit turned over
    cut_downloads: int = 0  # so many blobs come shorter than they are, and say so
    largest_body_bytes: int = 0  # larger ones get a 413
    no_whole_blobs: int = 0  # this status, where a blob comes with the request that ends its upload
    redirect_blobs_to: str = ""  # another base URL
    ignore_mounts: int = 0  # so many mounts are answered with an upload, as registries do that know none
    forget_referrers: int = 0  # so many times the list of referrers loses what was just written to it


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    authorization: str
    content_length: int


@dataclass
class Content:
    """What the registry holds."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)


class TestRegistry:
    """Runs in threads of its own; use as a context manager. `users` (name: password) switches tokens on."""

    __test__: ClassVar[bool] = False  # not a class of tests, whatever its name

    def __init__(self, *, referrers: bool = True, users: dict[str, str] | None = None) -> None:
        self.faults = Faults()
        self.content = Content()
        self.seen: list[Seen] = []
        self.users = users or {}
        self.referrers = referrers
        self.identity_token = "identity-of-ada"  # noqa: S105 - what a test logs in with
        self.lock = threading.RLock()
        self.closing = threading.Event()
        registry = self

        class Handler(_Handler):
            owner = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="test-registry")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def name(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self.name}"

    def requests(self, method: str, part: str = "") -> list[Seen]:
        """Those that came with this method and `part` in their path."""
        return [one for one in self.seen if one.method == method and part in one.path]

    def happens(self, fault: str) -> bool:
        """Whether a counted fault is to happen now; it counts down."""
        with self.lock:
            left = getattr(self.faults, fault)
            if left > 0:
                setattr(self.faults, fault, left - 1)
            return bool(left > 0)

    def token(self) -> str:
        """The one it gives out."""
        return "token-" + hashlib.sha256(self.name.encode()).hexdigest()[:12]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ClassVar[TestRegistry]
    # A head and a body in two segments wait for each other's acknowledgement otherwise.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base's
        del format, args

    def do_GET(self) -> None:
        self._any(self._get)

    def do_HEAD(self) -> None:
        self._any(self._get)

    def do_POST(self) -> None:
        self._any(self._post)

    def do_PATCH(self) -> None:
        self._any(self._patch)

    def do_PUT(self) -> None:
        self._any(self._put)

    def do_DELETE(self) -> None:
        self._any(lambda *_: self._answer(204))

    def _any(self, act: Callable[[str, str, str], None]) -> None:
        owner, split = self.owner, urlsplit(self.path)
        with owner.lock:
            length = int(self.headers.get("Content-Length", "0"))
            owner.seen.append(Seen(self.command, self.path, self.headers.get("Authorization", ""), length))
        if split.path == "/token":
            self._token()
            return
        if owner.users and self.headers.get("Authorization") != f"Bearer {owner.token()}":
            challenge = f'Bearer realm="{owner.url}/token",service="test",scope="repository:x:pull"'
            self._answer(401, headers={"WWW-Authenticate": challenge})
            return
        if owner.happens("refuse"):
            after = {"Retry-After": owner.faults.retry_after} if owner.faults.retry_after else {}
            self._answer(owner.faults.refuse_status, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', headers=after)
            return
        found = _ROUTE.fullmatch(split.path)
        if not found:
            self._answer(404)
            return
        name, kind, uploads, rest = found.groups()
        # A client that goes away is what some of the tests are about.
        with suppress(ConnectionError):
            act(name, uploads or kind, rest)

    def _token(self) -> None:
        if self.command == "POST":
            # OAuth2 with an identity token (distribution, docs/spec/auth/oauth.md).
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            known = form["refresh_token"][0] == self.owner.identity_token and form["grant_type"] == ["refresh_token"]
            answer = {"access_token": self.owner.token(), "expires_in": 300}
            self._answer(200 if known else 401, json.dumps(answer).encode() if known else b"")
            return
        for user, password in self.owner.users.items():
            expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
            if self.headers.get("Authorization") == expected:
                self._answer(200, json.dumps({"token": self.owner.token(), "expires_in": 300}).encode())
                return
        self._answer(401)

    def _get(self, name: str, kind: str, rest: str) -> None:
        match kind:
            case "manifests":
                self._get_manifest(name, rest)
            case "referrers":
                self._get_referrers(name, rest)
            case "uploads":
                kept = self.owner.content.uploads.get(rest)
                last = max(len(kept) - 1, 0) if kept is not None else 0
                self._answer(404 if kept is None else 204, headers={"Range": f"0-{last}", "Location": self.path})
            case _:
                self._get_blob(name, rest)

    def _get_manifest(self, name: str, version: str) -> None:
        content = self.owner.content
        digest = content.tags.get((name, version), version)
        if (name, digest) not in content.manifests:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            return
        media_type, data = content.manifests[name, digest]
        self._answer(200, data, media_type, {"Docker-Content-Digest": digest})

    def _get_referrers(self, name: str, subject: str) -> None:
        if not self.owner.referrers:
            self._answer(404)
            return
        listed = []
        for (repository, digest), (media_type, data) in self.owner.content.manifests.items():
            document = json.loads(data)
            if repository == name and document.get("subject", {}).get("digest") == subject:
                kind = document.get("artifactType", "")
                listed.append({"mediaType": media_type, "digest": digest, "size": len(data), "artifactType": kind})
        self._answer(200, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode(), INDEX)

    def _get_blob(self, name: str, digest: str) -> None:
        owner, data = self.owner, self.owner.content.blobs.get((name, digest))
        if data is None:
            self._answer(404)
        elif self.command == "HEAD":
            self._answer(200, data, "application/octet-stream")
        elif owner.faults.redirect_blobs_to:
            self._answer(307, headers={"Location": f"{owner.faults.redirect_blobs_to}{self.path}"})
        else:
            self._send_blob(data)

    def _send_blob(self, data: bytes) -> None:
        owner = self.owner
        if owner.happens("hang_downloads"):
            owner.closing.wait(60)
            self.close_connection = True
            return
        if owner.happens("flip_downloads"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        if owner.happens("cut_downloads"):
            data = data[: len(data) // 2]
        start = int(re.sub(r"\D.*", "", self.headers.get("Range", "").removeprefix("bytes=")) or "0")
        ranged = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        if owner.happens("drop_downloads"):
            self._head(206 if start else 200, len(data) - start, "application/octet-stream", ranged)
            self.wfile.write(data[start : start + owner.faults.drop_after_bytes])
            self.wfile.flush()
            self.close_connection = True
            return
        self._answer(206 if start else 200, data[start:], "application/octet-stream", ranged)

    def _post(self, name: str, kind: str, rest: str) -> None:
        del kind, rest
        asked = parse_qs(urlsplit(self.path).query)
        mount, source = asked.get("mount", [""])[0], asked.get("from", [""])[0]
        content = self.owner.content
        if (source, mount) in content.blobs and not self.owner.happens("ignore_mounts"):
            content.blobs[name, mount] = content.blobs[source, mount]
            self._answer(201, headers={"Location": f"/v2/{name}/blobs/{mount}"})
            return
        with self.owner.lock:
            upload = f"u{len(content.uploads)}"
            content.uploads[upload] = bytearray()
        self._answer(202, headers={"Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": "0-0"})

    def _patch(self, name: str, kind: str, upload: str) -> None:
        del name, kind
        if (kept := self._appended(upload)) is not None:
            self._answer(202, headers={"Location": self.path, "Range": f"0-{max(len(kept) - 1, 0)}"})

    def _appended(self, upload: str) -> bytearray | None:
        """Add the body to an upload; None when that went wrong and was answered."""
        owner, length = self.owner, int(self.headers.get("Content-Length", "0"))
        kept = owner.content.uploads.get(upload)
        if owner.faults.largest_body_bytes and length > owner.faults.largest_body_bytes:
            self.close_connection = True
            self._answer(413)
            return None
        start = int(self.headers.get("Content-Range", "-").partition("-")[0] or len(kept or b""))
        if kept is None or start != len(kept):
            self.rfile.read(length)
            self._answer(404 if kept is None else 416)
            return None
        until = length
        if dropped := length > owner.faults.drop_after_bytes and owner.happens("drop_uploads"):
            until = owner.faults.drop_after_bytes
        while until:
            piece = self.rfile.read(min(_PIECE_BYTES, until))
            if not piece:
                return None
            kept += piece
            until -= len(piece)
        if dropped:
            self.close_connection = True
            return None
        return kept

    def _put(self, name: str, kind: str, rest: str) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if kind == "manifests":
            self._put_manifest(name, rest, self.rfile.read(length))
            return
        if length and self.owner.faults.no_whole_blobs:
            self.rfile.read(length)
            self._answer(self.owner.faults.no_whole_blobs)
            return
        if (kept := self._appended(rest)) is None:
            return
        data = bytes(kept)
        del self.owner.content.uploads[rest]
        digest = parse_qs(urlsplit(self.path).query)["digest"][0]
        if _digest(data) != digest:
            self._answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
            return
        self.owner.content.blobs[name, digest] = data
        self._answer(201)

    def _put_manifest(self, name: str, version: str, data: bytes) -> None:
        content, document, digest = self.owner.content, json.loads(data), _digest(data)
        needed = [document["config"], *document["layers"]] if "config" in document else []
        if any((name, blob["digest"]) not in content.blobs for blob in needed):
            self._answer(400, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
            return
        if version.startswith("sha256-") and self.owner.happens("forget_referrers"):
            # As if somebody else's write came right behind.
            data = json.dumps({**document, "manifests": []}).encode()
            self.owner.content.tags[name, version] = _digest(data)
            content.manifests[name, _digest(data)] = (self.headers["Content-Type"], data)
            self._answer(201)
            return
        content.manifests[name, digest] = (self.headers["Content-Type"], data)
        if not version.startswith("sha256:"):
            content.tags[name, version] = digest
        seen = {"OCI-Subject": document["subject"]["digest"]} if "subject" in document and self.owner.referrers else {}
        self._answer(201, headers={"Docker-Content-Digest": digest, **seen})

    def _answer(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._head(status, len(body), content_type, headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _head(self, status: int, length: int, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": content_type, "Content-Length": str(length), **headers}.items():
            self.send_header(key, value)
        self.end_headers()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
