"""A home of its own on a small disk, two small models in it, and what is asked of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corten.core.canary import Canary
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.process import ProcessId
from corten.core.resources import Resources
from corten.core.rest import Rest
from corten.errors import CortenError
from corten.ops.deploy import deploy
from corten.ops.status import status
from corten.ops.stop import stop
from corten.ops.up import up
from corten.testing.load import Load

MEMORY_BYTES = 160 << 20
RATE_PER_S = {"unary": 100.0, "stream": 20.0, "upload": 20.0}
BODY = {"unary": b'{"n": 1}', "stream": b'{"n": 1}', "upload": json.dumps({"n": 1, "text": "x" * 1_000_000}).encode()}
# Both raise, or eat, while there is a file beside their socket that says so.
MODEL = """
import asyncio, os
from collections.abc import AsyncIterator

BESIDE = os.path.dirname(os.environ.get("CORTEN_LISTEN", "").removeprefix("unix:"))
BROKEN, HUNGRY = os.path.join(BESIDE, "broken"), os.path.join(BESIDE, "hungry")
EATEN = []

def check() -> None:
    if os.path.exists(BROKEN):
        raise RuntimeError("broken on purpose")
    if os.path.exists(HUNGRY):
        EATEN.append(b"x" * (64 << 20))

class Stepper:
    async def predict(self, n: int, text: str = "") -> AsyncIterator[int]:
        check()
        for step in range(10):
            await asyncio.sleep(0.03)
            yield n + step

class Plain:
    def predict(self, n: int, text: str = "") -> int:
        check()
        return n + len(text)
"""


@dataclass
class Place:
    """One deployment under one kind of traffic."""

    home: Home
    port: int
    traffic: str
    image: Digest
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "stepper" if self.traffic == "stream" else "plain"

    def deploy(self, replicas: int, *, rest: Rest | None = None, canary: Canary | None = None, mark: str = "") -> None:
        """With `rest` none need be there."""
        settings = Settings(
            replicas=0 if rest else replicas,
            most_replicas=replicas if rest else 0,
            rest=rest or Rest(),
            canary=canary or Canary(),
            env={"MARK": mark},
            resources=Resources(memory_bytes=MEMORY_BYTES),
            drain_s=10,
        )
        deploy(self.image, self.name, settings, home=self.home, port=self.port)

    def one(self):
        return next(each for each in status(home=self.home).deployments if each.name == self.name)

    def victim(self):
        """A replica that takes requests, else one that is about to; waited for. None that is kept for a rollback."""
        found: list = []

        def there() -> bool:
            one = self.one()
            own = [each for each in one.replicas if each.pid and f"r{each.revision}" == one.revision]
            found[:] = [each for each in own if each.state == "ready"] or own
            return bool(found)

        if not until(there, 10):
            raise SystemExit("no replica to do harm to")
        return found[0]

    def well(self) -> bool:
        one = self.one()
        return 0 < one.wanted <= one.ready and one.state == "serving"

    def load(self, rate_per_s: float = 0.0) -> Load:
        return Load(
            self.port,
            f"/{self.name}/predict",
            BODY[self.traffic],
            rate_per_s=rate_per_s or RATE_PER_S[self.traffic],
            headers={"content-type": "application/json"},
        )

    def daemon_pid(self) -> int:
        return int(status(home=self.home).parts["daemon"]["pid"])

    def gateway_pid(self) -> int:
        return int(status(home=self.home).parts["gateway"]["pid"])


def send(pid: int, number: signal.Signals) -> None:
    if process := ProcessId.of(pid):
        process.send(number)


def until(holds: Callable[[], bool], within_s: float = 60.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(CortenError):
            if holds():
                return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def beside(work: Callable[[], None], ended: threading.Event) -> Iterator[None]:
    """Work in a thread that is told of the end by `ended`."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True)
class Site:
    """The folder, its home and a port; `small` when it has a disk of its own that may be filled."""

    root: Path
    home: Home
    port: int
    small: bool

    def place(self, traffic: str) -> Place:
        kind = "Stepper" if traffic == "stream" else "Plain"
        built = up(f"{self.root / 'model.py'}:{kind}", home=self.home, port=self.port).built.digest
        return Place(self.home, self.port, traffic, built)


@contextlib.contextmanager
def site() -> Iterator[Site]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind then either
    root = Path(tempfile.mkdtemp(prefix="corten-bench-engine-", dir="/tmp"))
    root.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200m,mode=0755", "tmpfs", str(root)]
    small = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Site(root, Home(root / "home"), port, small)
    (root / "model.py").write_text(MODEL)
    try:
        yield here
    finally:
        with contextlib.suppress(CortenError):
            stop(home=here.home)
        if small:
            subprocess.run(["umount", "-l", str(root)], check=False)
        shutil.rmtree(root, ignore_errors=True)
