"""A gateway with the real Envoy and real upstream processes, in a home and on a port of its own."""

# ruff: noqa: ASYNC110
from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ports import free_port

from corten.core.front import Front
from corten.core.home import Home
from corten.core.route import DeploymentRoute, Endpoint, RevisionRoute, RouteTable
from corten.gateway.envoy import Envoy

UPSTREAM = Path(__file__).parents[1] / "integration/gateway_upstream.py"


class Upstream:
    """A replica's process; `address` is where the gateway finds it."""

    def __init__(self, folder: Path, name: str, *, address: str = "") -> None:
        self.name = name
        self.address = address or str(folder / f"{name}.sock")
        listen = self.address if address else f"unix:{self.address}"
        self.process = subprocess.Popen([sys.executable, str(UPSTREAM), listen, name], stdout=subprocess.PIPE)

    def wait_until_ready(self) -> Upstream:
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()

    def terminate(self) -> int:
        self.process.terminate()
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


class Site:
    """A home, a port, upstreams and gateways of one test; all gone after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.port = free_port()
        self.upstreams: list[Upstream] = []
        self.restarts = 0

    def upstream(self, name: str, **options) -> Upstream:
        made = Upstream(self.folder, name, **options)
        self.upstreams.append(made)
        return made.wait_until_ready()

    def gateway(self, **options) -> Envoy:
        def restarted() -> None:
            self.restarts += 1

        front = options.pop("front", None) or Front(port=options.pop("port", self.port))
        return Envoy(self.home, front, on_restart=restarted, **options)

    @contextlib.asynccontextmanager
    async def serving(self, table: RouteTable, **options):
        gateway = self.gateway(**options)
        await gateway.start(table)
        try:
            yield gateway
        finally:
            await gateway.stop()

    async def left_alone(self, table: RouteTable) -> int:
        """The pid of a gateway that serves while nobody drives it."""
        gateway = self.gateway()
        await gateway.start(table)
        pid = gateway.pid
        await gateway.detach()
        return pid

    def ask(self, path="/iris/predict", *, body=b"{}", host=None, headers=None):
        """POST; gives (status, headers, document)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, body, {**({"Host": host} if host else {}), **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read())
        finally:
            connection.close()

    async def asked(self, *args, **options):
        return await asyncio.to_thread(self.ask, *args, **options)

    @property
    def access_log(self) -> Path:
        return self.home.state / "gateway/access.log"

    @property
    def recorded_pid(self) -> int:
        return json.loads((self.home.state / "gateway/envoy.json").read_text())["pid"]


@contextlib.contextmanager
def new_site():
    """A site; nothing of it is left after."""
    folder = Path(tempfile.mkdtemp(prefix="corten-gw-", dir="/tmp"))
    folder.chmod(0o755)
    made = Site(folder)
    try:
        yield made
    finally:
        for upstream in made.upstreams:
            upstream.process.kill()
            upstream.process.wait(10)
            upstream.process.stdout.close()
        with contextlib.suppress(OSError, ValueError, KeyError):
            os.kill(made.recorded_pid, signal.SIGKILL)
        shutil.rmtree(folder)


def revision(number: int, *upstreams, weight: int = 100, draining=()) -> RevisionRoute:
    endpoints = [Endpoint(upstream.address) for upstream in upstreams]
    endpoints += [Endpoint(upstream.address, draining=True) for upstream in draining]
    return RevisionRoute(f"r{number}", weight, tuple(endpoints))


def table(*revisions: RevisionRoute, name: str = "iris", **options) -> RouteTable:
    return RouteTable((DeploymentRoute(name, revisions, **options),))


async def until(condition, *args, timeout_s: float = 10.0):
    async with asyncio.timeout(timeout_s):
        while not await condition(*args):
            await asyncio.sleep(0.002)


async def idle(gateway: Envoy, address: str):
    async def nothing_in_flight() -> bool:
        return await gateway.in_flight(address) == 0

    await until(nothing_in_flight)
