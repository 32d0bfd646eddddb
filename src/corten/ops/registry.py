"""`corten registry serve`: the local store for whoever speaks the registry API."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from corten.core.home import Home
from corten.http import Limits, Server, run, spawn
from corten.http.address import TcpAddress
from corten.registry.serving import Shelf
from corten.store.layout import Layout

_DRAIN_S = 5.0


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
