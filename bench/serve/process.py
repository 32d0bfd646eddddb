"""A server's process: started on one core, watched by what the kernel counts, ended with all it started."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from prepare import Workshop
from systems import PORT, Place, System, environment_of

UP_S = 90.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Server:
    """A system at a work. Raises RuntimeError when it does not come up."""

    def __init__(self, system: System, work: str, workshop: Workshop, core: str) -> None:
        self.system, self.work = system, work
        protocol, self.path = system.asks(work)
        self.bodies = workshop.models / work / protocol / "bodies"
        about = json.loads(self.bodies.with_name("about.json").read_text())
        self.headers, self.answers = about["headers"], about["answers"]
        self.texts = read_texts(self.bodies)
        self.folder = Path(tempfile.mkdtemp(prefix="corten-bench-", dir="/var/tmp"))
        self.place = Place(workshop, self.folder, work)
        self._words = ["taskset", "-c", core, *system.command(self.place)]
        self._env = {**os.environ, **environment_of(system, self.place)}
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)  # or every start would compile
        self._env["PATH"] = f"{Path(self._words[3]).parent}:{os.environ['PATH']}"
        self.process: subprocess.Popen | None = None
        self.cold_s = 0.0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *what: object) -> None:
        self.close()

    def start(self) -> None:
        """Start, and wait for the first answer to a prediction: that is the cold start."""
        with (self.folder / "log").open("wb") as log:
            began_s = time.perf_counter()
            self.process = subprocess.Popen(
                self._words, env=self._env, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        seen: object = ""
        while time.perf_counter() - began_s < UP_S and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                seen = self.ask(self.texts[0])
                if seen[0] == 200:
                    self.cold_s = time.perf_counter() - began_s
                    return
            time.sleep(0.005)
        log_end = (self.folder / "log").read_text(errors="replace")[-1500:]
        raise RuntimeError(f"did not come up: {str(seen)[:300]} {log_end}")

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of one request over a connection of its own."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        )
        with socket.create_connection(("127.0.0.1", PORT), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(head.encode() + body)
            received = bytearray()
            while not _whole(received) and (piece := connection.recv(1 << 20)):
                received += piece
        head_bytes, _, answer = bytes(received).partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head_bytes.lower():
            answer = _unchunked(answer)
        return int(head_bytes[9:12]), answer

    def requests(self) -> Path:
        """Whole requests in a file, for openloop."""
        place = self.folder / "requests"
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}"
        with place.open("wb") as file:
            for body in self.texts:
                text = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
                file.write(struct.pack("<I", len(text)) + text)
        return place

    def wrong(self) -> int:
        """How many of some answers are not the model's own."""
        many = min(6, len(self.texts))
        return sum(not _right(self.ask(self.texts[i]), self.answers[i]) for i in range(many))

    def cpu_s(self) -> float:
        """Processor time of all its processes so far."""
        ticks = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                ticks += sum(map(int, _stat(pid)[11:13]))
        return ticks / _TICKS_PER_S

    def memory_mb(self) -> float:
        """RAM of all its processes, shared pages divided among those that share them (PSS)."""
        total_kb = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total_kb += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return round(total_kb / 1024, 1)

    def close(self) -> None:
        """End it and whatever it started: all of its session, by id."""
        if self.process is not None:
            pids = self._pids()
            for number, wait_s in ((signal.SIGTERM, 6.0), (signal.SIGKILL, 5.0)):
                for pid in pids if number is signal.SIGKILL else [self.process.pid]:
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)
                end_s = time.monotonic() + wait_s
                while time.monotonic() < end_s and (self.process.poll() is None or any(map(_alive, pids))):
                    time.sleep(0.05)
            self.process.wait(10)
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pids(self) -> list[int]:
        """Its own, its descendants' and those of its session, which outlive a parent."""
        if self.process is None:
            return []
        found = {self.process.pid}
        about = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ValueError):
                    about[int(entry.name)] = [
                        int(field) for field in _stat(int(entry.name))[1:4]
                    ]  # parent, group, session
        for _ in range(8):  # as deep as any of them nests
            found |= {pid for pid, (parent, _, session) in about.items() if parent in found or session in found}
        return sorted(found)


def machine_s() -> float:
    """Processor time all of the machine spent so far, what others took of it included."""
    user, _, system, _, _, irq, soft, stolen = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    return (user + system + irq + soft + stolen) / _TICKS_PER_S


def read_texts(path: Path) -> list[bytes]:
    """The bodies of a file that make.py packed."""
    data, texts, at = path.read_bytes(), [], 0
    while at < len(data):
        size = struct.unpack_from("<I", data, at)[0]
        texts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return texts


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _whole(received: bytearray) -> bool:
    """Whether an answer has its Content-Length; one without ends with its connection."""
    head, end, _ = bytes(received[:4096]).partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bool(end and found) and len(received) - len(head) - 4 >= int(found[1])


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return whole


def _right(answer: tuple[int, bytes], expected: list[float]) -> bool:
    """Whether an answer begins with the model's numbers, whatever the protocol wraps them in."""
    status, body = answer
    if status != 200:
        return False
    if not body.startswith((b"{", b"[")) or b'"binary_data_size"' in body[:2000]:
        return struct.pack(f"<{len(expected)}f", *expected) in body[: 2000 + 4 * len(expected)]
    value = json.loads(body)
    while isinstance(value, dict):
        value = value.get("predictions", value.get("outputs", value.get("data")))
        value = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
    while isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0] if len(value[0]) > 1 or len(value) == 1 else [row[0] for row in value]
    return len(value) >= 1 and all(abs(a - b) < 2e-3 for a, b in zip(value, expected, strict=False))
