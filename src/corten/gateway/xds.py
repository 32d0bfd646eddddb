"""The xDS server: Envoy asks for resources by REST, and the answer waits until there is something new (long poll).

Envoy's subscription is `POST /v3/discovery:KIND` with the version it has; it
asks again a moment after each answer (`resources.config_source`). We answer at once when our version is another, else
when it changes, else after HOLD_S with 304. Versions are hashes of the content, so after a restart of the daemon
Envoy's polls carry the versions that will be published again, and are simply held.

Acceptance is read from the next poll of the subscription: it carries the version that was sent, or, when Envoy refused
it, the one it had before (the reason stands in Envoy's log only).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from corten.gateway.plan import Key
from corten.gateway.shape import Resource
from corten.http import Limits, Request, Server, UnixAddress

HOLD_S = 25.0
# An answer may get lost with its connection, after which Envoy asks again with the version it had, as it does after
# refusing one. Being refused twice tells them apart, and keeps a refused version from being sent for ever.
_REFUSALS = 2

_encode = msgspec.json.Encoder(order="deterministic").encode


class _Node(msgspec.Struct):
    id: str = ""


class DiscoveryRequest(msgspec.Struct):
    """What of Envoy's DiscoveryRequest matters here."""

    version_info: str = ""
    resource_names: list[str] = []
    type_url: str = ""
    node: _Node = msgspec.field(default_factory=_Node)


def version_of(resources: Sequence[Resource]) -> str:
    """The version of some resources: a hash of their content."""
    return hashlib.sha256(_encode(resources)).hexdigest()[:16]


@dataclass(slots=True)
class _Subject:
    """One key: what is published, and how Envoy took it. `sent` pairs the version Envoy had with the one it got."""

    version: str
    resources: list[Resource]
    accepted: set[str] = field(default_factory=set)
    sent: set[tuple[str, str]] = field(default_factory=set)
    refusals: dict[str, int] = field(default_factory=dict)


class Ledger:
    """What is published and what Envoy made of it. No input or output; a new node (process of Envoy) starts afresh."""

    def __init__(self) -> None:
        self._subjects: dict[Key, _Subject] = {}
        self._node = ""
        self._before: dict[str, dict[Key, str]] = {}

    def publish(self, resources: Mapping[Key, Sequence[Resource]]) -> dict[Key, str]:
        """Set what these keys hold from now on; returns the versions of those that changed."""
        changed = {}
        for key, value in resources.items():
            version = version_of(value)
            subject = self._subjects.get(key)
            if subject is None:
                self._subjects[key] = _Subject(version, list(value))
            elif subject.version != version:
                subject.version, subject.resources = version, list(value)
            else:
                continue
            changed[key] = version
        return changed

    def versions(self) -> dict[Key, str]:
        """The versions of all that is published now."""
        return {key: subject.version for key, subject in self._subjects.items()}

    def published(self) -> dict[Key, list[Resource]]:
        """All that is published now."""
        return {key: subject.resources for key, subject in self._subjects.items()}

    def drop(self, keys: Collection[Key]) -> None:
        """Forget keys; polls for them are held."""
        for key in keys:
            self._subjects.pop(key, None)

    def ask(self, key: Key, have: str, node: str) -> tuple[str, list[Resource]] | None:
        """A poll by a subscription that has version `have`: what to answer now, None to hold it."""
        if node != self._node and node not in self._before:
            self._forget_node(node)
        subject = self._subjects.get(key)
        if subject is None:
            return None
        if node != self._node:
            return self._ask_before(key, subject, have, node)
        self._judge(subject, have)
        if have == subject.version or subject.refusals.get(subject.version, 0) >= _REFUSALS:
            return None
        subject.sent.add((have, subject.version))
        return subject.version, subject.resources

    def _ask_before(self, key: Key, subject: _Subject, have: str, node: str) -> tuple[str, list[Resource]] | None:
        """A poll of a process that was taken over from: it gets everything once, and nobody waits for its word."""
        if have == subject.version or self._before[node].get(key) == subject.version:
            return None
        self._before[node][key] = subject.version
        return subject.version, subject.resources

    def offer_again(self, key: Key) -> None:
        """Send what was refused once more."""
        if (subject := self._subjects.get(key)) is not None and subject.version in subject.refusals:
            subject.refusals[subject.version] = _REFUSALS - 1

    def accepted(self, key: Key, version: str) -> bool:
        """Whether Envoy said that it took this version."""
        subject = self._subjects.get(key)
        return subject is not None and version in subject.accepted

    def refused(self, key: Key) -> bool:
        """Whether Envoy will not take what is published now."""
        subject = self._subjects.get(key)
        return subject is not None and subject.refusals.get(subject.version, 0) >= _REFUSALS

    def _judge(self, subject: _Subject, have: str) -> None:
        taken = {pair for pair in subject.sent if pair[1] == have}
        if taken or have == subject.version:
            subject.sent -= taken
            subject.accepted = {have}
            subject.refusals.pop(have, None)
            return
        # The poll may also be a subscription's first (a cluster that came back has no version yet while another
        # subscription's answer is under way): only the version that was answered *to this one* is refused.
        for pair in {pair for pair in subject.sent if pair[0] == have}:
            subject.sent.discard(pair)
            subject.refusals[pair[1]] = subject.refusals.get(pair[1], 0) + 1

    def _forget_node(self, node: str) -> None:
        if self._node:
            self._before = {self._node: {}}
        self._node = node
        for subject in self._subjects.values():
            subject.accepted, subject.sent, subject.refusals = set(), set(), {}


@dataclass(eq=False, slots=True)
class _Held:
    request: Request
    asked: DiscoveryRequest
    timer: asyncio.TimerHandle


class Xds:
    """Serves a ledger on a unix socket of the owner's. All methods belong to the loop's thread."""

    def __init__(self, socket: Path, *, hold_s: float = HOLD_S) -> None:
        self.ledger = Ledger()
        self._socket = socket
        self._hold_s = hold_s
        self._held: dict[Key, set[_Held]] = {}
        self._server: Server | None = None

    async def listen(self) -> None:
        """Start to answer; raises UsageError when another process listens there."""
        server = Server(self._handle, Limits(connections=100_000, body_bytes=1 << 20))
        try:
            await server.listen(UnixAddress(self._socket), mode=0o600)
        except BaseException:
            await server.close()
            raise
        self._server = server

    async def close(self) -> None:
        """Stop. Envoy keeps what it has and goes on asking. Safe to repeat."""
        for held in [held for group in self._held.values() for held in group]:
            held.timer.cancel()
        self._held.clear()
        if self._server is not None:
            await self._server.close()
            self._server = None

    def publish(self, resources: Mapping[Key, Sequence[Resource]]) -> dict[Key, str]:
        """Publish and answer the polls that waited for it; returns the versions of the keys that changed."""
        changed = self.ledger.publish(resources)
        for key in changed:
            self._answer_held(key)
        return changed

    def offer_again(self, keys: Collection[Key]) -> None:
        """Send refused resources once more, to hear the reason."""
        for key in keys:
            self.ledger.offer_again(key)
            self._answer_held(key)

    def _handle(self, request: Request) -> None:
        prefix, _, kind = request.path.rpartition(":")
        if request.method != "POST" or prefix != "/v3/discovery":
            request.fail(404, "xds.not_found", "this is the xDS server of Corten's gateway")
            return
        try:
            asked = msgspec.json.decode(bytes(request.body), type=DiscoveryRequest)
        except msgspec.DecodeError as error:
            request.fail(400, "xds.malformed", str(error))
            return
        name = asked.resource_names[0] if asked.resource_names and asked.resource_names != ["*"] else ""
        self._answer((kind, name), request, asked)

    def _answer(self, key: Key, request: Request, asked: DiscoveryRequest) -> None:
        answer = self.ledger.ask(key, asked.version_info, asked.node.id)
        if answer is None:
            self._hold(key, request, asked)
            return
        version, resources = answer
        body: dict[str, Any] = {"version_info": version, "type_url": asked.type_url, "resources": resources}
        request.respond(200, _encode(body))

    def _answer_held(self, key: Key) -> None:
        for held in list(self._held.get(key, ())):
            self._release(key, held)
            self._answer(key, held.request, held.asked)

    def _hold(self, key: Key, request: Request, asked: DiscoveryRequest) -> None:
        timer = asyncio.get_running_loop().call_later(self._hold_s, self._not_modified, key, request)
        held = _Held(request, asked, timer)
        self._held.setdefault(key, set()).add(held)
        request.on_gone(lambda: self._release(key, held))

    def _release(self, key: Key, held: _Held) -> None:
        held.timer.cancel()
        group = self._held.get(key, set())
        group.discard(held)
        if not group:
            self._held.pop(key, None)

    def _not_modified(self, key: Key, request: Request) -> None:
        for held in [held for held in self._held.get(key, ()) if held.request is request]:
            self._release(key, held)
        request.respond(304)
