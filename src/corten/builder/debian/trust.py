"""Whom to believe: InRelease files, the certificates that may sign them, and how old they may be.

A suite's InRelease is signed; it lists the sha256 of each Packages index, which lists the sha256 of each package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from corten.builder.deb import parse_paragraph
from corten.builder.debian.release import Suite
from corten.core.digest import Digest
from corten.errors import PolicyError

if TYPE_CHECKING:
    from pysequoia import Cert

STALE_AFTER_S = 14 * 86400.0
_CLOCK_SLACK_S = 86400.0


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as a signed InRelease lists it."""

    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SignedSuite:
    """What a verified InRelease says. Times in seconds since 1970; `valid_until_s` is None where it gives none."""

    suite: Suite
    date_s: float
    valid_until_s: float | None
    architectures: tuple[str, ...]
    files: Mapping[str, Listed]


def certificates(keyring: bytes, fingerprints: Sequence[str]) -> list[Cert]:
    """The pinned certificates a keyring holds; others in it are ignored. Unreadable bytes hold none.

    A fingerprint pins the primary key, and a primary key signs its subkeys, so it does not matter where the keyring
    came from: a forged certificate has another fingerprint.
    """
    from pysequoia import Cert

    try:
        found = Cert.split_bytes(keyring)
    except (RuntimeError, ValueError):
        return []
    return [cert for cert in found if cert.fingerprint in fingerprints]


def verify_inrelease(data: bytes, certs: Sequence[Cert], *, url: str) -> bytes:
    """The signed text of a clear-signed file, if one of the certificates signed it.

    Only what is signed is returned: lines before and after the signed part, which a mirror could add, are not in it.
    Raises PolicyError: `debian.unsigned`, `debian.bad_signature`.
    """
    import pysequoia

    if b"-----BEGIN PGP SIGNATURE-----" not in data:
        raise PolicyError(
            "debian.unsigned",
            "the mirror's release file is not signed",
            where=url,
            why="expected a clear-signed OpenPGP message",
            hint="a proxy or captive portal may have answered instead of the mirror; try another mirror",
        )
    signers: list[str] = []

    def store(key_ids: Iterable[str]) -> Sequence[Cert]:
        signers.extend(key_ids)
        return certs

    pinned = {cert.fingerprint for cert in certs}
    try:
        verified = pysequoia.verify(data, store=store)
    except (RuntimeError, ValueError) as error:
        raise _bad_signature(url, signers, pinned, str(error).partition("\n")[0]) from error
    text = verified.bytes
    if text is None or not any(signature.certificate in pinned for signature in verified.valid_sigs):
        raise _bad_signature(url, signers, pinned, "no pinned certificate signed it")
    return text


def _bad_signature(url: str, signers: Sequence[str], pinned: Iterable[str], reason: str) -> PolicyError:
    return PolicyError(
        "debian.bad_signature",
        "the signature of the mirror's release file does not hold",
        where=url,
        why=f"{reason}; signed by keys {', '.join(signers) or 'unknown'}; pinned: {', '.join(sorted(pinned))}",
        hint="do not build from this mirror; try https://deb.debian.org",
    )


def parse_suite(text: bytes, suite: Suite, *, url: str) -> SignedSuite:
    """Read a verified InRelease; a validly signed file of another suite is refused (`debian.wrong_suite`)."""
    head, _, listing = text.decode("utf-8", "replace").partition("\nSHA256:\n")
    # MD5Sum and SHA1 come before SHA256 in the old suites; nothing is read from them.
    fields = parse_paragraph(re.split(r"\n(?:MD5Sum|SHA1):\n", head)[0], where=url)
    if fields.get("codename") != suite.name:
        raise PolicyError(
            "debian.wrong_suite",
            f"the mirror sent another suite for `{suite.name}`",
            where=url,
            why=f"its release file is of `{fields.get('codename', '?')}`",
            hint="do not build from this mirror; try https://deb.debian.org",
        )
    try:
        date_s = _seconds(fields["date"])
        until = fields.get("valid-until")
        valid_until_s = _seconds(until) if until else None
        files = dict(_listed(line) for line in _block(listing))
    except (KeyError, ValueError) as error:
        raise PolicyError("debian.release_malformed", "unreadable release file", where=url, why=str(error)) from error
    return SignedSuite(suite, date_s, valid_until_s, tuple(fields.get("architectures", "").split()), files)


def _block(listing: str) -> Iterable[str]:
    for line in listing.split("\n"):
        if not line.startswith(" "):
            return
        yield line


def _listed(line: str) -> tuple[str, Listed]:
    digest, size, name = line.split()
    return name, Listed(Digest(digest), int(size))


def _seconds(date: str) -> float:
    # "Sat, 11 Jul 2026 10:16:37 UTC": RFC 5322 but for the zone's name, which email.utils reads as UTC.
    return parsedate_to_datetime(date).timestamp()


def check_age(signed: SignedSuite, *, newest_s: float, now_s: float, url: str) -> tuple[str, ...]:
    """What to warn of; refuses what has expired (`debian.expired`) or is older than seen before (`debian.rollback`).

    `newest_s` is the date of the newest release file of the suite ever accepted here (0: none). A mirror that serves
    yesterday's signed files keeps yesterday's holes open.
    """
    suite = signed.suite
    if signed.date_s < newest_s:
        raise PolicyError(
            "debian.rollback",
            f"the mirror went back in time for `{suite.name}`",
            where=url,
            why=f"dated {_day(signed.date_s)}, but {_day(newest_s)} was seen before",
            hint="try again in a few minutes (a mirror may lag), or another mirror",
        )
    if signed.valid_until_s is not None and now_s > signed.valid_until_s:
        raise PolicyError(
            "debian.expired",
            f"the release file of `{suite.name}` has expired",
            where=url,
            why=f"valid until {_day(signed.valid_until_s)}, now it is {_day(now_s)}",
            hint="check this machine's clock, then try another mirror",
        )
    warnings = []
    # A released suite changes every few months; -updates and -security are signed anew at least weekly.
    if suite.moves and now_s - signed.date_s > STALE_AFTER_S:
        warnings.append(f"{suite.name} was last signed {_day(signed.date_s)}: the mirror may be stale")
    if signed.date_s - now_s > _CLOCK_SLACK_S:
        warnings.append(f"{suite.name} is dated {_day(signed.date_s)}, in the future: is this machine's clock right?")
    return tuple(warnings)


def _day(at_s: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
