"""How much memory and processor one replica may use, and which devices it gets, as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from corten.errors import UsageError

# Below that no Python server starts.
LEAST_MEMORY_BYTES: Final = 32 << 20
LEAST_CPUS: Final = 0.05
MOST_CPUS: Final = 1024.0
MOST_GPUS: Final = 64
_UNITS: Final = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_CPUS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_MEMORY: Final = re.compile(r"(?P<number>[0-9]{1,15}(\.[0-9]{1,3})?)\s*(?P<unit>[bkmgt]?)(i?b)?", re.IGNORECASE)
# A qualified name of the Container Device Interface (github.com/cncf-tags/container-device-interface, SPEC.md, `kind`
# and `name`).
_DEVICE: Final = re.compile(
    r"(?P<vendor>[A-Za-z]([-\w.]*[A-Za-z0-9])?)/(?P<kind>[A-Za-z]([-\w.]*[A-Za-z0-9])?)"
    r"=(?P<name>[A-Za-z0-9]([-\w.:]*[A-Za-z0-9])?)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Resources:
    """The most one replica may use; 0: as much as there is. `cpus` is time of processors per time.

    Of the machine's devices it gets none but `gpus` of NVIDIA's, and `devices` by the names CDI has for them.
    """

    memory_bytes: int = 0
    cpus: float = 0.0
    gpus: int = 0
    devices: tuple[str, ...] = ()

    @property
    def limited(self) -> bool:
        """Whether memory or processors are."""
        return bool(self.memory_bytes or self.cpus)

    @property
    def with_devices(self) -> bool:
        """Whether it gets any."""
        return bool(self.gpus or self.devices)


def parse_size(text: str) -> int:
    """`64k`, `512m`, `1.5GiB` or a number of bytes, at least one; units are powers of 1024, as podman's and Docker's.

    Raises UsageError `resources.malformed`.
    """
    if (size_bytes := _bytes(text)) < 1:
        raise _malformed("a size", text, "a number of bytes, as 65536, 64k or 100m", "max_body_bytes = 104857600")
    return size_bytes


def parse_memory(text: str) -> int:
    """The same of memory: 0 (no limit), or at least what a server takes. Raises UsageError `resources.malformed`."""
    size_bytes = _bytes(text)
    if size_bytes and size_bytes < LEAST_MEMORY_BYTES:
        least = f"at least {LEAST_MEMORY_BYTES >> 20}m, as 512m, 2g or 1.5g"
        raise _malformed("an amount of memory", text, least, 'memory = "2g"')
    return size_bytes


def _bytes(text: str) -> int:
    match = _MEMORY.fullmatch(text.strip())
    return int(float(match["number"]) * (1 << _UNITS[match["unit"].lower()])) if match else -1


def parse_cpus(text: str) -> float:
    """`2`, `0.5`: how many processors, at least 0.05; 0: no limit. Raises UsageError `resources.malformed`."""
    match = _CPUS.fullmatch(text.strip())
    cpus = float(match[0]) if match else -1.0
    if cpus and not LEAST_CPUS <= cpus <= MOST_CPUS:
        within = f"{LEAST_CPUS} to {MOST_CPUS:g}, as 2 or 0.5"
        raise _malformed("a number of processors", text, within, "cpus = 1.5")
    return cpus


def parse_gpus(text: str) -> int:
    """`2`: how many of NVIDIA's GPUs, 0 to 64. Raises UsageError `resources.malformed`."""
    if not text.isascii() or not text.isdecimal() or int(text) > MOST_GPUS:
        raise UsageError(
            "resources.malformed",
            f"not a number of GPUs for a replica: `{text[:40]}`",
            why=f"expected a number from 0 to {MOST_GPUS}",
            hint="other devices have names: --device VENDOR/CLASS=NAME",
        )
    return int(text)


def parse_device(text: str) -> str:
    """`nvidia.com/gpu=0`: a device as CDI calls it. Raises UsageError `resources.malformed`."""
    if not _DEVICE.fullmatch(text):
        raise UsageError(
            "resources.malformed",
            f"not the name of a device: `{text[:80]}`",
            why="expected VENDOR/CLASS=NAME, as the Container Device Interface has it, and no path below /dev",
            hint="`nvidia-ctk cdi list` shows NVIDIA's, `podman run --device NAME` tries one",
        )
    return text


def _malformed(what: str, text: str, expected: str, hint: str) -> UsageError:
    return UsageError(
        "resources.malformed",
        f"not {what} for a replica: `{text[:40]}`",
        why=f"expected {expected} (0: no limit)",
        hint=hint,
    )


def memory_text(size_bytes: int) -> str:
    """An amount of memory for people: `512 MiB`, `1.5 GiB`."""
    if size_bytes >= 1 << 30:
        return f"{size_bytes / (1 << 30):.3g} GiB"
    return f"{size_bytes / (1 << 20):.3g} MiB" if size_bytes >= 1 << 20 else f"{size_bytes} bytes"
