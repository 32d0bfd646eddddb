"""How an Envoy is asked to leave, so that no request is lost."""

from __future__ import annotations

import asyncio
import contextlib

from corten.errors import EngineError
from corten.gateway.admin import Admin

DRAIN_S = 1  # how long clients are told to close their connections before it stops listening
STOP_S = 10.0  # how long requests in flight may take when the gateway is stopped
_LINGER_S = 0.5
_POLL_S = 0.02
_CONNECTIONS, _REQUESTS = "http.front.downstream_cx_active", "http.front.downstream_rq_active"


async def drain(admin: Admin) -> None:
    """Tell clients to go, stop listening, wait until nothing is in flight. A plain SIGTERM drops that (§4)."""
    with contextlib.suppress(EngineError):
        # Answers carry `Connection: close` from now on; new connections are still taken, none meets a reset.
        await admin.ask("/drain_listeners?graceful&skip_exit", method="POST")
        await _until_none(admin, _CONNECTIONS, DRAIN_S)
        await admin.ask("/drain_listeners", method="POST")
        # One that was just taken may be about to send; one that stays idle is not waited for.
        await _until_none(admin, _CONNECTIONS, _LINGER_S)
        await _until_none(admin, _REQUESTS, STOP_S)


async def _until_none(admin: Admin, gauge: str, deadline_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline_s):
            while await admin.gauge(gauge):  # noqa: ASYNC110 -- Envoy's state
                await asyncio.sleep(_POLL_S)
