"""What push, pull and copy share, and `corten registry serve`: the local store for whoever speaks the registry API."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.core.events import Event, Listener, Phase
from corten.core.home import Home
from corten.core.proxy import proxies_from
from corten.core.reference import Reference
from corten.errors import UsageError
from corten.http import Limits, Server, run, spawn
from corten.http.address import TcpAddress
from corten.registry.ask import Trust
from corten.registry.serving import Shelf
from corten.registry.session import Chance, Session
from corten.registry.transfer import Moved
from corten.store.layout import Layout

_DRAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Transferred:
    """An image that is where it was to go. `seconds` for all of it; sizes as in Moved."""

    reference: Reference
    moved: Moved
    seconds: float

    @property
    def pinned(self) -> str:
        """`registry/repository@sha256:...`: what never moves."""
        return f"{self.reference.registry}/{self.reference.repository}@{self.moved.digest}"

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        moved = self.moved
        return {
            "reference": str(self.reference),
            "pinned": self.pinned,
            "digest": str(moved.digest),
            "blobs": moved.blobs,
            "blobs_sent": moved.blobs_sent,
            "blobs_mounted": moved.blobs_mounted,
            "size_bytes": moved.size_bytes,
            "sent_bytes": moved.sent_bytes,
            "referrers": moved.referrers,
            "seconds": round(self.seconds, 3),
        }


def session(*, plain_http: bool, ca: str | Path | None, env: Mapping[str, str]) -> Session:
    """Talk to registries with this machine's clock and chance."""
    trust = Trust(plain_http=plain_http, ca=Path(ca) if ca else None, proxies=proxies_from(env))
    return Session(trust, env, Chance(time.monotonic, random.random))


def told(step: str, reference: Reference, listen: Listener, work: Callable[[], Moved]) -> Transferred:
    """Run a transfer, say when it begins and what became of it."""
    listen(Event(step, Phase.STARTED, str(reference)))
    began_s = time.perf_counter()
    moved = work()
    took_s = time.perf_counter() - began_s
    there = moved.blobs - moved.blobs_sent
    message = f"{moved.sent_bytes / 1e6:.1f} MB in {moved.blobs_sent} blobs, {there} were there"
    if moved.referrers:
        message += f", {moved.referrers} referrers"
    figures = {"seconds": took_s, "bytes": moved.sent_bytes, "digest": str(moved.digest)}
    listen(Event(step, Phase.DONE, message, figures))
    return Transferred(reference, moved, took_s)


def digest_given(target: Reference, command: str) -> UsageError:
    """A target is a name: what its digest will be, the content decides."""
    return UsageError(
        "registry.digest_given",
        f"an image goes to a name, not to `{target.digest}`",
        hint=f"{command} {target.registry}/{target.repository}:{target.tag or 'latest'}",
    )


def serve_registry(
    *,
    home: Home | None = None,
    host: str = "127.0.0.1",
    port: int = 5000,
    ready: Callable[[str], None],
) -> None:
    """Offer the local store read-only over the distribution API until SIGTERM or Ctrl-C. `ready` gets the URL.

    Port 0 lets the kernel choose. Raises UsageError `http.cannot_listen`.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    run(_serve(Shelf(Layout(home.store)), TcpAddress(host, port), ready))


async def _serve(shelf: Shelf, address: TcpAddress, ready: Callable[[str], None]) -> None:
    handler = spawn(shelf.answer)
    server = Server(
        handler,
        Limits(body_bytes=1 << 16, connections=256),
        headers=(("Docker-Distribution-API-Version", "registry/2.0"),),
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(ValueError, RuntimeError):  # not the main thread: whoever runs us there ends us
            loop.add_signal_handler(number, ended.set)
    try:
        ready(f"http://{await server.listen(address)}")
        await ended.wait()
        await server.drain(_DRAIN_S)
    finally:
        await handler.close()
        await server.close()
