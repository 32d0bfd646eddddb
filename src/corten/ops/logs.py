"""What a deployment's replicas wrote, those that ended lately included."""

from __future__ import annotations

import os
from dataclasses import dataclass

from corten.control.client import connect_if_deployed
from corten.core.home import Home
from corten.core.name import parse_name
from corten.ops.missing import no_deployment


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line and the replica that wrote it."""

    replica: str
    text: str


def logs(name: str, *, tail: int = 100, home: Home | None = None) -> tuple[LogLine, ...]:
    """The last lines of each replica, oldest replica first. Raises NotFoundError for a name nobody has."""
    home = home or Home.from_env(os.environ, uid=os.getuid())
    client = connect_if_deployed(home)
    if client is None:
        raise no_deployment(name)
    found = client.get(f"/v1/deployments/{parse_name(name)}/logs", tail=max(0, min(tail, 10_000)))
    return tuple(LogLine(line["replica"], line["text"]) for line in found["lines"])
