"""Who may be sent again after the replica that had it ended, and when: so that one request ends two or three at most.

What was in the hands of a replica that crashed may be why it crashed. Such requests are sent on one after the other,
each when those before were answered or had a moment: if another replica ends then, and only one of them was in its
hands, it is known over which, and that one is refused. The innocent lose that moment. What was in no dying hands (a
refused connection, a replica that is not ready) never waits.

A request that takes longer than the moment to end its replica is in its hands together with some that were sent on
after it. Nobody is refused for that: all of them are sent on once more, each alone for as long as the replica lived
with it. The third end tells.

Remembered for a minute in the state, so that a daemon which dies in between makes no difference.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

from corten.control.suspects import MEMORY_S, Suspects
from corten.errors import CortenError

_log = logging.getLogger(__name__)

LATELY_S = 1.0  # a replica that ended so long ago had it in hand
TOLD_S = 0.1  # so much later than its connections broke, the daemon has seen a replica's end
GATHER_S = 0.05  # until all it had in hand came back
APART_S = 0.05  # between two that are sent on, at least, unless very many wait
CALM_S, ALL_S = 0.25, 2.0  # one waits so long for those before to be answered, all of them together so long
ALONE_S = 10.0  # since the end that was ambiguous: so long those that were there are sent on alone
CERTAIN = 3  # ends after which the last that was sent on alone is refused
_CALM = 1  # in a replica's hands: what comes now is computed at once
_POLL_S = 0.01
_TIDY_S = 10.0


class Standing(Enum):
    """What becomes of a request that is to be sent again."""

    CLEAR = "clear"
    SUSPECT = "suspect"  # a replica ended that may have had it in hand
    GUILTY = "guilty"  # another one did, over it


@dataclass(slots=True)
class _Suspect:
    """A request that was in dying hands: how often, and when it was sent on since (None: not yet).

    `back_from_s` is the end it came back from last, `alone_s` how long nobody is sent on after it (0: a moment; else it
    was in dying hands twice, with others).
    """

    seen_s: float
    ends: int = 1
    sent_s: float | None = None
    back_from_s: float = 0.0
    alone_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Visit:
    """That a request came here: how often it had been sent, and how often it came without a replica in between."""

    attempt: int
    in_a_row: int
    at_s: float


@dataclass(slots=True)
class _Gate:
    """One at a time. Of those that wait the one with the least place is next, of equal ones who came first."""

    taken: bool = False
    came: int = 0
    waiting: list[tuple[tuple[bool, float], int, asyncio.Future[None]]] = field(default_factory=list)

    @asynccontextmanager
    async def passing(self, place: tuple[bool, float]) -> AsyncIterator[None]:
        """Wait for one's turn; the next one's begins at the end of the block."""
        if self.taken:
            turn = asyncio.get_running_loop().create_future()
            self.came += 1
            heapq.heappush(self.waiting, (place, self.came, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it was told just now, and will not go
                    self._next()
                raise
        self.taken = True
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        self.taken = False
        while self.waiting and not self.taken:
            turn = heapq.heappop(self.waiting)[2]
            if not turn.done():
                turn.set_result(None)
                self.taken = True


@dataclass(slots=True)
class _Docket:
    """Of one deployment: when replicas ended over requests, who was in their hands, and how many wait to go.

    `alone_s` is that of whom was sent on last.
    """

    suspects: dict[str, _Suspect]
    ends_s: deque[float] = field(default_factory=lambda: deque(maxlen=16))
    visits: dict[str, _Visit] = field(default_factory=dict)
    gate: _Gate = field(default_factory=_Gate)
    queue: int = 0
    most: int = 0  # of the queue, since it was empty
    last_s: float = 0.0
    alone_s: float = 0.0
    tidied_s: float = 0.0

    def ended_since(self, moment_s: float) -> bool:
        """Whether a replica ended after that moment."""
        return bool(self.ends_s) and self.ends_s[-1] > moment_s

    def back_from(self, end_s: float) -> Sequence[_Suspect]:
        """Those that were in the hands of the replica that ended then, and in another's before; sent on last: last."""
        back = [each for each in self.suspects.values() if each.back_from_s == end_s]
        return sorted(back, key=lambda each: each.sent_s or 0.0)

    def place(self, request: str) -> tuple[bool, float]:
        """Who was in dying hands twice goes first; of those who was sent on first, as others may have queued behind."""
        suspect = self.suspects.get(request)
        return (True, 0.0) if suspect is None or not suspect.alone_s else (False, suspect.sent_s or 0.0)

    def left_alone_s(self) -> float:
        """How long nobody is to follow who was sent on last; its replica's end is the end of that."""
        if not self.alone_s or self.ended_since(self.last_s):
            return 0.0
        return max(0.0, min(self.alone_s, self.ends_s[-1] + ALONE_S - self.last_s))

    def in_hand(self) -> int:
        """With how many in the busiest replica's hands the next may go: who is alone has to be answered."""
        return 0 if self.left_alone_s() else _CALM

    def found(self) -> None:
        """It is known who it was: nobody need be alone any more."""
        self.alone_s = 0.0
        for each in self.suspects.values():
            each.alone_s = 0.0

    def forget(self, now_s: float) -> None:
        """Let go of who was not seen for long, now and then."""
        if now_s - self.tidied_s < _TIDY_S:
            return
        self.tidied_s, old_s = now_s, now_s - MEMORY_S
        self.suspects = {name: each for name, each in self.suspects.items() if each.seen_s > old_s}
        self.visits = {name: visit for name, visit in self.visits.items() if visit.at_s > old_s}


@dataclass(slots=True)
class Probation:
    """Of all deployments. Belongs to one event loop. `busy`: how much a deployment's busiest replica has in hand.

    `dying`: whether the process of one of its replicas is gone, and the daemon has not heard of it yet. `kept` is what
    a daemon leaves to the next; `clock` gives steady seconds since the epoch for that.
    """

    busy: Callable[[str], Awaitable[int]]
    dying: Callable[[str], bool]
    kept: Suspects
    clock: Callable[[], float]
    _dockets: dict[str, _Docket] = field(default_factory=dict)
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    def ended(self, name: str) -> None:
        """A replica of a deployment ended by itself, with requests in its hands or not."""
        self._docket(name).ends_s.append(_now_s())
        told, self._told = self._told, asyncio.Event()
        told.set()

    async def examine(self, name: str, request: str, attempt: int) -> Standing:
        """What is known of a request that comes here. `attempt`: how often it was sent by now, to here among others."""
        docket, now_s = self._docket(name), _now_s()
        docket.forget(now_s)
        before = docket.visits.get(request, _Visit(0, 0, now_s))
        again = attempt <= before.attempt + 1
        docket.visits[request] = _Visit(attempt, before.in_a_row + 1 if again else 1, now_s)
        suspect = docket.suspects.get(request)
        standing = Standing.SUSPECT if suspect else Standing.CLEAR
        if again:  # it was in no replica's hands meanwhile
            return standing
        sent_s = suspect.sent_s if suspect else None
        if (end_s := await self._end_s(name, docket, sent_s)) is None:
            return standing
        if suspect is None or sent_s is None:
            suspect = docket.suspects.setdefault(request, _Suspect(now_s))
            self._keep(name, request, suspect)
            return Standing.SUSPECT
        suspect.back_from_s, suspect.ends = end_s, suspect.ends + 1
        self._keep(name, request, suspect)
        await asyncio.sleep(GATHER_S)
        back = docket.back_from(end_s)
        if len(back) == 1 or (suspect.ends >= CERTAIN and suspect is back[-1]):
            docket.found()
            return Standing.GUILTY
        suspect.alone_s = end_s - sent_s + APART_S
        return Standing.SUSPECT

    def in_a_row(self, name: str, request: str) -> int:
        """How often a request came here without having been in a replica's hands in between."""
        visit = self._docket(name).visits.get(request)
        return visit.in_a_row if visit else 1

    async def turn(self, name: str, request: str) -> None:
        """Wait until a suspect may be sent on."""
        docket = self._docket(name)
        docket.queue += 1
        docket.most = max(docket.most, docket.queue)
        try:
            async with docket.gate.passing(docket.place(request)):
                await self._calm(name, docket)
                docket.last_s, docket.alone_s = _now_s(), 0.0
                if (suspect := docket.suspects.get(request)) is not None:
                    suspect.sent_s = suspect.seen_s = docket.last_s
                    docket.alone_s = suspect.alone_s
                    self._keep(name, request, suspect)
        finally:
            docket.queue -= 1
            docket.most = docket.most if docket.queue else 0

    async def _calm(self, name: str, docket: _Docket) -> None:
        """Wait until who was sent on before had a moment, or its time alone, or was answered; but not for ever."""
        calm_s = min(CALM_S, ALL_S / docket.most)
        await asyncio.sleep(max(0.0, docket.last_s + min(APART_S, calm_s) - _now_s()))
        began_s = _now_s()
        while await self.busy(name) > docket.in_hand():
            if _now_s() >= began_s + max(calm_s, docket.left_alone_s()):
                return
            await asyncio.sleep(_POLL_S)

    async def _end_s(self, name: str, docket: _Docket, sent_s: float | None) -> float | None:
        """When a replica ended a moment ago, or is about to be seen to have; None: none did, or not since `sent_s`."""
        deadline_s = _now_s() + TOLD_S
        while not docket.ended_since(max(_now_s() - LATELY_S, sent_s or 0.0)):
            if not self.dying(name):
                return None
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._told.wait()
            except TimeoutError:
                return None
        return docket.ends_s[-1]

    # What the next daemon knows

    def _docket(self, name: str) -> _Docket:
        if (found := self._dockets.get(name)) is None:
            # A daemon that died sent them on, or its gateway did without it: the next end tells as if we had.
            now_s = _now_s()
            known = self._known(name)
            suspects = {
                request: _Suspect(now_s, ends, now_s - (len(known) - place) * 1e-6)
                for place, (request, ends) in enumerate(known)
            }
            found = self._dockets[name] = _Docket(suspects)
        return found

    def _known(self, name: str) -> Sequence[tuple[str, int]]:
        try:
            return self.kept.of(name, now_s=self.clock())
        except CortenError as error:
            _log.warning("requests that ended replicas of %s are not known: %s", name, error)
            return ()

    def _keep(self, name: str, request: str, suspect: _Suspect) -> None:
        try:
            self.kept.remember(name, request, suspect.ends, now_s=self.clock())
        except CortenError as error:
            _log.warning("the next daemon will not know request %s: %s", request, error)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
