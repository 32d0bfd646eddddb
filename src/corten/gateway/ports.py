"""Whether a TCP port can be had, and who has it."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from corten.errors import EngineError

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


def require_free(host: str, port: int) -> None:
    """Raise EngineError unless `host:port` can be listened on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier gateway in TIME_WAIT do not hinder Envoy either; listeners do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Linux lets two sockets with SO_REUSEADDR bind as long as neither listens.
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise taken(host, port) from error
            raise EngineError(
                "gateway.address_refused",
                f"the gateway cannot listen on `{host}:{port}`",
                why=error.strerror or str(error),
                hint="choose another with `--port`",
            ) from error


def taken(host: str, port: int) -> EngineError:
    """The error for a port that another process listens on, naming it where that can be told."""
    return EngineError(
        "gateway.port_taken",
        f"port `{port}` is taken",
        where=f"{host}:{port}",
        why=f"held by {holder}" if (holder := holder_of(port)) else "another process listens on it",
        hint=f"choose another with `--port {port + 1 if port < 65535 else 8080}`, or end that process",
    )


def holder_of(port: int) -> str:
    """The process that listens on a port, as `NAME (pid N)`; empty when it cannot be told (not ours to look at)."""
    inodes = set(_listening_inodes(port))
    if not inodes:
        return ""
    for process in sorted(path for path in Path("/proc").iterdir() if path.name.isdigit()):
        if inodes.intersection(_open_files(process)):
            with contextlib.suppress(OSError):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _open_files(process: Path) -> Iterator[str]:
    """What the file descriptors of a process point at; nothing for one that is gone or another user's."""
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # closed meanwhile
            yield str(descriptor.readlink())


def _listening_inodes(port: int) -> Iterator[str]:
    """Links like `socket:[123]` of what listens on a port (proc(5), /proc/net/tcp)."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"
