"""Which of this machine's GPUs a replica gets, and the names container engines know them by. But for looking, pure.

A machine has no scheduler as a cluster has: who asks for GPUs gets those that the fewest others have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from corten.core.resources import Resources
from corten.errors import EngineError

_DEV: Final = Path("/dev")
_GPU: Final = re.compile(r"nvidia([0-9]+)")


def gpus_here(folder: Path = _DEV) -> tuple[int, ...]:
    """NVIDIA's GPUs of this machine, by the numbers its driver gives their files."""
    return tuple(sorted(int(found[1]) for path in folder.glob("nvidia*") if (found := _GPU.fullmatch(path.name))))


def check_devices(told: Mapping[str, str], resources: Resources) -> None:
    """Refuse what no replica can get, by what an engine tells of itself (`Engine.describe`), before anything is made.

    Raises EngineError `engine.no_device`.
    """
    if told.get("devices") == "none":
        refuse_devices(resources)
    if "gpus" in told:
        _check_number(int(told["gpus"]), resources.gpus)
    if "cdi" in told:
        _check_names(told["cdi"], resources.devices)


def choose(there: Sequence[int], used: Iterable[int], count: int) -> tuple[int, ...]:
    """The `count` GPUs which the fewest have. `used` names each once for everybody who has it.

    Raises EngineError `engine.no_device` when there are not so many.
    """
    _check_number(len(there), count)
    taken = list(used)
    return tuple(sorted(sorted(there, key=lambda gpu: (taken.count(gpu), gpu))[:count]))


def by_name(gpus: Iterable[int], resources: Resources) -> Iterator[str]:
    """All devices by the names CDI has for them; NVIDIA's toolkit names its GPUs so."""
    yield from (f"nvidia.com/gpu={gpu}" for gpu in gpus)
    yield from resources.devices


def refuse_devices(resources: Resources) -> None:
    """Raise EngineError `engine.no_device` for any: an engine without containers has no way to give one.

    A GPU is more than its file: the driver's libraries must be the kernel's own release, and it is the hooks of
    NVIDIA's toolkit that lay them into a container.
    """
    if resources.with_devices:
        named = resources.devices[0] if resources.devices else _gpus(resources.gpus)
        raise no_device(
            named,
            "in Corten's own sandbox there are none: a driver's libraries come in by a container engine's hooks",
            "--engine podman, or --engine docker",
        )


def _check_number(there: int, count: int) -> None:
    if count > there:
        raise no_device(
            f"{_gpus(count)} each" if count > 1 else _gpus(count),
            f"this machine has {there or 'none'} of NVIDIA's (/dev/nvidia0 ...)",
            "ask for less, or name what CDI knows: --device VENDOR/CLASS=NAME; `corten doctor` shows what is there",
        )


def _check_names(told: str, devices: Sequence[str]) -> None:
    known = told.split()
    for device in devices:
        if told.startswith("none: "):
            raise no_device(device, told.removeprefix("none: "), "--engine podman")
        if device not in known:
            raise no_device(
                device,
                f"no description (CDI) of this machine has it; there are {', '.join(known) or 'none'}",
                "`corten doctor` shows where descriptions are; NVIDIA's makes `nvidia-ctk cdi generate`",
            )


def _gpus(count: int) -> str:
    return f"{count} GPUs" if count > 1 else "a GPU"


def no_device(asked: str, why: str, hint: str) -> EngineError:
    """What to raise when there is no such device, or no way to give it to a replica."""
    return EngineError("engine.no_device", f"replicas cannot get {asked}", why=why, hint=hint)
