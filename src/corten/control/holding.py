"""Requests that wait for a replica: the controller's half of `gateway.hold`.

The gateway asks about each request it has nobody for, and the answer waits until somebody is there. Nothing is kept
here but the fact that one waits: the request itself stays in the gateway, and is forgotten when its client goes.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from corten.control.news import News
from corten.control.probation import Probation, Standing
from corten.core.headers import AGAIN_HEADER, ATTEMPT_HEADER
from corten.gateway import hold
from corten.gateway.resources import GRPC
from corten.http import Request

_AGAIN_POLL_S = 0.02
_AGAIN_PAUSE_S, _LONGEST_PAUSE_S, _MOST_ATTEMPTS = 0.04, 2.5, 20
# A thousand at once are more than a socket's queue holds; four a millisecond are not. The first twenty need not wait.
_EVERY_S, _BATCH_S = 0.00025, 0.005
_AGAIN = 425  # Too Early (RFC 8470): what a client may see only if it cannot be sent again


@dataclass(frozen=True, slots=True)
class Line:
    """What those who wait for a deployment have to know.

    `weights`: the revisions the gateway can send to now, with their shares. `most` may wait, each up to `hold_s`.
    `refusal`: why nobody will come (empty: somebody will). `retry_s`: when it may be worth asking again.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    hold_s: float = 60.0
    most: int = 1000
    refusal: str = ""
    retry_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered, and when to ask again (0: never)."""

    code: str
    message: str
    retry_s: float


class Holding:
    """All that wait, by deployment. Belongs to one event loop.

    `arrived` is called with a deployment's name when somebody begins to wait while nobody did. `reaches` says whether
    the gateway itself takes some replica of a revision for well. `probation` is that of requests to be sent again.
    """

    def __init__(
        self,
        arrived: Callable[[str], None],
        reaches: Callable[[str, str], Awaitable[bool]],
        probation: Probation,
    ) -> None:
        self.probation = probation
        self._arrived = arrived
        self._reaches = reaches
        self._lines: dict[str, Line] | None = None  # a daemon that has just begun does not know yet
        self._waiting: dict[str, int] = {}
        self._news = News()
        self._looks: dict[tuple[str, str], asyncio.Task[bool]] = {}
        self._next_s = 0.0
        self._chance = random.Random()  # noqa: S311 -- which replica, not a secret

    def know(self, lines: Mapping[str, Line]) -> None:
        """This is how things stand now; whoever can go on does."""
        if lines != self._lines:
            self._lines = dict(lines)
            self._news.tell()

    def waiting(self, name: str) -> int:
        """How many wait for a deployment."""
        return self._waiting.get(name, 0)

    async def answer(self, request: Request) -> None:
        """Answer the gateway: a check of ext_authz, or a request that came to the activator."""
        for path, suffix in ((hold.PATH, ""), (hold.GRPC_PATH, GRPC)):
            if request.path.startswith(path):
                await self._check(request, request.path.removeprefix(path).partition("/")[0], suffix)
                return
        await self._again(request)

    async def _check(self, request: Request, name: str, suffix: str) -> None:
        found = await self.place(name)
        if isinstance(found, Refusal):
            _refuse(request, found, hold.REFUSED)
            return
        headers = ((hold.CLUSTER_HEADER, f"{name}/{found}{suffix}"), (hold.REVISION_HEADER, found))
        request.respond(200, headers=headers)

    async def _again(self, request: Request) -> None:
        name, _, revision = request.headers.get(hold.CLUSTER_HEADER, "").partition("/")
        revision, known = revision.removesuffix(GRPC), request.headers.get(hold.REQUEST_HEADER, "")
        attempt = request.headers.get(ATTEMPT_HEADER, "")
        attempts = min(int(attempt), _MOST_ATTEMPTS) if attempt.isdecimal() else 1
        standing = await self.probation.examine(name, known, attempts)
        if standing is Standing.GUILTY:
            message = "the replica that computed this request ended over it, and so did the next; it is not sent again"
            _refuse(request, Refusal("hold.deadly", message, 0.0), 502)
            return
        found = await self.place(name, revision)
        if isinstance(found, Refusal) and not self._stands(name, revision):
            # Another takes its place, and is asked by the cluster of the one that went (`resources.substitutes`).
            found = await self.place(name)
        if isinstance(found, Refusal):
            _refuse(request, found, 503)
            return
        if standing is Standing.SUSPECT:
            await self.probation.turn(name, known)
        await asyncio.sleep(pause_s(self.probation.in_a_row(name, known)))
        # Seen by a client only when the gateway has tried as often as it may.
        headers = ((AGAIN_HEADER, "1"), ("retry-after", "1"))
        request.fail(_AGAIN, "hold.again", f"`{name}` is ready again; send the request once more", headers=headers)

    async def place(self, name: str, revision: str = "") -> str | Refusal:
        """Wait for a revision that takes requests (that one only, if given, once the gateway reaches it again)."""
        line = (self._lines or {}).get(name, Line())
        if self._open(name, revision) and not revision:
            return self._choose(name)
        if refusal := self._refusal(name, revision):
            return refusal
        if self.waiting(name) >= line.most:
            return Refusal("hold.too_many", f"{line.most} requests wait for `{name}` already", line.retry_s)
        self._waiting[name] = self.waiting(name) + 1
        try:
            if self._waiting[name] == 1:
                self._arrived(name)
            return await self._wait(name, revision, line)
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]

    async def _wait(self, name: str, revision: str, line: Line) -> str | Refusal:
        try:
            async with asyncio.timeout(line.hold_s):
                while not (refusal := self._refusal(name, revision)):
                    if not self._open(name, revision):
                        await self._news.until(lambda: self._decided(name, revision), line.hold_s)
                    elif not revision:
                        await asyncio.sleep(self._turn_s())
                        if self._open(name, revision):
                            return self._choose(name)
                    elif await self._reached(name, revision):
                        return revision
        except TimeoutError:
            message = f"no replica of `{name}` got ready within {line.hold_s:g} s"
            return Refusal("hold.too_long", message, line.retry_s)
        return refusal

    def _turn_s(self) -> float:
        """How long until it is one's turn: a replica that just woke takes so many connections at a time."""
        loop = asyncio.get_running_loop()
        self._next_s = max(self._next_s, loop.time()) + _EVERY_S
        return self._next_s - loop.time() if self._next_s - loop.time() > _BATCH_S else 0.0

    def _decided(self, name: str, revision: str) -> bool:
        return self._open(name, revision) or self._refusal(name, revision) is not None

    def _open(self, name: str, revision: str) -> bool:
        line = (self._lines or {}).get(name)
        return line is not None and (bool(line.weights.get(revision)) if revision else any(line.weights.values()))

    def _refusal(self, name: str, revision: str) -> Refusal | None:
        if self._lines is None:
            return None
        line = self._lines.get(name)
        if line is None or line.refusal:
            why = line.refusal if line else "it is not deployed"
            return Refusal("hold.nobody", f"no replica of `{name}` will be ready: {why}", line.retry_s if line else 1.0)
        if revision and revision not in line.weights:
            return Refusal("hold.nobody", f"`{name}` {revision} has been taken away", line.retry_s)
        return None

    def _stands(self, name: str, revision: str) -> bool:
        line = (self._lines or {}).get(name)
        return line is not None and revision in line.weights

    def _choose(self, name: str) -> str:
        weights = (self._lines or {})[name].weights
        return self._chance.choices(list(weights), list(weights.values()))[0]

    async def _reached(self, name: str, revision: str) -> bool:
        """Wait until the gateway reaches it; one look for all who wait for the same. False: it was taken away."""
        key = (name, revision)
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = asyncio.get_running_loop().create_task(self._look(name, revision))
        return await asyncio.shield(look)

    async def _look(self, name: str, revision: str) -> bool:
        try:
            while self.waiting(name) and self._open(name, revision):
                if await self._reaches(name, revision):
                    return True
                await asyncio.sleep(_AGAIN_POLL_S)
            return False
        finally:
            del self._looks[name, revision]


def pause_s(in_a_row: int) -> float:
    """Before a request is sent on that comes so often `in_a_row` without having been in a replica's hands.

    Envoy's workers may not have heard yet of what its admin page says: who came back has come too soon. It gives up
    after seven tries, which should last for seconds where the processors are busy: 0.8 s were too few once.
    """
    return min(_AGAIN_PAUSE_S * (2.0 ** (in_a_row - 1) - 1), _LONGEST_PAUSE_S)


def _refuse(request: Request, refusal: Refusal, status: int) -> None:
    # With x-envoy-ratelimited the gateway does not try again by itself: the client may.
    later = (("retry-after", str(math.ceil(refusal.retry_s))),) if refusal.retry_s else ()
    headers = (*later, ("x-envoy-ratelimited", "true"))
    request.fail(status, refusal.code, refusal.message, headers=headers)
