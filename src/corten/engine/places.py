"""What replicas have in common on every engine of this machine: their folders, their address, their environment."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corten.adapters.threads import THREADS_VARIABLE
from corten.core.home import Home
from corten.core.image import Image
from corten.core.platform import Platform
from corten.core.secret import SECRETS, variable
from corten.engine.base import ReplicaSpec
from corten.engine.folders import make_passable, make_private
from corten.engine.sandbox import GID, UID
from corten.errors import EngineError
from corten.store.writing import translated

SOCKET: Final = "s"
# sun_path of unix(7) has 108 bytes with the terminating zero.
_LONGEST_ADDRESS_BYTES: Final = 107
_LEFT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Places:
    """The folders below a home that replicas and engines share."""

    home: Home

    def run(self, replica_id: str) -> Path:
        """A replica's own folder: it may write there, and its socket is in it."""
        return self.home.run / replica_id

    def jobs(self, deployment: str) -> Path:
        """What the replicas of a deployment share."""
        # No replica is called so: their ids have no dots.
        return self.home.run / f"{deployment}.jobs"

    def address(self, replica_id: str) -> str:
        """Where it listens. Raises EngineError `engine.address_too_long`."""
        text = str(self.run(replica_id) / SOCKET)
        if len(os.fsencode(text)) > _LONGEST_ADDRESS_BYTES:
            raise EngineError(
                "engine.address_too_long",
                f"the replica's socket would have too long a path: `{text}`",
                why=f"{len(os.fsencode(text))} bytes, a unix socket may have {_LONGEST_ADDRESS_BYTES}",
                hint="set CORTEN_HOME to a folder with a shorter path, or use shorter names",
            )
        return text

    def make(self) -> None:
        """Make what all replicas need. Raises OSError's translations and EngineError `engine.foreign_folder`."""
        with translated(self.home.root, "make Corten's folders"):
            for path in (self.home.root, self.home.run, self.home.trees):
                make_passable(path)
            make_private(self.home.replicas)
            for left in self.home.replicas.glob(".*"):
                # Of a daemon killed while it wrote or removed one; a living one is done with it in milliseconds.
                with suppress(FileNotFoundError):
                    if left.stat().st_mtime < time.time() - _LEFT_S:
                        shutil.rmtree(left, ignore_errors=True)

    def make_for(self, replica_id: str, deployment: str, *, nobodys: bool, mode: int = 0o700) -> None:
        """Make one replica's folders anew; `nobodys`: they belong to uid 65532. Raises OSError."""
        run, jobs = self.run(replica_id), self.jobs(deployment)
        shutil.rmtree(run, ignore_errors=True)
        for folder in (run, jobs):
            folder.mkdir(mode=0o700, exist_ok=True)
            if nobodys:
                os.chown(folder, UID, GID)
            if mode != 0o700:
                folder.chmod(mode)


def environment(image: Image, spec: ReplicaSpec, listen: str, secrets: str = SECRETS) -> dict[str, str]:
    """A replica's environment: the image's, then the deployment's, then what the contract says (ARCHITECTURE.md).

    `secrets` is the folder it finds those in.
    """
    # What a quota leaves idle only waits.
    threads = {THREADS_VARIABLE: str(max(1, int(spec.resources.cpus)))} if spec.resources.cpus else {}
    return {
        "PATH": "/usr/local/bin:/usr/bin",
        "HOME": "/tmp",  # noqa: S108 -- the replica's own
        **threads,
        **image.env,
        **spec.env,
        **{variable(name): f"{secrets}/{name}" for name in spec.secrets},
        "CORTEN_LISTEN": listen,
        "CORTEN_DEPLOYMENT": spec.deployment,
        "CORTEN_REVISION": f"r{spec.revision}",
        "CORTEN_REPLICA": spec.id,
    }


def check_image(image: Image) -> None:
    """Raise EngineError for an image that cannot run on this machine."""
    here = Platform.of_machine()
    if image.platform.architecture != here.architecture or image.platform.os != here.os:
        raise EngineError(
            "engine.wrong_platform",
            f"image `{image.digest.short}` is for {image.platform}",
            why=f"this machine is {here}",
            hint=f"corten build --platform {here}",
        )
    if not image.entrypoint:
        raise EngineError("engine.no_entrypoint", f"image `{image.digest.short}` does not say what to run")
