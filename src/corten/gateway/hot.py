"""Hot restart: a new Envoy takes the listening sockets over, the old one answers what it has and ends.

Traps, all seen with 1.40: the old one's admin page closes as soon as the new one starts. The new one tells the old one
to end, and *aborts* if it is gone by then, so that nobody else may end it sooner. Two at a time: a third has to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path

from corten.errors import EngineError

LONGEST_ANSWER_S = 600  # how long the old one, or a listener that was replaced, has for what it is answering
_OVERLAP_S = 10  # after that the old one ends
_ASK_S = 30.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- where shm_open(3) has it
COLD = -1  # the epoch of one that cannot be followed by another


def first_epoch() -> int:
    """0 where the shared memory is that hot restart needs; COLD elsewhere."""
    return 0 if os.access(_SHARED_MEMORY, os.W_OK) else COLD


def options(run: Path, epoch: int) -> list[str]:
    """Envoy's options for the process of that number in its line; `run` is the owner's folder for sockets."""
    drain = ["--drain-time-s", str(LONGEST_ANSWER_S), "--parent-shutdown-time-s", str(LONGEST_ANSWER_S + _OVERLAP_S)]
    if epoch == COLD:
        return ["--disable-hot-restart", *drain]
    return [
        *("--base-id", str(_base_id(run))),
        *("--restart-epoch", str(epoch)),
        # By default a name in the abstract namespace, which any user of the machine may talk to.
        *("--socket-path", str(run / "hot")),
        *("--socket-mode", "600"),
        *drain,
    ]


def clean(run: Path) -> None:
    """Remove what Envoys of this line leave behind when the last has ended."""
    with contextlib.suppress(OSError):
        (_SHARED_MEMORY / f"envoy_shared_memory_{_base_id(run)}0").unlink()
    for socket in run.glob("hot_*"):
        socket.unlink(missing_ok=True)


async def require_heir(running: Path, binary: Path, config: Path) -> None:
    """Raise EngineError unless `binary` can take over from `running` with this configuration.

    `gateway.no_hot_restart` where their ways to hand over differ, `gateway.broken` where it does not even start.
    """
    before, after = await _said(running, "--hot-restart-version"), await _said(binary, "--hot-restart-version")
    if before != after:
        raise no_hot_restart(f"the gateway that runs hands over by {before}, `{binary}` takes over by {after}")
    await _said(binary, "--mode", "validate", "--config-path", str(config), "--reject-unknown-dynamic-fields")


def no_hot_restart(why: str) -> EngineError:
    """The error where one gateway cannot follow the other."""
    return EngineError(
        "gateway.no_hot_restart",
        "the gateway cannot be replaced while it serves",
        why=why,
        hint="in a quiet moment: `corten gateway restart --cold`, which refuses connections for a moment",
    )


def restarting(before: int, age_s: float) -> EngineError:
    """The error where process `before` still answers what it has, after one of that age took over from it."""
    left_s = max(0.0, LONGEST_ANSWER_S + _OVERLAP_S - age_s)
    return EngineError(
        "gateway.restarting",
        "an earlier restart still answers its last requests",
        why=f"process {before} ends in {left_s:.0f} s at most, and three cannot share the sockets",
        hint="wait for that, or in a quiet moment: `corten gateway restart --cold`",
    )


def _base_id(run: Path) -> int:
    """Tells the Envoys of one home from all others on the machine."""
    digest = hashlib.sha256(f"{os.getuid()}:{run}".encode()).digest()
    return 1 + int.from_bytes(digest[:4]) % 400_000_000  # Envoy multiplies it by ten in 32 bits


async def _said(binary: Path, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(binary), *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={},
    )  # fmt: skip
    try:
        async with asyncio.timeout(_ASK_S):
            out, complaint = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise _broken(binary, f"no answer within {_ASK_S:g} s") from error
    if process.returncode:
        raise _broken(binary, complaint.decode(errors="replace").strip().rpartition("\n")[2][-500:])
    return out.decode(errors="replace").strip()


def _broken(binary: Path, why: str) -> EngineError:
    return EngineError(
        "gateway.broken", "this Envoy does not start", where=str(binary), why=why, hint="see `corten doctor`"
    )
