"""Have a release serve and ask it, by what runs it: a Deployment and a Service of ours, or a Service of Knative's.

Both answer by the deployment's name, which one of them has: Knative's Route makes a Service of its own by it. Who comes
is ready and was asked before the name changes hands; between the two it leads nowhere, for as long as that takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corten.cluster import knative, objects
from corten.cluster.kinds import DEPLOYMENT, KNATIVE_SERVICE, ROUTE, SERVICE, kind_of
from corten.cluster.port import Api, Manifest
from corten.cluster.release import Release
from corten.cluster.rollout import Progress, Step, Trouble
from corten.cluster.watching import Patience, last_words, verify, wait
from corten.core.events import Event, Listener, Phase
from corten.errors import RemoteError, UnhealthyError


@dataclass(frozen=True, slots=True)
class TakeOver:
    """One change to `made`, while what is in `others` (of releases that serve or were begun) may be there.

    What is in `later` is left to the caller. Who is to `wake` has a replica for it, even where it may have none.
    """

    api: Api
    made: Release
    others: Sequence[Manifest]
    namespace: str
    patience: Patience
    listen: Listener
    later: Sequence[Manifest] = ()
    wake: bool = True

    def run(self) -> None:
        """Raises UnhealthyError; what served before is for the caller to bring back (`give_back`)."""
        wanted = [one for one in self.made.manifests if one not in self.later]
        service = knative.service_in(wanted)
        if service:
            self._by_knative(service, [one for one in wanted if one is not service])
        else:
            self._by_deployment(wanted)

    def share(self, service: Manifest, percent: int) -> Progress | None:
        """Some of the requests for a revision of Knative, the rest for who has most now; how it is stuck, if it is.

        Raises UnhealthyError where it does not answer, RemoteError where nobody serves beside it.
        """
        name, own = str(service["metadata"]["name"]), knative.revision_of(service)
        now = knative.shares_of(self.api, name, self.namespace)
        others = {one: part for one, part in now.items() if one != own}
        if not others:
            raise RemoteError(
                "kubernetes.conflict",
                f"nobody has the requests to `{name}` of which some could be given",
                why="its Service of Knative was deleted or changed meanwhile",
                hint="deploy it without --canary",
            )
        seen = self._prepare(service, now)
        if seen.step is Step.FAILED:
            return seen
        self._ask()
        main = max(others, key=lambda one: others[one])
        split = knative.with_shares(service, {main: 100 - percent, own: percent})
        objects.apply(self.api, [split], self.namespace)
        knative.wait_for_route(self.api, split, self.namespace, self.patience)
        return None

    def _by_knative(self, service: Manifest, beneath: Sequence[Manifest]) -> None:
        name = str(service["metadata"]["name"])
        objects.apply(self.api, beneath, self.namespace)
        seen = self._prepare(service, knative.shares_of(self.api, name, self.namespace))
        if seen.step is Step.FAILED:
            raise self._unhealthy(seen)
        if self.wake or seen.ready:
            self._ask()
        knative.take_name(self.api, name, self.namespace)
        objects.apply(self.api, [service], self.namespace)
        knative.wait_for_route(self.api, service, self.namespace, self.patience)

    def _prepare(self, service: Manifest, shares: dict[str, int]) -> Progress:
        """A revision beside those that have the requests now."""
        objects.apply(self.api, [knative.with_shares(service, shares)], self.namespace)
        return knative.wait(self.api, service, self.made.label, self.namespace, self.patience, self.listen)

    def _by_deployment(self, wanted: Sequence[Manifest]) -> None:
        name = self.made.deployment
        if knative.service_in(self.others):
            # The name is Knative's until the pods are there.
            unnamed = [one for one in wanted if kind_of(one) not in (SERVICE, ROUTE)]
            self._applied(unnamed)
            knative.leave(self.api, name, self.namespace, self.patience)
        seen = self._applied(wanted)
        if seen.wanted:
            self._ask()
        objects.apply(self.api, [one for one in wanted if objects.may_rest(one)], self.namespace)

    def _applied(self, wanted: Sequence[Manifest]) -> Progress:
        rests = self.wake and any(objects.may_rest(one) for one in wanted)
        objects.apply(self.api, [objects.awake(one) for one in wanted] if rests else wanted, self.namespace)
        name, least = self.made.deployment, int(rests)
        seen = wait(self.api, name, self.made.label, self.namespace, self.patience, self.listen, least=least)
        if seen.step is Step.FAILED:
            raise self._unhealthy(seen)
        return seen

    def _ask(self) -> None:
        asked = knative.door(self.made.deployment, self.made.manifests, self.namespace)
        verify(self.api, asked, self.made.label, self.patience, self.listen)

    def _unhealthy(self, seen: Progress) -> UnhealthyError:
        name, label, trouble = self.made.deployment, self.made.label, seen.trouble
        what = trouble.what if trouble else "it did not get ready"
        lines = heard(self.api, trouble, self.namespace, self.listen)
        return UnhealthyError(
            "deploy.unhealthy",
            f"`{name}` {label} did not get ready: {what}",
            where=f"pod {trouble.pod}" if trouble and trouble.pod else "",
            why="\n".join(part for part in (trouble.why if trouble else "", *lines) if part),
            hint=trouble.hint if trouble else "",
        )


def give_back(
    api: Api, made: Sequence[Manifest], before: Sequence[Manifest], namespace: str, patience: Patience
) -> None:
    """What served before serves again, and of what was made nothing is left."""
    objects.take_back(api, made, before, namespace)
    came, went = knative.service_in(made), knative.service_in(before)
    if came and not went:
        knative.leave(api, str(came["metadata"]["name"]), namespace, patience)
    if went and not came:
        knative.take_name(api, str(went["metadata"]["name"]), namespace)
    objects.apply(api, before, namespace)
    objects.prune(api, made, before, namespace)
    if came:
        if went:
            knative.wait_until_spared(api, came, namespace, patience)
        knative.forget(api, made, namespace)


def changes_hands(made: Sequence[Manifest], others: Sequence[Manifest]) -> bool:
    """Whether one of them is run by Knative and one is not."""
    deployed = any(kind_of(one) == DEPLOYMENT for one in others)
    runs = any(kind_of(one) == KNATIVE_SERVICE for one in others)
    return deployed if knative.service_in(made) else runs


def heard(api: Api, trouble: Trouble | None, namespace: str, listen: Listener) -> list[str]:
    """What a pod said last; told as it goes, too."""
    lines = last_words(api, trouble, namespace) if trouble else []
    for line in lines:
        listen(Event("log", Phase.NOTE, line))
    return lines
