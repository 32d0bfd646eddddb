"""From a release to the exact package files: signed suites, their indexes, the choice.

Everything is cached by digest: the verified InRelease of each suite (also the memory against roll-backs), the index
files, and the outcome by what it depends on. With a warm cache only the InRelease files travel.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from corten.builder import deb
from corten.builder.debian import files, trust
from corten.builder.debian.files import MismatchError, checked
from corten.builder.debian.mirror import Mirror, each, split_url
from corten.builder.debian.packages import Choice, Index, choose
from corten.builder.debian.release import DEFAULT_MIRROR, Deb, Release, Suite
from corten.builder.entry import EntryKind
from corten.builder.http_client import Body, Patience
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.platform import Platform
from corten.errors import PolicyError, RemoteError
from corten.store.inflate import InflateError

if TYPE_CHECKING:
    from pysequoia import Cert

SYSTEM_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_STEP = "lock"
_RULES = 2  # of choose(); part of the key under which its outcome is kept
_MOST_INRELEASE_BYTES = 8 << 20
_MOST_INDEX_BYTES = 512 << 20
_MOST_KEYRING_BYTES = 64 << 20
# gzip before xz: a third more to fetch, a third of a second less to unpack (main has 50 MB). -security has xz only.
_INDEX_SUFFIXES = (".gz", ".xz")
_KEYRING_PACKAGE = "debian-archive-keyring"


def resolve(
    release: Release,
    platform: Platform,
    *,
    packages: Sequence[str] = (),
    mirror: str = DEFAULT_MIRROR,
    cache: Path,
    now_s: float,
    listen: Listener = nobody,
    proxies: Mapping[str, str] | None = None,
    keyring: Path = SYSTEM_KEYRING,
    patience: Patience | None = None,
) -> tuple[Deb, ...]:
    """The package files of a release's base on a platform, and of `packages` with what they need; sorted by name.

    `cache` is the installation's cache folder, `now_s` the wall clock. `keyring` is where the release's pinned
    certificates are looked for first; the mirror is asked for them otherwise. When the mirror cannot be reached, what
    the cache has is used as long as it is valid, with a warning.

    Raises PolicyError (`debian.unsigned`, `.bad_signature`, `.no_keys`, `.wrong_suite`, `.rollback`, `.expired`,
    `.index_mismatch`, `.package_denied`, `.unsatisfied`), NotFoundError (`debian.package_unknown`), UsageError
    (`debian.mirror`, `debian.package_name`), RemoteError (`debian.unreachable`, `.gone`, `.refused`).
    """
    split_url(mirror)
    with Mirror(proxies=proxies, patience=patience) as client:
        session = _Session(release, platform, mirror.rstrip("/"), cache / "debs", now_s, listen, keyring, client)
        return session.resolve(tuple(sorted(set(packages))))


@dataclass(frozen=True, slots=True)
class _Session:
    release: Release
    platform: Platform
    mirror: str
    folder: Path
    now_s: float
    listen: Listener
    keyring: Path
    client: Mirror

    def resolve(self, packages: Sequence[str]) -> tuple[Deb, ...]:
        choice = self._choice(packages)
        for name, dependent in choice.left_out:
            message = f"left out {name}, which {dependent} depends on: shells and system tools do not go into images"
            self.listen(Event(_STEP, Phase.WARNING, message, {"package": name, "dependent": dependent}))
        figures = {"packages": len(choice.debs), "bytes": sum(one.size_bytes for one in choice.debs)}
        message = f"{len(choice.debs)} Debian packages of {self.release.codename} for {self.platform}"
        self.listen(Event(_STEP, Phase.NOTE, message, figures))
        return choice.debs

    def _choice(self, packages: Sequence[str]) -> Choice:
        at_once = len(self.release.suites)
        received = each(self.client, self._inrelease, self.release.suites, at_once=at_once)
        certs = self._certificates(received)
        suites = [self._verified(one, certs) for one in received]
        outcome = self.folder / "resolved" / f"{self._key(suites, packages)}.json"
        choice = _read_outcome(outcome)
        if choice is None:
            indexes = each(self.client, self._index, suites, at_once=at_once)
            choice = choose(indexes, self.release.packages, packages)
            files.write(outcome, msgspec.json.encode(choice))
        return choice

    def _key(self, suites: Sequence[trust.SignedSuite], packages: Sequence[str]) -> str:
        indexes = [[one.suite.archive, self._listed_index(one).listed.digest.hex] for one in suites]
        inputs = [_RULES, self.mirror, str(self.platform), indexes, self.release.packages, packages]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()

    # InRelease

    def _url(self, suite: Suite) -> str:
        return f"{self.mirror}/{suite.archive}/dists/{suite.name}"

    def _accepted(self, suite: Suite) -> Path:
        return self.folder / "suites" / f"{suite.name}.InRelease"

    def _inrelease(self, suite: Suite) -> _Received:
        url = f"{self._url(suite)}/InRelease"
        try:
            return _Received(suite, url, self.client.get(url, partial(_limited, url, _MOST_INRELEASE_BYTES)))
        except RemoteError as error:
            try:
                data = self._accepted(suite).read_bytes()
            except OSError:
                raise error from None
            message = f"{error.what}: using the release file of {suite.name} that was fetched earlier"
            self.listen(Event(_STEP, Phase.WARNING, message, {"url": url, "why": error.why}))
            return _Received(suite, url, data)

    def _verified(self, received: _Received, certs: Sequence[Cert]) -> trust.SignedSuite:
        suite, url = received.suite, received.url
        signed = trust.parse_suite(trust.verify_inrelease(received.data, certs, url=url), suite, url=url)
        newest_s = self._newest_s(suite, certs)
        for warning in trust.check_age(signed, newest_s=newest_s, now_s=self.now_s, url=url):
            self.listen(Event(_STEP, Phase.WARNING, warning, {"suite": suite.name}))
        if signed.date_s > newest_s:
            files.write(self._accepted(suite), received.data)
        return signed

    def _newest_s(self, suite: Suite, certs: Sequence[Cert]) -> float:
        """The date of the newest release file accepted before; 0 when there is none (or it was damaged on disk)."""
        path = self._accepted(suite)
        try:
            text = trust.verify_inrelease(path.read_bytes(), certs, url=str(path))
            return trust.parse_suite(text, suite, url=str(path)).date_s
        except (OSError, PolicyError):
            return 0.0

    # Certificates

    def _certificates(self, received: Sequence[_Received]) -> Sequence[Cert]:
        kept = self.folder / "keyring" / f"{self.release.codename}.pgp"
        for path in (self.keyring, kept):
            try:
                certs = trust.certificates(path.read_bytes(), self.release.fingerprints)
            except OSError:
                continue
            if certs:
                return certs
        certs = trust.certificates(self._keyring_from_mirror(received[0]), self.release.fingerprints)
        if not certs:
            raise PolicyError(
                "debian.no_keys",
                f"no certificate to check {self.release.codename} with",
                where=self.mirror,
                why=f"neither {self.keyring} nor the mirror's {_KEYRING_PACKAGE} has a pinned one",
                hint=f"install the package `{_KEYRING_PACKAGE}`, or use https://deb.debian.org",
            )
        files.write(kept, b"".join(bytes(cert) for cert in certs))
        return certs

    def _keyring_from_mirror(self, received: _Received) -> bytes:
        """The certificates of the mirror's keyring package.

        Nothing here is verified yet, and need not be: of what comes, only certificates with a pinned fingerprint are
        used, and a fingerprint cannot be forged. All else (index, package) is thrown away, and sizes are limited.
        """
        message = "this machine has no Debian keyring: taking the pinned certificates from the mirror"
        self.listen(Event(_STEP, Phase.NOTE, message))
        text = received.data.partition(b"\n\n")[2].partition(b"\n-----BEGIN PGP SIGNATURE-----")[0]
        unverified = trust.parse_suite(text, received.suite, url=received.url)
        found = self._index(unverified, keep=False).named(_KEYRING_PACKAGE)
        if not found:
            return b""
        data = self.client.get(found[0].deb.url, partial(_limited, found[0].deb.url, _MOST_KEYRING_BYTES))
        package = deb.read_stream(BytesIO(data), where=found[0].deb.url, max_bytes=_MOST_KEYRING_BYTES)
        whole = [
            entry.data
            for entry in package.entries
            if entry.kind is EntryKind.FILE
            and entry.name.startswith("usr/share/keyrings/debian-archive-keyring.")
            and isinstance(entry.data, bytes)
        ]
        return whole[0] if whole else b""

    # Packages

    def _listed_index(self, signed: trust.SignedSuite) -> _ListedIndex:
        name = f"main/binary-{self.platform.debian}/Packages"
        for suffix in _INDEX_SUFFIXES:
            if listed := signed.files.get(name + suffix):
                plain = signed.files.get(name)
                most_bytes = min(plain.size_bytes if plain else _MOST_INDEX_BYTES, _MOST_INDEX_BYTES)
                return _ListedIndex(f"{self._url(signed.suite)}/{name}{suffix}", suffix, listed, most_bytes)
        raise PolicyError(
            "debian.no_index",
            f"`{signed.suite.name}` has no packages for {self.platform}",
            where=self._url(signed.suite),
            why=f"its release file does not list {name}; architectures: {' '.join(signed.architectures)}",
        )

    def _index(self, signed: trust.SignedSuite, *, keep: bool = True) -> Index:
        wanted = self._listed_index(signed)
        path = self.folder / "indexes" / f"{wanted.listed.digest.hex}{wanted.suffix}"
        base_url = f"{self.mirror}/{signed.suite.archive}"
        if files.is_intact(path, wanted.listed.digest, wanted.listed.size_bytes):
            return Index(_unpacked(wanted, [path.read_bytes()]), base_url)

        def receive(body: Body) -> tuple[Index, bytes]:
            packed: list[bytes] = []
            return Index(_unpacked(wanted, _kept(body, packed)), base_url), b"".join(packed)

        try:
            index, packed = self.client.get(wanted.url_by_hash, receive)
        except RemoteError as error:
            if error.code != "debian.gone":
                raise
            index, packed = self.client.get(wanted.url, receive)  # a partial mirror may not keep files by hash
        if keep:
            files.write(path, packed)
        return index


@dataclass(frozen=True, slots=True)
class _ListedIndex:
    """An index as a suite lists it: where it is, and the most it may unpack to."""

    url: str
    suffix: str
    listed: trust.Listed
    most_bytes: int

    @property
    def url_by_hash(self) -> str:
        """Where it stays when the mirror is updated between two requests."""
        return f"{self.url.rpartition('/')[0]}/by-hash/SHA256/{self.listed.digest.hex}"


@dataclass(frozen=True, slots=True)
class _Received:
    suite: Suite
    url: str
    data: bytes


def _limited(url: str, most_bytes: int, body: Body) -> bytes:
    pieces, left = [], most_bytes
    for piece in body:
        left -= len(piece)
        if left < 0:
            raise PolicyError(
                "debian.too_large", "the mirror sends without end", where=url, why=f"more than {most_bytes} bytes"
            )
        pieces.append(piece)
    return b"".join(pieces)


def _kept(pieces: Iterable[bytes], into: list[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        into.append(piece)
        yield piece


def _unpacked(wanted: _ListedIndex, packed: Iterable[bytes]) -> Iterator[bytes]:
    """The content of an index, unpacked while it arrives.

    What comes out is bounded by the signed size, and is to be believed only when the end is reached without an error:
    then the whole file had the signed digest.
    """

    def mismatch(why: str) -> MismatchError:
        return MismatchError(
            "debian.index_mismatch",
            "the mirror's package index is not the one its release file lists",
            where=wanted.url,
            why=why,
            hint="do not build from this mirror; try https://deb.debian.org",
        )

    if wanted.listed.size_bytes > _MOST_INDEX_BYTES:
        raise mismatch(f"{wanted.listed.size_bytes} bytes is more than any index has")
    stream, left = deb.decompressor(wanted.suffix, wanted.url), wanted.most_bytes + 1
    try:
        for piece in checked(packed, wanted.listed.digest, wanted.listed.size_bytes, mismatch):
            if not piece or stream.eof:
                continue
            text = stream.decompress(piece, left)
            left -= len(text)
            if left <= 0:
                raise mismatch(f"it unpacks to more than {wanted.most_bytes} bytes")
            yield text
    except (lzma.LZMAError, InflateError) as error:
        raise mismatch(f"it does not decompress: {error}") from error
    if not stream.eof:
        raise mismatch("it is cut short")


def _read_outcome(path: Path) -> Choice | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Choice)
    except (OSError, msgspec.DecodeError):
        return None
