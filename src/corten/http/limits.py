"""What a server puts up with."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one server. Times are checked by one sweep a second, so they hold to about a second.

    A body must arrive within `body_s` plus one second for each `body_rate_bytes_s` received, so that large bodies over
    slow lines pass and dripped ones do not. `idle_s` is how long a connection may be silent between requests,
    `write_s` how long a client may leave an answer unread. `pipelined` requests of one connection are worked on
    before it is read again. Without `keep_bodies` a body is read past: its handler gets an empty one.
    """

    header_bytes: int = 32 << 10
    headers: int = 100
    body_bytes: int = 16 << 20
    header_s: float = 10.0
    body_s: float = 20.0
    body_rate_bytes_s: int = 32 << 10
    idle_s: float = 75.0
    write_s: float = 30.0
    connections: int = 4096
    pipelined: int = 32
    keep_bodies: bool = True
