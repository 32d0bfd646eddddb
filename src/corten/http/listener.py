"""Listening sockets. A unix socket is made beside its path and renamed over it, so there is always one or none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corten.errors import UsageError
from corten.http.address import Address, TcpAddress, UnixAddress

_CONNECT_TEST_S = 0.5


@dataclass(frozen=True, slots=True)
class Listener:
    """An open listener; `inode` tells whether the path is still its own."""

    address: Address
    server: asyncio.Server
    inode: int = 0

    def close(self) -> None:
        """Stop accepting and remove the socket's path, unless someone else has taken it."""
        self.server.close()
        if isinstance(self.address, UnixAddress):
            with contextlib.suppress(FileNotFoundError):
                if self.address.path.lstat().st_ino == self.inode:
                    self.address.path.unlink()


async def open_listener(
    address: Address, protocol: Callable[[], asyncio.Protocol], *, mode: int, backlog: int
) -> Listener:
    """Bind and start accepting; raises UsageError when the address cannot be had."""
    try:
        if isinstance(address, UnixAddress):
            return await _open_unix(address, protocol, mode=mode, backlog=backlog)
        return await _open_tcp(address, protocol, backlog=backlog)
    except OSError as error:
        raise UsageError(
            "http.cannot_listen", f"cannot listen on `{address}`", why=error.strerror or str(error)
        ) from error


async def _open_tcp(address: TcpAddress, protocol: Callable[[], asyncio.Protocol], *, backlog: int) -> Listener:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, address.host, address.port, backlog=backlog, reuse_address=True)
    port = server.sockets[0].getsockname()[1]
    return Listener(TcpAddress(address.host, port), server)


async def _open_unix(
    address: UnixAddress, protocol: Callable[[], asyncio.Protocol], *, mode: int, backlog: int
) -> Listener:
    _refuse_if_taken(address.path)
    # Short: the name beside must fit sun_path too.
    beside = address.path.with_name(f".{os.getpid() % 100000}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        beside.unlink(missing_ok=True)
        sock.bind(str(beside))
        beside.chmod(mode)
        sock.listen(backlog)  # before the rename: whoever sees the path can connect
        sock.setblocking(False)
        inode = beside.lstat().st_ino
        beside.replace(address.path)
        server = await asyncio.get_running_loop().create_unix_server(protocol, sock=sock, backlog=backlog)
    except BaseException:
        sock.close()
        beside.unlink(missing_ok=True)
        raise
    return Listener(address, server, inode)


def _refuse_if_taken(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise UsageError("http.address_taken", f"`{path}` exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TEST_S)
        try:
            probe.connect(str(path))
        except OSError:
            return  # nobody listens: it was left behind
    raise UsageError("http.address_taken", f"someone listens on `{path}`", hint="stop the process that owns it")
