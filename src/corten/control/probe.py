"""Asking a replica how it is: one GET over its unix socket or port."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

# A probe's answer is a few lines; more is not read.
_ANSWER_BYTES = 16 << 10
_METRICS_BYTES = 4 << 20
_JOBS = re.compile(r"^corten_jobs_running(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status (0: no answer) and the body, or what went wrong, as text for people."""

    status: int
    text: str


async def jobs(address: str, *, timeout_s: float) -> int:
    """How many asynchronous jobs a replica works on, by its metrics; 0 where it does not say."""
    try:
        async with asyncio.timeout(timeout_s):
            _, body = await _get(address, "/metrics", _METRICS_BYTES)
    except (OSError, ValueError, EOFError, TimeoutError, asyncio.LimitOverrunError):
        return 0
    return sum(int(float(found)) for found in _JOBS.findall(body))


async def ask(address: str, path: str, *, timeout_s: float) -> Answer:
    """GET a path of a replica; never raises but for cancellation."""
    try:
        async with asyncio.timeout(timeout_s):
            status, body = await _get(address, path, _ANSWER_BYTES)
            return Answer(status, body.strip()[:500])
    except TimeoutError:
        return Answer(0, f"no answer within {timeout_s:g} s")
    except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
        return Answer(0, str(error) or type(error).__name__)


async def _get(address: str, path: str, most_bytes: int) -> tuple[int, str]:
    if address.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(address, limit=_ANSWER_BYTES)
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), limit=_ANSWER_BYTES)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: replica\r\nConnection: close\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        body = b""
        while len(body) < most_bytes and (piece := await reader.read(most_bytes - len(body))):
            body += piece
    finally:
        writer.close()
    protocol, _, rest = head.partition(" ")
    if not protocol.startswith("HTTP/") or not rest[:3].isdigit():
        raise ValueError("the answer is not HTTP")
    return int(rest[:3]), body.decode("utf-8", "replace")
