"""Deployments that Knative runs: how far a revision is, where the requests go, who has the name."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from corten.cluster.door import Door
from corten.cluster.kinds import KNATIVE_ROUTE, KNATIVE_SERVICE, REVISION, SERVICE, kind_of
from corten.cluster.objects import is_made_by_another, pods_of
from corten.cluster.port import Api, Manifest
from corten.cluster.rollout import Progress, Step, Trouble, condition_of, is_ready, worst
from corten.cluster.watching import Look, Patience, follow
from corten.core.events import Listener
from corten.errors import RemoteError, UnhealthyError
from corten.exporters.manifests.knative import PROGRESS_DEADLINE, share
from corten.exporters.manifests.names import DEPLOYMENT_LABEL, REVISION_LABEL

# Of the Service a revision was made for. One of the same name may still be there of a Service that is gone.
_SERVICE_UID = "serving.knative.dev/serviceUID"
# Knative says `False` at the first crash and at a node that is full, and `True` again when that was mended.
_PASSING = ("ExitCode", "Unschedulable")
_LONGEST_S = 60.0
_PAUSE_S = 0.2


def service_in(manifests: Sequence[Manifest]) -> Manifest | None:
    """The Service of Knative among a release's objects; None where a Deployment of ours runs it."""
    return next((one for one in manifests if kind_of(one) == KNATIVE_SERVICE), None)


def revision_of(service: Manifest) -> str:
    """What Knative calls the revision that a Service of ours asks for."""
    return str(service["spec"]["template"]["metadata"]["name"])


def revision_in(manifests: Sequence[Manifest]) -> str:
    """What Knative calls the revision of a release, by its objects; empty where a Deployment of ours runs it."""
    service = service_in(manifests)
    return revision_of(service) if service else ""


def door(name: str, manifests: Sequence[Manifest], namespace: str) -> Door:
    """Where a release is asked, by its objects: the deployment's Service, or the own one of Knative's revision.

    The name itself is a Route of Knative's, which leads out of the namespace to a gateway: an API server does not go
    there. Behind the revision's Service is the activator, which holds a request until there is a pod for it; it does
    not see the name that was asked, and is told the revision as Knative's gateways do.
    """
    revision = revision_in(manifests)
    if not revision:
        return Door(name, namespace)
    told = {"Knative-Serving-Namespace": namespace, "Knative-Serving-Revision": revision}
    return Door(revision, namespace, told)


def with_shares(service: Manifest, shares: Mapping[str, int]) -> Manifest:
    """The same Service with the requests given to these revisions, by percent; with none, to the latest that is ready.

    That is for a name that has served nobody yet: the revision is ready before anybody is sent to it.
    """
    made: dict[str, Any] = copy.deepcopy(dict(service))
    targets = [share(name, percent) for name, percent in shares.items()]
    made["spec"]["traffic"] = targets or [{"latestRevision": True, "percent": 100}]
    return made


def shares_of(api: Api, name: str, namespace: str) -> dict[str, int]:
    """Who gets how much now, by the Service that is there; empty where nobody does."""
    live = api.get(KNATIVE_SERVICE, name, namespace)
    if live is None:
        return {}
    latest = live.get("status", {}).get("latestReadyRevisionName", "")
    found: dict[str, int] = {}
    for target in live["spec"].get("traffic", []):
        revision = target.get("revisionName") or latest
        found[revision] = found.get(revision, 0) + target.get("percent", 0)
    return {} if "" in found else {revision: percent for revision, percent in found.items() if percent}


def deadline_s(service: Manifest) -> float:
    """How long its revision may take to get ready."""
    return float(service["spec"]["template"]["metadata"]["annotations"][PROGRESS_DEADLINE].removesuffix("s"))


def wait(  # noqa: PLR0917
    api: Api, service: Manifest, label: str, namespace: str, patience: Patience, listen: Listener
) -> Progress:
    """Until the revision a Service asks for is ready, or has failed to be. Raises UnhealthyError `deploy.timeout`."""
    name, owner = str(service["metadata"]["name"]), service["metadata"]["labels"][DEPLOYMENT_LABEL]
    late_s = patience.now_s() + deadline_s(service)
    last: Trouble | None = None

    def look() -> Look:
        nonlocal last
        live = api.get(KNATIVE_SERVICE, name, namespace)
        if live is None:
            raise RemoteError(
                "kubernetes.conflict", f"Knative's Service {name} was deleted meanwhile", hint="run it again"
            )
        revision = api.get(REVISION, revision_of(service), namespace)
        if revision and revision["metadata"].get("labels", {}).get(_SERVICE_UID) != live["metadata"]["uid"]:
            revision = None
        pods = [pod for pod in pods_of(api, owner, namespace) if _runs(pod, label)]
        seen = progress(live, revision, pods, late=patience.now_s() > late_s)
        last = worst(pods) or last
        if seen.step is Step.FAILED and not pods:
            # Who was given up has no pods any more that could say why.
            seen = replace(seen, trouble=last or seen.trouble)
        return Look(seen, REVISION, owner, (revision or live)["metadata"]["resourceVersion"])

    return follow(api, look, f"`{name}` {label}", namespace, patience, listen)


def _runs(pod: Manifest, label: str) -> bool:
    return pod["metadata"].get("labels", {}).get(REVISION_LABEL) == label and "deletionTimestamp" not in pod["metadata"]


def progress(service: Manifest, revision: Manifest | None, pods: Sequence[Manifest], *, late: bool) -> Progress:
    """Look at a revision (None: not there yet) and its pods. Pure."""
    ready, wanted = sum(is_ready(pod) for pod in pods), max(1, len(pods))
    if revision is None:
        refused = condition_of(service, "ConfigurationsReady")
        # A revision of the same name that is still being deleted is no refusal.
        if _is_seen(service) and refused.get("status") == "False" and "already exists" not in refused["message"]:
            return Progress(Step.FAILED, 0, wanted, Trouble("", "Knative makes no revision of it", refused["message"]))
        return Progress(Step.FAILED if late else Step.PROGRESSING, 0, wanted)
    condition = condition_of(revision, "Ready")
    if condition.get("status") == "True":
        return Progress(Step.DONE, ready, len(pods))
    trouble = worst(pods)
    reason = str(condition.get("reason", ""))
    if condition.get("status") == "False":
        trouble = trouble or Trouble(
            str(pods[0]["metadata"]["name"]) if pods else "",
            f"Knative gave the revision up ({reason})",
            str(condition.get("message", "")),
            "see `corten logs`; a larger model needs a larger ready_timeout_s",
            ran=bool(pods),
        )
    over = condition.get("status") == "False" and not reason.startswith(_PASSING)
    failed = over or late or (trouble is not None and trouble.hopeless)
    return Progress(Step.FAILED if failed else Step.PROGRESSING, ready, wanted, trouble)


def wait_for_route(api: Api, service: Manifest, namespace: str, patience: Patience) -> None:
    """Until requests by the name go where a Service says. Raises UnhealthyError `deploy.unhealthy`."""
    name = str(service["metadata"]["name"])
    until_s = min(patience.until_s, patience.now_s() + _LONGEST_S)
    while why := _not_led(api.get(KNATIVE_ROUTE, name, namespace), service):
        if patience.now_s() >= until_s:
            raise UnhealthyError(
                "deploy.unhealthy",
                f"the Route `{name}` of Knative does not lead there",
                why=why,
                hint=f"does Knative have a gateway (kubectl get pods -A -l networking.knative.dev/ingress-provider)? "
                f"kubectl describe route.serving.knative.dev {name}",
            )
        patience.sleep(_PAUSE_S)


def _not_led(route: Manifest | None, service: Manifest) -> str:
    """Why requests do not go where a Service says; empty when they do."""
    if route is None:
        return "there is no Route yet"
    wanted = {target["revisionName"]: target["percent"] for target in service["spec"]["traffic"]}
    status = route.get("status", {})
    there = {target.get("revisionName"): target.get("percent") for target in status.get("traffic", [])}
    condition = condition_of(route, "Ready")
    if _is_seen(route) and condition.get("status") == "True" and there == wanted:
        return ""
    return str(condition.get("message", "")) or f"it leads to {there}; wanted: {wanted}"


def take_name(api: Api, name: str, namespace: str) -> None:
    """Our Service goes, whose name Knative's Route needs for one of its own."""
    held = api.get(SERVICE, name, namespace)
    if held is not None and not is_made_by_another(held) and held["metadata"].get("labels", {}).get(DEPLOYMENT_LABEL):
        api.delete(SERVICE, name, namespace)


def leave(api: Api, name: str, namespace: str, patience: Patience) -> None:
    """Knative's Service goes, and with it the one of this name. Raises UnhealthyError `deploy.timeout`."""
    api.delete(KNATIVE_SERVICE, name, namespace)
    while (held := api.get(SERVICE, name, namespace)) is not None and is_made_by_another(held):
        if patience.left_s <= 0:
            raise UnhealthyError(
                "deploy.timeout",
                f"Knative has not given the name `{name}` back yet",
                why="the Service of its Route is still there",
                hint="run the same command again to wait for it",
            )
        patience.sleep(_PAUSE_S)


def wait_until_spared(api: Api, service: Manifest, namespace: str, patience: Patience) -> None:
    """Until no request by the name goes to a Service's revision: who is sent to one that is gone gets an error.

    Not for ever: a Route that does not follow is not what is told where a deploy has failed already.
    """
    name, revision = str(service["metadata"]["name"]), revision_of(service)
    until_s = min(patience.until_s, patience.now_s() + _LONGEST_S)
    while patience.now_s() < until_s:
        route = api.get(KNATIVE_ROUTE, name, namespace) or {}
        led = [target.get("revisionName") for target in route.get("status", {}).get("traffic", [])]
        if revision not in led:
            return
        patience.sleep(_PAUSE_S)


def forget(api: Api, manifests: Sequence[Manifest], namespace: str) -> None:
    """The revision of a release that never served goes; of those that did, Knative keeps as many as it is told to."""
    if revision := revision_in(manifests):
        api.delete(REVISION, revision, namespace)


def _is_seen(one: Manifest) -> bool:
    """Whether its controller has looked at it as it is now."""
    return bool(one.get("status", {}).get("observedGeneration", 0) >= one["metadata"].get("generation", 0))
