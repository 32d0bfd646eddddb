"""Watching a change until it has come true: the journal for telling, the deployment itself for judging."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from corten.control import wire
from corten.control.client import LOST, Client
from corten.core.events import Event, Listener, Phase
from corten.errors import CortenError, EngineError, NotFoundError, UnhealthyError

_FIRST_HOLD_S, _HOLD_S = 0.05, 5.0
_SHOWN_LOG_LINES = 12
_MOST_RECONNECTS = 5
# How the journal's steps are told to people: the rest are notes.
_KEPT = (("ready", Phase.STARTED), ("ready", Phase.DONE), ("rollout", Phase.DONE), ("canary", Phase.DONE))
_TOLD = {("start", "started"): ("ready", Phase.STARTED), ("ready", "done"): ("ready", Phase.DONE)}


@dataclass(slots=True)
class Follower:
    """Follows one accepted change. `reconnect` gives a client again when the daemon was lost meanwhile.

    `through_canary`: until the canary has all requests or none; else until it has its share of them.
    """

    client: Client
    reconnect: Callable[[], Client]
    accepted: Mapping[str, Any]
    listen: Listener
    through_canary: bool = False
    failure: Mapping[str, Any] = field(default_factory=dict)
    _after: int = 0
    _lost: int = 0
    _trouble: str = ""

    def until_done(self, until_s: float) -> Mapping[str, Any]:
        """The deployment's view once the change is in force. `until_s` is monotonic time.

        Raises UnhealthyError `deploy.unhealthy` (given up; the revision before serves), CortenError
        `control.superseded`, EngineError for what the engine refused, UnhealthyError `deploy.timeout`.
        """
        self._after, hold_s = self.accepted["after"], _FIRST_HOLD_S
        while time.monotonic() < until_s:
            try:
                if (view := self._look()) is not None:
                    return view
                # The last line of the journal may come a moment before what it tells of is in force.
                heard = self._hear(min(hold_s, until_s - time.monotonic()))
                hold_s = _FIRST_HOLD_S if heard else min(2 * hold_s, _HOLD_S)
                if hold_s == _HOLD_S:
                    self._ask_what_is_wrong()
            except EngineError as error:
                self._again(error)
        raise UnhealthyError(
            "deploy.timeout",
            f"`{self.name}` is not there yet",
            why="; ".join(["the time given is over; the rollout goes on", *([self._trouble] if self._trouble else [])]),
            hint=f"see `corten status {self.name}` and `corten logs {self.name}`",
        )

    @property
    def name(self) -> str:
        """The deployment's name."""
        return str(self.accepted["deployment"])

    def _look(self) -> Mapping[str, Any] | None:
        try:
            view: Mapping[str, Any] = self.client.get(f"/v1/deployments/{self.name}")
        except NotFoundError as error:
            raise self._superseded("it was stopped") from error
        rollout = view["rollout"]
        if rollout is None or rollout["id"] != self.accepted["rollout"]:
            raise self._superseded(f"another change to {view['revision']} was made" if rollout else "it was stopped")
        if rollout["state"] == "failed" and self._concerns_us(rollout):
            self._hear(0.0)
            raise self._failed(view)
        if view["state"] == "canary" and not self.through_canary:
            return view
        if rollout["state"] == "progressing" or view["state"] == "stopping":
            return None
        # A change of the number alone makes no rollout.
        return view if view["ready"] == view["wanted"] else None

    def _concerns_us(self, rollout: Mapping[str, Any]) -> bool:
        return bool(rollout["target"] == f"r{self.accepted['revision']}")

    def _hear(self, hold_s: float) -> bool:
        """Tell what is new in the journal, waiting for it; whether anything was."""
        path = f"/v1/deployments/{self.name}/events"
        found = self.client.get(path, timeout_s=hold_s + 30.0, after=self._after, wait_s=f"{max(0.0, hold_s):.3f}")
        for event in found["events"]:
            self._after = event["seq"]
            if event["step"] == "rollout" and event["phase"] == Phase.WARNING.value:
                self.failure = event["data"]
                continue
            step, phase = _TOLD.get((event["step"], event["phase"]), (event["step"], Phase(event["phase"])))
            if (step, phase) not in _KEPT:
                phase = Phase.WARNING if phase is Phase.WARNING else Phase.NOTE
            self.listen(Event(step, phase, event["message"], _figures(event["data"])))
        return bool(found["events"])

    def _ask_what_is_wrong(self) -> None:
        """Tell once what keeps the daemon from its work: an engine that is gone is in no deployment's journal."""
        trouble = str(self.client.get("/v1/status")["trouble"])
        if trouble and trouble != self._trouble:
            self.listen(Event("daemon", Phase.WARNING, trouble))
        self._trouble = trouble

    def _again(self, error: EngineError) -> None:
        self._lost += 1
        if error.code != LOST or self._lost > _MOST_RECONNECTS:
            raise error
        self.client = self.reconnect()

    def _superseded(self, why: str) -> CortenError:
        return CortenError(
            "control.superseded",
            f"`{self.name}` r{self.accepted['revision']} was overtaken",
            why=why,
            hint=f"see `corten status {self.name}`",
        )

    def _failed(self, view: Mapping[str, Any]) -> CortenError:
        # What it takes is for bad days only: other verbs need not load it.
        from corten.control.last_lines import advice, for_people

        told = self.failure
        reason = view["rollout"]["reason"]
        if reason.startswith("superseded"):
            return self._superseded(reason)
        if "judgement" in told:
            return UnhealthyError(
                "deploy.rolled_back",
                f"`{self.name}` r{self.accepted['revision']} was rolled back; {view['revision']} serves as before",
                where=f"with {told['share']} % of the requests",
                why=reason,
                hint=f"`corten why {self.name}` tells what was compared",
            )
        if "error" in told:
            return wire.rebuild(told["error"])
        log = [str(line) for line in told.get("log", ())][-_SHOWN_LOG_LINES:]
        answer = str(told.get("answer", ""))
        again = f"{view['revision']} is started again" if view["wanted"] else "nothing serves"
        serves = f"{view['revision']} serves as before" if view["ready"] else again
        return UnhealthyError(
            "deploy.unhealthy",
            f"`{self.name}` r{self.accepted['revision']} did not get healthy; {serves}",
            where=str(told.get("replica", "")),
            why="\n".join([reason, *([f"it answered: {answer}"] if answer and not log else []), *map(for_people, log)]),
            hint=f"{advice(log) or 'mend it and run the command again'}; the whole log: `corten logs {self.name}`",
        )


def _figures(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "log"}
