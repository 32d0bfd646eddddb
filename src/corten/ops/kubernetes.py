"""The verbs in a cluster: the same words as on one machine, for deployments that `--engine kubernetes` means."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from corten.cluster import knative, objects, release
from corten.cluster.deploying import Clock, Outcome, go_back
from corten.cluster.deploying import deploy as deploy_one
from corten.cluster.deploying import promote as promote_one
from corten.cluster.differing import Difference, differences
from corten.cluster.drilling import SCENARIOS, Drill, Score
from corten.cluster.facts import discover
from corten.cluster.kinds import DEPLOYMENT, KNATIVE_SERVICE, SECRET, kind_of
from corten.cluster.lightkube_api import LightkubeApi, connect
from corten.cluster.looking import ClusterDeployment, look
from corten.cluster.release import Release
from corten.cluster.watching import logs as pod_logs
from corten.core.events import Listener, nobody
from corten.core.home import Home
from corten.core.name import parse_name
from corten.errors import CortenError, NotFoundError, UsageError
from corten.exporters.base import Cluster, Workload
from corten.ops.at_once import at_once
from corten.ops.predict import LONGEST_ANSWER_S, refusal, sample_of

# So many deployments change at a time. Each waits for most of its time, by a watch that needs a connection of its own:
# the client opens a hundred at most.
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Which cluster and where in it; empty: as the kubeconfig says."""

    context: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one deployment: `error` where it failed, else what serves. `url` is within the cluster."""

    name: str
    namespace: str
    outcome: Outcome | None
    error: CortenError | None = None

    @property
    def url(self) -> str:
        """Where it answers other pods."""
        return f"http://{self.name}.{self.namespace}.svc/"

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        if self.outcome is None:
            return {"name": self.name, "error": self.error.as_dict() if self.error else {}}
        return {
            "name": self.name,
            "namespace": self.namespace,
            "revision": self.outcome.release.label,
            "image": self.outcome.release.image,
            "changed": self.outcome.changed,
            "share": self.outcome.share,
            "url": self.url,
        }


def deploy(
    workloads: Sequence[Workload], place: Place, *, listen: Listener = nobody, timeout_s: float | None = None
) -> list[Done]:
    """Deploy one or many, many at a time; gives what became of each, in their order.

    Raises for one alone what `cluster.deploying.deploy` raises; of many, each has its own error. Raises UsageError
    `kubernetes.same_name` for two of one name.
    """
    names = [one.name for one in workloads]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            "kubernetes.same_name",
            f"two deployments would be called `{twice[0]}`",
            why="names come from the images' models",
            hint="deploy them one by one, with --name",
        )
    with _connected(place, listen) as api:
        facts = discover(api, replace(workloads[0].cluster, namespace=place.namespace))
        placed = [replace(one, cluster=facts) for one in workloads]

        def told(workload: Workload) -> Listener:
            # Of many, each step says whose it is.
            return lambda event: listen(replace(event, step=f"{workload.name} {event.step}"))

        def one(workload: Workload) -> Done:
            try:
                heard = told(workload) if len(placed) > 1 else listen
                done = deploy_one(api, workload, listen=heard, timeout_s=timeout_s)
            except CortenError as error:
                return Done(workload.name, facts.namespace, None, error)
            return Done(workload.name, facts.namespace, done)

        results = at_once(one, placed, _AT_ONCE)
    if len(results) == 1 and results[0].error:
        raise results[0].error
    return results


def status(name: str, place: Place) -> tuple[ClusterDeployment, ...]:
    """All deployments of a namespace, or one. Raises NotFoundError `control.unknown_deployment`."""
    with _connected(place) as api:
        found = [one for one in look(api, place.namespace or api.namespace) if name in ("", one.name)]
    if name and not found:
        raise _unknown(name)
    return tuple(found)


def logs(name: str, place: Place, *, tail: int = 100) -> list[tuple[str, str]]:
    """The last lines of each pod, with its name. Raises NotFoundError `control.unknown_deployment`."""
    with _connected(place) as api:
        namespace = place.namespace or api.namespace
        pods = objects.pods_of(api, parse_name(name), namespace)
        # One whose replicas were all ended since nobody asked is there still.
        if not pods and not release.history(api, name, namespace):
            raise _unknown(name)
        lines: list[tuple[str, str]] = []
        for pod in pods:
            called = pod["metadata"]["name"]
            if pod.get("status", {}).get("phase") in ("Running", "Failed", "Succeeded"):
                lines += [(called, line) for line in pod_logs(api, called, namespace, lines=tail)]
        return lines


def predict(name: str, body: Any, place: Place, *, home: Home | None = None) -> Any:
    """The answer to `POST /predict`, through the API server and the Service; raises what `ops.predict` does."""
    home = home or Home.from_env(os.environ, uid=os.getuid())
    with _connected(place) as api:
        namespace = place.namespace or api.namespace
        serving = _serving(api, parse_name(name), namespace)
        if body is None:
            body = sample_of(home, name, serving.image.rpartition("@")[2])
        asked = knative.door(name, serving.manifests, namespace)
        path, sent = asked.path("predict"), json.dumps(body).encode()
        answer = api.ask("POST", path, body=sent, headers=asked.headers, answer_s=LONGEST_ANSWER_S)
    try:
        told = json.loads(answer.body)
    except ValueError:
        told = {"error": {"message": answer.body[:500].decode("utf-8", "replace")}}
    if answer.status == 200:
        return told
    # The API server's own words, where it found nobody to ask, or nobody who answered.
    words = {"error": {"message": told["message"]}} if isinstance(told, dict) and "message" in told else told
    raise refusal(name, answer.status, words)


def stop(name: str, place: Place) -> tuple[str, ...]:
    """End a deployment: all that belongs to it, also what no record knows of, and its records.

    Raises NotFoundError `control.unknown_deployment`.
    """
    with _connected(place) as api:
        facts = discover(api, Cluster(namespace=place.namespace))
        found = objects.inventory(api, parse_name(name), facts)
        records = release.history(api, name, facts.namespace)
        if not found and not records:
            raise _unknown(name)
        # Scalers and routes first, the account last: nobody makes pods again, or asks them.
        for kind, called in reversed(found):
            api.delete(kind, called, facts.namespace)
        for record in records:
            api.delete(SECRET, release.secret_name(record), facts.namespace)
    return (name,)


def rollback(name: str, to: str, place: Place, *, listen: Listener = nobody) -> Done:
    """Back to an earlier release. Raises NotFoundError, UnhealthyError."""
    with _connected(place, listen) as api:
        namespace = place.namespace or api.namespace
        return Done(name, namespace, go_back(api, parse_name(name), namespace, to, listen=listen))


def promote(name: str, place: Place, *, listen: Listener = nobody) -> Done:
    """All requests for the canary. Raises NotFoundError `control.no_canary`, UnhealthyError."""
    with _connected(place, listen) as api:
        namespace = place.namespace or api.namespace
        return Done(name, namespace, promote_one(api, parse_name(name), namespace, listen=listen))


def history(name: str, place: Place) -> list[Release]:
    """What was deployed when. Raises NotFoundError `control.unknown_deployment`."""
    with _connected(place) as api:
        found = release.history(api, parse_name(name), place.namespace or api.namespace)
    if not found:
        raise _unknown(name)
    return found


def diff(name: str, place: Place, first: str = "", second: str = "") -> list[Difference]:
    """How what is there differs from what was deployed; with two releases, how these do."""
    with _connected(place) as api:
        namespace = place.namespace or api.namespace
        releases = release.history(api, parse_name(name), namespace)
        if first and second:
            one, other = (_labelled(name, releases, label) for label in (first, second))
            there = {objects.identity(each): each for each in other.manifests}
            return [d for each in one.manifests for d in differences(each, there.get(objects.identity(each)))]
        serving = release.current(releases)
        if serving is None:
            raise _unknown(name)
        wanted = serving.manifests
        return [
            d for each in wanted for d in differences(each, api.get(kind_of(each), each["metadata"]["name"], namespace))
        ]


def scale(name: str, replicas: int, place: Place) -> None:
    """Set the number of replicas until the next deployment says otherwise.

    Raises UsageError `kubernetes.scaled_by_others` where a scaler of the deployment decides.
    """
    with _connected(place) as api:
        namespace = place.namespace or api.namespace
        serving = _serving(api, parse_name(name), namespace)
        scalers = [one["kind"] for one in serving.manifests if one["kind"] in objects.SCALERS]
        scalers += ["Knative"] if knative.service_in(serving.manifests) else []
        if scalers:
            raise UsageError(
                "kubernetes.scaled_by_others",
                f"the number of replicas of `{name}` is its {scalers[0]}'s",
                why="it would change it back within seconds",
                hint=f"corten deploy ... --replicas {replicas}, or another range",
            )
        objects.set_replicas(api, name, replicas, namespace)


def drill(
    name: str,
    body: Any,
    place: Place,
    only: Sequence[str] = (),
    *,
    home: Home | None = None,
    listen: Listener = nobody,
) -> list[Score]:
    """Break it on purpose while it is asked, in the scenarios that are named, or all (`cluster.drilling.SCENARIOS`).

    Raises NotFoundError, UsageError `drill.unknown_scenario`, UnhealthyError `drill.not_well`.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    with _connected(place, listen) as api:
        namespace = place.namespace or api.namespace
        serving = _serving(api, parse_name(name), namespace)
        if body is None:
            body = sample_of(home, name, serving.image.rpartition("@")[2])
        revision = knative.revision_in(serving.manifests)
        controller = f"{revision}-deployment" if revision else name
        asked = knative.door(name, serving.manifests, namespace)
        played = Drill(api, name, controller, asked, json.dumps(body).encode(), Clock(), listen)
        if revision and "rollout" in only:
            raise UsageError(
                "drill.unknown_scenario",
                "no scenario `rollout` where Knative runs it",
                why="a revision of Knative never changes, and what changes its pods is undone",
                hint="corten deploy of another image is the rollout there",
            )
        scenarios = [one for one in SCENARIOS if not (revision and one == "rollout")]
        return [played.play(scenario) for scenario in only or scenarios]


def _serving(api: LightkubeApi, name: str, namespace: str) -> Release:
    found = release.current(release.history(api, name, namespace))
    if found is None:
        raise _unknown(name)
    kind = KNATIVE_SERVICE if knative.service_in(found.manifests) else DEPLOYMENT
    if api.get(kind, name, namespace) is None:
        raise _unknown(name)
    return found


def _labelled(name: str, releases: Sequence[Release], label: str) -> Release:
    found = next((one for one in releases if one.label == label), None)
    if found is None:
        raise NotFoundError(
            "control.unknown_revision", f"`{name}` has no release {label}", hint=f"corten k8s history {name}"
        )
    return found


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        "control.unknown_deployment",
        f"no deployment called `{name}` in this namespace",
        hint="corten status --engine kubernetes (another one: --namespace, --context)",
    )


@contextmanager
def _connected(place: Place, listen: Listener = nobody) -> Iterator[LightkubeApi]:
    with connect(place.context, listen=listen) as api:
        yield api
