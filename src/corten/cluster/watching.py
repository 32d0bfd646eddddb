"""Wait for a rollout, whatever becomes of the API server meanwhile, and say why when it does not come."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from corten.cluster.door import Door
from corten.cluster.kinds import DEPLOYMENT, EVENT, POD, Kind
from corten.cluster.objects import pods_of
from corten.cluster.port import Answer, Api, ExpiredError
from corten.cluster.rollout import Progress, Step, Trouble, late, progress
from corten.core.events import Event, Listener, Phase
from corten.errors import CortenError, RemoteError, UnhealthyError
from corten.exporters.manifests.names import DEPLOYMENT_LABEL
from corten.exporters.manifests.network import SERVICE_PORT

_LOOK_S = 5.0
_LAST_LINES = 20
_ENOUGH_ANSWERS = 5
_PAUSE_S = 0.2
# Old pods answer until all nodes know; more than that is no delay.
_LONGEST_S = 60.0
_GOES_ON = "it goes on in the cluster: run the same command again to wait for it"
_REVISION_HEADER = "x-corten-revision"


@dataclass(frozen=True, slots=True)
class Patience:
    """Time, as an argument: what time it is (monotonic), how to wait, and until when."""

    now_s: Callable[[], float]
    sleep: Callable[[float], None]
    until_s: float

    @property
    def left_s(self) -> float:
        """How long there is still to wait."""
        return self.until_s - self.now_s()


@dataclass(frozen=True, slots=True)
class Look:
    """A rollout as it was seen, and what tells that something changed: a kind of a deployment's, since a version.

    `waited_for` is what is told of it when it takes too long.
    """

    seen: Progress
    kind: Kind
    owner: str
    version: str
    waited_for: Trouble | None = None


def wait(  # noqa: PLR0917
    api: Api, name: str, revision: str, namespace: str, patience: Patience, listen: Listener, *, least: int = 0
) -> Progress:
    """Until the Deployment `name` runs `revision`, or has failed to. Raises UnhealthyError `deploy.timeout`.

    With fewer than `least` replicas it is not there yet, whoever wants no more.
    """

    def look() -> Look:
        found = api.list(DEPLOYMENT, namespace, fields=f"metadata.name={name}")
        if not found.items:
            raise RemoteError(
                "kubernetes.conflict", f"Deployment {name} was deleted meanwhile", hint="run the same command again"
            )
        deployment = found.items[0]
        owner = deployment["metadata"]["labels"][DEPLOYMENT_LABEL]
        track = deployment["spec"]["selector"]["matchLabels"].get("corten.dev/track", "")
        pods = pods_of(api, owner, namespace, track=track)
        seen = progress(deployment, pods, revision, least=least)
        waited_for = seen.trouble or late(deployment, pods, revision)
        return Look(seen, DEPLOYMENT, owner, found.version, waited_for)

    return follow(api, look, f"`{name}` {revision}", namespace, patience, listen)


def follow(  # noqa: PLR0917
    api: Api, look: Callable[[], Look], what: str, namespace: str, patience: Patience, listen: Listener
) -> Progress:
    """Look until it is done or has failed, and tell what changes. Raises UnhealthyError `deploy.timeout`."""
    told = ""
    while True:
        found = look()
        words = _words(found.seen)
        if found.seen.step is Step.DONE:
            listen(Event("rollout", Phase.DONE, f"{what}: {words}"))
        if found.seen.step is not Step.PROGRESSING:
            return found.seen
        if words != told:
            told = words
            listen(Event("rollout", Phase.PROGRESS, words))
        if patience.left_s <= 0:
            trouble = found.waited_for
            raise UnhealthyError(
                "deploy.timeout",
                f"{what} is not there yet",
                where=f"pod {trouble.pod}" if trouble and trouble.pod else "",
                why="\n".join([words, *(last_words(api, trouble, namespace) if trouble else [])]),
                hint="; ".join(filter(None, (found.seen.trouble.hint if found.seen.trouble else "", _GOES_ON))),
            )
        _until_something_changes(api, found, namespace, patience)


def _until_something_changes(api: Api, found: Look, namespace: str, patience: Patience) -> None:
    before_s = patience.now_s()
    try:
        for _ in api.watch(
            found.kind,
            namespace,
            f"{DEPLOYMENT_LABEL}={found.owner}",
            found.version,
            max(1.0, min(_LOOK_S, patience.left_s)),
        ):
            break
    except ExpiredError:
        pass
    # Also when the watch broke off at once, or everything changes all the time: so many looks a second at most.
    patience.sleep(max(0.0, _PAUSE_S - (patience.now_s() - before_s)))


def _words(seen: Progress) -> str:
    trouble = f": {seen.trouble.what}" + (f" ({seen.trouble.why})" if seen.trouble.why else "") if seen.trouble else ""
    return f"{seen.ready} of {seen.wanted} ready{trouble}"


def last_words(api: Api, trouble: Trouble, namespace: str) -> list[str]:
    """What the cluster and the pod itself said last: warnings, then lines of its log."""
    if not trouble.pod:
        return []
    events = api.list(EVENT, namespace, fields=f"involvedObject.name={trouble.pod}").items
    lines = [f"{one.get('reason', '')}: {one.get('message', '')}" for one in events if one.get("type") == "Warning"][
        -3:
    ]
    if trouble.ran:
        try:
            lines += logs(api, trouble.pod, namespace, lines=_LAST_LINES, previous=trouble.crashed)
        except CortenError as error:
            # Its container has not begun, or nobody may read it: no reason to lose what is known.
            lines.append(error.why or error.what)
    return lines


def logs(api: Api, pod: str, namespace: str, *, lines: int, previous: bool = False) -> list[str]:
    """The last lines of a pod's log; of the process before the one that runs, if `previous`."""
    query = {"tailLines": str(lines), "container": "model", **({"previous": "true"} if previous else {})}
    answer = api.ask("GET", POD.path(namespace, pod, "log"), query=query)
    return answer.body.decode("utf-8", "replace").splitlines()


def verify(api: Api, door: Door, revision: str, patience: Patience, listen: Listener) -> None:
    """Ask until only `revision` answers: a rollout that is done may have moved no traffic yet.

    Raises UnhealthyError `deploy.unhealthy` when nothing answers, or another revision does. Where the API server cannot
    reach pods at all (a policy, no tunnel), that is told and their readiness has to do.
    """
    in_a_row, answer, answered = 0, None, ""
    patience = replace(patience, until_s=min(patience.until_s, patience.now_s() + _LONGEST_S))
    while in_a_row < _ENOUGH_ANSWERS:
        answer = api.ask("GET", door.path(), headers=door.headers)
        answered = answer.headers.get(_REVISION_HEADER, "")
        in_a_row = in_a_row + 1 if answer.status < 500 and answered == revision else 0
        if in_a_row:
            continue
        if patience.left_s <= 0:
            break
        if unreachable(answer):
            listen(Event("verify", Phase.WARNING, f"the API server cannot reach pods ({_message(answer)}): not asked"))
            return
        patience.sleep(_PAUSE_S)
    if in_a_row < _ENOUGH_ANSWERS:
        told = f"{answered} answers" if answered else _message(answer) if answer else "no answer"
        raise UnhealthyError(
            "deploy.unhealthy",
            f"no request through the Service `{door.service}` was answered by {revision}",
            where=f"port {SERVICE_PORT}",
            why=told,
            hint=f"do its selector and ports fit the pods? kubectl describe service {door.service}",
        )


def unreachable(answer: Answer) -> bool:
    """Whether the way from the API server to the pods is closed, as opposed to nobody being there."""
    return answer.status in (502, 503, 504) and "error trying to reach service" in _message(answer)


def _message(answer: Answer) -> str:
    try:
        return str(json.loads(answer.body).get("message", ""))
    except (ValueError, AttributeError):
        return f"HTTP {answer.status}"
