"""What is asked of a registry, and whom we believe to be one: values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Trust:
    """How sure we want to be whom we talk to. `plain_http`: not at all. `ca`: a PEM file of further authorities.

    `proxies` as of `core.proxy`; this machine itself is always reached directly.
    """

    plain_http: bool = False
    ca: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)


class Body(Protocol):
    """What goes out with a request: exactly `size_bytes`, given to `write` piece by piece."""

    @property
    def size_bytes(self) -> int:
        """The Content-Length."""
        ...

    def send(self, write: Callable[[memoryview], object]) -> None:
        """Write all of it."""
        ...


@dataclass(frozen=True, slots=True)
class Bytes:
    """A body held in memory."""

    data: bytes = b""

    @property
    def size_bytes(self) -> int:
        """The Content-Length."""
        return len(self.data)

    def send(self, write: Callable[[memoryview], object]) -> None:
        """Write all of it."""
        if self.data:
            write(memoryview(self.data))


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. `authorization` goes to the URL's own origin only, never along with a redirect to another."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str = field(default="", repr=False)
    body: Body = field(default_factory=Bytes)
