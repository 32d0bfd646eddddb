"""How far a Deployment is, and why no further: told from its status and its pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from corten.cluster.failures import refusal_hint
from corten.exporters.manifests.names import REVISION_LABEL

# Fewer may be chance: a database that was not there yet.
_ENOUGH_CRASHES = 3
_PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
# docs/runtime-contract.md, 8.
_EXITS = {
    1: "the model did not load, or does not answer its example as recorded",
    2: "its environment or corten.json cannot be used",
    137: "it was killed",
}

Manifest = Mapping[str, Any]


class Step(Enum):
    """Where a rollout is."""

    PROGRESSING = "progressing"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a pod from serving: `what` happened, the cluster's words (`why`), what mends it.

    Where its process `ran` it has a log; where it `crashed`, that of the process before this one.
    """

    pod: str
    what: str
    why: str = ""
    hint: str = ""
    ran: bool = False
    crashed: bool = False
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """A rollout at one moment: `ready` of `wanted` pods are of the new revision and serve."""

    step: Step
    ready: int
    wanted: int
    trouble: Trouble | None = None


def progress(deployment: Manifest, pods: Sequence[Manifest], revision: str, *, least: int = 0) -> Progress:
    """Look at a Deployment that is to run `revision`, and at its pods; done with at least so many."""
    spec, status = deployment["spec"], deployment.get("status", {})
    wanted = max(least, int(spec.get("replicas", 1)))
    new = _of(pods, revision)
    trouble = worst(new) or _refused(deployment)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    available = status.get("availableReplicas", 0)
    ready = sum(is_ready(pod) for pod in new)
    if seen and updated == total == available == wanted:
        return Progress(Step.DONE, wanted, wanted)
    overdue = seen and condition_of(deployment, "Progressing").get("status") == "False"
    if overdue or (trouble and trouble.hopeless):
        return Progress(Step.FAILED, ready, wanted, trouble or late(deployment, pods, revision))
    return Progress(Step.PROGRESSING, ready, wanted, trouble)


def worst(pods: Sequence[Manifest]) -> Trouble | None:
    """What keeps pods from serving: what no time will mend, if there is that."""
    found = [trouble for pod in pods if (trouble := diagnose(pod))]
    return next((one for one in found if one.hopeless), found[0] if found else None)


def diagnose(pod: Manifest) -> Trouble | None:
    """Why a pod does not serve; None for one that does, or has only begun to start."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return Trouble(
            name,
            "no node has room for a replica",
            scheduled.get("message", ""),
            "ask for less (--memory, --cpus, --gpus), free nodes or add some",
        )
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _PULLING:
            return Trouble(
                name, "the image cannot be pulled", waiting.get("message", ""), _pull_hint(waiting.get("message", ""))
            )
        if trouble := _crashed(name, container):
            return trouble
        if waiting.get("reason") == "CreateContainerConfigError":
            why = waiting.get("message", "")
            return Trouble(name, "the container cannot be made", why, "is the Secret there that --secret names?")
    return None


def _crashed(name: str, container: Manifest) -> Trouble | None:
    over = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if not over or not container.get("restartCount", 0):
        return None
    times, code = container["restartCount"], over.get("exitCode")
    if over.get("reason") == "OOMKilled":
        what, hint = f"the replica ran out of memory {times} times", "give it more: --memory"
    else:
        what, hint = f"the process ended {times} times with exit code {code}", "its last lines are above"
    return Trouble(
        name, what, _EXITS.get(code or 0, ""), hint, ran=True, crashed=True, hopeless=times >= _ENOUGH_CRASHES
    )


def _pull_hint(why: str) -> str:
    if any(word in why for word in ("401", "403", "unauthorized", "denied", "authentication")):
        return (
            "name the Secret with the registry's credentials: --pull-secret (kubectl create secret docker-registry ...)"
        )
    return "is it in that registry, and can the nodes reach it? corten push IMAGE REGISTRY/NAME"


def _refused(deployment: Manifest) -> Trouble | None:
    """What the controller was told when it wanted to make pods: a quota, a policy."""
    failed = condition_of(deployment, "ReplicaFailure")
    if failed.get("status") != "True":
        return None
    why = str(failed.get("message", ""))
    return Trouble("", "the cluster refuses to make the pods", why, refusal_hint(why))


def is_ready(pod: Manifest) -> bool:
    """Whether it gets requests: one that ends gets none, whatever it says of itself."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    return condition_of(pod, "Ready").get("status") == "True"


def condition_of(one: Manifest, kind: str) -> Manifest:
    """What an object's status says of one thing (`Ready`); empty where it says nothing."""
    found: Sequence[Manifest] = one.get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == kind), {})


def late(deployment: Manifest, pods: Sequence[Manifest], revision: str) -> Trouble:
    """Of a rollout that takes too long and no pod says why: the first one that does not serve."""
    allowed_s = deployment["spec"].get("progressDeadlineSeconds", 600)
    waited_for = next((pod for pod in _of(pods, revision) if not is_ready(pod)), None)
    return Trouble(
        waited_for["metadata"]["name"] if waited_for else "",
        f"no replica got ready in {allowed_s} s",
        "",
        "a larger model needs a larger ready_timeout_s",
        ran=True,
    )


def _of(pods: Sequence[Manifest], revision: str) -> list[Manifest]:
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(REVISION_LABEL) == revision]
