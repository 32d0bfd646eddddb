"""Break a deployment in a cluster on purpose while it is asked, and count what failed.

It is asked through the API server and the Service, which sends nothing again: what fails here would have failed for a
client that does not try twice.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from corten.cluster.deploying import Clock
from corten.cluster.kinds import DEPLOYMENT, POD
from corten.cluster.objects import pods_of
from corten.cluster.port import Api
from corten.cluster.rollout import is_ready
from corten.cluster.watching import Patience, wait
from corten.core.events import Event, Listener, Phase
from corten.errors import CortenError, UnhealthyError
from corten.exporters.manifests.names import REVISION_LABEL

_BEFORE_S = 1.0
_PATIENCE_S = 300.0
_ASKING = 2  # at a time


@dataclass
class Score:
    """What became of the requests while a pod was killed; `healed_s` is until all were ready again."""

    killed: str
    ok: int = 0
    failed: int = 0
    healed_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, object]:
        """As it stands in `--json` output."""
        return {
            "killed": self.killed,
            "ok": self.ok,
            "failed": self.failed,
            "healed_s": round(self.healed_s, 3),
            "reasons": dict(self.reasons),
        }


def kill_one(api: Api, name: str, namespace: str, body: bytes, clock: Clock, listen: Listener) -> Score:  # noqa: PLR0917
    """Delete a pod that serves, as a drained node does. Raises UnhealthyError `drill.not_well` when none serves."""
    ready = [pod for pod in pods_of(api, name, namespace) if is_ready(pod)]
    if not ready:
        raise UnhealthyError(
            "drill.not_well", f"no replica of `{name}` serves, so there is nothing to break", hint="see `corten status`"
        )
    score = Score(ready[0]["metadata"]["name"])
    lock, over = threading.Lock(), threading.Event()
    path = f"/api/v1/namespaces/{namespace}/services/{name}:http/proxy/predict"

    def ask() -> None:
        while not over.is_set():
            try:
                status = api.ask("POST", path, body=body).status
                reason = "" if status == 200 else f"HTTP {status}"
            except CortenError as error:
                reason = error.code
            with lock:
                score.ok += not reason
                score.failed += bool(reason)
                if reason:
                    score.reasons[reason] += 1
            clock.sleep(0.01)

    askers = [threading.Thread(target=ask) for _ in range(_ASKING)]
    for asker in askers:
        asker.start()
    try:
        clock.sleep(_BEFORE_S)
        begun_s = clock.ticks_s()
        listen(Event("drill", Phase.STARTED, f"{score.killed} is deleted"))
        api.delete(POD, score.killed, namespace)
        live = api.get(DEPLOYMENT, name, namespace)
        revision = live["metadata"]["labels"][REVISION_LABEL] if live else ""
        clock.sleep(_BEFORE_S)  # until its controller has noticed
        patience: Patience = clock.patience(_PATIENCE_S)
        wait(api, name, revision, namespace, patience, listen)
        score.healed_s = clock.ticks_s() - begun_s
        clock.sleep(_BEFORE_S)
    finally:
        over.set()
        for asker in askers:
            asker.join()
    return score
