"""The platform an image runs on, as the OCI image index names it: `linux/amd64`, `linux/arm64`."""

from __future__ import annotations

import platform as host
from dataclasses import dataclass
from typing import Self

from corten.errors import UsageError

# OCI (Go) name, kernel name (`uname -m`, wheel tags), Debian name.
_ARCHITECTURES = {"amd64": ("x86_64", "amd64"), "arm64": ("aarch64", "arm64")}
_BY_MACHINE = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """Operating system and architecture in OCI's words."""

    architecture: str
    os: str = "linux"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `linux/amd64`; raises UsageError for platforms Corten cannot build."""
        system, _, architecture = text.partition("/")
        if system != "linux" or architecture not in _ARCHITECTURES:
            raise UsageError(
                "platform.unknown",
                f"not a platform Corten builds for: `{text}`",
                why="known: " + ", ".join(f"linux/{name}" for name in _ARCHITECTURES),
            )
        return cls(architecture)

    @classmethod
    def of_machine(cls, machine: str | None = None) -> Self:
        """The Linux platform of this machine's processor (or of a given `uname -m`)."""
        name = machine or host.machine()
        if name not in _BY_MACHINE:
            raise UsageError(
                "platform.unknown", f"no images for this processor: `{name}`", why="known: x86_64, aarch64"
            )
        return cls(_BY_MACHINE[name])

    @property
    def machine(self) -> str:
        """The kernel's name, as in wheel tags: `x86_64`, `aarch64`."""
        return _ARCHITECTURES[self.architecture][0]

    @property
    def debian(self) -> str:
        """Debian's name: `amd64`, `arm64`."""
        return _ARCHITECTURES[self.architecture][1]

    @property
    def multiarch(self) -> str:
        """The library folder's name, e.g. `x86_64-linux-gnu`."""
        return f"{self.machine}-linux-gnu"

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"
