"""Back to an earlier revision, as a rolling update: no request fails."""

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


def rollback(name: str, to: int | None = None, *, home: Home | None = None, listen: Listener = nobody) -> Deployed:
    """Go back to revision number `to`, or to the one that served before (during a rollout: the one that serves).

    Raises NotFoundError (`control.unknown_deployment`, `control.unknown_revision`, `control.no_earlier_revision`) and
    what `deploy` raises for a rollout that fails.
    """
    began_s = time.perf_counter()
    home = home or Home.from_env(os.environ, uid=os.getuid())
    client = connect_if_deployed(home)
    if client is None:
        raise no_deployment(name)
    view = client.get(f"/v1/deployments/{parse_name(name)}")
    accepted = client.post(f"/v1/deployments/{name}/rollback", {"to": to, "generation": view["generation"]})
    timeout_s = patience_s(Settings(replicas=max(1, view["wanted"])))
    return follow(home, client, accepted, listen=listen, timeout_s=timeout_s, began_s=began_s)
