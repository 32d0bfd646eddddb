"""A way to a container engine: the socket of one that runs, or podman's service in the home, started when needed."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Mapping

from corten.core.home import Home
from corten.engine.endpoint import Endpoint, Kind, find, nobody_there
from corten.engine.places import Places
from corten.engine.podman_service import PodmanService


def connecting(kind: Kind, home: Home, env: Mapping[str, str]) -> Callable[[], socket.socket]:
    """How to reach an engine, tried once."""
    endpoint = find(kind, env, uid=os.geteuid())
    podman = shutil.which("podman", path=env.get("PATH"))
    if endpoint is None and kind is Kind.PODMAN and podman:
        Places(Home(home.root)).make()
        connect = PodmanService(podman, Home(home.root).run / "podman.sock", home.state / "podman.log", env).connect
    elif endpoint is None:
        raise nobody_there(kind, endpoint)
    else:
        connect = _told(kind, endpoint)
    connect().close()
    return connect


def _told(kind: Kind, endpoint: Endpoint) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        try:
            return endpoint.connect()
        except OSError as error:
            raise nobody_there(kind, endpoint, error) from error

    return connect
