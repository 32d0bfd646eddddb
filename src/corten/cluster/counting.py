"""What the pods of a track answered, added up from their own metrics (docs/reference/metrics.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from corten.cluster.kinds import POD
from corten.cluster.port import Api
from corten.core.traffic import Traffic
from corten.exporters.base import HTTP_PORT

# Not the lines of words (`# HELP corten_in_flight Requests ...`).
_SAMPLE = re.compile(r"^(?P<name>corten_\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(code|le)="([^"]*)"')


def read(text: str) -> Traffic:
    """A pod's metrics as traffic. 499 is nobody's fault: the client left."""
    answered = failed = refused = 0
    within: dict[float, int] = {}
    busy_s, in_flight = 0.0, 0
    for match in _SAMPLE.finditer(text):
        labels, value = dict(_LABEL.findall(match["labels"] or "")), float(match["value"])
        match match["name"], labels:
            case "corten_requests_total", {"code": code} if code != "499":
                answered += int(value)
                failed += int(value) if code.startswith("5") else 0
                refused += int(value) if code.startswith("4") else 0
            case "corten_request_seconds_bucket", {"le": bound}:
                within[float(bound)] = int(value)
            case "corten_request_seconds_sum", _:
                busy_s = value
            case "corten_in_flight", _:
                in_flight = int(value)
            case _:
                pass
    bounds = tuple(sorted(within.items()))
    timed = bounds[-1][1] if bounds else 0
    return Traffic(answered, failed, refused, timed, bounds[:-1], busy_s, in_flight)


def total(parts: list[Traffic]) -> Traffic:
    """Several pods as one."""
    within: dict[float, int] = {}
    for part in parts:
        for bound, count in part.within:
            within[bound] = within.get(bound, 0) + count
    return Traffic(
        sum(part.answered for part in parts),
        sum(part.failed for part in parts),
        sum(part.refused for part in parts),
        sum(part.timed for part in parts),
        tuple(sorted(within.items())),
        sum(part.busy_s for part in parts),
        sum(part.in_flight for part in parts),
    )


@dataclass
class Counter:
    """The traffic of pods that come and go, since the first look."""

    api: Api
    namespace: str
    selector: str
    last: dict[str, Traffic] = field(default_factory=dict)
    sums: dict[str, Traffic] = field(default_factory=dict)
    begun: bool = False

    def look(self) -> Traffic:
        """What was answered until now; a pod that cannot be asked counts as before."""
        for pod in self.api.list(POD, self.namespace, labels=self.selector).items:
            name = pod["metadata"]["name"]
            path = POD.path(self.namespace, f"{name}:{HTTP_PORT}", "proxy/metrics")
            answer = self.api.ask("GET", path)
            if answer.status != 200:
                continue
            now = read(answer.body.decode("utf-8", "replace"))
            # One that was there at the first look has answered others; one that came later only these.
            before = self.last.get(name, Traffic() if self.begun else now)
            self.sums[name] = total([self.sums.get(name, Traffic()), now.since(before)])
            self.last[name] = now
        self.begun = True
        return total(list(self.sums.values()))
