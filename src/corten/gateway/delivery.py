"""Resources on their way into Envoy: published, seen in force there, or taken back with Envoy's reason."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

from corten.errors import EngineError
from corten.gateway import logs, ports, resources
from corten.gateway.admin import Admin
from corten.gateway.plan import CERTIFICATE, CLUSTERS, LISTENERS, ROUTES, Key, Step, Upstreams
from corten.gateway.xds import Xds

APPLY_S = 10.0  # until a change is in force
_REASON_S = 3.0
_POLL_MIN_S, _POLL_MAX_S = 0.001, 0.02
# Endpoints are in force for Envoy's main thread; its worker hears of it a moment later.
_WORKER_S = 0.005


class Delivery:
    """What Envoy is told; `upstreams` are those in force. `log` is where Envoy says why it refused something.

    Its logger that does so complains of every failed poll too (while the daemon is away, 30 MB an hour), so that it is
    switched on for as long as it is asked.
    """

    def __init__(self, xds: Xds, admin: Admin, log: Path) -> None:
        self.upstreams: Upstreams = {}
        self._xds = xds
        self._admin = admin
        self._log = log

    async def take(self, step: Step) -> None:
        """Publish a step and wait until it is in force; when Envoy refuses it, publish what was before.

        Raises EngineError `gateway.refused`, `gateway.port_taken`, `gateway.slow`.
        """
        before = self._xds.ledger.published()
        changed = self._xds.publish(step.publish)
        if changed:
            try:
                await self.in_force(changed, timeout_s=APPLY_S)
            except EngineError:
                self._xds.publish({key: before[key] for key in changed if key in before})
                self._xds.ledger.drop([key for key in changed if key not in before])
                raise
            if any(kind == "endpoints" for kind, _ in changed):
                await asyncio.sleep(_WORKER_S)
        self.upstreams = step.upstreams
        self._xds.ledger.drop(step.drop)

    async def in_force(self, versions: Mapping[Key, str], *, timeout_s: float) -> None:
        """Wait until Envoy has these versions in force and its clusters are warm. Raises as `take`."""
        pause_s = _POLL_MIN_S
        pending = dict(versions)
        clusters = {name for kind, name in versions if kind == "endpoints"} if CLUSTERS in versions else set()
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if refused := sorted(key for key in pending if self._xds.ledger.refused(key)):
                        raise await self._refusal(refused)
                    # A dying Envoy does not answer; the watcher starts another, which asks for the same.
                    with contextlib.suppress(EngineError):
                        seen = await self._admin.versions()
                        pending = {key: v for key, v in pending.items() if seen.get(_statistic(key)) != v}
                        if not pending and (not clusters or clusters <= await self._admin.cluster_names()):
                            return
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 1.5, _POLL_MAX_S)
        except TimeoutError as error:
            raise EngineError(
                "gateway.slow",
                f"the gateway did not take the new configuration within {timeout_s:g} s",
                where=str(self._log),
                why="waiting for " + (", ".join(sorted(map(_statistic, pending))) or "clusters to warm up"),
                hint="see `corten doctor`",
            ) from error

    async def _refusal(self, keys: Collection[Key]) -> EngineError:
        words = await self._reason(keys)
        if LISTENERS in keys and "Address already in use" in words:
            doors = [door["address"]["socket_address"] for door in self._xds.ledger.published()[LISTENERS]]
            taken = next((door for door in doors if str(door["port_value"]) in words), doors[0])
            return ports.taken(taken["address"], taken["port_value"])
        return EngineError(
            "gateway.refused",
            "Envoy refused the configuration for `" + "`, `".join(map(_statistic, keys)) + "`",
            where=str(self._log),
            why=words,
            hint="what was in force before stays",
        )

    async def _reason(self, keys: Collection[Key]) -> str:
        """Why Envoy refused resources: only its log says so."""
        since_bytes = logs.size_bytes(self._log)
        with contextlib.suppress(EngineError, TimeoutError):
            await self._admin.ask("/logging?config=warning", method="POST")
            try:
                self._xds.offer_again(keys)
                async with asyncio.timeout(_REASON_S):
                    while not (words := logs.rejection(self._log, since_bytes=since_bytes)):  # noqa: ASYNC110 -- a file
                        await asyncio.sleep(_POLL_MAX_S)
                return words
            finally:
                await self._admin.ask("/logging?config=error", method="POST")
        return "its log does not say why"


def _statistic(key: Key) -> str:
    """The name under which Envoy counts a subscription's updates."""
    match key:
        case ("endpoints", name):
            return f"cluster.{name}"
        case _ if key == CLUSTERS:
            return "cluster_manager.cds"
        case _ if key == LISTENERS:
            return "listener_manager.lds"
        case ("extension_configs", name):
            return f"extension_config_discovery.http_filter.{name}"
        case _ if key == CERTIFICATE:
            return f"sds.{resources.CERTIFICATE_NAME}"
        case _ if key == ROUTES:
            return f"http.front.rds.{resources.ROUTES_NAME}"
        case _:
            raise AssertionError(key)
