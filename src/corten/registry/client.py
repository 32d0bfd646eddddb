"""One repository of a registry: manifests, blobs, referrers, as the distribution spec has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import quote, urlencode, urljoin

from corten.core.digest import Digest
from corten.core.image import INDEX, Descriptor
from corten.errors import CortenError, NotFoundError, PolicyError, RemoteError
from corten.registry.ask import Ask, Body, Bytes
from corten.registry.auth import Authorizer, denied
from corten.registry.documents import (
    MANIFEST_LIMIT_BYTES,
    MANIFEST_TYPES,
    Manifest,
    read_manifest,
    referrers_index,
    referrers_tag,
    unique,
)
from corten.registry.retry import AgainError, Retries, retry_after_s
from corten.registry.transport import Answer, Transport, printable, shown

_ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
_MOST_PAGES = 64
# Writers of the same list of referrers undo each other's entry; this often we put ours back.
_REFERRERS_ATTEMPTS = 5
_OCTETS = {"Content-Type": "application/octet-stream"}
# How a server may say that it takes no body with the request that ends an upload.
_NO_BODY_HERE = {405, 411, 501}


class Repository:
    """What can be asked of one repository. Safe for several threads.

    Every method raises RemoteError `registry.unreachable`, `registry.denied`, `registry.refused` or
    `registry.malformed`, after the retries that make sense.
    """

    def __init__(self, transport: Transport, name: str, authorizer: Authorizer, retries: Retries) -> None:
        self.name = name
        self.retries = retries
        self.transport = transport
        self._authorizer = authorizer

    def __str__(self) -> str:
        return f"{self.transport.registry}/{self.name}"

    # -- manifests

    def manifest(self, version: str) -> Manifest:
        """The manifest or index behind a tag or digest, checked against it.

        Raises NotFoundError `registry.unknown`, PolicyError `registry.digest_mismatch`.
        """
        found = self.find_manifest(version)
        if found is None:
            raise NotFoundError(
                "registry.unknown",
                f"no image `{version}` in `{self}`",
                where=shown(self._url(f"manifests/{version}")),
                hint="check repository and tag; a registry that hides what you may not see says the same",
            )
        return found

    def find_manifest(self, version: str) -> Manifest | None:
        """The same, None when there is none."""

        def attempt() -> Manifest | None:
            with self.get(f"manifests/{version}", _ACCEPT) as answer:
                if answer.status == 404:
                    answer.read(MANIFEST_LIMIT_BYTES)
                    return None
                self.expect(answer, 200)
                data = answer.read(MANIFEST_LIMIT_BYTES)
                self._check_digest(data, version, answer)
                return read_manifest(data, answer.header("Content-Type").partition(";")[0].strip(), shown(answer.url))

        return self.retries.run(attempt)

    def has_manifest(self, digest: Digest) -> bool:
        """Whether the registry has it in this repository."""
        return self._exists(f"manifests/{digest}", _ACCEPT)

    def put_manifest(self, manifest: Manifest, version: str = "") -> bool:
        """Store a manifest by its digest, or under a tag; whether the registry has seen its subject, if it has one."""

        def attempt() -> bool:
            path = f"manifests/{version or manifest.digest}"
            headers = {"Content-Type": manifest.descriptor.media_type}
            with self.send("PUT", self._url(path), headers, Bytes(manifest.data)) as answer:
                self.expect(answer, 201, 200, 202)
                told = answer.header("Docker-Content-Digest")
                if told and told != str(manifest.digest):
                    raise mismatch(str(manifest.digest), told, shown(answer.url))
                return bool(answer.header("OCI-Subject"))

        return self.retries.run(attempt)

    # -- referrers

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """What refers to a manifest: by the API, or by the tag that stands in for it where there is none."""
        by_api = self._referrers_by_api(subject)
        return tuple(unique(self._listed(subject) if by_api is None else by_api))

    def list_referrers(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """Add to the tag that lists referrers: read, change, write, and look again whether somebody undid it.

        For registries without the API. Raises RemoteError `registry.busy` when others keep undoing it.
        """
        for _ in range(_REFERRERS_ATTEMPTS):
            before = self._listed(subject)
            known = {entry.digest for entry in before}
            if not (new := [one for one in referrers if one.digest not in known]):
                return
            data = referrers_index([*before, *new])
            self.put_manifest(read_manifest(data, INDEX, str(self)), referrers_tag(subject))
            if {one.digest for one in new} <= {entry.digest for entry in self._listed(subject)}:
                return
            self.retries.pause(self.retries.jitter())
        raise RemoteError(
            "registry.busy",
            f"the list of referrers of `{subject}` is being changed by others",
            where=f"{self}:{referrers_tag(subject)}",
            why=f"our entry was undone {_REFERRERS_ATTEMPTS} times",
            hint="run the same command again",
        )

    # -- blobs

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry has it in this repository."""
        return self._exists(f"blobs/{digest}", {})

    @contextmanager
    def blob(self, digest: Digest, offset_bytes: int) -> Iterator[Answer]:
        """The blob's bytes from an offset on. Raises AgainError where another attempt may help."""
        ranged = {"Range": f"bytes={offset_bytes}-"} if offset_bytes else {}
        with self.get(f"blobs/{digest}", ranged) as answer:
            if answer.status == 404:
                raise NotFoundError(
                    "registry.unknown",
                    f"no blob `{digest}` in `{self}`",
                    hint="the image is broken there; push it again",
                )
            self.expect(answer, 200, 206)
            if answer.status == 206 and not answer.header("Content-Range").startswith(f"bytes {offset_bytes}-"):
                raise _malformed("a range other than the one asked for", answer.url)
            if answer.status == 200:
                _skip(answer, offset_bytes)
            yield answer

    def begin_upload(self, mount: Digest | None = None, source: str = "") -> tuple[str, Answer]:
        """Where to send a blob to; empty when `mount` was there in the repository `source` and is here now.

        The answer is read already. Raises AgainError where another attempt may help.
        """
        query = urlencode({"mount": str(mount), "from": source}) if mount and source else ""
        with self.send("POST", self._url("blobs/uploads/") + (f"?{query}" if query else "")) as answer:
            if query and answer.status in {401, 403, 404, 405}:
                # Some registries refuse a mount they do not like instead of answering with an upload.
                answer.read(MANIFEST_LIMIT_BYTES)
                return self.begin_upload()
            self.expect(answer, 201, 202)
            answer.read(MANIFEST_LIMIT_BYTES)
            if answer.status == 201:
                return "", answer
            return self.transport.target(answer.url, answer.header("Location")), answer

    # -- inside and for uploads

    @contextmanager
    def get(self, path: str, headers: Mapping[str, str], *, method: str = "GET") -> Iterator[Answer]:
        """Ask for something of this repository, through redirects, with a 401 answered once."""
        url = self._url(path)
        for last in (False, True):
            authorization = self._authorizer.header()
            with self.transport.follow(Ask(method, url, headers, authorization)) as answer:
                if answer.status != 401 or last:
                    yield answer
                    return
                answer.read(MANIFEST_LIMIT_BYTES)
                self._authorizer.obtain(answer.header("WWW-Authenticate"), authorization, url)

    @contextmanager
    def send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> Iterator[Answer]:
        """Send something small, with a 401 answered once. Another origin than the registry's gets no credential."""
        for last in (False, True):
            authorization = self.authorization_for(url)
            with self.transport.exchange(Ask(method, url, headers or {}, authorization, body or Bytes())) as answer:
                if answer.status != 401 or last:
                    yield answer
                    return
                answer.read(MANIFEST_LIMIT_BYTES)
                self.answer_challenge(answer, authorization)

    def authorization_for(self, url: str) -> str:
        """The header for a URL of this registry; empty for one elsewhere."""
        return self._authorizer.header() if url.startswith(f"{self.transport.base}/") else ""

    def answer_challenge(self, answer: Answer, refused: str) -> None:
        """Get better credentials after a 401. Raises RemoteError `registry.denied`."""
        if not answer.url.startswith(f"{self.transport.base}/"):
            raise denied(answer.url, self.transport.registry, "it sent us elsewhere, where we are not let in")
        self._authorizer.obtain(answer.header("WWW-Authenticate"), refused, answer.url)

    def expect(self, answer: Answer, *statuses: int) -> None:
        """Raise what an unexpected status means: AgainError for 429 and 5xx, else RemoteError."""
        if answer.status in statuses:
            return
        why = f"HTTP {answer.status}{_told(answer)}"
        if answer.status in {401, 403}:
            raise denied(answer.url, self.transport.registry, why)
        final = RemoteError(
            "registry.refused",
            f"the registry `{self.transport.registry}` refused",
            where=shown(answer.url),
            why=why,
            hint="run the same command again later; finished blobs are not sent twice"
            if answer.status == 429 or answer.status >= 500
            else "see the registry's own log",
        )
        if answer.status == 429 or answer.status >= 500:
            raise AgainError(final, retry_after_s(answer.header("Retry-After")))
        raise final

    def _url(self, path: str) -> str:
        return f"{self.transport.base}/v2/{self.name}/{quote(path, safe='/:@')}"

    def _exists(self, path: str, headers: Mapping[str, str]) -> bool:
        def attempt() -> bool:
            url = self._url(path)
            for last in (False, True):
                authorization = self._authorizer.header()
                # Not followed: who sends us to where a blob is has it, and a signed URL is for GET only.
                with self.transport.exchange(Ask("HEAD", url, headers, authorization)) as answer:
                    answer.read(0)
                    if answer.status == 401 and not last:
                        self._authorizer.obtain(answer.header("WWW-Authenticate"), authorization, url)
                        continue
                    self.expect(answer, 200, 404, 301, 302, 303, 307, 308)
                    return answer.status != 404
            raise AssertionError("the last attempt returns")

        return self.retries.run(attempt)

    def _referrers_by_api(self, subject: Digest) -> list[Descriptor] | None:
        def attempt() -> list[Descriptor] | None:
            path, found = f"referrers/{subject}", list[Descriptor]()
            for _ in range(_MOST_PAGES):
                with self.get(path, {"Accept": INDEX}) as answer:
                    if answer.status not in {200, 429} and answer.status < 500:
                        answer.read(MANIFEST_LIMIT_BYTES)
                        return None
                    self.expect(answer, 200)
                    data = answer.read(MANIFEST_LIMIT_BYTES)
                    if answer.header("Content-Type").partition(";")[0].strip() != INDEX:
                        return None  # a proxy's page, not a registry's list
                    found += read_manifest(data, INDEX, shown(answer.url)).children
                    following = next_page(answer.header("Link"))
                    if not following:
                        return found
                    path = self._own_path(urljoin(answer.url, following))
            raise _malformed(f"more than {_MOST_PAGES} pages of referrers", self._url(path))

        return self.retries.run(attempt)

    def _own_path(self, url: str) -> str:
        prefix = self._url("")
        if not url.startswith(prefix):
            raise _malformed("a next page outside the repository", url)
        return url.removeprefix(prefix)

    def _listed(self, subject: Digest) -> tuple[Descriptor, ...]:
        listed = self.find_manifest(referrers_tag(subject))
        return listed.children if listed else ()

    def _check_digest(self, data: bytes, version: str, answer: Answer) -> None:
        wanted = version if version.startswith("sha256:") else answer.header("Docker-Content-Digest")
        if wanted.startswith("sha256:") and wanted != str(seen := Digest.of(data)):
            raise mismatch(wanted, str(seen), shown(answer.url))


class Upload:
    """Where a blob is sent to, and how far that is: the session of one upload."""

    def __init__(self, repository: Repository, location: str) -> None:
        self._repository = repository
        self.location = location

    def patch(self, body: Body, offset_bytes: int, *, ranged: bool) -> None:
        """Send bytes from `offset_bytes` on. Raises AgainError, TooLargeError, RemoteError."""
        headers = dict(_OCTETS)
        if ranged:
            headers["Content-Range"] = f"{offset_bytes}-{offset_bytes + body.size_bytes - 1}"
        repository = self._repository
        authorization = repository.authorization_for(self.location)
        with repository.transport.exchange(Ask("PATCH", self.location, headers, authorization, body)) as answer:
            if answer.status == 413:
                raise TooLargeError
            if answer.status == 401:
                # The token ended while the body was on its way.
                repository.answer_challenge(answer, authorization)
                raise AgainError(denied(answer.url, repository.transport.registry, "HTTP 401 during an upload"))
            if answer.status in {404, 416}:
                self.location = ""
                raise AgainError(_malformed(f"HTTP {answer.status} to the bytes of an upload it has begun", answer.url))
            repository.expect(answer, 202, 201, 204)
            answer.read(MANIFEST_LIMIT_BYTES)
            self.location = repository.transport.target(answer.url, answer.header("Location") or self.location)

    def finish(self, digest: Digest, body: Body | None = None) -> None:
        """Say that it was all, or send all of it along. Raises AgainError, TooLargeError, RemoteError."""
        url = f"{self.location}{'&' if '?' in self.location else '?'}digest={quote(str(digest), safe='')}"
        with self._repository.send("PUT", url, _OCTETS, body) as answer:
            if body and answer.status == 413:
                raise TooLargeError
            if answer.status in {400, 404, 416} or (body and answer.status in _NO_BODY_HERE):
                self.location = ""
                final = RemoteError(
                    "registry.refused",
                    f"the registry `{self._repository.transport.registry}` did not take `{digest}`",
                    where=shown(answer.url),
                    why=f"HTTP {answer.status}{_told(answer)}",
                    hint="run the same command again",
                )
                raise AgainError(final)
            self._repository.expect(answer, 201, 204)
            answer.read(MANIFEST_LIMIT_BYTES)

    def received_bytes(self) -> int:
        """How many bytes the registry kept of what was sent; 0, and no location, when it kept nothing usable."""
        with self._repository.send("GET", self.location) as answer:
            answer.read(MANIFEST_LIMIT_BYTES)
            first, _, last = answer.header("Range").removeprefix("bytes=").partition("-")
            # `0-0` is what docker-registry says of nothing; one byte is not worth telling apart.
            if answer.status not in {200, 202, 204} or first != "0" or not last.isdecimal() or last == "0":
                self.location = ""
                return 0
            self.location = self._repository.transport.target(answer.url, answer.header("Location") or self.location)
            return int(last) + 1

    def cancel(self) -> None:
        """Let the registry forget it; whether it does is its affair."""
        with suppress(AgainError, CortenError), self._repository.send("DELETE", self.location) as answer:
            answer.read(MANIFEST_LIMIT_BYTES)


class TooLargeError(Exception):
    """The registry, or a proxy before it, takes no body of that size."""


def mismatch(wanted: str, seen: str, where: str) -> PolicyError:
    """Somebody sent something else than was asked for."""
    return PolicyError(
        "registry.digest_mismatch",
        f"`{wanted}` is not what came",
        where=where,
        why=f"what came has the digest {printable(seen)}",
        hint="the registry, or something on the way to it, changes content: do not run it",
    )


def next_page(link: str) -> str:
    """The target of a Link header with `rel="next"` (RFC 8288), empty when there is none."""
    target, _, parameters = link.partition(">")
    return target.strip().removeprefix("<") if 'rel="next"' in parameters.replace("rel=next", 'rel="next"') else ""


def _skip(answer: Answer, count_bytes: int) -> None:
    """The registry knows no ranges and sends what we have once more."""
    buffer = memoryview(bytearray(min(count_bytes, 1 << 18)))
    while count_bytes:
        count = answer.readinto(buffer[: min(count_bytes, len(buffer))])
        if not count:
            return
        count_bytes -= count


def _told(answer: Answer) -> str:
    """What the registry says in its own words (distribution-spec, "Error Codes")."""
    try:
        first = json.loads(answer.read(64 << 10))["errors"][0]
        return ": " + printable(f"{first.get('code', '')} {first.get('message', '')}".strip())
    except (AgainError, CortenError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""


def _malformed(what: str, url: str) -> RemoteError:
    return RemoteError("registry.malformed", f"the registry answers with {what}", where=shown(url))
