"""A new revision in the shadow: copies of requests are asked of it and of the serving one, and the answers compared.

The gateway has answered the client by then and waits for none of this. Replicas are asked directly, so that the judge
and the scaler, who go by the gateway's counts, see nothing of it. Asking the serving revision once more is what it
costs; an answer that passed the gateway could be had only by reading along with every client.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from corten.control.client import UnixConnection
from corten.control.comparison import Compared, Reply
from corten.control.records import ReplicaRecord, Rollout
from corten.control.state import State
from corten.core.deployment import ReplicaState
from corten.gateway.mirror import HEADER
from corten.http import Request

LARGEST_BODY_BYTES = 1 << 20
_AT_ONCE = 4
_ASK_S = 60.0
_SAVE_EVERY_S = 1.0
_PASSED_ON = ("content-type", "accept")


@dataclass(slots=True)
class Mirror:
    """Compares, and remembers what it found in the state, every second. `clock` gives seconds."""

    state: State
    clock: Callable[[], float]
    _found: dict[int, Compared] = field(default_factory=dict)
    _saved_s: float = 0.0
    _busy: int = 0
    _turns: count[int] = field(default_factory=count)

    def of(self, rollout: Rollout) -> Compared:
        """What was found of a rollout so far."""
        return self._found.get(rollout.id, rollout.compared)

    async def answer(self, request: Request) -> None:
        """Take a copy; to be given to `corten.http.spawn`."""
        headers, target, body = dict(request.headers), request.target.decode("latin-1"), bytes(request.body)
        request.respond(204)
        deployment = self.state.find(headers.get(HEADER, ""))
        rollout = deployment.canary if deployment else None
        if rollout is None or not rollout.mirror or rollout.origin is None:
            return
        replicas = self.state.replicas(rollout.deployment)
        addresses = [self._one_of(replicas, number) for number in (rollout.origin, rollout.target)]
        if not all(addresses) or self._busy >= _AT_ONCE or not _repeatable(request.method, headers):
            self._remember(rollout, replace(self.of(rollout), skipped=self.of(rollout).skipped + 1))
            return
        passed = {name: headers[name] for name in _PASSED_ON if name in headers}
        self._busy += 1
        try:
            asked = (asyncio.to_thread(_ask, each, request.method, target, passed, body) for each in addresses)
            serving, new = await asyncio.gather(*asked)
        finally:
            self._busy -= 1
        self._remember(rollout, self.of(rollout).plus(serving, new))

    def _one_of(self, replicas: tuple[ReplicaRecord, ...], revision: int) -> str:
        ready = [
            one.replica.address
            for one in replicas
            if one.replica.revision == revision and one.replica.state is ReplicaState.READY
        ]
        return ready[next(self._turns) % len(ready)] if ready else ""

    def _remember(self, rollout: Rollout, found: Compared) -> None:
        self._found = {rollout.id: found, **{key: each for key, each in self._found.items() if key != rollout.id}}
        if self.clock() - self._saved_s >= _SAVE_EVERY_S:
            self._saved_s = self.clock()
            self.state.compared(rollout.id, found)


def _repeatable(method: str, headers: Mapping[str, str]) -> bool:
    """Whether asking twice changes nothing: predictions do not, jobs are work of their own."""
    return method == "POST" and "respond-async" not in headers.get("prefer", "")


def _ask(address: str, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
    connection: http.client.HTTPConnection
    if address.startswith("/"):
        connection = UnixConnection(address, _ASK_S)
    else:
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_ASK_S)
    try:
        connection.request(method, target, body, dict(headers))
        answer = connection.getresponse()
        return Reply(answer.status, answer.read(LARGEST_BODY_BYTES))
    except (OSError, http.client.HTTPException):
        return Reply(0)
    finally:
        connection.close()
