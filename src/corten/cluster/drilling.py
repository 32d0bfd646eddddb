"""Break a deployment in a cluster on purpose while it is asked, and count what failed.

It is asked through the API server and the Service, which sends nothing again: what fails here would have failed for a
client that does not try twice.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from corten.cluster.deploying import Clock
from corten.cluster.door import Door
from corten.cluster.kinds import DEPLOYMENT, POD
from corten.cluster.objects import pods_of
from corten.cluster.port import Api, Manifest
from corten.cluster.rollout import Step, is_ready
from corten.cluster.watching import wait
from corten.core.events import Event, Listener, Phase
from corten.errors import CortenError, UnhealthyError, UsageError
from corten.exporters.manifests.names import DOMAIN, REVISION_LABEL

SCENARIOS: Final[Mapping[str, str]] = {
    "delete": "one pod is deleted",
    "evict": "all pods of one node are evicted, as a drain of it does, as fast as the budget allows",
    "rollout": "all pods are replaced by new ones of the same image",
}
_MANAGER = "corten-drill"
_BEFORE_S = 1.0
_PATIENCE_S = 300.0
_ASKING = 2  # at a time


@dataclass
class Score:
    """What became of the requests in one scenario.

    `broken` is what was deleted, evicted or replaced; `healed_s` until all were ready again, None if they were not.
    """

    scenario: str
    broken: tuple[str, ...] = ()
    ok: int = 0
    failed: int = 0
    healed_s: float | None = None
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> bool:
        """Whether nobody noticed, and all is as it was."""
        return not self.failed and self.healed_s is not None

    def as_dict(self) -> dict[str, object]:
        """As it stands in `--json` output."""
        return {
            "scenario": self.scenario,
            "broken": list(self.broken),
            "ok": self.ok,
            "failed": self.failed,
            "healed_s": None if self.healed_s is None else round(self.healed_s, 3),
            "reasons": dict(self.reasons),
        }


@dataclass(frozen=True, slots=True)
class Drill:
    """Of one deployment, asked with `body` at its `door`; its pods are those of the Deployment `controller`."""

    api: Api
    name: str
    controller: str
    door: Door
    body: bytes
    clock: Clock
    listen: Listener

    @property
    def namespace(self) -> str:
        """Where all of it is."""
        return self.door.namespace

    def play(self, scenario: str) -> Score:
        """Raises UnhealthyError `drill.not_well` where no replica serves, UsageError `drill.unknown_scenario`."""
        breaks: Mapping[str, Callable[[list[Manifest]], tuple[str, ...]]] = {
            "delete": self._delete,
            "evict": self._evict,
            "rollout": self._replace,
        }
        if scenario not in breaks:
            raise UsageError(
                "drill.unknown_scenario", f"no scenario `{scenario}`", why=f"known: {', '.join(SCENARIOS)}"
            )
        if self.controller != self.name:
            # Knative's may have no pod now: the answer means that there is one.
            self.api.ask("GET", self.door.path(), headers=self.door.headers)
        ready = [pod for pod in pods_of(self.api, self.name, self.namespace) if is_ready(pod)]
        if not ready:
            raise UnhealthyError(
                "drill.not_well",
                f"no replica of `{self.name}` serves, so there is nothing to break",
                hint="see `corten status`",
            )
        score = Score(scenario)
        with self._asked(score):
            self.clock.sleep(_BEFORE_S)
            begun_s = self.clock.ticks_s()
            self.listen(Event("drill", Phase.STARTED, SCENARIOS[scenario]))
            score.broken = breaks[scenario](ready)
            self.clock.sleep(_BEFORE_S)  # until its controller has noticed
            if self._mended():
                score.healed_s = self.clock.ticks_s() - begun_s
            self.clock.sleep(_BEFORE_S)
        return score

    def _delete(self, ready: list[Manifest]) -> tuple[str, ...]:
        name = str(ready[0]["metadata"]["name"])
        self.api.delete(POD, name, self.namespace)
        return (name,)

    def _evict(self, ready: list[Manifest]) -> tuple[str, ...]:
        """Nothing is cordoned: other pods on the node are not ours, and new ones may come there again."""
        node = Counter(str(pod["spec"].get("nodeName", "")) for pod in ready).most_common(1)[0][0]
        names = [str(pod["metadata"]["name"]) for pod in ready if pod["spec"].get("nodeName", "") == node]
        until_s = self.clock.ticks_s() + _PATIENCE_S
        for name in names:
            while not self._evicted(name) and self.clock.ticks_s() < until_s:
                self.clock.sleep(_BEFORE_S)
        return tuple(names)

    def _evicted(self, name: str) -> bool:
        """False where its budget does not allow it now."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.namespace}}
        try:
            self.api.ask("POST", POD.path(self.namespace, name, "eviction"), body=json.dumps(body).encode())
        except CortenError as error:
            if error.code not in ("kubernetes.busy", "kubernetes.unknown"):
                raise
            return error.code == "kubernetes.unknown"  # gone by itself
        return True

    def _replace(self, ready: list[Manifest]) -> tuple[str, ...]:
        """As `kubectl rollout restart`: an annotation of the template that nobody else owns."""
        noted = {f"{DOMAIN}/drilled-at": f"{self.clock.now_s():.3f}"}
        change = {
            "apiVersion": DEPLOYMENT.api,
            "kind": DEPLOYMENT.name,
            "metadata": {"name": self.name},
            "spec": {"template": {"metadata": {"annotations": noted}}},
        }
        self.api.apply(change, self.namespace, manager=_MANAGER)
        return tuple(str(pod["metadata"]["name"]) for pod in ready)

    def _mended(self) -> bool:
        live = self.api.get(DEPLOYMENT, self.controller, self.namespace)
        revision = live["metadata"]["labels"][REVISION_LABEL] if live else ""
        try:
            seen = wait(
                self.api, self.controller, revision, self.namespace, self.clock.patience(_PATIENCE_S), self.listen
            )
        except UnhealthyError:
            return False
        return seen.step is Step.DONE

    @contextmanager
    def _asked(self, score: Score) -> Iterator[None]:
        """Requests all the while, counted."""
        lock, over = threading.Lock(), threading.Event()
        path, headers = self.door.path("predict"), self.door.headers

        def ask() -> None:
            while not over.is_set():
                try:
                    status = self.api.ask("POST", path, body=self.body, headers=headers).status
                    reason = "" if status == 200 else f"HTTP {status}"
                except CortenError as error:
                    reason = error.code
                with lock:
                    score.ok += not reason
                    score.failed += bool(reason)
                    if reason:
                        score.reasons[reason] += 1
                self.clock.sleep(0.01)

        askers = [threading.Thread(target=ask, daemon=True) for _ in range(_ASKING)]
        for asker in askers:
            asker.start()
        try:
            yield
        except BaseException:
            over.set()  # who interrupts waits for no answer
            raise
        over.set()
        for asker in askers:
            asker.join()
