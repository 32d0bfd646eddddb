"""The autoscaler's eyes and hands: look at every deployment that scales twice a second, decide, write it down."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from corten.control.autoscale import (
    SLOW_S,
    TICK_S,
    Bounds,
    Decision,
    Direction,
    Fleet,
    Memory,
    Sample,
    decide,
)
from corten.control.records import Deployment
from corten.control.resting import Resting, start_s
from corten.control.router import Router
from corten.control.state import State
from corten.core.deployment import ReplicaState, RolloutState
from corten.core.events import Event, Phase
from corten.core.traffic import Traffic
from corten.errors import CortenError
from corten.observe.host import Processors, processor_s

_log = logging.getLogger(__name__)
_HUNGRY = 0.4  # of a processor, used by each replica: from there on it is what keeps the processors busy


@dataclass(slots=True)
class _Watched:
    """What is remembered of a deployment between two looks; lost with the daemon, which costs half a minute."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=int((SLOW_S + 2) / TICK_S)))
    memory: Memory = field(default_factory=Memory)
    told: str = ""
    used_s: dict[int, float] = field(default_factory=dict)
    used_at_s: float = 0.0

    def appetite(self, pids: Sequence[int], now_s: float) -> float:
        """How much of a processor each replica used since the look before, on average."""
        used_s = {pid: processor_s(pid) for pid in pids}
        both = [pid for pid in pids if pid in self.used_s]
        passed_s = now_s - self.used_at_s
        used = sum(used_s[pid] - self.used_s[pid] for pid in both) / len(both) / passed_s if both and passed_s else 0.0
        self.used_s, self.used_at_s = used_s, now_s
        return used


@dataclass(slots=True)
class Scaler:
    """Owns the looks at all deployments."""

    state: State
    router: Router
    clock: Callable[[], float]
    changed: Callable[[], None]
    resting: Resting
    processors: Processors = field(default_factory=Processors)
    _watched: dict[str, _Watched] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.look()

    async def look(self) -> None:
        """One look at all of them."""
        scaled = [one for one in self.state.deployments() if one.scale is not None and one.wanted is not None]
        for gone in set(self._watched) - {one.name for one in scaled}:
            del self._watched[gone]
        traffic = await self.router.traffic() if scaled else {}
        by_name = None if traffic is None else {one.name: _of(one.name, traffic) for one in scaled}
        await self.resting.look(by_name)
        if by_name is None:
            return  # not knowing is no reason to change anything
        host_busy = self.processors.busy()
        for name, seen in by_name.items():
            one = self.state.find(name)
            if one is None or one.scale is None or not one.replicas:
                continue  # gone, or at rest
            try:
                self._look(one, seen, host_busy)
            except CortenError as error:
                _log.error("%s is not scaled for now: %s", one.name, error)

    def _look(self, one: Deployment, traffic: Traffic, host_busy: float) -> None:
        assert one.scale is not None  # noqa: S101 - as chosen in `run`
        watched = self._watched.setdefault(one.name, _Watched())
        sample = Sample(self.clock(), traffic.answered, traffic.in_flight, traffic.busy_s, traffic.timed)
        if watched.samples and sample.answered < watched.samples[-1].answered:
            watched.samples.clear()  # another gateway counts, or a revision and its counts are gone
        watched.samples.append(sample)
        records = self.state.replicas(one.name)
        ready = sum(each.routed and each.replica.state is ReplicaState.READY for each in records)
        fleet = Fleet(one.replicas, ready, start_s(records))
        pids = [each.replica.pid for each in records if each.replica.pid and each.replica.state is ReplicaState.READY]
        if watched.appetite(pids, sample.at_s) < _HUNGRY:
            host_busy = 0.0  # it waits for something else: another replica does not wait for a processor
        room = self.resting.memory.room(one.name, self.state.replicas())
        bounds = Bounds(max(one.scale.least, 1), one.scale.most, one.scale.concurrency, room, host_busy)
        found = decide(tuple(watched.samples), fleet, bounds, watched.memory)
        rolling = one.rollout is not None and one.rollout.state is RolloutState.PROGRESSING
        if rolling and found.direction is Direction.DOWN:
            return  # one change at a time
        watched.memory = found.memory
        self._follow(one, watched, found)

    def _follow(self, one: Deployment, watched: _Watched, found: Decision) -> None:
        if found.replicas != one.replicas:
            self.state.scale(one.name, found.replicas, found.reason, now_s=self.clock(), data=found.inputs)
            watched.told = ""
            self.changed()
        elif (kept_from := found.reason.partition(";")[2].strip()) and kept_from != watched.told:
            # Once, not twice a second: the user asks why nothing happens.
            message = f"stays at {found.replicas} replicas: {found.reason}"
            self.state.journal(one.name, Event("scale", Phase.WARNING, message, found.inputs), now_s=self.clock())
            watched.told = kept_from


def _of(name: str, traffic: Mapping[tuple[str, str], Traffic]) -> Traffic:
    """All revisions of a deployment together."""
    own = [each for (deployment, _), each in traffic.items() if deployment == name]
    return Traffic(
        answered=sum(each.answered for each in own),
        timed=sum(each.timed for each in own),
        busy_s=sum(each.busy_s for each in own),
        in_flight=sum(each.in_flight for each in own),
    )
