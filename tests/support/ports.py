"""Ports of this machine that are a test's alone."""

from __future__ import annotations

import contextlib
import errno
import random
import socket

# Below the ports that the kernel gives to connections (ip_local_port_range(7)): one of those may be anybody's next.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """One where nobody listens, and that no other test, of this process or another, is given while this one lives."""
    for port in random.sample(_PORTS, len(_PORTS)):
        claim = socket.socket(socket.AF_UNIX)
        with contextlib.closing(claim), socket.socket() as probe:
            try:
                claim.bind(f"\0corten-test-port-{port}".encode())
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            claim.detach()  # open, and so claimed, until the process ends
            return port
    raise AssertionError("no port is free")
