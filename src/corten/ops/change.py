"""Changes of what is deployed already: another revision, or another share for the one that is tried."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from corten.control.client import connect_if_deployed
from corten.core.deployment import Settings
from corten.core.events import Listener, nobody
from corten.core.home import Home
from corten.core.name import parse_name
from corten.ops.deploy import Deployed, follow, patience_s
from corten.ops.missing import no_deployment


def rollback(name: str, to: int | None = None, *, home: Home | None = None, listen: Listener = nobody) -> Deployed:
    """Go back to revision number `to`, or to the one that served before (during a rollout: the one that serves).

    A rolling update: no request fails. Raises NotFoundError (`control.unknown_deployment`, `control.unknown_revision`,
    `control.no_earlier_revision`) and what `deploy` raises for a rollout that fails.
    """
    return _change(name, "rollback", {"to": to}, home, listen)


def restart(name: str, *, home: Home | None = None, listen: Listener = nobody) -> Deployed:
    """Replace all replicas by new ones of the same image and settings, as a rolling update: no request fails.

    Raises NotFoundError `control.unknown_deployment` and what `deploy` raises for a rollout that fails.
    """
    return _change(name, "restart", {}, home, listen)


def promote(name: str, share: int = 100, *, home: Home | None = None, listen: Listener = nobody) -> Deployed:
    """Give the canary of a deployment `share` percent of the requests from now on; with 100 it becomes what serves.

    A share below 100 stays until the user says otherwise: nothing judges it any more. Raises NotFoundError
    (`control.unknown_deployment`, `control.no_canary`) and what `deploy` raises for a rollout that fails.
    """
    return _change(name, "promote", {"share": share}, home, listen)


def _change(name: str, verb: str, body: Mapping[str, Any], home: Home | None, listen: Listener) -> Deployed:
    began_s = time.perf_counter()
    home = home or Home.from_env(os.environ, uid=os.getuid())
    client = connect_if_deployed(home)
    if client is None:
        raise no_deployment(name)
    view = client.get(f"/v1/deployments/{parse_name(name)}")
    accepted = client.post(f"/v1/deployments/{name}/{verb}", {**body, "generation": view["generation"]})
    timeout_s = patience_s(Settings(replicas=max(1, view["wanted"])))
    return follow(home, client, accepted, listen=listen, timeout_s=timeout_s, began_s=began_s)
