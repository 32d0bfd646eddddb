"""What those who wait for a deployment are told: whom the gateway can send to, how long, or why nobody will come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corten.control.actions import Seen
from corten.control.holding import Line
from corten.control.reconcile import back_off_s, deaths_in_a_row, hopeless
from corten.control.records import Deployment


def line(one: Deployment, weights: Mapping[str, int], seen: Sequence[Seen], start_s: float) -> Line:
    """A pure decision on the shares in force by revision, the replicas, and how long one takes until it is ready."""
    retry_s, refusal = start_s, ""
    if one.deleting:
        refusal = "it is being stopped"
    elif one.wanted is None:
        refusal = f"it was given up: {one.rollout.reason}" if one.rollout else "nothing is wanted"
    elif not weights and (dead := hopeless(seen)) is not None:
        refusal, retry_s = f"it keeps ending ({dead.reason})", back_off_s(deaths_in_a_row(dead))
    coming = {one.wanted.label: 0} if one.wanted else {}
    rest = one.rest
    return Line({**coming, **weights}, rest.hold_s, rest.hold_requests, refusal, max(1.0, min(retry_s, rest.hold_s)))
