"""What every builder is given over loopback, so that no network outside the machine is timed: wheels, Debian packages
and a registry.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # headers and small answers in one segment

    def log_message(self, *_: object) -> None:
        pass

    def send_bytes(self, data: bytes, kind: str = "text/html", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_file(self, path: Path) -> None:
        """A file, or the one range of it that is asked for (uv reads the end of a wheel first)."""
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
            first, last = 0, size - 1
            if asked and asked[1]:
                first, last = int(asked[1]), min(int(asked[2] or last), last)
            elif asked:
                first = size - int(asked[2])
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            self.wfile.flush()
            if self.command != "HEAD":
                while first <= last and (
                    sent := os.sendfile(self.connection.fileno(), stream.fileno(), first, last - first + 1)
                ):
                    first += sent


class _Server:
    """A handler on a port of its own, until the block ends."""

    def __init__(self, handler: type[_Handler]) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Index(_Server):
    """The wheels of a folder as a package index (PEP 691, 658; PEP 503 for who asks for HTML)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels: dict[str, list[tuple[str, str, str]]] = {}
        self.metadata: dict[str, bytes] = {}
        index = self

        class Handler(_Handler):
            def do_GET(self) -> None:
                index.answer(self)

            do_HEAD = do_GET  # noqa: N815

        super().__init__(Handler)

    def add(self, wheel: Path) -> None:
        target = self.folder / wheel.name
        if target.exists():
            return
        target.write_bytes(wheel.read_bytes())
        with zipfile.ZipFile(target) as archive:
            name = next(name for name in archive.namelist() if _METADATA.fullmatch(name))
            self.metadata[wheel.name] = archive.read(name)
        digests = [hashlib.sha256(data).hexdigest() for data in (target.read_bytes(), self.metadata[wheel.name])]
        self.wheels.setdefault(_normal(wheel.name.partition("-")[0]), []).append((wheel.name, *digests))

    def answer(self, request: _Handler) -> None:
        path = unquote(urlsplit(request.path).path)
        name = path.rpartition("/")[2]
        if path.startswith("/simple/"):
            project = _normal(path.removeprefix("/simple/").strip("/"))
            found = self.wheels.get(project)
            if found and "application/vnd.pypi.simple.v1+json" in (request.headers.get("Accept") or ""):
                request.send_bytes(json.dumps(self._described(project)).encode(), "application/vnd.pypi.simple.v1+json")
                return
            links = "\n".join(
                f'<a href="/files/{file}#sha256={digest}" data-core-metadata="sha256={metadata}">{file}</a><br>'
                for file, digest, metadata in found or ()
            )
            request.send_bytes(
                f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), status=200 if found else 404
            )
        elif name.removesuffix(".metadata") in self.metadata and name.endswith(".metadata"):
            request.send_bytes(self.metadata[name.removesuffix(".metadata")], "text/plain")
        elif name in self.metadata:
            request.send_file(self.folder / name)
        else:
            request.send_bytes(b"", status=404)

    def _described(self, project: str) -> dict:
        files = [
            {
                "filename": file,
                "url": f"/files/{file}",
                "hashes": {"sha256": digest},
                "core-metadata": {"sha256": metadata},
                "size": (self.folder / file).stat().st_size,
            }
            for file, digest, metadata in self.wheels[project]
        ]
        versions = sorted({file["filename"].split("-")[1] for file in files})
        return {"meta": {"api-version": "1.1"}, "name": project, "versions": versions, "files": files}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class DebianMirror(_Server):
    """A mirror that keeps what it is asked for: the first build fills it, the timed ones are served from the disk."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        self.upstream = upstream.rstrip("/")
        mirror = self

        class Handler(_Handler):
            def do_GET(self) -> None:
                mirror.answer(self)

        super().__init__(Handler)

    def answer(self, request: _Handler) -> None:
        path = self.folder / hashlib.sha256(request.path.encode()).hexdigest()
        if not path.exists():
            try:
                with urllib.request.urlopen(self.upstream + request.path, timeout=60) as answer:
                    data = answer.read()
            except urllib.error.HTTPError as error:
                request.send_bytes(b"", status=error.code)
                return
            beside = path.with_suffix(f".{threading.get_ident()}")
            beside.write_bytes(data)
            beside.rename(path)
        request.send_file(path)


class Registry:
    """Debian's docker-registry with a folder and a port of its own, until the block ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        config = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "http": {"addr": self.host, "secret": "bench"},
        }
        place = self.folder / "config.yml"
        place.write_text(json.dumps(config))  # JSON is YAML
        quiet = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(place)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=quiet
        )
        for _ in range(500):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", int(self.host.partition(":")[2])), timeout=1).close()
                return self
            time.sleep(0.02)
        raise SystemExit("docker-registry does not start")

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(20)

    def size_bytes(self) -> int:
        """What its blobs take: the growth of it is what a push moved."""
        return sum(path.stat().st_size for path in self.folder.glob("data/docker/registry/v2/blobs/sha256/*/*/data"))
