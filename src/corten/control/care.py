"""Looking after each replica beside the loop: what its state calls for is asked of it, and what is found out noted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from corten.control.probe import Answer
from corten.control.records import ReplicaRecord
from corten.control.router import Router
from corten.control.state import State
from corten.control.tasks import Tasks
from corten.control.watch import LOOK_PERIOD_S, Watch
from corten.core.deployment import Replica, ReplicaState
from corten.errors import CortenError

PROBE_TIMEOUT_S = 2.0
FASTEST_PROBE_S, SLOWEST_PROBE_S = 0.025, 0.25
DRAIN_POLL_S = 0.02
ROUTABLE_POLL_S = 0.002


@dataclass(slots=True)
class Notes:
    """What was found out about a replica and is not worth keeping over a restart."""

    probed: bool = False
    idle: bool = False
    working: bool = False
    hung: str = ""
    answer: str = ""
    error: CortenError | None = None


@dataclass(slots=True)
class Care:
    """Of all replicas: one task each, which ends with what it waits for.

    `wake` is called when one hangs, whatever else is still waited for; `reached` when the gateway reaches one more.
    """

    state: State
    router: Router
    tasks: Tasks
    clock: Callable[[], float]
    wake: Callable[[], None]
    reached: Callable[[], None]
    ask: Callable[..., Awaitable[Answer]]
    jobs: Callable[..., Awaitable[int]]
    stopped: Callable[[int], bool]
    _notes: dict[str, Notes] = field(default_factory=dict)

    def notes(self, replica_id: str) -> Notes:
        """What is known of a replica."""
        return self._notes.setdefault(replica_id, Notes())

    def resume(self, replica_id: str) -> None:
        """It takes requests again: what was found out when it was taken out counts no more."""
        self._notes[replica_id] = Notes(probed=True)

    def forget(self, replica_id: str) -> None:
        """It is gone."""
        self._notes.pop(replica_id, None)

    def tend(self, running: Callable[[str], bool]) -> None:
        """See to it that each replica whose process is `running` is asked what its state calls for."""
        found = (
            self._care_for(one) for one in self.state.replicas() if one.replica.address and running(one.replica.id)
        )
        self.tasks.ensure_only("care ", dict(each for each in found if each is not None))

    def _care_for(self, one: ReplicaRecord) -> tuple[str, Callable[[], Coroutine[Any, Any, None]]] | None:
        replica, notes = one.replica, self.notes(one.replica.id)
        match replica.state:
            case ReplicaState.STARTING if not notes.probed:
                return f"starting {replica.id}", partial(self._until_ready, one, notes)
            case ReplicaState.READY if not one.routed:
                return f"routing {replica.id}", partial(self._until_routable, one, notes)
            case ReplicaState.READY:
                return f"living {replica.id}", partial(self._while_alive, one, notes)
            case ReplicaState.DRAINING if not notes.idle and not self.router.open_to(replica.address):
                return f"draining {replica.id}", partial(self._until_idle, one, notes)
            case _:
                return None

    async def _until_ready(self, one: ReplicaRecord, notes: Notes) -> None:
        with self._watched(one, notes):
            while not (notes.probed or notes.hung):
                answer = await self.ask(one.replica.address, "/readyz", timeout_s=PROBE_TIMEOUT_S)
                notes.answer = f"{answer.status} {answer.text}" if answer.status else answer.text
                notes.probed = answer.status == 200
                # In proportion to the time it took so far: seldom late by more than a fortieth.
                age_s = self.clock() - one.replica.started_s
                if not notes.probed:
                    await asyncio.sleep(min(SLOWEST_PROBE_S, max(FASTEST_PROBE_S, age_s / 40)))

    async def _until_routable(self, one: ReplicaRecord, notes: Notes) -> None:
        wait_s = ROUTABLE_POLL_S
        with self._watched(one, notes):
            while not notes.hung:
                # Not only once the table is in force: Envoy is as far some milliseconds before we know that it is.
                if await self.router.routable(one.replica.address):
                    self.state.routed(one.replica.id, now_s=self.clock())
                    self.reached()
                    return
                await asyncio.sleep(wait_s)
                wait_s = min(SLOWEST_PROBE_S, wait_s * 1.2)

    async def _until_idle(self, one: ReplicaRecord, notes: Notes) -> None:
        """Until it has finished what it has; one that hangs never will, and others can do it in its place."""
        quiet, wait_s, watch = 0, DRAIN_POLL_S, Watch(one.replica, self.ask, self.stopped)
        try:
            # Twice: a request picked before the gateway's worker saw the change may not be counted yet.
            while quiet < 2 and not notes.hung:
                quiet = quiet + 1 if await self.router.in_flight(one.replica.address) == 0 else 0
                if quiet < 2:
                    await asyncio.sleep(wait_s)
                    # Late by a sixth of the time it took so far.
                    wait_s = DRAIN_POLL_S if quiet else min(SLOWEST_PROBE_S, wait_s * 1.2)
                    notes.hung = watch.look(partial(self._others_ready, one.replica))
        finally:
            watch.close()
        notes.working = not notes.hung and await self.jobs(one.replica.address, timeout_s=PROBE_TIMEOUT_S) > 0
        notes.idle = not notes.hung

    async def _while_alive(self, one: ReplicaRecord, notes: Notes) -> None:
        """Look twice a second whether it lives. One that starts is not asked: it may load for minutes."""
        asks = None if one.replica.state is ReplicaState.STARTING else self.ask
        watch = Watch(one.replica, asks, self.stopped)
        try:
            while not notes.hung:
                await asyncio.sleep(LOOK_PERIOD_S)
                # Who takes no requests yet has nothing in hand that could be lost with it.
                notes.hung = watch.look(lambda: not one.routed or self._others_ready(one.replica))
        finally:
            watch.close()
        self.wake()

    @contextlib.contextmanager
    def _watched(self, one: ReplicaRecord, notes: Notes) -> Iterator[None]:
        """While something else is waited for, look whether it lives."""
        watching = asyncio.ensure_future(self._while_alive(one, notes))
        try:
            yield
        finally:
            watching.cancel()

    def _others_ready(self, replica: Replica) -> bool:
        """Whether another replica of its deployment takes requests."""
        return any(
            one.routed and one.replica.state is ReplicaState.READY and one.replica.id != replica.id
            for one in self.state.replicas(replica.deployment)
        )
