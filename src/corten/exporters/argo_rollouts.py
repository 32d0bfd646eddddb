"""A Rollout of Argo Rollouts in the Deployment's place: a canary's shares are its steps, and it judges by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corten.exporters.base import Addition, Workload, refuse
from corten.exporters.kubernetes import files
from corten.exporters.manifests.knative import refuse_where_it_runs
from corten.exporters.manifests.monitoring import failing_share
from corten.exporters.manifests.names import Manifest, Track, manifest, object_name
from corten.exporters.manifests.network import by_weight
from corten.exporters.manifests.whole import objects, refuse_what_is_wrong

_API = "argoproj.io/v1alpha1"
_EACH = "60s"
_LOOKS = 3
_MOST_FAILING = 0.02


class ArgoRollouts:
    """`kubectl apply` it where Argo Rollouts is; `--with prometheus` for what judges."""

    name = "argo-rollouts"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """The objects of `--to kubernetes` with a Rollout among them. Raises UsageError `render.unsupported`."""
        refuse_where_it_runs(self.name, workload)
        if workload.settings.canary.judged and not workload.cluster.has(Addition.PROMETHEUS):
            raise refuse(
                self.name,
                "a judged canary without Prometheus",
                why="it is an AnalysisTemplate that judges there, by what Prometheus counted",
                hint="--with prometheus, a share to stay at (`--canary 10%`), or corten deploy --engine kubernetes",
            )
        found = [rollout(one, workload) if one["kind"] == "Deployment" else _aimed(one) for one in objects(workload)]
        refuse_what_is_wrong(found)
        if workload.settings.canary.judged:
            found.append(_analysis(workload))
        return files(found)


def rollout(deployment: Manifest, workload: Workload) -> Manifest:
    """A Deployment as a Rollout: the same pods, another strategy."""
    spec = {key: value for key, value in deployment["spec"].items() if key != "strategy"}
    # Argo tells the two sets of pods apart itself.
    spec["strategy"] = {"canary": _canary(workload)}
    # Its default goes on for ever with a revision that does not get ready.
    spec["progressDeadlineAbort"] = True
    return {**deployment, "apiVersion": _API, "kind": "Rollout", "spec": spec}


def _canary(workload: Workload) -> dict[str, Any]:
    canary = workload.settings.canary
    steps: list[dict[str, Any]] = []
    for share in canary.steps:
        steps.append({"setWeight": share})
        if canary.judged:
            steps.append({"analysis": {"templates": [{"templateName": object_name(workload)}]}})
        else:
            steps.append({"pause": {}})
    found: dict[str, Any] = {"maxUnavailable": 0, "maxSurge": "25%", "steps": steps}
    if by_weight(workload):
        found |= {
            "stableService": object_name(workload),
            "canaryService": object_name(workload, Track.CANARY),
            "trafficRouting": {
                "plugins": {
                    "argoproj-labs/gatewayAPI": {
                        "httpRoute": object_name(workload),
                        "namespace": workload.cluster.namespace or "default",
                    }
                }
            },
        }
    return found


def _aimed(one: Manifest) -> Manifest:
    """Scalers scale the Rollout; services lose the track, which Argo's own hash of the pods replaces."""
    spec = one.get("spec", {})
    if "scaleTargetRef" in spec:
        target = {**spec["scaleTargetRef"], "apiVersion": _API, "kind": "Rollout"}
        return {**one, "spec": {**spec, "scaleTargetRef": target}}
    if one["kind"] == "Service":
        chosen = {key: value for key, value in spec["selector"].items() if key != "corten.dev/track"}
        return {**one, "spec": {**spec, "selector": chosen}}
    return one


def _analysis(workload: Workload) -> Manifest:
    metric = {
        "name": "failures",
        "interval": _EACH,
        "count": _LOOKS,
        # Nobody asked: no verdict, and no failure (flagger#1035).
        "successCondition": f"len(result) == 0 || isNaN(result[0]) || result[0] <= {_MOST_FAILING}",
        "failureLimit": 0,
        "provider": {
            "prometheus": {
                "address": f"http://prometheus-operated.{workload.cluster.monitoring}:9090",
                "query": failing_share(workload, "2m"),
            }
        },
    }
    return manifest(_API, "AnalysisTemplate", object_name(workload), workload, spec={"metrics": [metric]})
