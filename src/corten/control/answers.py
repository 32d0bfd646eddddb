"""Who answers with nothing but errors while others of its revision do well: as good as dead, and replaced.

A model that raises for some requests is not broken, and neither is one of which somebody asks what it cannot answer:
its siblings fail then too. The gateway sends nothing more to such a replica within a second (`gateway.resources`), for
a while; this is for good.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from corten.control.router import Router
from corten.control.state import State
from corten.core.deployment import ReplicaState
from corten.core.traffic import Tally

PERIOD_S = 2.0
LEAST = 10  # answers of its own, and good ones of others, before anything is said


@dataclass(slots=True)
class Windows:
    """Of each replica, by address: what it and its siblings had answered when it last answered well."""

    _then: dict[str, Mapping[str, Tally]] = field(default_factory=dict)

    def look(self, now: Mapping[str, Tally]) -> Mapping[str, str]:
        """Who of one revision's replicas is broken, and why, for people."""
        return {address: reason for address in now if (reason := self._judge(address, now))}

    def forget(self, but: set[str]) -> None:
        """Remember nobody but these."""
        self._then = {address: then for address, then in self._then.items() if address in but}

    def _judge(self, address: str, now: Mapping[str, Tally]) -> str:
        own, then = now[address], self._then.get(address, {})
        before = then.get(address)
        if before is None or own.good != before.good or own.bad < before.bad:
            self._then[address] = dict(now)
            return ""
        bad = own.bad - before.bad
        beside = [now[each].since(then[each]) for each in now if each != address and each in then]
        good, failed = sum(each.good for each in beside), sum(each.bad for each in beside)
        if bad < LEAST or good < LEAST or failed > good:
            return ""
        return f"broken: its last {bad} answers were errors, and {good} of {good + failed} of its siblings' were not"


@dataclass(slots=True)
class Answers:
    """Looks at what the gateway counted of each replica. `condemn` is told the id of one that is broken, and why."""

    state: State
    router: Router
    condemn: Callable[[str, str], None]
    _windows: Windows = field(default_factory=Windows)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.look()

    async def look(self) -> None:
        """One look at all of them."""
        groups: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        for one in self.state.replicas():
            replica = one.replica
            if one.routed and replica.state is ReplicaState.READY:
                groups[replica.deployment, replica.revision][replica.address] = replica.id
        several = [group for group in groups.values() if len(group) > 1]
        self._windows.forget({address for group in several for address in group})
        counted = await self.router.answers() if several else {}
        for group in several:
            now = {address: counted[address] for address in group if address in counted}
            for address, reason in self._windows.look(now).items():
                self.condemn(group[address], reason)
