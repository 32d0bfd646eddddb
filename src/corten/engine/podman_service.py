"""podman's API without a service of the system: `podman system service` on a socket in the home, started when needed.

podman has no daemon: containers are held by a small process each (conmon) and outlive this service. It ends by itself
when nobody has asked for some seconds, and the next call starts it again; so whoever started it may die at any moment.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from corten.core.process import ProcessId
from corten.engine.endpoint import Endpoint, Kind, nobody_there
from corten.engine.launch import reap
from corten.errors import EngineError

# The loop asks every five seconds while anything is deployed.
IDLE_S: Final = 10
_UP_S: Final = 20.0
_POLL_S: Final = 0.02
_UNIFIED: Final = Path("/sys/fs/cgroup/cgroup.controllers")
_LOG_TAIL_BYTES: Final = 2000


class PodmanService:
    """The service of one home. Threads may connect at the same time; one of them starts it."""

    def __init__(self, podman: str, path: Path, log: Path, env: Mapping[str, str]) -> None:
        self._command = service_command(
            podman, path, old_cgroups=not Path("/sys/fs/cgroup/cgroup.controllers").exists()
        )
        self._endpoint = Endpoint(path, "Corten")
        self._log = log
        self._env = dict(env)
        self._lock = threading.Lock()
        self._pid = 0

    def connect(self) -> socket.socket:
        """A connection to the service, which is started if need be. Raises EngineError `engine.no_container_engine`."""
        with suppress(OSError):
            return self._endpoint.connect()
        with self._lock:
            return self._started_connection()

    def _started_connection(self) -> socket.socket:
        deadline_s = time.monotonic() + _UP_S
        started = False
        while True:
            try:
                return self._endpoint.connect()
            except OSError as error:
                if not started:
                    started = self._start()
                elif (code := reap(self._pid)) is not None:
                    raise self._failed(f"it ended with code {code}") from error
                elif time.monotonic() > deadline_s:
                    self._end()
                    raise self._failed(f"nothing answered within {_UP_S:g} s") from error
            time.sleep(_POLL_S)

    def _start(self) -> bool:
        self._end()  # one that takes no connection any more
        with suppress(FileNotFoundError):
            self._endpoint.path.unlink()
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with self._log.open("wb") as log:
                child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._env,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            raise nobody_there(Kind.PODMAN, self._endpoint, error) from error
        # It may outlive this object, which would warn at its end: reaped here, or by init when we are gone.
        child.returncode = 0
        self._pid = child.pid
        return True

    def _end(self) -> None:
        if self._pid and reap(self._pid) is None and (process := ProcessId.of(self._pid)):
            process.kill()
            reap(self._pid)
        self._pid = 0

    def _failed(self, why: str) -> EngineError:
        said = ""
        with suppress(OSError):
            said = self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip().rpartition("\n")[2]
        return EngineError(
            "engine.no_container_engine",
            "`podman system service` could not be started",
            where=str(self._log),
            why=f"{why}: {said}" if said else why,
            hint="see whether `podman info` works",
        )


def service_command(podman: str, path: Path, *, old_cgroups: bool) -> tuple[str, ...]:
    """How the service is started. Pure but for looking for runc."""
    # crun refuses a machine with both versions of cgroups mounted; runc takes it.
    runc = shutil.which("runc") or shutil.which("runc", path="/usr/sbin:/usr/bin") if old_cgroups else None
    runtime = ("--runtime", runc) if runc else ()
    return (podman, *runtime, "system", "service", "--time", str(IDLE_S), f"unix://{path}")
