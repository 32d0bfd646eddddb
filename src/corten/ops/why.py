"""What was decided about a deployment, and from what, and what befell it: its journal, newest last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corten.control.client import connect_if_deployed
from corten.core.deployment import ReplicaState
from corten.core.events import Phase
from corten.core.home import Home
from corten.core.name import parse_name
from corten.ops.missing import no_deployment

_PAGE = 500
# The steps of the journal that are decisions; of what replicas went through, only ends that nobody asked for.
_DECISIONS = ("rollout", "canary", "scale", "rest", "access", "stop")
_UNWANTED = (ReplicaState.EXITED.value, Phase.WARNING.value)
_GONE = ("stop", Phase.DONE.value)


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the journal: `at_s` in seconds since the epoch, `data` all it was made from."""

    at_s: float
    step: str
    message: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Why:
    """The decisions about a deployment, oldest first, and of a canary under way the comparison as it stands now.

    `compared` is what the answers of a revision in the shadow gave (`control.comparison.Compared`).
    """

    name: str
    decisions: tuple[Decision, ...]
    judgement: Mapping[str, Any] | None = None
    share: int = 100
    compared: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "name": self.name,
            "share": self.share,
            "judgement": self.judgement,
            "compared": self.compared,
            "decisions": [
                {"at_s": one.at_s, "step": one.step, "message": one.message, "data": dict(one.data)}
                for one in self.decisions
            ],
        }


def why(name: str, *, most: int = 20, home: Home | None = None) -> Why:
    """The newest decisions about a deployment, since it was made. Raises NotFoundError `control.unknown_deployment`."""
    home = home or Home.from_env(os.environ, uid=os.getuid())
    client = connect_if_deployed(home)
    if client is None:
        raise no_deployment(name)
    view = client.get(f"/v1/deployments/{parse_name(name)}")
    found: list[Decision] = []
    after = 0
    while events := client.get(f"/v1/deployments/{name}/events", after=after)["events"]:
        after = events[-1]["seq"]
        for each in events:
            if (each["step"], each["phase"]) == _GONE:
                found.clear()  # what came before was another of the same name
            elif each["step"] in _DECISIONS or (each["step"], each["phase"]) == _UNWANTED:
                found.append(Decision(each["at_s"], each["step"], each["message"], each["data"]))
        if len(events) < _PAGE:
            break
    rollout = view["rollout"] or {}
    return Why(name, tuple(found[-most:]), rollout.get("judgement"), rollout.get("share", 100), rollout.get("compared"))
