"""Whether a cluster enforces NetworkPolicies: tried out, for every API server takes them and some networks do nothing.

Two pods try to reach the API server: one that nothing is said of, one that a policy lets reach nothing. Only where the
first gets through and the second does not are pods apart.
"""

from __future__ import annotations

import copy
import json
from enum import Enum
from typing import Any

from corten.cluster.kinds import DEPLOYMENT, POD, POLICY
from corten.cluster.port import Api, Manifest
from corten.cluster.watching import Patience, logs
from corten.errors import CortenError
from corten.exporters.manifests.names import CONTAINER, DOMAIN, MANAGED_BY

_NAME = "corten-probe"
_LABEL = f"{DOMAIN}/probe"
_LOOK_S = 1.0
# The kubelet tells every pod where the API server is. A policy may need seconds until it is in force: who is to be
# closed in tries until it is.
_SCRIPT = """
import json, os, socket, sys, time
place = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
wanted = sys.argv[1] == "open"
until = time.monotonic() + 20
while True:
    try:
        socket.create_connection(place, timeout=2).close()
        reached = True
    except OSError:
        reached = False
    if reached == wanted or time.monotonic() > until:
        break
    time.sleep(1)
print(json.dumps({"reached": reached}), flush=True)
time.sleep(600)
"""


class Isolation(Enum):
    """What the trial says."""

    ENFORCED = "enforced"
    IGNORED = "ignored"
    UNKNOWN = "unknown"


def isolation(api: Api, model: Manifest, namespace: str, patience: Patience) -> Isolation:
    """Try it with the image of `model`, a Deployment of ours: its Python opens the connections.

    UNKNOWN when pods do not start in time, or reach the API server in neither case. Nothing is left. Raises what the
    cluster refuses.
    """
    policy = {
        "apiVersion": POLICY.api,
        "kind": POLICY.name,
        "metadata": {"name": _NAME, "labels": {MANAGED_BY: "corten"}},
        "spec": {"podSelector": {"matchLabels": {_LABEL: "closed"}}, "policyTypes": ["Egress"], "egress": []},
    }
    try:
        api.apply(policy, namespace)
        for way in ("open", "closed"):
            api.apply(_prober(model, way), namespace)
        reached: dict[str, bool] = {}
        while len(reached) < 2 and patience.left_s > 0:
            for way in {"open", "closed"} - set(reached):
                if (told := _told(api, way, namespace)) is not None:
                    reached[way] = told
            patience.sleep(_LOOK_S)
    finally:
        for way in ("open", "closed"):
            api.delete(DEPLOYMENT, f"{_NAME}-{way}", namespace)
        api.delete(POLICY, _NAME, namespace)
    if len(reached) < 2 or not reached["open"]:
        return Isolation.UNKNOWN
    return Isolation.IGNORED if reached["closed"] else Isolation.ENFORCED


def _told(api: Api, way: str, namespace: str) -> bool | None:
    """What a probe said; None where it has not said it yet."""
    for pod in api.list(POD, namespace, labels=f"{_LABEL}={way}").items:
        if pod.get("status", {}).get("phase") != "Running":
            continue
        try:
            lines = logs(api, str(pod["metadata"]["name"]), namespace, lines=1)
        except CortenError:
            continue  # the container has not begun
        if lines and lines[-1].startswith('{"reached"'):
            return bool(json.loads(lines[-1])["reached"])
    return None


def _prober(model: Manifest, way: str) -> dict[str, Any]:
    """As the model's pods are, so that whatever admits these admits it; but it serves nothing."""
    spec = copy.deepcopy(dict(model["spec"]["template"]["spec"]))
    found = next(each for each in spec["containers"] if each["name"] == CONTAINER)
    kept = ("name", "image", "imagePullPolicy", "securityContext")
    container = {key: found[key] for key in kept if key in found}
    container["command"] = ["/usr/bin/python3", "-c", _SCRIPT, way]
    container["resources"] = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}
    for gone in ("volumes", "topologySpreadConstraints", "tolerations", "priorityClassName"):
        spec.pop(gone, None)
    labels = {_LABEL: way, MANAGED_BY: "corten"}
    return {
        "apiVersion": DEPLOYMENT.api,
        "kind": DEPLOYMENT.name,
        "metadata": {"name": f"{_NAME}-{way}", "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {_LABEL: way}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {**spec, "terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }
