"""Where a container engine listens: by the variables its own command reads, else where it usually is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from corten.errors import EngineError, UsageError

_UNIX: Final = "unix://"
_CONNECT_S: Final = 5.0


class Kind(Enum):
    """The two engines."""

    PODMAN = "podman"
    DOCKER = "docker"

    @property
    def variable(self) -> str:
        """What tells its command where it listens."""
        return "CONTAINER_HOST" if self is Kind.PODMAN else "DOCKER_HOST"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A unix socket, and who said so."""

    path: Path
    said_by: str

    def connect(self) -> socket.socket:
        """An open connection. Raises OSError."""
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(_CONNECT_S)
            opened.connect(str(self.path))
        except OSError:
            opened.close()
            raise
        return opened


def find(
    kind: Kind, env: Mapping[str, str], *, uid: int, exists: Callable[[Path], bool] = Path.exists
) -> Endpoint | None:
    """Where the engine listens; None when it does at no usual place.

    What the user says counts, whether it is there or not. Raises UsageError `engine.bad_host` for no unix socket.
    """
    if told := env.get(kind.variable, ""):
        return Endpoint(_told(kind, told), kind.variable)
    for path in _usual(kind, env, uid):
        if exists(path):
            return Endpoint(path, "its usual place")
    return None


def _told(kind: Kind, text: str) -> Path:
    path = text.removeprefix(_UNIX)
    if path == text or not path.startswith("/"):
        raise UsageError(
            "engine.bad_host",
            f"{kind.variable} is `{text[:80]}`",
            why="replicas and the gateway meet at unix sockets of this machine, so only unix:///PATH can be meant",
            hint=f"unset {kind.variable}, or run Corten on the engine's machine",
        )
    return Path(path)


def _usual(kind: Kind, env: Mapping[str, str], uid: int) -> Iterator[Path]:
    own = env.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    match kind:
        case Kind.PODMAN:
            # Root's own is the system's; a user's is the user's: another's would be refused anyway.
            yield Path("/run/podman/podman.sock") if uid == 0 else Path(own) / "podman/podman.sock"
        case Kind.DOCKER:
            if uid:
                yield Path(own) / "docker.sock"
            yield Path("/var/run/docker.sock")


def nobody_there(kind: Kind, endpoint: Endpoint | None, error: OSError | None = None) -> EngineError:
    """What to raise when nobody listens."""
    hints = {
        Kind.PODMAN: "install podman (`apt-get install podman`), or start its service: systemctl start podman.socket",
        Kind.DOCKER: "start Docker (`systemctl start docker`), or use another engine: --engine podman, embedded",
    }
    hint = hints[kind]
    if isinstance(error, PermissionError):
        hint = "become a member of the socket's group, or use an engine of your own: --engine podman, embedded"
    return EngineError(
        "engine.no_container_engine",
        f"{kind.value} cannot be reached",
        where=str(endpoint.path) if endpoint else "",
        why=f"{error.strerror} (named by {endpoint.said_by})" if endpoint and error else "it listens at no usual place",
        hint=hint,
    )
