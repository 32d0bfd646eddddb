"""Give a canary a larger share of the requests, or all of them."""

from __future__ import annotations

import os
import time

from corten.control.client import connect_if_deployed
from corten.core.deployment import Settings
from corten.core.events import Listener, nobody
from corten.core.home import Home
from corten.core.name import parse_name
from corten.ops.deploy import Deployed, follow, patience_s
from corten.ops.missing import no_deployment


def promote(name: str, share: int = 100, *, home: Home | None = None, listen: Listener = nobody) -> Deployed:
    """Give the canary of a deployment `share` percent of the requests from now on; with 100 it becomes what serves.

    A share below 100 stays until the user says otherwise: nothing judges it any more. Raises NotFoundError
    (`control.unknown_deployment`, `control.no_canary`) and what `deploy` raises for a rollout that fails.
    """
    began_s = time.perf_counter()
    home = home or Home.from_env(os.environ, uid=os.getuid())
    client = connect_if_deployed(home)
    if client is None:
        raise no_deployment(name)
    view = client.get(f"/v1/deployments/{parse_name(name)}")
    body = {"share": share, "generation": view["generation"]}
    accepted = client.post(f"/v1/deployments/{name}/promote", body)
    timeout_s = patience_s(Settings(replicas=max(1, view["wanted"])))
    return follow(home, client, accepted, listen=listen, timeout_s=timeout_s, began_s=began_s)
