"""The local store as a read-only registry: the pull half of the distribution spec, for podman, containerd and the like.

An image called `iris` in the store is repository `iris`, tag `latest`; one pulled or pushed as
`registry/team/iris:1` is repository `team/iris`, tag `1`. What was named last wins where two share a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlencode

from corten.core.digest import Digest
from corten.core.image import INDEX, Descriptor
from corten.core.reference import Reference, is_repository
from corten.errors import CortenError, UsageError
from corten.http import Request
from corten.registry.documents import MANIFEST_LIMIT_BYTES, Manifest, read_manifest, referrers_index, referrers_tag
from corten.store import signature_tag
from corten.store.layout import Layout

_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|referrers|tags)/(?P<rest>[^/]+)")
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})|bytes=-(\d{1,18})")
_PIECE_BYTES = 256 << 10
_OCTETS = "application/octet-stream"


class Kind(Enum):
    """What is asked for."""

    MANIFEST = "manifests"
    BLOB = "blobs"
    REFERRERS = "referrers"
    TAGS = "tags"


@dataclass(frozen=True, slots=True)
class Route:
    """A request's target, read."""

    repository: str
    kind: Kind
    rest: str


def parse_route(path: str) -> Route | None:
    """Read `/v2/NAME/KIND/REST`; None for anything that cannot be in a registry."""
    found = _ROUTE.fullmatch(unquote(path))
    if not found or not is_repository(found["name"]):
        return None
    kind, rest = Kind(found["kind"]), found["rest"]
    if kind is Kind.TAGS and rest != "list":
        return None
    return Route(found["name"], kind, rest)


def parse_range(text: str, size_bytes: int) -> tuple[int, int] | None:
    """First byte and count of a single Range (RFC 9110, 14.2), None to send all. Raises ValueError outside of it."""
    found = _RANGE.fullmatch(text.strip())
    if not found:
        return None  # several ranges, or another unit: may be ignored
    first, last, suffix = found.groups()
    if suffix is not None:
        count = min(int(suffix), size_bytes)
        if not count:
            raise ValueError(text)
        return size_bytes - count, count
    start, end = int(first), min(int(last) if last else size_bytes - 1, size_bytes - 1)
    if start >= size_bytes or end < start:
        raise ValueError(text)
    return start, end - start + 1


class _NotThereError(Exception):
    """Becomes a 404 in the spec's form."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Shelf:
    """Answers requests from a store. Nothing can be changed through it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def answer(self, request: Request) -> None:
        """One request."""
        if request.method not in {"GET", "HEAD"}:
            _refuse(request, 405, "UNSUPPORTED", "this registry is read-only", (("Allow", "GET, HEAD"),))
            return
        if request.path in {"/v2", "/v2/"}:
            request.respond(200, b"{}")
            return
        try:
            await self._route(request, parse_route(request.path))
        except _NotThereError as error:
            _refuse(request, 404, error.code, str(error))
        except CortenError as error:
            # The store itself: a corrupt manifest, an index that cannot be read.
            _refuse(request, 500, "UNKNOWN", error.what)

    async def _route(self, request: Request, route: Route | None) -> None:
        if route is None:
            raise _NotThereError("NAME_INVALID", "no such route")
        tags = dict(self._tags(route.repository))
        if not tags:
            raise _NotThereError("NAME_UNKNOWN", f"no repository {route.repository}")
        match route.kind:
            case Kind.TAGS:
                _respond_tags(request, route.repository, sorted(tags))
            case Kind.MANIFEST:
                self._respond_manifest(request, self._manifest(tags, route.rest))
            case Kind.REFERRERS:
                wanted = parse_qs(request.query).get("artifactType", [""])[0]
                self._respond_referrers(request, _digest(route.rest, "MANIFEST_UNKNOWN"), wanted)
            case Kind.BLOB:
                await self._respond_blob(request, _digest(route.rest, "BLOB_UNKNOWN"))

    # -- looking up

    def _tags(self, repository: str) -> Iterator[tuple[str, Descriptor]]:
        for name, descriptor in self._layout.images():
            where = place(name)
            if where is not None and where[0] == repository:
                yield where[1], descriptor

    def _manifest(self, tags: Mapping[str, Descriptor], version: str) -> Manifest:
        if version in tags:
            return self._read(tags[version].digest)
        if version.startswith("sha256:"):
            return self._read(_digest(version, "MANIFEST_UNKNOWN"))
        if (subject := signature_tag.subject_of(version)) and (found := self._layout.named(version)):
            return self._read(found.digest)
        if subject := _subject_of(version):
            # For clients that only know the tag which lists referrers.
            entries = self._referrers(subject)
            if entries:
                return read_manifest(referrers_index(entries), INDEX, version)
        raise _NotThereError("MANIFEST_UNKNOWN", f"no tag {version}")

    def _read(self, digest: Digest) -> Manifest:
        try:
            if self._layout.path(digest).stat().st_size > MANIFEST_LIMIT_BYTES:
                raise _NotThereError("MANIFEST_UNKNOWN", f"{digest} is no manifest")
        except OSError as error:
            raise _NotThereError("MANIFEST_UNKNOWN", f"no manifest {digest}") from error
        data = self._layout.read(digest)
        try:
            return read_manifest(data, "", str(digest))
        except CortenError as error:
            raise _NotThereError("MANIFEST_UNKNOWN", f"{digest} is no manifest") from error

    def _referrers(self, subject: Digest) -> list[Descriptor]:
        return [self._read(entry.digest).descriptor for entry in self._layout.referrers(subject)]

    # -- answers

    def _respond_manifest(self, request: Request, manifest: Manifest) -> None:
        digest = str(manifest.digest)
        headers = [("Docker-Content-Digest", digest), ("ETag", f'"{digest}"')]
        request.respond(200, manifest.data, manifest.descriptor.media_type, headers)

    def _respond_referrers(self, request: Request, subject: Digest, artifact_type: str) -> None:
        entries = [one for one in self._referrers(subject) if artifact_type in {"", one.artifact_type}]
        headers = [("OCI-Filters-Applied", "artifactType")] if artifact_type else []
        request.respond(200, referrers_index(entries), INDEX, headers)

    async def _respond_blob(self, request: Request, digest: Digest) -> None:
        try:
            stream = self._layout.path(digest).open("rb", buffering=0)
        except OSError as error:
            raise _NotThereError("BLOB_UNKNOWN", f"no blob {digest}") from error
        with stream:
            size_bytes = stream.seek(0, 2)
            headers = [("Docker-Content-Digest", str(digest)), ("ETag", f'"{digest}"'), ("Accept-Ranges", "bytes")]
            try:
                part = parse_range(request.headers.get("range", ""), size_bytes)
            except ValueError:
                outside = [("Content-Range", f"bytes */{size_bytes}")]
                _refuse(request, 416, "SIZE_INVALID", "the range is outside of the blob", outside)
                return
            start, count = part or (0, size_bytes)
            if part:
                headers.append(("Content-Range", f"bytes {start}-{start + count - 1}/{size_bytes}"))
            stream.seek(start)
            await _send(request, stream, count, 206 if part else 200, headers)


async def _send(
    request: Request, stream: BinaryIO, count_bytes: int, status: int, headers: list[tuple[str, str]]
) -> None:
    """The bytes of a file, never more of them in memory than the client has not taken yet."""
    out = request.stream(status, _OCTETS, headers, length=count_bytes)
    while count_bytes and request.wants_body:
        piece = stream.read(min(_PIECE_BYTES, count_bytes))
        if not piece:
            request.abandon()  # the file became shorter
            return
        out.write(piece)
        count_bytes -= len(piece)
        await out.drain()
    out.end()


def place(name: str) -> tuple[str, str] | None:
    """Repository and tag of a name in the store, None for a name no registry can have."""
    try:
        reference = Reference.parse(name)
    except UsageError:
        return (name, "latest") if is_repository(name) else None
    return reference.repository, reference.tag or "latest"


def _respond_tags(request: Request, repository: str, tags: list[str]) -> None:
    asked = parse_qs(request.query)
    after, limit = asked.get("last", [""])[0], asked.get("n", [""])[0]
    rest = [tag for tag in tags if tag > after]
    page = rest[: int(limit)] if limit.isdecimal() and len(limit) < 10 else rest
    headers = []
    if page and len(page) < len(rest):
        query = urlencode({"n": limit, "last": page[-1]})
        headers = [("Link", f'</v2/{repository}/tags/list?{query}>; rel="next"')]
    request.respond_json(200, {"name": repository, "tags": page}, headers)


def _subject_of(tag: str) -> Digest | None:
    try:
        subject = Digest.parse(tag.replace("sha256-", "sha256:", 1))
    except UsageError:
        return None
    return subject if referrers_tag(subject) == tag else None


def _digest(text: str, code: str) -> Digest:
    try:
        return Digest.parse(text)
    except UsageError as error:
        raise _NotThereError(code, "not a sha256 digest") from error


def _refuse(
    request: Request,
    status: int,
    code: str,
    message: str,
    headers: list[tuple[str, str]] | tuple[tuple[str, str], ...] = (),
) -> None:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    request.respond(status, body, headers=headers)
