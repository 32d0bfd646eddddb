"""Who may be sent again after the replica that had it ended, and when: so that one request ends two replicas at most.

What was in the hands of a replica that crashed may be why it crashed. Such requests are sent on one after the other,
each when those before had a moment and the replicas are not busy: if another replica ends then, it is known over which,
and that one is refused. The innocent lose that moment. What was in no dying hands (a refused connection, a replica that
is not ready) never waits.

Remembered for a minute; a daemon that restarts has forgotten, and gives everybody another try.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

LATELY_S = 1.0  # a replica that ended so long ago had it in hand
TOLD_S = 0.1  # so much later than its connections broke, the daemon has seen a replica's end
GATHER_S = 0.05  # until all it had in hand came back
APART_S = 0.05  # between two that are sent on, at least, unless very many wait
CALM_S, ALL_S = 0.25, 2.0  # one waits so long for a replica that is not busy, all of them together so long
_CALM = 1  # in a replica's hands: what comes now is computed at once
_POLL_S = 0.01
_MEMORY_S, _TIDY_S = 60.0, 10.0


class Standing(Enum):
    """What becomes of a request that is to be sent again."""

    CLEAR = "clear"
    SUSPECT = "suspect"  # a replica ended that may have had it in hand
    GUILTY = "guilty"  # another one did, over it


@dataclass(slots=True)
class _Suspect:
    """A request that was in dying hands: when it was sent on since (None: not yet), and which end it came back from."""

    seen_s: float
    sent_s: float | None = None
    back_from_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Visit:
    """That a request came here: how often it had been sent, and how often it came without a replica in between."""

    attempt: int
    in_a_row: int
    at_s: float


@dataclass(slots=True)
class _Docket:
    """Of one deployment: when replicas ended over requests, who was in their hands, and how many wait to go."""

    ends_s: deque[float] = field(default_factory=lambda: deque(maxlen=16))
    suspects: dict[str, _Suspect] = field(default_factory=dict)
    visits: dict[str, _Visit] = field(default_factory=dict)
    one: asyncio.Lock = field(default_factory=asyncio.Lock)
    queue: int = 0
    most: int = 0  # of the queue, since it was empty
    last_s: float = 0.0
    tidied_s: float = 0.0

    def last_sent(self, end_s: float) -> _Suspect | None:
        """Of those that came back from one end, who had been sent on last: those before had their time to end it."""
        back = [each for each in self.suspects.values() if each.back_from_s == end_s]
        return max(back, key=lambda each: each.sent_s or 0.0, default=None)

    def forget(self, now_s: float) -> None:
        """Let go of who was not seen for long, now and then."""
        if now_s - self.tidied_s < _TIDY_S:
            return
        self.tidied_s, old_s = now_s, now_s - _MEMORY_S
        self.suspects = {name: each for name, each in self.suspects.items() if each.seen_s > old_s}
        self.visits = {name: visit for name, visit in self.visits.items() if visit.at_s > old_s}


@dataclass(slots=True)
class Probation:
    """Of all deployments. Belongs to one event loop. `busy`: how much a deployment's busiest replica has in hand.

    `dying`: whether the process of one of its replicas is gone, and the daemon has not heard of it yet.
    """

    busy: Callable[[str], Awaitable[int]]
    dying: Callable[[str], bool]
    _dockets: dict[str, _Docket] = field(default_factory=dict)
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    def ended(self, name: str) -> None:
        """A replica of a deployment ended by itself, with requests in its hands or not."""
        self._dockets.setdefault(name, _Docket()).ends_s.append(_now_s())
        told, self._told = self._told, asyncio.Event()
        told.set()

    async def examine(self, name: str, request: str, attempt: int) -> Standing:
        """What is known of a request that comes here. `attempt`: how often it was sent by now, to here among others."""
        docket, now_s = self._dockets.setdefault(name, _Docket()), _now_s()
        docket.forget(now_s)
        before = docket.visits.get(request, _Visit(0, 0, now_s))
        again = attempt <= before.attempt + 1
        docket.visits[request] = _Visit(attempt, before.in_a_row + 1 if again else 1, now_s)
        if again:  # it was in no replica's hands meanwhile
            return Standing.SUSPECT if request in docket.suspects else Standing.CLEAR
        if (end_s := await self._end_s(name, docket)) is None:
            return Standing.CLEAR
        suspect = docket.suspects.setdefault(request, _Suspect(now_s))
        if suspect.sent_s is None:
            return Standing.SUSPECT
        suspect.back_from_s = end_s
        await asyncio.sleep(GATHER_S)
        return Standing.GUILTY if docket.last_sent(end_s) is suspect else Standing.SUSPECT

    def in_a_row(self, name: str, request: str) -> int:
        """How often a request came here without having been in a replica's hands in between."""
        visit = self._dockets[name].visits.get(request)
        return visit.in_a_row if visit else 1

    async def turn(self, name: str, request: str) -> None:
        """Wait until a suspect may be sent on."""
        docket = self._dockets[name]
        docket.queue += 1
        docket.most = max(docket.most, docket.queue)
        try:
            async with docket.one:
                wait_s = min(CALM_S, ALL_S / docket.most)
                await self._calm(name, docket.last_s + min(APART_S, wait_s), wait_s)
                docket.last_s = _now_s()
        finally:
            docket.queue -= 1
            docket.most = docket.most if docket.queue else 0
        if (suspect := docket.suspects.get(request)) is not None:
            suspect.sent_s = suspect.seen_s = docket.last_s

    async def _calm(self, name: str, from_s: float, most_s: float) -> None:
        """Wait until a moment, and from then on for replicas that are not busy, but not for ever."""
        await asyncio.sleep(max(0.0, from_s - _now_s()))
        end_s = _now_s() + most_s
        while _now_s() < end_s and await self.busy(name) > _CALM:  # noqa: ASYNC110 -- the gateway's, which tells nobody
            await asyncio.sleep(_POLL_S)

    async def _end_s(self, name: str, docket: _Docket) -> float | None:
        """When a replica ended a moment ago, or is about to be seen to have; None: none did."""
        deadline_s = _now_s() + TOLD_S
        while not (docket.ends_s and _now_s() - docket.ends_s[-1] <= LATELY_S):
            if not self.dying(name):
                return None
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._told.wait()
            except TimeoutError:
                return None
        return docket.ends_s[-1]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
