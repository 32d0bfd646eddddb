"""The gateway's own certificate: read, checked, and read again when its files change.

Nothing is handed to Envoy that clients would refuse: a chain that is not for the key, or is out of its dates, is told
as an error while the one before stays in force. A renewal need not replace both files in one step: until they fit
together they are simply not taken.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from corten.core.front import Front
from corten.errors import UsageError

_LARGEST_FILE_BYTES = 1 << 20
_SOON_DAYS = 14


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain of certificates, the first one the server's own, and its private key, all PEM.

    `names` are the hosts it is for, `expires_s` its end in seconds since the epoch.
    """

    chain: str
    key: str = field(repr=False)
    names: tuple[str, ...]
    expires_s: float


def read_certificate(certificate: Path, key: Path, *, now_s: float) -> Certificate:
    """Read and check a pair of files. Raises UsageError `gateway.bad_certificate`."""
    # 50 ms and 10 MB that a gateway without TLS does not need.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    chain_pem, key_pem = _read(certificate), _read(key)
    try:
        own = x509.load_pem_x509_certificates(chain_pem)[0]
    except ValueError as error:
        raise _bad(certificate, "it holds no PEM certificate", str(error)) from error
    try:
        private = load_pem_private_key(key_pem, None)
    except TypeError as error:
        raise _bad(key, "it is encrypted", "the gateway starts without anybody to type a password") from error
    except ValueError as error:
        raise _bad(key, "it holds no PEM private key", str(error)) from error
    if own.public_key() != private.public_key():
        raise _bad(key, f"it is not the key of `{certificate}`", "their public keys differ")
    begins_s, expires_s = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
    if now_s >= expires_s:
        raise _bad(certificate, "it has expired", f"valid until {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now_s < begins_s:
        raise _bad(certificate, "it is not valid yet", f"valid from {own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    try:
        subject = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        # Clients have not looked at the common name since RFC 2818's successors.
        raise _bad(certificate, "it is for no host", "it has no subjectAltName") from error
    hosts = (*subject.get_values_for_type(x509.DNSName), *map(str, subject.get_values_for_type(x509.IPAddress)))
    return Certificate(chain_pem.decode(), key_pem.decode(), tuple(hosts), expires_s)


class CertificateFiles:
    """A pair of files that may be replaced at any time. `trouble` says why what they hold now is not taken."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.found: Certificate | None = None
        self.trouble = ""
        self._paths = (certificate, key)
        self._seen: tuple[object, ...] = ()

    @classmethod
    def of(cls, front: Front) -> Self | None:
        """Those of a front door with TLS."""
        return cls(Path(front.certificate), Path(front.key)) if front.tls else None

    def read(self, *, now_s: float) -> Certificate:
        """Read them now. Raises UsageError `gateway.bad_certificate`; what was found before stays."""
        # Looked at before they are read: what changes in between is seen the next time.
        self._seen = self._look()
        try:
            self.found = read_certificate(*self._paths, now_s=now_s)
        except UsageError as error:
            self.trouble = f"{error.what}: {error.why}"
            raise
        self.trouble = ""
        return self.found

    def changed(self, *, now_s: float) -> Certificate | None:
        """The certificate they hold now, if they were touched and it is good."""
        if self._look() == self._seen:
            return None
        with suppress(UsageError):
            return self.read(now_s=now_s)
        return None

    def warning(self, *, now_s: float) -> str:
        """What somebody should look after: files that are not taken, or a certificate that ends soon."""
        if self.trouble or self.found is None:
            return self.trouble
        left_days = (self.found.expires_s - now_s) / 86_400
        return f"its certificate ends in {max(0.0, left_days):.0f} days" if left_days < _SOON_DAYS else ""

    def _look(self) -> tuple[object, ...]:
        return tuple(map(_state, self._paths))


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise _bad(path, "it is no file", "expected a PEM file")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise _bad(path, "it cannot be read", error.strerror or str(error)) from error
    if len(data) > _LARGEST_FILE_BYTES or not data.isascii():
        raise _bad(path, "it is no PEM file", "expected text of at most 1 MiB")
    return data


def _bad(path: Path, what: str, why: str) -> UsageError:
    return UsageError(
        "gateway.bad_certificate",
        f"the gateway cannot use `{path.name}`: {what}",
        where=str(path),
        why=why,
        hint="see it with `openssl x509 -noout -subject -dates -ext subjectAltName -in FILE`",
    )
