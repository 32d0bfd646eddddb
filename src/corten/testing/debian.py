"""A small Debian mirror, real in all but size: packages, signed suites and an HTTP server for them.

Its keys are made on the fly, so a `Release` that pins `Signer.fingerprint` is needed to believe it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, cast


def make_tar(members: Sequence[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A GNU tar of members as given, however odd."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for one in members:
            info, data = one if isinstance(one, tuple) else (one, b"")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = ""
) -> Any:
    """One member for `make_tar`."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    return (info, data)


def make_ar(members: Sequence[tuple[str, bytes]]) -> bytes:
    """A common ar archive."""
    out = b"!<arch>\n"
    for name, data in members:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        out += header + data + b"\n" * (len(data) % 2)
    return out


def compress(data: bytes, suffix: str) -> bytes:
    """Bytes as a member with the suffix ".xz", ".gz", ".zst" or "" has them."""
    match suffix:
        case ".xz":
            return lzma.compress(data)
        case ".gz":
            return gzip.compress(data, mtime=0)
        case ".zst":
            from backports import zstd

            return zstd.compress(data)
        case _:
            return data


def make_deb(control: str, members: Sequence[Any], *, suffix: str = ".xz") -> bytes:
    """A .deb file with a control file and the members of its data.tar."""
    controls = make_tar([tar_member("./control", control.encode())])
    return make_ar(
        [
            ("debian-binary", b"2.0\n"),
            (f"control.tar{suffix}", compress(controls, suffix)),
            (f"data.tar{suffix}", compress(make_tar(members), suffix)),
        ]
    )


class Signer:
    """An OpenPGP key made for one test."""

    def __init__(self, name: str = "Archive <archive@example.org>") -> None:
        from pysequoia import Tsk

        self._key = Tsk.generate(name)

    @property
    def fingerprint(self) -> str:
        """What a Release pins."""
        return str(self.certificate.fingerprint)

    @property
    def certificate(self) -> Any:
        """The public part."""
        return self._key.extract_certificate()

    def sign(self, text: str) -> bytes:
        """Clear-sign, as InRelease files are."""
        from pysequoia import SignatureMode, sign

        return bytes(sign(self._key.signer(), text.encode(), mode=SignatureMode.CLEAR))


@dataclass(slots=True)
class Repository:
    """The files of one suite: add packages, then read `files`. Times in seconds since 1970.

    `suffix` is how the index is compressed: Debian's main has `.gz` and `.xz`, its security archive `.xz` only.
    """

    suite: str
    archive: str
    date_s: float
    architecture: str = "amd64"
    suffix: str = ".xz"
    valid_until_s: float | None = None
    stanzas: list[str] = field(default_factory=list)
    pool: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, version: str = "1.0", *, members: Sequence[Any] = (), **fields: str) -> bytes:
        """Add a package; further fields of its control file as keywords (`Depends="libc6"`). Returns the .deb."""
        fields = {"Architecture": self.architecture, **fields}
        control = f"Package: {name}\nVersion: {version}\n" + "".join(f"{key}: {text}\n" for key, text in fields.items())
        data = make_deb(control.replace("_", "-"), members)
        path = f"pool/main/{name}_{version.replace(':', '')}_{fields['Architecture']}.deb"
        listed = f"Filename: {path}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        self.stanzas.append(control.replace("_", "-") + listed)
        self.pool[path] = data
        return data

    def release(self) -> str:
        """The text that is to be signed."""
        index = "\n".join(self.stanzas).encode()
        listed = [(index, "Packages"), (compress(index, self.suffix), f"Packages{self.suffix}")]
        lines = [
            "Origin: Debian",
            f"Codename: {self.suite}",
            f"Date: {_date(self.date_s)}",
            *([f"Valid-Until: {_date(self.valid_until_s)}"] if self.valid_until_s is not None else []),
            f"Architectures: all {self.architecture}",
            "MD5Sum:",
            f" {'0' * 32} 1 main/binary-{self.architecture}/Packages.xz",
            "SHA256:",
        ]
        for data, name in listed:
            digest = hashlib.sha256(data).hexdigest()
            lines.append(f" {digest} {len(data):>8} main/binary-{self.architecture}/{name}")
        return "\n".join(lines) + "\n"

    def files(self, signer: Signer) -> dict[str, bytes]:
        """Paths below the mirror, with their content."""
        packed = compress("\n".join(self.stanzas).encode(), self.suffix)
        dists = f"/{self.archive}/dists/{self.suite}"
        return {
            f"{dists}/InRelease": signer.sign(self.release()),
            f"{dists}/main/binary-{self.architecture}/by-hash/SHA256/{hashlib.sha256(packed).hexdigest()}": packed,
            **{f"/{self.archive}/{path}": data for path, data in self.pool.items()},
        }


def _date(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")


@dataclass(slots=True)
class MirrorServer:
    """A running HTTP server of `files`. `faults` are used up one a request: a status, "reset", "cut" (half a body)
    or "drip" (a byte at a time); `always` has faults by path that last.

    `requests` are the paths asked for, `connections` counts accepted connections.
    """

    url: str
    files: dict[str, bytes]
    faults: list[int | str] = field(default_factory=list)
    always: dict[str, int | str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    connections: int = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    mirror: MirrorServer

    def process_request(self, request: Any, client_address: Any) -> None:
        self.mirror.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that refuses what it gets hangs up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float | None] = 10.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        mirror = cast("_Server", self.server).mirror
        # A client that takes us for its proxy sends the whole URL.
        path = "/" + self.path.split("/", 3)[3] if self.path.startswith("http://") else self.path
        mirror.requests.append(self.path)
        fault = mirror.faults.pop(0) if mirror.faults else mirror.always.get(path)
        if fault == "reset":
            self.close_connection = True
        elif fault == "drip":
            self._drip(mirror.files[path])
        elif isinstance(fault, int):
            self._answer(fault, b"no")
        elif path in mirror.redirects:
            self._answer(302, b"", Location=mirror.redirects[path])
        elif path not in mirror.files:
            self._answer(404, b"no")
        elif fault == "cut":
            data = mirror.files[path]
            self._answer(200, data[: len(data) // 2], length=len(data))
            self.close_connection = True
        else:
            self._answer(200, mirror.files[path])

    def do_CONNECT(self) -> None:
        """Refuse to be a tunnel."""
        cast("_Server", self.server).mirror.requests.append(f"CONNECT {self.path}")
        self._answer(403, b"no")

    def _drip(self, data: bytes) -> None:
        self._answer(200, b"", length=len(data))
        self.close_connection = True
        with suppress(OSError):  # the client is meant to hang up
            for byte in data[:1000]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.01)

    def _answer(self, status: int, data: bytes, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[MirrorServer]:
    """Serve files on a loopback port while the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.mirror = MirrorServer(f"http://127.0.0.1:{server.server_address[1]}", dict(files))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="debian-mirror")
    thread.start()
    try:
        yield server.mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
