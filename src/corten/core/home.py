"""Where Corten keeps things on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# A unix socket's path may have 107 bytes (sun_path of unix(7)); the longest name below `run` takes about 40.
_LONGEST_RUN = 64


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one Corten installation.

    ::

        store/      OCI image layout: oci-layout, index.json, blobs/sha256/
        trees/      unpacked layers the embedded engine runs from
        cache/      wheels/ debs/ layers/ locks/ uv/: may be deleted at any time
        state/      corten.db, daemon.lock, daemon.log, gateway/, keys/ (private, to sign tokens with), secrets/
        replicas/   one folder a replica: log, status
        run         sockets (elsewhere when the path would be too long for one)
    """

    root: Path

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, uid: int) -> Self:
        """`CORTEN_HOME`, else /var/lib/corten for root, else below `XDG_DATA_HOME` (~/.local/share)."""
        if chosen := env.get("CORTEN_HOME"):
            return cls(Path(chosen).absolute())
        if uid == 0:
            # Not below /root: replicas run as uid 65532 and must be able to reach their layers.
            return cls(Path("/var/lib/corten"))
        base = env.get("XDG_DATA_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".local/share")
        return cls(Path(base) / "corten")

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def secrets(self) -> Path:
        """Values of the deployments' secrets: the owner's alone."""
        return self.root / "state" / "secrets"

    @property
    def replicas(self) -> Path:
        return self.root / "replicas"

    @property
    def run(self) -> Path:
        """Where sockets live: short enough for `sun_path`, always the same for the same root."""
        near = self.root / "run"
        if len(str(near)) <= _LONGEST_RUN:
            return near
        return Path("/tmp") / f"corten-{hashlib.sha256(str(self.root).encode()).hexdigest()[:16]}"  # noqa: S108

    @property
    def daemon_socket(self) -> Path:
        return self.run / "daemon.sock"

    @property
    def hold_socket(self) -> Path:
        """Where the gateway asks the daemon about requests nobody can answer yet."""
        return self.run / "hold.sock"

    @property
    def mirror_socket(self) -> Path:
        """Where the gateway sends copies of requests to, for two revisions to be compared."""
        return self.run / "mirror.sock"
