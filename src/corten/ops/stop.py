"""End deployments: drained, ended, forgotten. Images stay in the store."""

from __future__ import annotations

import os
import time

from corten.control.client import Client, connect_if_deployed
from corten.core.home import Home
from corten.core.name import parse_name
from corten.errors import NotFoundError, UnhealthyError
from corten.ops.missing import no_deployment

_POLL_S = 5.0


def stop(name: str = "", *, home: Home | None = None, timeout_s: float = 120.0) -> tuple[str, ...]:
    """Stop one deployment, or (no name) all of them with the gateway and the daemon; gives the names stopped.

    Returns when no process of them is left. Raises NotFoundError for a name nobody has.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    if name:
        parse_name(name)
    client = connect_if_deployed(home)
    if client is None:
        if name:
            raise no_deployment(name)
        return ()
    names = [name] if name else [one["name"] for one in client.get("/v1/status")["deployments"]]
    begun = [(each, client.delete(f"/v1/deployments/{each}")["after"]) for each in names]
    until_s = time.monotonic() + timeout_s
    for each, after in begun:
        _wait_gone(client, each, after, until_s)
    if not name:
        client.shut_down(until_s=until_s)
    return tuple(names)


def _wait_gone(client: Client, name: str, after: int, until_s: float) -> None:
    while (left_s := until_s - time.monotonic()) > 0:
        try:
            client.get(f"/v1/deployments/{name}")
        except NotFoundError:
            return
        hold_s = min(_POLL_S, left_s)
        heard = client.get(f"/v1/deployments/{name}/events", after=after, wait_s=f"{hold_s:.3f}")
        after = max([after, *(event["seq"] for event in heard["events"])])
    raise UnhealthyError(
        "stop.timeout",
        f"`{name}` has not ended yet",
        why="its replicas still finish what they have; stopping goes on",
        hint=f"see `corten status {name}`",
    )
