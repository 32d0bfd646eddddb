"""From a release to the exact package files: signed suites, their indexes, the choice.

Everything is cached by digest: the verified InRelease of each suite (also the memory against roll-backs), the index
files, and the outcome by what it depends on. With a warm cache only the InRelease files travel.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from corten.build import deb
from corten.build.debian import files, trust
from corten.build.debian.files import MismatchError, checked
from corten.build.debian.mirror import Body, Mirror, Patience, split_url
from corten.build.debian.packages import Choice, Index, choose
from corten.build.debian.release import DEFAULT_MIRROR, Deb, Release, Suite
from corten.build.entry import EntryKind
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.platform import Platform
from corten.errors import PolicyError, RemoteError

if TYPE_CHECKING:
    from pysequoia import Cert

SYSTEM_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_STEP = "lock"
_RULES = 2  # of choose(); part of the key under which its outcome is kept
_MOST_INRELEASE_BYTES = 8 << 20
_MOST_INDEX_BYTES = 1 << 30
_MOST_KEYRING_BYTES = 64 << 20
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
        with ThreadPoolExecutor(len(self.release.suites)) as threads:
            received = list(threads.map(self._inrelease, self.release.suites))
            certs = self._certificates(received)
            suites = [self._verified(one, certs) for one in received]
            outcome = self.folder / "resolved" / f"{self._key(suites, packages)}.json"
            choice = _read_outcome(outcome)
            if choice is None:
                choice = choose(list(threads.map(self._index, suites)), self.release.packages, packages)
                files.write(outcome, msgspec.json.encode(choice))
        for name, dependent in choice.left_out:
            message = f"left out {name}, which {dependent} depends on: shells and system tools do not go into images"
            self.listen(Event(_STEP, Phase.WARNING, message, {"package": name, "dependent": dependent}))
        figures = {"packages": len(choice.debs), "bytes": sum(one.size_bytes for one in choice.debs)}
        message = f"{len(choice.debs)} Debian packages of {self.release.codename} for {self.platform}"
        self.listen(Event(_STEP, Phase.NOTE, message, figures))
        return choice.debs

    def _key(self, suites: Sequence[trust.SignedSuite], packages: Sequence[str]) -> str:
        indexes = [[one.suite.archive, self._listed_index(one)[1].digest.hex] for one in suites]
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

    def _listed_index(self, signed: trust.SignedSuite) -> tuple[str, trust.Listed]:
        name = f"main/binary-{self.platform.debian}/Packages.xz"
        listed = signed.files.get(name)
        if listed is None:
            raise PolicyError(
                "debian.no_index",
                f"`{signed.suite.name}` has no packages for {self.platform}",
                where=self._url(signed.suite),
                why=f"its release file does not list {name}; architectures: {' '.join(signed.architectures)}",
            )
        return name, listed

    def _index(self, signed: trust.SignedSuite, *, keep: bool = True) -> Index:
        name, listed = self._listed_index(signed)
        path = self.folder / "indexes" / f"{listed.digest.hex}.xz"
        base_url = f"{self.mirror}/{signed.suite.archive}"
        if files.is_intact(path, listed.digest, listed.size_bytes):
            return Index(lzma.decompress(path.read_bytes()), base_url)
        # By hash, so that an update of the mirror between two requests cannot give half of each.
        folder = name.rpartition("/")[0]
        url = f"{self._url(signed.suite)}/{folder}/by-hash/SHA256/{listed.digest.hex}"
        plain = signed.files.get(name.removesuffix(".xz"))
        most_bytes = plain.size_bytes if plain else _MOST_INDEX_BYTES
        text, compressed = self.client.get(url, partial(_unpacked, url, listed, most_bytes))
        if keep:
            files.write(path, compressed)
        return Index(text, base_url)


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


def _unpacked(url: str, listed: trust.Listed, most_bytes: int, body: Body) -> tuple[bytes, bytes]:
    """An xz file's content and itself, unpacked while it arrives (half a second of a cold build).

    What is unpacked is bounded by the signed size, and returned only when the whole file had the signed digest.
    """

    def mismatch(why: str) -> MismatchError:
        return MismatchError(
            "debian.index_mismatch",
            "the mirror's package index is not the one its release file lists",
            where=url,
            why=why,
            hint="do not build from this mirror; try https://deb.debian.org",
        )

    decompressor, packed, text, left = lzma.LZMADecompressor(lzma.FORMAT_XZ), [], [], most_bytes + 1
    try:
        for piece in checked(body, listed.digest, listed.size_bytes, mismatch):
            packed.append(piece)
            text.append(decompressor.decompress(piece, left) if piece and not decompressor.eof else b"")
            left -= len(text[-1])
            if left <= 0:
                raise mismatch(f"it unpacks to more than {most_bytes} bytes")
    except (lzma.LZMAError, EOFError) as error:
        raise mismatch(f"it does not decompress: {error}") from error
    if not decompressor.eof:
        raise mismatch("it is cut short")
    return b"".join(text), b"".join(packed)


def _read_outcome(path: Path) -> Choice | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Choice)
    except (OSError, msgspec.DecodeError):
        return None
