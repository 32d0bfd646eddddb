"""What to do next, as a pure function of what is wanted, what is seen and the time.

Level-triggered: nothing here remembers anything, so a plan made by a restarted daemon goes on where the old one was
killed. The sequence is: start the new beside the old, wait until the gateway can send to it, only then drain the old,
one capacity unit at a time. `plan` is called again after its actions were carried out, until
it returns none.

Three invariants, property-tested: replicas that take requests never become fewer than wanted because of us; no more
than `surge` run above the wanted number; a revision that fails leaves the one that serves as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from corten.control.actions import (
    Action,
    Drain,
    FailRollout,
    FinishRollout,
    Forget,
    Freeze,
    Kill,
    LayToRest,
    MarkReady,
    RecordExit,
    Remove,
    Resume,
    Seen,
    Settle,
    StartReplica,
    Terminate,
    Thaw,
)
from corten.control.records import ALL, Deployment
from corten.core.deployment import ReplicaState, RolloutState, Settings

SURGE_SHARE = 0.25
STOP_GRACE_S = 10.0  # between SIGTERM and SIGKILL
HEALTHY_S = 60.0  # a replica that was ready this long starts with a clean record when it dies
LONGEST_BACK_OFF_S = 30.0
CRASH_LOOP = 3  # restarts from which on it is called one
KEPT_LOGS = 3  # ended replicas whose logs stay


def surge_of(replicas: int) -> int:
    """How many replicas may run above the wanted number during a rollout: a quarter, at least one."""
    return max(1, math.ceil(replicas * SURGE_SHARE))


def canary_replicas(share: int, replicas: int) -> int:
    """How many replicas a share of the requests in percent is worth, at least one."""
    return max(1, math.ceil(replicas * share / ALL))


def back_off_s(restarts: int) -> float:
    """How long to wait before the n-th restart in a row: 0, 1, 2, 4 ... 30 s."""
    if restarts <= 1:
        return 0.0
    return min(LONGEST_BACK_OFF_S, 2.0 ** min(restarts - 2, 10))


def restarts_after(dead: Seen) -> int:
    """The number of the restart that makes this death good; a replica that was healthy for long starts at one."""
    healthy = dead.ready_s is not None and dead.since_s - dead.ready_s >= HEALTHY_S
    return 1 if healthy else dead.restarts + 1


def crash_looping(seen: Sequence[Seen]) -> Seen | None:
    """One that ends again and again, if there is one."""
    return next(
        (each for each in seen if not each.settled and deaths_in_a_row(each) >= CRASH_LOOP and not each.takes_requests),
        None,
    )


def hopeless(seen: Sequence[Seen]) -> Seen | None:
    """One of a crash loop that ended before it was ever ready and waits to be started again, if there is one."""
    dead = crash_looping([each for each in seen if each.state is ReplicaState.EXITED])
    return dead if dead is not None and dead.ready_s is None else None


def deaths_in_a_row(each: Seen) -> int:
    """How often it, or those it was started for, ended without having been healthy for long."""
    return restarts_after(each) if each.state is ReplicaState.EXITED else each.restarts


def plan(want: Deployment, seen: Sequence[Seen], now_s: float) -> list[Action]:
    """The next actions for one deployment, in the order to carry them out; none when all is as wanted or on its way."""
    return list(_Planner(want, seen, now_s).actions())


class _Planner:
    """The values one plan is made from, under names."""

    def __init__(self, want: Deployment, seen: Sequence[Seen], now_s: float) -> None:
        self.now_s = now_s
        self.want = want
        self.seen = seen
        self.target = want.wanted.number if want.wanted else None
        self.serving = want.serving.number if want.serving and not want.deleting else None
        self.replicas = want.replicas if want.wanted else 0
        # A canary has replicas for its share beside all of the serving revision's; else the target has them all.
        self.canary = want.canary is not None
        self.own = canary_replicas(want.canary.share, self.replicas) if want.canary else self.replicas
        self.progressing = want.rollout is not None and want.rollout.state is RolloutState.PROGRESSING
        # Two revisions do not fit into the memory, neither on the way there nor on the way back.
        self.swap = want.rollout is not None and want.rollout.swap
        self.ours = [each for each in seen if each.revision == self.target]
        self.others = [each for each in seen if each.revision != self.target]
        self.farewell = "the deployment is being stopped" if want.deleting else "another revision is wanted"
        self.capacity = sum(each.takes_requests for each in seen)
        self.resumed: set[str] = set()

    def actions(self) -> Iterator[Action]:
        """Deaths first: what follows from them is for the next plan, made from what is then written down."""
        exits = [_exit_of(each) for each in self.seen if each.state is not ReplicaState.EXITED and not each.running]
        if exits:
            yield from exits
            return
        verdict = self.verdict() if self.progressing else None
        if verdict is not None:
            yield verdict
            return
        yield from (MarkReady(each.id) for each in self.seen if each.state is ReplicaState.STARTING and each.probed)
        yield from self.overdue()
        yield from self.temper()
        yield from self.starts()
        yield from self.drains()
        yield from self.stops()
        yield from self.clean()

    # The rollout as a whole

    def verdict(self) -> FailRollout | FinishRollout | None:
        for each in self.ours:
            if each.state is ReplicaState.EXITED and not each.settled and self.began_in_this_rollout(each):
                if each.ready_s is None:
                    return FailRollout(f"{each.id} ended before it was ready ({each.reason})", each.id)
                if each.restarts >= 1:
                    return FailRollout(f"{each.id} keeps ending ({each.reason})", each.id)
            waiting = not each.probed if each.state is ReplicaState.STARTING else not each.routable
            if each.live and waiting and self.late(each):
                timeout_s = self.settings_of(each).ready_timeout_s
                what = "not ready" if each.state is ReplicaState.STARTING else "ready, but the gateway did not reach it"
                return FailRollout(f"{each.id} was {what} within {timeout_s:g} s", each.id)
        if self.canary:
            return None
        ready = sum(each.takes_requests for each in self.ours)
        left = any(each.live for each in self.others)
        leaving = any(each.state is ReplicaState.DRAINING and not each.unrouted for each in self.others)
        if ready >= self.replicas and not left and not leaving:
            return FinishRollout()
        return None

    def began_in_this_rollout(self, each: Seen) -> bool:
        # A rollback's target may have left dead replicas of its earlier life behind.
        return self.want.rollout is not None and each.since_s >= self.want.rollout.started_s

    # Starting

    def starts(self) -> Iterator[Action]:
        room = self.room()
        if self.progressing and self.serving is not None and self.serving != self.target:
            for action in self.keep_serving(self.serving, room):
                room -= 1
                yield action
        if self.target is not None:
            missing = self.own - sum(each.live for each in self.ours)
            again = _resumable(self.ours)[: max(0, missing)]
            yield from self.resume(again)
            missing, room = missing - len(again), room - len(again)
            if not self.swap and not again and not any(each.live for each in self.ours):
                # Never wait for a long drain with nothing of the wanted revision on its way.
                room = max(room, 1)
            yield from self.fill(self.target, self.ours, min(missing, room))
            yield from (Settle(each.id) for each in _by_due(self.ours)[max(0, missing) :])

    def room(self) -> int:
        """How many may be started beside replicas of other revisions, which take memory until their process ends.

        Frozen ones count as none: there was room for them, and they make room when it gets scarce.
        """
        others = [each for each in self.others if each.state is not ReplicaState.FROZEN]
        if self.swap and any(each.running for each in self.others):
            return 0
        if not others:
            return self.replicas
        live_others = sum(each.live for each in others)
        running = sum(each.running and each.state is not ReplicaState.FROZEN for each in self.seen)
        beside = max(surge_of(self.replicas), self.own) if self.canary else surge_of(self.replicas)
        return max(self.replicas, live_others) + beside - running

    def resume(self, these: Sequence[Seen]) -> Iterator[Action]:
        """Take back the decision to end these."""
        self.resumed |= {each.id for each in these}
        yield from (Resume(each.id) for each in these)

    def keep_serving(self, serving: int, room: int) -> Iterator[Action]:
        """Make deaths of the old revision good while the new one cannot stand in for them yet."""
        if self.swap:
            return
        old = [each for each in self.others if each.revision == serving]
        new_ready = 0 if self.canary else sum(each.takes_requests for each in self.ours)
        missing = self.replicas - new_ready - sum(each.live for each in old)
        if not new_ready:
            # One that sleeps is awake before the new one has loaded.
            asleep = [each for each in old if each.state is ReplicaState.FROZEN and each.running]
            yield from self.resume(asleep[: max(0, missing)])
            missing -= len(asleep)
        yield from self.fill(serving, old, min(missing, room, len(_by_due(old))))

    def fill(self, revision: int, own: Sequence[Seen], missing: int) -> Iterator[Action]:
        """Start what is missing; each unsettled death stands for one of them and may have to wait."""
        dead = _by_due(own)
        for each in dead[: max(0, missing)]:
            if _due_s(each) <= self.now_s:
                yield StartReplica(revision, restarts_after(each), each.id)
        for _ in range(missing - len(dead)):
            yield StartReplica(revision)

    def overdue(self) -> Iterator[Action]:
        """End what hangs or never gets ready, in a way that counts as a death."""
        for each in self.seen:
            if each.state is ReplicaState.STARTING and not each.probed and self.late(each):
                yield Kill(each.id, f"not ready within {self.settings_of(each).ready_timeout_s:g} s")
            elif (each.live or each.state is ReplicaState.DRAINING) and each.hung:
                yield Kill(each.id, each.hung)

    def temper(self) -> Iterator[Action]:
        """Make true what is written, also when a daemon ended between the two."""
        for each in self.seen:
            match each.state:
                case ReplicaState.FROZEN:
                    if not each.frozen:
                        yield Freeze(each.id)
                case ReplicaState.STARTING | ReplicaState.READY | ReplicaState.DRAINING:
                    if each.frozen:
                        yield Thaw(each.id)
                case ReplicaState.STOPPING | ReplicaState.EXITED:
                    pass

    # Ending

    def drains(self) -> Iterator[Action]:
        spare = self.capacity - (0 if self.swap else self.replicas)
        new_ready = any(each.takes_requests for each in self.ours)
        # The serving revision is untouched until the new one has proved itself with one replica at least.
        proved = (new_ready and not self.canary) or self.replicas == 0 or not self.progressing or self.swap
        yield from self.retire_starting()
        for each in sorted(self.others, key=lambda each: (each.takes_requests, each.since_s)):
            if each.state is not ReplicaState.READY or (each.revision == self.serving and not proved):
                continue
            if not each.takes_requests:
                yield Drain(each.id, self.farewell)
            elif spare > 0:
                spare -= 1
                yield Drain(each.id, self.farewell)
        yield from self.shrink(self.capacity - self.replicas if self.swap else spare)

    def retire_starting(self) -> Iterator[Action]:
        """Nobody waits for a starting replica of another revision, but for the serving one's while it is short."""
        stand_in = self.others if self.canary else self.seen
        wait = self.progressing and not self.swap
        needed = max(0, self.replicas - sum(each.takes_requests for each in stand_in)) if wait else 0
        for each in self.others:
            if each.state is not ReplicaState.STARTING or each.probed:
                continue
            if each.revision == self.serving and needed > 0:
                needed -= 1
                continue
            yield Terminate(each.id, self.farewell)

    def shrink(self, spare: int) -> Iterator[Action]:
        """Fewer are wanted: those that take no requests first, then the youngest."""
        live = [each for each in self.ours if each.live]
        settled = [each for each in live if each.state is ReplicaState.READY or not each.probed]
        ranked = sorted(settled, key=lambda each: (each.takes_requests, -each.since_s))
        surplus = ranked[: max(0, len(live) - self.own)]
        for each in surplus:
            if each.state is ReplicaState.STARTING:
                yield Terminate(each.id, "fewer replicas are wanted")
            elif not each.takes_requests:
                yield Drain(each.id, "fewer replicas are wanted")
            elif spare > 0:
                spare -= 1
                yield Drain(each.id, "fewer replicas are wanted")

    def stops(self) -> Iterator[Action]:
        kept = self.kept_frozen()
        # The youngest of the frozen stay.
        leaving = [each for each in self.seen if each.id not in self.resumed]
        for each in sorted(leaving, key=lambda each: -each.since_s):
            match each.state:
                case ReplicaState.FROZEN:
                    if kept.get(each.revision, 0) > 0:
                        kept[each.revision] -= 1
                    else:
                        yield Terminate(each.id, "no longer kept frozen")
                case ReplicaState.DRAINING:
                    if each.idle and kept.get(each.revision, 0) > 0 and not each.hung and not each.working:
                        kept[each.revision] -= 1
                        yield LayToRest(each.id)
                    elif each.idle:
                        yield Terminate(each.id)
                    elif self.now_s - each.since_s >= self.settings_of(each).drain_s:
                        yield Terminate(each.id, f"still busy after {self.settings_of(each).drain_s:g} s")
                case ReplicaState.STOPPING:
                    if self.now_s - each.since_s >= STOP_GRACE_S:
                        yield Kill(each.id, f"did not end within {STOP_GRACE_S:g} s")
                case ReplicaState.STARTING | ReplicaState.READY | ReplicaState.EXITED:
                    pass

    def clean(self) -> Iterator[Action]:
        ended = [each for each in self.seen if each.state is ReplicaState.EXITED]
        awaited = {self.target, self.serving} if self.progressing else {self.target}
        yield from (Settle(each.id) for each in ended if not each.settled and each.revision not in awaited)
        settled = sorted((each for each in ended if each.settled), key=lambda each: each.since_s, reverse=True)
        yield from (Remove(each.id) for each in settled[0 if self.want.deleting else KEPT_LOGS :])
        if self.want.deleting and not self.seen:
            yield Forget()

    # Parts

    def kept_frozen(self) -> dict[int, int]:
        """How many frozen replicas stay, by revision."""
        if self.want.deleting:
            return {}
        kept = {self.want.fallback: 1} if self.want.fallback is not None and not self.swap else {}
        if self.target is not None:
            kept[self.target] = self.want.resting if self.replicas == 0 else 0
        return kept

    def late(self, each: Seen) -> bool:
        return self.now_s - each.since_s >= self.settings_of(each).ready_timeout_s

    def settings_of(self, each: Seen) -> Settings:
        for revision in (self.want.wanted, self.want.serving):
            if revision is not None and revision.number == each.revision:
                return revision.settings
        # A revision neither wanted nor serving is on its way out; its waits end by the newest settings known.
        newest = self.want.wanted or self.want.serving
        return newest.settings if newest else Settings()


def _due_s(dead: Seen) -> float:
    return dead.since_s + back_off_s(restarts_after(dead))


def _by_due(own: Sequence[Seen]) -> list[Seen]:
    """The deaths nothing was done about yet, the first that may be made good first."""
    return sorted((each for each in own if each.state is ReplicaState.EXITED and not each.settled), key=_due_s)


def _resumable(own: Sequence[Seen]) -> list[Seen]:
    """Those that may take requests again at once; the ones still awake first."""
    found = [
        each
        for each in own
        if each.state in (ReplicaState.DRAINING, ReplicaState.FROZEN) and each.running and not each.hung
    ]
    return sorted(found, key=lambda each: (each.state is ReplicaState.FROZEN, each.since_s))


def _exit_of(each: Seen) -> RecordExit:
    return RecordExit(each.id, each.reason or exit_reason(each.exit_code))


def exit_reason(code: int | None) -> str:
    """An exit code in words."""
    if code is None or code < 0:
        return "ended unseen"
    if code > 128:
        return {137: "killed by signal 9 (out of memory, or somebody)"}.get(code, f"killed by signal {code - 128}")
    return f"exit code {code}"
