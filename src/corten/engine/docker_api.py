"""The Docker Engine API over a unix socket, as Docker and podman speak it: one call, one connection.

https://docs.docker.com/reference/api/engine/. Paths carry no version: each server takes its own newest, and what is
asked here has not changed since 1.24 (Docker 29 refuses what is older than 1.44, podman 4 what is newer than 1.41).
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from corten.errors import EngineError

CALL_S: Final = 60.0
# An image of 10 GB onto a slow disk.
LOAD_S: Final = 1800.0
_ANSWER_BYTES: Final = 16 << 20
_LOG_BYTES: Final = 4 << 20
_PIECE_BYTES: Final = 256 << 10
DISK_FULL: Final = "engine.disk_full"
# ENOSPC in Go's words, somewhere in a message of what failed for it.
_NO_ROOM: Final = "no space left on device"
_HEADER: Final = 8  # of a frame of an attached stream: which of the two, three zeros, its size

Document = TypeVar("Document")
Connect = Callable[[], socket.socket]
Json = Mapping[str, object]
# What to keep of an answer.
Keep = Callable[[http.client.HTTPResponse], bytes]


class State(msgspec.Struct, frozen=True, rename="pascal"):
    """`State` of an inspected container."""

    status: str = ""
    running: bool = False
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)
    error: str = ""


class HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """What a container was given of the host: what is asked for here and looked at by `doctor --security`."""

    memory: int = 0
    nano_cpus: int = 0
    pids_limit: int | None = None
    readonly_rootfs: bool = False
    privileged: bool = False
    network_mode: str = ""
    pid_mode: str = ""
    ipc_mode: str = ""
    cap_add: Sequence[str] | None = None
    cap_drop: Sequence[str] | None = None
    security_opt: Sequence[str] | None = None


class Mounted(msgspec.Struct, frozen=True, rename="pascal"):
    """One mount of a container."""

    type: str = ""
    source: str = ""
    destination: str = ""
    rw: bool = msgspec.field(name="RW", default=True)


class Config(msgspec.Struct, frozen=True, rename="pascal"):
    """What a container was told to run."""

    user: str = ""
    labels: Mapping[str, str] | None = None


class Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    """A container as `GET /containers/ID/json` tells of it."""

    id: str
    name: str = ""
    state: State = msgspec.field(default_factory=State)
    config: Config = msgspec.field(default_factory=Config)
    host_config: HostConfig = msgspec.field(default_factory=HostConfig)
    mounts: Sequence[Mounted] | None = None


class Listed(msgspec.Struct, frozen=True, rename="pascal"):
    """A container in a list. `state`: created, running, paused, exited, dead ..."""

    id: str
    state: str = ""
    labels: Mapping[str, str] | None = None


class RootFs(msgspec.Struct, frozen=True, rename="pascal"):
    """The diff_ids of an image."""

    layers: Sequence[str] | None = None


class FoundImage(msgspec.Struct, frozen=True, rename="pascal"):
    """An image the engine has."""

    id: str
    root_fs: RootFs = msgspec.field(name="RootFS", default_factory=RootFs)
    repo_tags: Sequence[str] | None = None


class Component(msgspec.Struct, frozen=True, rename="pascal"):
    """One part of an engine."""

    name: str = ""
    version: str = ""


class Version(msgspec.Struct, frozen=True, rename="pascal"):
    """What answers at the socket."""

    version: str = ""
    components: Sequence[Component] | None = None

    @property
    def is_podman(self) -> bool:
        """Whether it is podman, whatever the socket is called."""
        return any("podman" in each.name.lower() for each in self.components or ())


class Info(msgspec.Struct, frozen=True, rename="pascal"):
    """How an engine is set up, as far as it matters for limits and isolation."""

    security_options: Sequence[str] | None = None
    memory_limit: bool = False
    cpu_cfs_quota: bool = False
    pids_limit: bool = False
    cgroup_version: str = ""
    cdi_folders: Sequence[str] | None = msgspec.field(name="CDISpecDirs", default=None)


class _Security(msgspec.Struct, frozen=True):
    seccomp_profile: str = msgspec.field(name="seccompProfilePath", default="")


class _Host(msgspec.Struct, frozen=True):
    security: _Security = msgspec.field(default_factory=_Security)


class _PodmanInfo(msgspec.Struct, frozen=True):
    host: _Host = msgspec.field(default_factory=_Host)


class _Created(msgspec.Struct, frozen=True, rename="pascal"):
    id: str


class _Message(msgspec.Struct, frozen=True):
    message: str = ""


class _Line(msgspec.Struct, frozen=True):
    stream: str = ""
    error: str = ""


class RefusedError(EngineError):
    """The engine answered no; `status` is HTTP's (404: no such container or image, 409: not in a state for that).

    Its code is `engine.refused`, or DISK_FULL where the engine has no room.
    """

    def __init__(self, status: int, call: str, message: str) -> None:
        code, what, hint = "engine.refused", f"the container engine refused `{call}`", ""
        if _NO_ROOM in message:
            code, what = DISK_FULL, f"the container engine has no room left for `{call}`"
            hint = (
                "`podman image prune` or `docker image prune`, or a larger disk where it keeps images; then once more"
            )
        super().__init__(code, what, why=message or f"status {status}", hint=hint)
        self.status = status


class DockerApi:
    """The calls that are used here. `connect` opens the socket, and raises EngineError when nobody is there."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    # -- the engine

    def version(self) -> Version:
        """Who answers."""
        return self._get("/version", Version)

    def info(self) -> Info:
        """How it is set up."""
        return self._get("/info", Info)

    def podman_seccomp(self) -> str:
        """The file of podman's own seccomp profile; empty where it does not say."""
        return self._get("/v4.0.0/libpod/info", _PodmanInfo).host.security.seccomp_profile

    # -- images

    def image(self, reference: str) -> FoundImage | None:
        """An image by id or name; None when it is not there."""
        return self._found(f"/images/{quote(reference, safe='/:@')}/json", FoundImage)

    def images(self) -> Sequence[FoundImage]:
        """All images, without their layers."""
        return self._get("/images/json", list[FoundImage])

    def load(self, archive: Iterable[bytes]) -> None:
        """Load an image from the archive's bytes. Raises RefusedError; a server says no in the middle of its answer."""
        data = self._call("POST", "/images/load?quiet=1", stream=archive, timeout_s=LOAD_S)
        for line in data.splitlines():
            said = _decoded(line, _Line)
            if said.error:
                raise RefusedError(200, "POST /images/load", said.error)

    def remove_image(self, reference: str) -> None:
        """Take a name from an image, and the image away with its last one. RefusedError 409 while one uses it."""
        self._call("DELETE", f"/images/{quote(reference, safe='/:@')}")

    # -- containers

    def create(self, name: str, body: Json) -> str:
        """Make a container, without starting it; its id. RefusedError 409 when there is one of that name."""
        return _decoded(self._call("POST", f"/containers/create?name={quote(name)}", body), _Created).id

    def create_libpod(self, body: Json) -> str:
        """The same by podman's own API, for what its Docker API does not take."""
        return _decoded(self._call("POST", "/v4.0.0/libpod/containers/create", body), _Created).id

    def init_libpod(self, container: str) -> None:
        """Of podman alone: have everything there that it starts in, with a process that waits for `start`."""
        self._call("POST", f"/v4.0.0/libpod/containers/{container}/init")

    def start(self, container: str) -> None:
        """Start it; nothing when it runs."""
        self._post(container, "start")

    def kill(self, container: str, signal: str) -> None:
        """Send its first process a signal. RefusedError 409 when it does not run."""
        self._post(container, f"kill?signal={signal}")

    def pause(self, container: str) -> None:
        """Freeze all its processes."""
        self._post(container, "pause")

    def unpause(self, container: str) -> None:
        """Let them go on."""
        self._post(container, "unpause")

    def remove(self, container: str) -> None:
        """Remove it; nothing when it is not there."""
        with _there():
            self._call("DELETE", f"/containers/{container}?force=1&v=1")

    def inspect(self, container: str) -> Inspected | None:
        """All about one; None when it is not there."""
        return self._found(f"/containers/{container}/json", Inspected)

    def list(self, label: str) -> Sequence[Listed]:
        """All containers with a label `NAME=value`, running or not."""
        query = urlencode({"all": "1", "filters": json.dumps({"label": [label]})})
        return self._get(f"/containers/json?{query}", list[Listed])

    def logs(self, container: str, tail: int | None = None) -> bytes:
        """What it wrote to stdout and stderr, at most the last 4 MiB; empty when it is not there.

        `tail`: of so many lines. podman 4 puts long lines together wrongly when it is asked for them.
        """
        path = f"/containers/{container}/logs?stdout=1&stderr=1&tail={tail or 'all'}"
        try:
            return self._call("GET", path, keep=_last)
        except RefusedError as error:
            if error.status != http.client.NOT_FOUND:
                raise
            return b""

    # -- inside

    def _post(self, container: str, verb: str) -> None:
        self._call("POST", f"/containers/{container}/{verb}")

    def _get(self, path: str, kind: type[Document]) -> Document:
        return _decoded(self._call("GET", path), kind)

    def _found(self, path: str, kind: type[Document]) -> Document | None:
        try:
            return self._get(path, kind)
        except RefusedError as error:
            if error.status != http.client.NOT_FOUND:
                raise
            return None

    def _call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        stream: Iterable[bytes] | None = None,
        timeout_s: float = CALL_S,
        keep: Keep | None = None,
    ) -> bytes:
        what = f"{method} {path.partition('?')[0]}"
        try:
            return self._once(method, path, body, stream=stream, timeout_s=timeout_s, keep=keep)
        except (ConnectionError, http.client.RemoteDisconnected) as error:
            # podman's service ends by itself when nobody asks: this connection was taken and never answered.
            if stream is not None:
                raise _broken(what, error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _broken(what, error) from error
        try:
            return self._once(method, path, body, stream=stream, timeout_s=timeout_s, keep=keep)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(what, error) from error

    def _once(
        self,
        method: str,
        path: str,
        body: Json | None,
        *,
        stream: Iterable[bytes] | None,
        timeout_s: float,
        keep: Keep | None,
    ) -> bytes:
        connection = http.client.HTTPConnection("engine", timeout=timeout_s)
        connection.sock = self._connect()
        connection.sock.settimeout(timeout_s)
        try:
            if stream is not None:
                connection.request(method, path, stream, {"Content-Type": "application/x-tar"}, encode_chunked=True)
            elif body is not None:
                connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            else:
                connection.request(method, path)
            answer = connection.getresponse()
            good = answer.status < 300 or answer.status == http.client.NOT_MODIFIED
            data = keep(answer) if keep and good else answer.read(_ANSWER_BYTES)
        finally:
            connection.close()
        if not good:
            raise RefusedError(answer.status, f"{method} {path.partition('?')[0]}", _message(data))
        return data


def _last(answer: http.client.HTTPResponse) -> bytes:
    """The end of an attached stream of any length."""
    kept, rest = bytearray(), b""
    while piece := answer.read(_PIECE_BYTES):
        rest += piece
        at = 0
        while at + _HEADER <= len(rest):
            end = at + _HEADER + int.from_bytes(rest[at + 4 : at + _HEADER], "big")
            if end > len(rest):
                break
            kept += rest[at + _HEADER : end]
            at = end
        rest = rest[at:]
        del kept[:-_LOG_BYTES]
    return bytes(kept)


def _decoded(data: bytes, kind: type[Document]) -> Document:
    try:
        return msgspec.json.decode(data, type=kind, strict=False)
    except msgspec.MsgspecError as error:
        raise EngineError("engine.bad_answer", "the container engine gave an unknown answer", why=str(error)) from error


def _message(data: bytes) -> str:
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(data, type=_Message).message
    return data[:500].decode(errors="replace").strip()


def _broken(what: str, error: Exception) -> EngineError:
    return EngineError(
        "engine.no_answer",
        f"the container engine did not answer `{what}`",
        why=str(error) or type(error).__name__,
        hint="see its own log: `journalctl -u docker` or `-u podman`",
    )


@contextmanager
def _there() -> Iterator[None]:
    """Nothing is done to what is not there."""
    try:
        yield
    except RefusedError as error:
        if error.status != http.client.NOT_FOUND:
            raise
