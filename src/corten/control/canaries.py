"""Watching the canaries: count what both revisions answer, compare, and let the share grow or end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from corten.control.judge import Judgement, Verdict, explain, judge
from corten.control.records import Deployment, Rollout
from corten.control.router import Router
from corten.control.state import State
from corten.core.traffic import Traffic
from corten.errors import CortenError

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25


@dataclass(slots=True)
class Canaries:
    """One watch a canary; the newest judgement of each by deployment, for `status` and `why`."""

    state: State
    router: Router
    clock: Callable[[], float]
    changed: Callable[[], None]
    judgements: dict[str, Judgement] = field(default_factory=dict)

    async def watch(self, name: str) -> None:
        """Until the deployment has no canary any more. To be cancelled and begun anew at will: the state remembers."""
        while (deployment := self.state.find(name)) is not None and (rollout := deployment.canary) is not None:
            try:
                await self._look(deployment, rollout)
            except CortenError as error:
                _log.error("the canary of %s is not judged for now: %s", name, error)
            await asyncio.sleep(LOOK_EVERY_S)
        self.judgements.pop(name, None)

    async def _look(self, deployment: Deployment, rollout: Rollout) -> None:
        name = deployment.name
        if rollout.origin is None or not self._in_force(name, rollout):
            return
        counted = await self.router.traffic()
        again = self.state.find(name)
        if counted is None or again is None or again.canary != rollout:
            return
        now = {number: counted.get((name, f"r{number}"), Traffic()) for number in (rollout.origin, rollout.target)}
        if rollout.counted is None:
            self.state.count_from(name, now)
            return
        found = judge(*(now[each].since(rollout.counted.get(each, Traffic())) for each in now))
        self.judgements[name] = found
        self._follow(name, rollout, found)

    def _in_force(self, name: str, rollout: Rollout) -> bool:
        """Whether the gateway gives the canary its share by now; what it counted before says nothing about it."""
        shares = self.router.shares(name)
        mine, all_of_them = shares.get(f"r{rollout.target}", 0), sum(shares.values())
        return mine > 0 and mine * 100 == rollout.share * all_of_them

    def _follow(self, name: str, rollout: Rollout, found: Judgement) -> None:
        if not rollout.judged:
            return
        match found.verdict:
            case Verdict.WAIT:
                return
            case Verdict.GROW:
                self.state.grow(name, found.reason, now_s=self.clock(), data=explain(found))
            case Verdict.ROLL_BACK:
                _log.warning("%s r%d is rolled back: %s", name, rollout.target, found.reason)
                details = {"judgement": explain(found), "share": rollout.share}
                self.state.fail_rollout(name, found.reason, now_s=self.clock(), details=details)
        self.changed()
