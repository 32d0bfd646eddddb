"""Listening sockets. A unix socket is made beside its path and renamed over it, so there is always one or none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from corten.errors import UsageError
from corten.http.address import Address, TcpAddress, UnixAddress

_CONNECT_TEST_S = 0.5


class Bound(msgspec.Struct, frozen=True):
    """Sockets that listen; `inode` tells whether a unix socket's path is still its own."""

    address: Address
    sockets: Sequence[socket.socket]
    inode: int = 0

    def close(self) -> None:
        """Close them and remove the socket's path, unless someone else has taken it."""
        for sock in self.sockets:
            sock.close()
        self.remove_path()

    def waiting(self) -> list[socket.socket]:
        """The connections that nobody has accepted yet, accepted: the kernel resets what waits when they are closed."""
        found: list[socket.socket] = []
        for sock in self.sockets:
            with contextlib.suppress(OSError):  # none is left, or no descriptor, or the socket is closed
                while True:
                    found.append(sock.accept()[0])
                    found[-1].setblocking(False)
        return found

    def remove_path(self) -> None:
        """Remove the socket's path, unless someone else has taken it."""
        if isinstance(self.address, UnixAddress):
            with contextlib.suppress(FileNotFoundError):
                if self.address.path.lstat().st_ino == self.inode:
                    self.address.path.unlink()


class Listener(msgspec.Struct, frozen=True):
    """Sockets that are accepted from."""

    bound: Bound
    servers: Sequence[asyncio.Server]

    def close(self) -> None:
        """Stop accepting and remove the socket's path, unless someone else has taken it."""
        for server in self.servers:
            server.close()
        self.bound.remove_path()


async def open_listener(
    address: Address, protocol: Callable[[], asyncio.Protocol], *, mode: int, backlog: int
) -> Listener:
    """Bind and start accepting; raises UsageError when the address cannot be had."""
    bound = await bind(address, mode=mode, backlog=backlog)
    loop = asyncio.get_running_loop()
    create = loop.create_unix_server if isinstance(address, UnixAddress) else loop.create_server
    try:
        return Listener(bound, [await create(protocol, sock=sock, backlog=backlog) for sock in bound.sockets])
    except OSError as error:
        bound.close()
        raise _cannot_listen(address, error) from error


async def bind(address: Address, *, mode: int, backlog: int) -> Bound:
    """Listen, and leave accepting to others; raises UsageError when the address cannot be had."""
    try:
        if isinstance(address, UnixAddress):
            return _bind_unix(address, mode=mode, backlog=backlog)
        return await _bind_tcp(address, backlog=backlog)
    except OSError as error:
        raise _cannot_listen(address, error) from error


def _cannot_listen(address: Address, error: OSError) -> UsageError:
    return UsageError("http.cannot_listen", f"cannot listen on `{address}`", why=error.strerror or str(error))


async def _bind_tcp(address: TcpAddress, *, backlog: int) -> Bound:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, kind, protocol, _, place in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # The port the kernel chose for the first is everybody's.
            sock.bind((place[0], port, *place[2:]))
            port = sock.getsockname()[1]
            sock.listen(backlog)
            sock.setblocking(False)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return Bound(TcpAddress(address.host, port), sockets)


def _bind_unix(address: UnixAddress, *, mode: int, backlog: int) -> Bound:
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
    except BaseException:
        sock.close()
        beside.unlink(missing_ok=True)
        raise
    return Bound(address, [sock], inode)


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
