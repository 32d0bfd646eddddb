"""The controllers and the node of the small cluster: pods come, get ready or do not, and answer.

A tick is a second of the cluster's time, however long it takes here.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from corten.testing.kubernetes.objects import Key, Object, Objects

_READY_AFTER = 2
# Until then a service still sends requests to a pod that was told to end: endpoints follow within a second.
_HEARD_AFTER = 1
# A process that has nothing to answer ends within that when it is told to.
_ENDS_WITHIN = 1
_GRACE_S = 30
_CRASH_EVERY = 2
NODES = ("node-a", "node-b")


class Fault(Enum):
    """What becomes of the pods of an image."""

    NONE = "none"
    PULL = "its image cannot be pulled"
    CRASH = "its process ends again and again"
    UNSCHEDULABLE = "no node has room"
    NEVER_STARTED = "its container is never made: a volume that cannot be mounted"
    NEVER_READY = "it starts and never says that it is ready"
    BAD_ANSWERS = "it says it is ready, and answers with 500"
    OTHER_REVISION = "it answers, and names another revision"


@dataclass
class Pods:
    """What the simulated side knows of pods beyond their objects. `faults` are by digest or any part of an image."""

    faults: dict[str, Fault] = field(default_factory=dict)
    age: dict[Key, int] = field(default_factory=dict)
    counts: dict[Key, dict[str, int]] = field(default_factory=dict)
    going: dict[Key, int] = field(default_factory=dict)  # the age at which one was told to end
    idle: dict[Key, int] = field(default_factory=dict)  # ticks a deployment made no progress
    most_pods: int = 10_000  # the namespace's quota
    denied: str = ""  # why a policy of the cluster lets nobody make pods
    thinking_s: float = 0.0  # how long a prediction takes
    turn: int = 0
    enforces: bool = True  # NetworkPolicies; some networks only take them

    def fault(self, image: str) -> Fault:
        """What becomes of the pods of an image."""
        return next((fault for part, fault in self.faults.items() if part in image), Fault.NONE)


def tick(objects: Objects, pods: Pods) -> None:
    """One second of the cluster."""
    owned: dict[str, list[tuple[Key, Object]]] = {}
    for key, pod in objects.items.items():
        if key[0] == "pods":
            # One that nobody owns is made by hand: no controller replaces it, and none ends it.
            for owner in pod["metadata"].get("ownerReferences", []):
                owned.setdefault(owner["uid"], []).append((key, pod))
    living = [(key, one) for key, one in objects.items.items() if key[0] == "deployments"]
    for key, deployment in living:
        _reconcile(objects, pods, key, deployment, sorted(owned.pop(deployment["metadata"]["uid"], []), key=_by_name))
    for orphans in owned.values():
        for key, _ in orphans:
            end(objects, key)
    for key, pod in [(key, one) for key, one in objects.items.items() if key[0] == "pods"]:
        _age(objects, pods, key, pod)


def _by_name(entry: tuple[Key, Object]) -> Key:
    return entry[0]


def ready(objects: Objects, pods: Pods, service: Object) -> list[Object]:
    """The pods behind a service that get requests; none without a selector, or a port that fits."""
    selector = service["spec"].get("selector", {})
    found: list[Object] = []
    if not selector:
        return found
    for key, pod in sorted(objects.items.items()):
        labels = pod["metadata"].get("labels", {})
        if key[0] != "pods" or key[1] != service["metadata"]["namespace"]:
            continue
        if not all(labels.get(name) == value for name, value in selector.items()):
            continue
        names = {port.get("name") for each in pod["spec"]["containers"] for port in each.get("ports", [])}
        fits = any(port.get("targetPort", port.get("port")) in names for port in service["spec"]["ports"])
        if pods.age.get(key, 0) >= pods.going.get(key, math.inf) + _HEARD_AFTER:
            continue
        if fits and is_ready(pod):
            found.append(pod)
    return found


def is_ready(pod: Object) -> bool:
    """Whether it may get requests."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def answer(pods: Pods, pod: Object, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """What the process in a pod answers."""
    key = ("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
    container = pod["spec"]["containers"][0]
    environment = {one["name"]: one.get("value", "") for one in container.get("env", [])}
    fault = pods.fault(container["image"])
    revision = "r0" if fault is Fault.OTHER_REVISION else environment.get("CORTEN_REVISION", "")
    headers = {"X-Corten-Revision": revision, "Content-Type": "application/json"}
    if path.startswith("/metrics"):
        return 200, {**headers, "Content-Type": "text/plain"}, metrics(pods.counts.get(key, {}))
    counts = pods.counts.setdefault(key, {"200": 0, "500": 0})
    if method == "POST":
        code = "500" if fault is Fault.BAD_ANSWERS else "200"
        counts[code] += 1
        if code == "500":
            return 500, headers, json.dumps({"error": {"code": "model.failed", "message": "it broke"}}).encode()
        return 200, headers, json.dumps({"outputs": [1]}).encode()
    return 200, headers, json.dumps({"name": environment.get("CORTEN_DEPLOYMENT", "")}).encode()


def log(objects: Objects, pods: Pods, pod: Object) -> bytes:
    """What the process in a pod wrote; one with a command of its own is `cluster.probing`'s."""
    if "command" in pod["spec"]["containers"][0]:
        reached = not (pods.enforces and _is_closed_in(objects, pod))
        return json.dumps({"reached": reached}).encode() + b"\n"
    if pods.fault(pod["spec"]["containers"][0]["image"]) is Fault.CRASH:
        return b'{"level":"error","message":"the model did not load","error.message":"no such file"}\n'
    return b'{"message":"ready"}\n'


def _is_closed_in(objects: Objects, pod: Object) -> bool:
    """Whether a policy lets it reach nothing."""
    labels = pod["metadata"].get("labels", {})
    return any(
        key[:2] == ("networkpolicies", pod["metadata"]["namespace"])
        and "Egress" in one["spec"].get("policyTypes", [])
        and not one["spec"].get("egress")
        and all(labels.get(name) == value for name, value in one["spec"]["podSelector"].get("matchLabels", {}).items())
        for key, one in objects.items.items()
    )


def metrics(counts: dict[str, int]) -> bytes:
    """As `observe.metrics` writes them; every answer took 5 ms."""
    total = sum(counts.values())
    lines = [f'corten_requests_total{{code="{code}"}} {count}' for code, count in sorted(counts.items())]
    lines += [f'corten_request_seconds_bucket{{le="{bound}"}} {total}' for bound in ("0.01", "0.1", "+Inf")]
    lines += [
        f"corten_request_seconds_sum {0.005 * total}",
        f"corten_request_seconds_count {total}",
        "corten_in_flight 0",
    ]
    return ("\n".join(lines) + "\n").encode()


def _reconcile(objects: Objects, pods: Pods, key: Key, deployment: Object, mine: list[tuple[Key, Object]]) -> None:
    spec = deployment["spec"]
    wanted = spec.get("replicas", 1)
    hashed = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
    living = [(at, pod) for at, pod in mine if not is_going(pod)]
    new = [(at, pod) for at, pod in living if pod["metadata"]["labels"]["pod-template-hash"] == hashed]
    old = [(at, pod) for at, pod in living if pod["metadata"]["labels"]["pod-template-hash"] != hashed]
    surge, unavailable = _steps(spec, wanted)
    room = max(0, min(wanted - len(new), wanted + surge - len(living)))
    quota = pods.most_pods - sum(at[0] == "pods" for at in objects.items) if room and not pods.denied else 0
    for _ in range(min(room, quota)):
        _create(objects, key, deployment, hashed)
    available = sum(is_ready(pod) for _, pod in living)
    spare = available - (wanted - unavailable)
    ended = 0
    for at, pod in [*old, *new[wanted:]]:
        costs = is_ready(pod)
        if costs and spare <= 0:
            continue
        spare -= costs
        ended += costs
        end(objects, at)
    # What came or went in this tick is counted in the next one.
    counts = _Counts(len(new), len(old), available - ended, refused=room > quota)
    _report(objects, pods, key, deployment, counts)


@dataclass(frozen=True)
class _Counts:
    """The pods of a deployment: of its template, of others, those that serve; whether some were refused."""

    new: int
    old: int
    available: int
    refused: bool


def _report(objects: Objects, pods: Pods, key: Key, deployment: Object, counts: _Counts) -> None:
    spec = deployment["spec"]
    wanted = spec.get("replicas", 1)
    before = deployment.get("status", {})
    figures = {
        "replicas": counts.new + counts.old,
        "updatedReplicas": counts.new,
        "readyReplicas": counts.available,
        "availableReplicas": counts.available,
    }
    done = counts.old == 0 and counts.new == wanted == counts.available
    moved = any(before.get(name) != figures[name] for name in figures)
    pods.idle[key] = 0 if moved or done else pods.idle.get(key, 0) + 1
    name = deployment["metadata"]["name"]
    if pods.idle[key] > spec.get("progressDeadlineSeconds", 600):
        progressing = _progressing(
            "False", "ProgressDeadlineExceeded", f'ReplicaSet "{name}-x" has timed out progressing.'
        )
    elif done:
        progressing = _progressing(
            "True", "NewReplicaSetAvailable", f'ReplicaSet "{name}-x" has successfully progressed.'
        )
    else:
        progressing = _progressing("True", "ReplicaSetUpdated", f'ReplicaSet "{name}-x" is progressing.')
    conditions = [progressing]
    if counts.refused:
        limit = pods.most_pods
        over = f"exceeded quota: team, requested: pods=1, used: pods={limit}, limited: pods={limit}"
        why = (
            f'admission webhook "policy.example.com" denied the request: {pods.denied}'
            if pods.denied
            else f'pods "{name}-x" is forbidden: {over}'
        )
        conditions.append({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": why})
    status = {**figures, "observedGeneration": deployment["metadata"]["generation"], "conditions": conditions}
    objects.set_status(key, status)


def _progressing(status: str, reason: str, message: str) -> dict[str, str]:
    return {"type": "Progressing", "status": status, "reason": reason, "message": message}


def _create(objects: Objects, key: Key, deployment: Object, hashed: str) -> None:
    _, namespace, name = key
    template = copy.deepcopy(deployment["spec"]["template"])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "labels": {**template["metadata"]["labels"], "pod-template-hash": hashed},
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": name,
                    "uid": deployment["metadata"]["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {**template["spec"], **_placed(objects)},
        "status": {"phase": "Pending"},
    }
    objects.put(("pods", namespace, f"{name}-{hashed[:6]}-{objects.version}"), pod)


def _placed(objects: Objects) -> dict[str, str]:
    """The node that takes pods and has the fewest; none where all are cordoned."""
    taken = [pod["spec"].get("nodeName") for key, pod in objects.items.items() if key[0] == "pods"]
    free = [name for name in NODES if not objects.items["nodes", "", name]["spec"].get("unschedulable")]
    return {"nodeName": min(free, key=taken.count)} if free else {}


def _age(objects: Objects, pods: Pods, key: Key, pod: Object) -> None:
    age = pods.age[key] = pods.age.get(key, 0) + 1
    if is_going(pod):
        if age >= pods.going.setdefault(key, age) + _ending_s(pod):
            objects.delete(key)
        return
    image = pod["spec"]["containers"][0]["image"]
    if "nodeName" not in pod["spec"]:
        pods.age[key] = 0
        if not (place := _placed(objects)):
            why = f"0/{len(NODES)} nodes are available: {len(NODES)} node(s) were unschedulable."
            objects.set_status(key, _unscheduled(why))
            return
        pod = objects.put(key, {**pod, "spec": {**pod["spec"], **place}})
    objects.set_status(key, {"podIP": "10.0.0.1", **_status(pods.fault(image), age, image)})
    for reason, message in _events(pods.fault(image), age, image):
        _event(objects, key, reason, message)


def _ending_s(pod: Object) -> int:
    """How long a pod is there once it was told to end: its preStop hook, then its process; its grace at most."""
    hook = pod["spec"]["containers"][0].get("lifecycle", {}).get("preStop", {})
    lingers: int = hook.get("sleep", {}).get("seconds", 0)
    grace_s: int = pod["metadata"]["deletionGracePeriodSeconds"]
    return min(lingers + _ENDS_WITHIN, grace_s)


def _status(fault: Fault, age: int, image: str) -> dict[str, Any]:
    started = {"type": "PodScheduled", "status": "True"}
    match fault:
        case Fault.UNSCHEDULABLE:
            return _unscheduled("0/3 nodes are available: 3 Insufficient memory.")
        case Fault.PULL:
            reason = "ErrImagePull" if age < 2 * _CRASH_EVERY else "ImagePullBackOff"
            waiting = {"reason": reason, "message": f'failed to pull and unpack image "{image}": not found'}
            return _running("Pending", [started], {"waiting": waiting}, restarts=0)
        case Fault.CRASH:
            restarts = age // _CRASH_EVERY
            waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
            over = {"terminated": {"exitCode": 1, "reason": "Error"}}
            return _running("Running", [started], {"waiting": waiting}, restarts=restarts, last=over)
        case Fault.NEVER_STARTED:
            return _running("Pending", [started], {"waiting": {"reason": "ContainerCreating"}}, restarts=0)
        case Fault.NEVER_READY:
            return _running("Running", [started], {"running": {}}, restarts=0)
        case Fault.NONE | Fault.BAD_ANSWERS | Fault.OTHER_REVISION:
            conditions = [started, *([{"type": "Ready", "status": "True"}] if age >= _READY_AFTER else [])]
            return _running("Running", conditions, {"running": {}}, restarts=0)


def _unscheduled(why: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    return {"phase": "Pending", "conditions": [condition]}


def _running(
    phase: str,
    conditions: list[dict[str, str]],
    state: dict[str, Any],
    *,
    restarts: int,
    last: dict[str, Any] | None = None,
) -> dict[str, Any]:
    container = {
        "name": "model",
        "image": "",
        "imageID": "",
        "ready": any((one["type"], one["status"]) == ("Ready", "True") for one in conditions),
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }
    return {"phase": phase, "conditions": conditions, "containerStatuses": [container]}


def _events(fault: Fault, age: int, image: str) -> Iterator[tuple[str, str]]:
    if fault is Fault.PULL and age == 1:
        yield "Failed", f'Failed to pull image "{image}": not found'
    if fault is Fault.NEVER_STARTED and age == 1:
        yield "FailedMount", 'MountVolume.SetUp failed for volume "tmp" : no space left on device'
    if fault is Fault.UNSCHEDULABLE and age == 1:
        yield "FailedScheduling", "0/3 nodes are available: 3 Insufficient memory."


def _event(objects: Objects, key: Key, reason: str, message: str) -> None:
    _, namespace, name = key
    made = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": "Pod", "name": name, "namespace": namespace},
    }
    objects.put(("events", namespace, f"{name}.{objects.version}"), made)


def end(objects: Objects, key: Key) -> Object:
    """A pod is told to end; it is gone when its time to do so is over."""
    pod = objects.items[key]
    if is_going(pod):
        return pod
    ending = copy.deepcopy(pod)
    grace_s = pod["spec"].get("terminationGracePeriodSeconds", _GRACE_S)
    over = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + grace_s))
    ending["metadata"] |= {"deletionTimestamp": over, "deletionGracePeriodSeconds": grace_s}
    return objects.put(key, ending)


def is_going(pod: Object) -> bool:
    """Whether it was told to end."""
    return "deletionTimestamp" in pod["metadata"]


def _steps(spec: Object, wanted: int) -> tuple[int, int]:
    """How many pods there may be above what is wanted, and how many may be away."""
    if spec.get("strategy", {}).get("type") == "Recreate":
        return 0, wanted
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    surge, unavailable = rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%")
    return (
        math.ceil(wanted * int(surge.rstrip("%")) / 100) if isinstance(surge, str) else surge,
        wanted * int(unavailable.rstrip("%")) // 100 if isinstance(unavailable, str) else unavailable,
    )
