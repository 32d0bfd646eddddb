"""Who goes to rest and who wakes: twice a second a look at each deployment that may be at zero, and at memory."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from corten.control.eviction import Kind, Sleeper, victim
from corten.control.idle import Quiet, Tier, Turn, decide
from corten.control.memory import Memory
from corten.control.records import Deployment, ReplicaRecord
from corten.control.state import State
from corten.core.deployment import RolloutState
from corten.core.traffic import Traffic

FIRST_START_S = 5.0  # until a replica was seen to start
_SLOW_STARTS = 0.9  # the start time reckoned with is the one nine of ten keep


@dataclass(slots=True)
class _Heard:
    """When a deployment was asked last, and what had been answered by then."""

    at_s: float
    answered: int = -1


@dataclass(slots=True)
class Resting:
    """The looks, and what follows from them. What is remembered of requests is lost with the daemon: idle times begin
    anew. `waiting` says how many requests are held for a deployment, `working` whether it is at something no request
    waits for.
    """

    state: State
    memory: Memory
    clock: Callable[[], float]
    changed: Callable[[], None]
    waiting: Callable[[str], int]
    working: Callable[[str], Awaitable[bool]]
    _heard: dict[str, _Heard] = field(default_factory=dict)

    async def look(self, traffic: Mapping[str, Traffic] | None) -> None:
        """One look at all of them; `traffic` by deployment, None when the gateway cannot tell."""
        deployments = self.state.deployments()
        for gone in set(self._heard) - {one.name for one in deployments}:
            del self._heard[gone]
        records = self.state.replicas()
        self.memory.learn(records)
        if self.memory.left_bytes(records) < 0:
            await self.evict("", "memory is short")
        for one in deployments:
            self._look_after_fallback(one)
            if not may_rest(one):
                continue
            turn = self._decide(one, None if traffic is None else traffic.get(one.name, Traffic()))
            if one.replicas and turn.tier is not Tier.AWAKE and await self.working(one.name):
                self._heard[one.name].at_s = self.clock()
            else:
                self._follow(one, turn)

    def wake(self, name: str) -> None:
        """Somebody waits for it."""
        one = self.state.find(name)
        if one is not None and may_rest(one) and not one.replicas:
            self._follow(one, self._decide(one, None))

    def _decide(self, one: Deployment, seen: Traffic | None) -> Turn:
        now_s = self.clock()
        heard = self._heard.setdefault(one.name, _Heard(now_s))
        busy = seen.in_flight if seen else 0
        if seen and (busy or heard.answered != seen.answered):
            heard.at_s, heard.answered = now_s, seen.answered
        records = self.state.replicas(one.name)
        rolling = _rolling(one)
        if rolling or (one.replicas and (seen is None or not any(each.routed for each in records))):
            heard.at_s = now_s  # nobody could have been answered yet, or nobody knows
        return decide(
            Quiet(
                tier=_tier(one),
                idle_s=now_s - heard.at_s,
                waiting=self.waiting(one.name),
                busy=busy,
                start_s=start_s(records),
                freeze_after_s=one.rest.freeze_after_s,
                stop_after_s=one.rest.stop_after_s,
                rolling=rolling,
            )
        )

    def _follow(self, one: Deployment, turn: Turn) -> None:
        if turn.tier is _tier(one):
            return
        if turn.tier is Tier.AWAKE:
            self._heard[one.name].at_s = self.clock()
        awake, resting = int(turn.tier is Tier.AWAKE), int(turn.tier is Tier.FROZEN)
        self.state.scale(one.name, awake, turn.reason, now_s=self.clock(), data=turn.inputs, resting=resting)
        self.changed()

    def _look_after_fallback(self, one: Deployment) -> None:
        kept_s = self.clock() - one.fallback_s
        if one.fallback is not None and not _rolling(one) and kept_s >= one.rest.keep_previous_s:
            self.state.drop_fallback(one.name, f"{kept_s:.0f} s are over", now_s=self.clock())
            self.changed()

    async def evict(self, keep: str, reason: str) -> str:
        """Let one deployment but `keep` give memory back; its name, empty when nothing can be spared."""
        sleepers = self._sleepers(keep)
        while (chosen := victim(sleepers)) is not None:
            if chosen.kind is not Kind.IDLE or not await self.working(chosen.deployment):
                break
            sleepers.remove(chosen)
        if chosen is None:
            return ""
        name, now_s = chosen.deployment, self.clock()
        if chosen.kind is Kind.FALLBACK:
            self.state.drop_fallback(name, reason, now_s=now_s)
        else:
            self.state.scale(name, 0, reason, now_s=now_s, data={"idle_s": round(chosen.idle_s, 2)})
        self.changed()
        return name

    def _sleepers(self, keep: str) -> list[Sleeper]:
        found = []
        for one in self.state.deployments():
            heard = self._heard.get(one.name)
            idle_s = self.clock() - heard.at_s if heard else 0.0
            if one.fallback is not None and not _rolling(one):
                found.append(Sleeper(one.name, Kind.FALLBACK, self.clock() - one.fallback_s))
            elif one.name == keep or not may_rest(one) or _rolling(one) or self.waiting(one.name):
                continue
            elif one.resting and not one.replicas:
                found.append(Sleeper(one.name, Kind.FROZEN, idle_s))
            elif one.replicas:
                found.append(Sleeper(one.name, Kind.IDLE, idle_s))
        return found


def _tier(one: Deployment) -> Tier:
    return Tier.AWAKE if one.replicas else Tier.FROZEN if one.resting else Tier.STOPPED


def _rolling(one: Deployment) -> bool:
    return one.rollout is not None and one.rollout.state is RolloutState.PROGRESSING


def may_rest(one: Deployment) -> bool:
    """Whether no replica need be awake while nobody asks."""
    return one.scale is not None and one.scale.least == 0 and one.wanted is not None and not one.deleting


def start_s(records: Sequence[ReplicaRecord]) -> float:
    """How long a replica takes from its start until it is ready, of those that are remembered."""
    took = sorted(one.ready_s - one.replica.started_s for one in records if one.ready_s is not None)
    return took[min(math.floor(_SLOW_STARTS * len(took)), len(took) - 1)] if took else FIRST_START_S
