"""The daemon's JSON API, for the command line and the Python functions of `ops`.

::

    GET    /v1/version                                                            -> {"version"}
    GET    /v1/status
    GET    /v1/deployments/NAME
    PUT    /v1/deployments/NAME             {"image", "settings", "secrets"?, "generation"?} -> Accepted
    DELETE /v1/deployments/NAME
    POST   /v1/deployments/NAME/rollback    {"to"?, "generation"?}                -> Accepted
    POST   /v1/deployments/NAME/promote     {"share"?, "generation"?}             -> Accepted
    POST   /v1/deployments/NAME/restart     {"generation"?}                       -> Accepted
    GET    /v1/deployments/NAME/events      ?after=SEQ&wait_s=S                   (held until there is one)
    GET    /v1/deployments/NAME/logs        ?tail=N
    GET    /v1/gateway                                                            -> FrontView
    PUT    /v1/gateway                      {"port"?, "host"?, "certificate"?, "key"?, "http_port"?} -> FrontView
    POST   /v1/gateway/restart              {"cold"?}                             -> pids before and after
    GET    /v1/tokens                                                             -> tokens and issuers
    POST   /v1/tokens                       {"name", "deployments", "days"}       -> the token, once
    DELETE /v1/tokens/NAME_OR_ID                                                  -> those that counted until now
    POST   /v1/keys                         {"at_once"?}
    POST   /v1/issuers                      {"issuer", "audience"?, "jwks"?}
    POST   /v1/shutdown                     {"replicas": "keep" | "stop"}
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from corten import __version__
from corten.control import views, wire
from corten.control.controller import Controller
from corten.control.issue import Issuance
from corten.control.news import News
from corten.control.signing import check_jwks
from corten.core.access import Access, Issuer, Trust
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.name import parse_name
from corten.core.rest import Strategy
from corten.core.route import RouteTable
from corten.errors import CortenError, EngineError, NotFoundError, PolicyError, UsageError
from corten.gateway.certificate import Certificate, read_certificate
from corten.http import Request

_log = logging.getLogger(__name__)
_LONGEST_HOLD_S = 60.0
_MOST_LINES = 10_000
_IN_FORCE_S = 20.0


class Api:
    """Answers requests from the state and changes what is wanted; everything else is the controller's."""

    def __init__(self, controller: Controller, news: News, on_shutdown: Callable[[bool], None], keys: Path) -> None:
        self._controller = controller
        self._issuance = Issuance(controller.state.credentials, keys, controller.clock)
        self._news = news
        self._on_shutdown = on_shutdown
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    async def answer(self, request: Request) -> None:
        """Answer one request; to be given to `corten.http.spawn`."""
        try:
            _only_for_the_owner(request)
            status, value = await self._route(request)
        except CortenError as error:
            status, value = wire.http_status(error), wire.error_body(error)
        request.respond(status, msgspec.json.encode(value))

    async def _route(self, request: Request) -> tuple[int, Any]:
        match (request.method, *request.path.strip("/").split("/")):
            case ("GET", "v1", "version"):
                return 200, {"version": __version__}
            case ("GET", "v1", "status"):
                return 200, self.status()
            case ("GET", "v1", "gateway"):
                return 200, self.front()
            case ("PUT", "v1", "gateway"):
                return 200, await self._whole(self._change_front(wire.read(request.body, wire.FrontChange)))
            case ("POST", "v1", "gateway", "restart"):
                wanted = wire.read(request.body, wire.GatewayRestart)
                return 200, await self._whole(self._restart_gateway(cold=wanted.cold))
            case (_, "v1", "tokens" | "keys" | "issuers", *_):
                return await self._credentials(request)
            case ("POST", "v1", "shutdown"):
                return 202, self._shut_down(wire.read(request.body, wire.Ending))
            case (_, "v1", "deployments", name):
                return await self._deployment(request, parse_name(name))
            case ("POST", "v1", "deployments", name, "rollback"):
                back = wire.read(request.body, wire.Back)
                return 202, await self._whole(self._roll_back(parse_name(name), back))
            case ("POST", "v1", "deployments", name, "promote"):
                wanted = wire.read(request.body, wire.Promotion)
                return 202, await self._whole(self._promote(parse_name(name), wanted))
            case ("POST", "v1", "deployments", name, "restart"):
                wanted = wire.read(request.body, wire.Restart)
                return 202, await self._whole(self._restart(parse_name(name), wanted))
            case ("GET", "v1", "deployments", name, "events"):
                return 200, await self._events(parse_name(name), request)
            case ("GET", "v1", "deployments", name, "logs"):
                return 200, await self._logs(parse_name(name), _number(request, "tail", 100, _MOST_LINES))
            case _:
                raise _unknown_route(request)

    async def _credentials(self, request: Request) -> tuple[int, Any]:
        match (request.method, *request.path.strip("/").split("/")):
            case ("GET", "v1", "tokens"):
                return 200, self._tokens()
            case ("POST", "v1", "tokens"):
                return 201, await self._whole(self._issue(wire.read(request.body, wire.NewToken)))
            case ("DELETE", "v1", "tokens", name):
                return 200, await self._whole(self._revoke(unquote(name)))
            case ("POST", "v1", "keys"):
                return 200, await self._whole(self._rotate(wire.read(request.body, wire.Rotation)))
            case ("POST", "v1", "issuers"):
                return 200, await self._whole(self._trust(wire.read(request.body, wire.TrustChange)))
            case _:
                raise _unknown_route(request)

    async def _deployment(self, request: Request, name: str) -> tuple[int, Any]:
        match request.method:
            case "GET":
                return 200, self.view(name)
            case "PUT":
                return 202, await self._whole(self._deploy(name, wire.read(request.body, wire.Change)))
            case "DELETE":
                return 202, await self._delete(name)
            case other:
                raise UsageError("control.bad_request", f"`{other}` means nothing for a deployment")

    async def _whole(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Carry a change through even if its client goes away: a gateway half started would belong to nobody."""
        task = asyncio.get_running_loop().create_task(work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for changes under way; they all have deadlines."""
        await asyncio.gather(*self._changes, return_exceptions=True)

    # Answers

    def status(self) -> views.StatusView:
        """All that is known."""
        controller = self._controller
        router = controller.router
        warning = f"; {router.warning}" if router.warning else ""
        return views.StatusView(
            pid=os.getpid(),
            version=__version__,
            engine=controller.engine.name,
            isolation=dict(controller.engine.describe()),
            front=self.front(),
            gateway=router.trouble or (f"running{warning}" if router.running else "not running"),
            gateway_pid=router.pid,
            trouble=controller.trouble,
            deployments=tuple(self.view(one.name) for one in controller.state.deployments()),
        )

    def front(self) -> views.FrontView:
        """Where requests go."""
        front = self._controller.router.front
        found: Certificate | None = None
        if front.tls:
            with suppress(UsageError):
                files = Path(front.certificate), Path(front.key)
                found = self._controller.router.certificate or read_certificate(*files, now_s=self._controller.clock())
        return views.front_view(front, found)

    def view(self, name: str) -> views.DeploymentView:
        """One deployment; raises NotFoundError."""
        controller = self._controller
        one = controller.state.deployment(name)
        tried = controller.state.revision(name, one.rollout.target) if one.rollout else None
        if one.rollout is not None and one.rollout.mirror:
            # The state is up to a second behind.
            one = replace(one, rollout=replace(one.rollout, compared=controller.mirror.of(one.rollout)))
        records = controller.state.replicas(name)
        numbers = {record.replica.revision for record in records}
        settings = {number: controller.state.revision(name, number).settings for number in numbers}
        return views.deployment_view(
            one,
            records,
            controller.seen(name),
            image=str(tried.image) if tried else "",
            judgement=controller.canaries.judgements.get(name),
            waiting=controller.holding.waiting(name),
            settings=settings,
        )

    async def _deploy(self, name: str, change: wire.Change) -> Any:
        controller = self._controller
        async with self._changing:
            # First the gateway, so that a taken port refuses the change before anything is written.
            await controller.router.start(controller.table())
            image = Digest.parse(change.image)
            swap = controller.must_swap(name, change.settings.strategy)
            if swap:
                # While requests wait is no time to unpack it.
                await controller.tasks.off_loop(controller.engine.prepare, image)
            settings = self._with_secrets(name, change)
            try:
                accepted = controller.state.deploy(
                    name, image, settings, generation=change.generation, now_s=controller.clock(), swap=swap
                )
            finally:
                if change.secrets:  # of a change that was refused
                    controller.sweep_secrets()
            if not self._guarded():
                await self._in_force()
        self._changed()
        return accepted

    def _with_secrets(self, name: str, change: wire.Change) -> Settings:
        if not change.secrets:
            return change.settings
        known = self._controller.state.find(name)
        before = known.wanted.settings.secret_ids if known and known.wanted else {}
        return replace(change.settings, secret_ids=self._controller.vault.keep(change.secrets, before))

    async def _roll_back(self, name: str, back: wire.Back) -> Any:
        controller = self._controller
        async with self._changing:
            one = controller.state.deployment(name)
            await controller.router.start(controller.table())
            # What is kept frozen fits: it is there.
            swap = one.fallback is None and controller.must_swap(name, Strategy.AUTO)
            accepted = controller.state.roll_back(
                name, back.to, generation=back.generation, now_s=controller.clock(), swap=swap
            )
        self._changed()
        return accepted

    async def _restart(self, name: str, wanted: wire.Restart) -> Any:
        controller = self._controller
        async with self._changing:
            one = controller.state.deployment(name)
            await controller.router.start(controller.table())
            swap = one.wanted is not None and controller.must_swap(name, one.wanted.settings.strategy)
            accepted = controller.state.restart(name, generation=wanted.generation, now_s=controller.clock(), swap=swap)
        self._changed()
        return accepted

    async def _promote(self, name: str, wanted: wire.Promotion) -> Any:
        controller = self._controller
        async with self._changing:
            accepted = controller.state.promote(
                name, wanted.share, generation=wanted.generation, now_s=controller.clock()
            )
        self._changed()
        return accepted

    async def _delete(self, name: str) -> Any:
        async with self._changing:
            after = self._controller.state.delete(name, now_s=self._controller.clock())
        self._changed()
        return {"after": after}

    async def _events(self, name: str, request: Request) -> Any:
        after = _number(request, "after", 0, 1 << 62)
        hold_s = min(_LONGEST_HOLD_S, _seconds(request, "wait_s"))
        state = self._controller.state
        await self._news.until(lambda: bool(state.events(name, after=after, limit=1)), hold_s)
        return {"events": state.events(name, after=after)}

    async def _logs(self, name: str, tail: int) -> Any:
        controller = self._controller
        controller.state.deployment(name)
        lines: list[dict[str, Any]] = []
        for one in controller.state.replicas(name):
            found = await controller.tasks.off_loop(controller.logs, one.replica.id, tail)
            lines += [{"replica": one.replica.id, "text": text} for text in found]
        return {"lines": lines}

    async def _change_front(self, change: wire.FrontChange) -> Any:
        controller = self._controller
        async with self._changing:
            front = change.of(controller.router.front)
            if front.tls:
                # Also while no gateway runs to find it out.
                read_certificate(Path(front.certificate), Path(front.key), now_s=controller.clock())
            await controller.router.listen(front)
            controller.state.set_front(front)
        self._changed()
        return self.front()

    async def _restart_gateway(self, *, cold: bool) -> Any:
        router = self._controller.router
        async with self._changing:
            was = router.pid
            await router.restart(cold=cold)
        self._changed()
        return {"was": was, "pid": router.pid}

    # Tokens

    def _tokens(self) -> Any:
        credentials = self._controller.state.credentials
        issuers = [{"issuer": each.name, "audience": each.audience} for each in credentials.issuers()]
        return {"tokens": credentials.tokens(), "issuers": issuers, "now_s": self._controller.clock()}

    async def _issue(self, wanted: wire.NewToken) -> Any:
        async with self._changing:
            token, text = self._issuance.issue(wanted.name, wanted.deployments, wanted.days)
            await self._in_force()
        return {**msgspec.to_builtins(token), "token": text}

    async def _revoke(self, name: str) -> Any:
        async with self._changing:
            revoked = self._controller.state.credentials.revoke(name, now_s=self._controller.clock())
            await self._in_force()
        return {"revoked": revoked}

    async def _rotate(self, rotation: wire.Rotation) -> Any:
        async with self._changing:
            kid = self._issuance.rotate(at_once=rotation.at_once)
            await self._in_force()
        return {"kid": kid}

    async def _trust(self, change: wire.TrustChange) -> Any:
        credentials = self._controller.state.credentials
        async with self._changing:
            if change.jwks:
                credentials.trust_issuer(Issuer(change.issuer, change.audience, check_jwks(change.jwks)))
            else:
                credentials.distrust(change.issuer)
            await self._in_force()
        return {"issuer": change.issuer, "trusted": bool(change.jwks)}

    async def _in_force(self) -> None:
        """Until the gateway goes by what the state says of access: whoever revokes must not be told too early.

        Raises EngineError `gateway.slow`; the state stays as it is, and the gateway is told again and again.
        """
        self._changed()
        if not await self._news.until(self._guarded, _IN_FORCE_S):
            raise EngineError(
                "gateway.slow",
                "it is written down, but not in force at the gateway yet",
                why=self._controller.router.trouble or f"no acknowledgement within {_IN_FORCE_S:g} s",
                hint="see `corten status`",
            )

    def _guarded(self) -> bool:
        router, wanted = self._controller.router, self._controller.table()
        return not router.running or _guards(router.in_force) == _guards(wanted)

    def _shut_down(self, ending: wire.Ending) -> Any:
        controller = self._controller
        stop = ending.replicas == "stop"
        if stop:
            for one in controller.state.deployments():
                controller.state.delete(one.name, now_s=controller.clock())
            self._changed()
        self._on_shutdown(stop)
        return {"replicas": ending.replicas}

    def _changed(self) -> None:
        self._controller.wake.set()
        self._news.tell()


def _guards(table: RouteTable) -> tuple[Trust, Mapping[str, Access]]:
    return table.trust, {route.deployment: route.access for route in table.deployments if route.access != Access()}


def _only_for_the_owner(request: Request) -> None:
    # The socket's mode says so already; the kernel's word on who is at the other end is the second lock.
    if request.peer_uid not in (os.getuid(), 0):
        raise PolicyError(
            "control.not_the_owner", "this daemon belongs to somebody else", why=f"uid {request.peer_uid}"
        )


def _unknown_route(request: Request) -> NotFoundError:
    return NotFoundError("control.unknown_route", f"no such route: `{request.method} {request.path[:100]}`")


def _number(request: Request, key: str, default: int, most: int) -> int:
    text = request.params.get(key, str(default))
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise UsageError("control.bad_request", f"`{key}` cannot be `{text[:40]}`", why=f"expected 0 to {most}")
    return int(text)


def _seconds(request: Request, key: str) -> float:
    text = request.params.get(key, "0")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError("control.bad_request", f"`{key}` cannot be `{text[:40]}`", why="expected seconds")
    return value
