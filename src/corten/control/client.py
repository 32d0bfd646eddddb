"""The other end of the daemon's socket: synchronous, standard library only, starts the daemon when it does not run."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from corten import __version__
from corten.control import wire
from corten.control.engines import other_engine
from corten.control.folders import check_run, make_folders
from corten.core.home import Home
from corten.core.process import is_stopped
from corten.errors import CortenError, EngineError, NotFoundError

LOST = "control.daemon_lost"
HANGS = "control.daemon_hangs"
_START_S = 40.0
_OTHER_START_S = 2.0
_MOST_STARTS = 5
_LAUNCH_S = 10.0
_ANSWER_S = 60.0
_LOOK_S = 0.5
_LONGEST_LOG_BYTES = 8 << 20
_POLL_S = 0.02


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("daemon", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket, as `http.client` asks for it. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def listener(self) -> int:
        """The process that listens at the other end (unix(7), SO_PEERCRED); 0 when it cannot be told."""
        credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        return int(pid)


@dataclass(frozen=True, slots=True)
class Client:
    """A running daemon of a home."""

    home: Home

    def get(self, path: str, *, timeout_s: float = _ANSWER_S, **query: Any) -> Any:
        """GET a path; the JSON it answers, or the CortenError it tells of. Asks the successor if the daemon dies."""
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            return self._ask("GET", target, None, timeout_s)
        except EngineError as error:
            if error.code != LOST:
                raise
            connect(self.home)
            return self._ask("GET", target, None, timeout_s)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """PUT JSON."""
        return self._ask("PUT", path, body, _ANSWER_S)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST JSON."""
        return self._ask("POST", path, body, _ANSWER_S)

    def delete(self, path: str) -> Any:
        """DELETE a path."""
        return self._ask("DELETE", path, None, _ANSWER_S)

    def shut_down(self, *, until_s: float) -> None:
        """Have the daemon end (what is deployed goes on) and wait until it has; `until_s` is monotonic time."""
        pid = self.get("/v1/status")["pid"]
        try:
            process = os.pidfd_open(pid)
        except OSError:
            return
        try:
            self.post("/v1/shutdown", {"replicas": "keep"})
            select.select([process], [], [], max(0.0, until_s - time.monotonic()))
        finally:
            os.close(process)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> Any:
        connection = UnixConnection(str(self.home.daemon_socket), timeout_s)
        pid = 0
        try:
            connection.connect()
            pid = connection.listener()
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            self._wait(connection.sock, pid, timeout_s)
            response = connection.getresponse()
            text = response.read()
        except TimeoutError as error:
            raise _hangs(self.home, pid, f"no answer within {timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise _lost(self.home, error) from error
        finally:
            connection.close()
        try:
            value = json.loads(text)
        except ValueError as error:
            raise EngineError(
                "control.bad_answer", "the daemon's answer is not JSON", why=text[:200].decode("latin-1")
            ) from error
        if response.status >= 400:
            raise wire.rebuild(value.get("error") if isinstance(value, dict) else value)
        return value

    def _wait(self, answer: socket.socket, pid: int, timeout_s: float) -> None:
        """Until the answer begins. A stopped daemon takes connections all the same, and keeps them waiting."""
        deadline_s = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(answer, select.POLLIN)
        while not poll.poll(_LOOK_S * 1000):
            if is_stopped(pid):
                raise _hangs(self.home, pid, "it is stopped by a signal (SIGSTOP)")
            if time.monotonic() > deadline_s:
                raise TimeoutError


def connect(home: Home, *, start: bool = True, port: int | None = None, engine: str = "") -> Client:
    """The daemon of this home, started if it does not run and `start` says so. `port`: the gateway's from now on.

    `engine` is the one to run replicas with (empty: the one used before, at first the embedded one). Raises
    NotFoundError `control.no_daemon`, EngineError `control.start_timeout` and whatever kept it from starting.
    """
    client = Client(home)
    running = _answers(home)
    if not running and not start:
        raise NotFoundError("control.no_daemon", "no daemon runs for this home", where=str(home.root))
    if running and start and (_is_older(client) or _has_other(client, engine)):
        # What is deployed goes on; the new one adopts it.
        client.shut_down(until_s=time.monotonic() + _LAUNCH_S)
        running = _answers(home)  # a service has started the next by itself
    if not running:
        _start(home, port, engine)
    if port is not None and client.get("/v1/gateway")["port"] != port:
        client.put("/v1/gateway", {"port": port})
    return client


def _is_older(client: Client) -> bool:
    """Whether the daemon is of a version before ours: Corten was upgraded beneath it."""
    try:
        theirs = client.get("/v1/version")["version"]
    except CortenError as error:
        if error.code == HANGS:
            raise
        return error.code == "control.unknown_route"  # one that cannot even say
    return _numbers(theirs) < _numbers(__version__)


def _has_other(client: Client, engine: str) -> bool:
    """Whether another engine than the one asked for runs nothing: the daemon lingers after the last deployment."""
    if not engine:
        return False
    seen = client.get("/v1/status")
    if seen["engine"] != engine and seen["deployments"]:
        raise other_engine(seen["engine"], engine)
    return bool(seen["engine"] != engine)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def connect_if_deployed(home: Home) -> Client | None:
    """The daemon if it runs, or if it died while something is deployed: then it is started, and adopts that."""
    return connect(home) if _answers(home) or _deployed(home) else None


def _deployed(home: Home) -> bool:
    """Whether the state knows a deployment. If it cannot be read, the daemon is the one to say why."""
    file = home.state / "corten.db"
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as state:
            return bool(state.execute("SELECT count(*) FROM deployments").fetchone()[0])
    except sqlite3.Error:
        return True


def _answers(home: Home) -> bool:
    check_run(home)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2.0)
            probe.connect(str(home.daemon_socket))
    except OSError:
        return False
    return True


def _start(home: Home, port: int | None, engine: str) -> None:
    """Start a daemon that outlives us, and wait until one answers, or says why not."""
    words = [sys.executable, "-m", "corten.control.daemon", "--home", str(home.root), "--detach", "yes"]
    if engine:
        words += ["--engine", engine]
    if port is not None:
        words += ["--port", str(port)]
    deadline_s = time.monotonic() + _START_S
    make_folders(home)
    for _ in range(_MOST_STARTS):
        told = _launch(home, words, deadline_s)
        if "error" in told:
            raise wire.rebuild(told["error"])
        # Otherwise it is ready, or another one was starting already, or it was killed before it could speak.
        if _answers_by(home, min(deadline_s, time.monotonic() + (_START_S if "ready" in told else _OTHER_START_S))):
            return
    raise EngineError(
        "control.start_timeout",
        "the daemon did not start",
        where=str(home.state / "daemon.log"),
        why=f"no answer within {_START_S:g} s" if time.monotonic() > deadline_s else "it ended without a word",
        hint=f"see `tail {home.state / 'daemon.log'}`",
    )


def _launch(home: Home, words: Sequence[str], deadline_s: float) -> dict[str, Any]:
    """Run the daemon's command line, and read the line it begins with; empty when it ended without one."""
    log = _open_log(home)
    try:
        # cwd: a deleted or unmounted folder under a daemon is a nuisance; it needs none.
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True, cwd="/"
        )
    finally:
        os.close(log)
    assert process.stdout is not None  # noqa: S101 - told by PIPE above
    with process.stdout as pipe:
        line = _first_line(pipe.fileno(), deadline_s)
    try:
        # The daemon itself is a child of what we started, which ends at once.
        process.wait(timeout=_LAUNCH_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return _parse(line)


def _answers_by(home: Home, deadline_s: float) -> bool:
    while not _answers(home):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def _open_log(home: Home) -> int:
    file = home.state / "daemon.log"
    with suppress(OSError):
        if file.stat().st_size > _LONGEST_LOG_BYTES:
            file.replace(file.with_name("daemon.log.1"))
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EngineError(
            "control.home_unusable", "the daemon's log cannot be written", where=str(file), why=str(error)
        ) from error


def _first_line(fd: int, deadline_s: float) -> bytes:
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while b"\n" not in data:
        left_ms = (deadline_s - time.monotonic()) * 1000
        if left_ms <= 0 or not poll.poll(left_ms):
            break
        piece = os.read(fd, 65536)
        if not piece:
            break
        data += piece
    return data


def _parse(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _lost(home: Home, error: Exception) -> CortenError:
    return EngineError(
        LOST,
        "the daemon does not answer",
        where=str(home.daemon_socket),
        why=str(error) or type(error).__name__,
        hint="repeat the command: it starts the daemon again; replicas go on meanwhile",
    )


def _hangs(home: Home, pid: int, why: str) -> CortenError:
    return EngineError(
        HANGS,
        f"the daemon (pid {pid}) does not answer",
        where=str(home.daemon_socket),
        why=why,
        hint=f"`kill -CONT {pid}` lets it go on, `kill -9 {pid}` makes room for another; replicas go on meanwhile",
    )
