"""Faults on purpose, with load on: what a deployment's clients would notice of each.

Each scenario sends requests at a steady rate, breaks one thing, waits until all is as it was, and counts what failed.
Open loop: a request that waits is counted with its waiting (`testing.load`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from corten.control.client import connect_if_deployed
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.front import near_host
from corten.core.home import Home
from corten.core.name import parse_name
from corten.core.process import ProcessId
from corten.errors import EngineError, NotFoundError, UnhealthyError, UsageError
from corten.ops.change import restart
from corten.ops.gateway import restart_gateway
from corten.ops.missing import no_deployment
from corten.ops.predict import TOKEN_VARIABLE, pinned, sample_of
from corten.ops.status import status
from corten.testing.load import Load, Report

SCENARIOS: Final[Mapping[str, str]] = {
    "redeploy": "all replicas are replaced by new ones of the same image",
    "kill": "one replica is killed (SIGKILL)",
    "hang": "one replica stops answering (SIGSTOP)",
    "gateway": "another gateway takes the place of the one that runs",
    "daemon": "the control daemon is killed (SIGKILL)",
}
# Of a gateway that was replaced minutes ago, or that cannot be while it serves.
_NOT_NOW: Final = ("gateway.restarting", "gateway.no_hot_restart")
_NOTHING: Final = Report(0.0, 0, (), (), {})
_BEFORE_S: Final = 1.0
_AFTER_S: Final = 1.0
_HEALED_S: Final = 120.0
_LOOK_S: Final = 0.05
_WITHOUT_DAEMON_S: Final = 2.0
_SLOWEST_S: Final = 3.0  # an answer of another replica in place of one that hangs


@dataclass(frozen=True, slots=True)
class Score:
    """What came of one scenario. `healed_s`: until all replicas were ready again, None when they did not get so.

    `skipped` says why it was not played; then there is nothing else.
    """

    scenario: str
    report: Report = _NOTHING
    healed_s: float | None = None
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """No request failed, none waited longer than three seconds, and all is as it was; or it was not played."""
        if self.skipped:
            return True
        return not self.report.failed and self.report.latency_s(1.0) <= _SLOWEST_S and self.healed_s is not None

    def as_dict(self) -> dict[str, Any]:
        """The score as it stands in `--json` output."""
        return {
            "scenario": self.scenario,
            "passed": self.passed,
            "skipped": self.skipped,
            "healed_s": None if self.healed_s is None else round(self.healed_s, 3),
            **self.report.as_dict(),
        }


def drill(
    name: str,
    scenarios: Sequence[str] = tuple(SCENARIOS),
    *,
    rate_per_s: float = 20.0,
    body: Any = None,
    home: Home | None = None,
    listen: Listener = nobody,
) -> tuple[Score, ...]:
    """Break a deployment on purpose, once for each of `scenarios`, with `rate_per_s` requests a second on it.

    `body` is the JSON to ask `/predict` with; None: the model's example. A token is taken from CORTEN_TOKEN.
    Raises UsageError `drill.unknown_scenario`, NotFoundError `control.unknown_deployment`, UnhealthyError
    `drill.not_well` when it is not well before.
    """
    for each in scenarios:
        if each not in SCENARIOS:
            raise UsageError("drill.unknown_scenario", f"no scenario `{each}`", why=f"known: {', '.join(SCENARIOS)}")
    bench = _Bench(parse_name(name), home or Home.from_env(os.environ, uid=os.getuid()), rate_per_s, body)
    scores = []
    for each in scenarios:
        listen(Event(each, Phase.STARTED, SCENARIOS[each]))
        score = _played(bench, each)
        phase = Phase.DONE if score.passed and not score.skipped else Phase.WARNING
        listen(Event(each, phase, score.skipped or f"{score.report.ok} answered, {score.report.failed} failed"))
        scores.append(score)
    return tuple(scores)


def _played(bench: _Bench, scenario: str) -> Score:
    try:
        return asyncio.run(bench.play(scenario))
    except EngineError as error:
        if error.code not in _NOT_NOW:
            raise
        return Score(scenario, skipped=error.what)


class _Bench:
    def __init__(self, name: str, home: Home, rate_per_s: float, body: Any) -> None:
        self._name = name
        self._home = home
        self._rate_per_s = rate_per_s
        client = connect_if_deployed(home)
        if client is None:
            raise no_deployment(name)
        view = client.get(f"/v1/deployments/{name}")
        self._wanted = int(view["wanted"])
        self._front = client.get("/v1/gateway")
        self._body = json.dumps(sample_of(home, name, view["image"]) if body is None else body).encode()

    async def play(self, scenario: str) -> Score:
        if not await self._until(self._well, _HEALED_S):
            raise UnhealthyError(
                "drill.not_well",
                f"`{self._name}` is not well before the drill",
                why=f"not all of its {self._wanted} replicas are ready",
                hint=f"see `corten status {self._name}`",
            )
        async with self._load() as load:
            await asyncio.sleep(_BEFORE_S)
            began_s = time.monotonic()
            well_again = await asyncio.to_thread(self._break, scenario)
            healed = await self._until(well_again, _HEALED_S)
            healed_s = time.monotonic() - began_s
            await asyncio.sleep(_AFTER_S)
        return Score(scenario, load.report, healed_s if healed else None)

    def _load(self) -> Load:
        tls = pinned(self._front["chain"]) if self._front["certificate"] else None
        return Load(
            self._front["port"],
            f"/{self._name}/predict",
            self._body,
            host=near_host(self._front["host"]),
            rate_per_s=self._rate_per_s,
            headers={"content-type": "application/json", **_authorization()},
            tls=tls,
        )

    def _break(self, scenario: str) -> Callable[[], bool]:
        """Do it, and give how to tell that it has been mended."""
        match scenario:
            case "redeploy":
                restart(self._name, home=self._home)
                return self._well
            case "gateway":
                restart_gateway(home=self._home)
                return self._well
            case "daemon":
                _signalled(status(self._name, home=self._home).parts["daemon"]["pid"], signal.SIGKILL)
                time.sleep(_WITHOUT_DAEMON_S)  # the next question for the status starts another
                return self._well
            case _:
                pass
        victim = self._replicas()[0]
        _signalled(victim, signal.SIGKILL if scenario == "kill" else signal.SIGSTOP)
        return lambda: victim not in self._replicas() and self._well()

    def _replicas(self) -> list[int]:
        found = status(self._name, home=self._home).deployments
        if not found:
            raise NotFoundError("control.unknown_deployment", f"`{self._name}` is gone", hint="corten status")
        return [each.pid for each in found[0].replicas if each.pid]

    def _well(self) -> bool:
        found = status(self._name, home=self._home).deployments
        return bool(found) and found[0].ready >= self._wanted and found[0].state == "serving"

    async def _until(self, holds: Callable[[], bool], within_s: float) -> bool:
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            if await asyncio.to_thread(holds):
                return True
            await asyncio.sleep(_LOOK_S)
        return False


def _authorization() -> Mapping[str, str]:
    token = os.environ.get(TOKEN_VARIABLE, "")
    return {"authorization": f"Bearer {token}"} if token else {}


def _signalled(pid: int, number: signal.Signals) -> None:
    if process := ProcessId.of(pid):
        process.send(number)
