"""What is known of a replica and no container engine has a place for: empty files in `replicas/ID`."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass

from corten.core.home import Home
from corten.store.writing import translated


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of a home's replicas."""

    home: Home

    def add(self, replica_id: str, what: str) -> None:
        """Write it down. Raises what writing does."""
        folder = self.home.replicas / replica_id
        with translated(folder, f"write down what became of replica {replica_id}"):
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / what).touch()

    def has(self, replica_id: str, what: str) -> bool:
        """Whether it was written down."""
        return (self.home.replicas / replica_id / what).exists()

    def remove(self, replica_id: str, what: str) -> None:
        """It is so no more."""
        (self.home.replicas / replica_id / what).unlink(missing_ok=True)

    def forget(self, replica_id: str) -> None:
        """Remove all of a replica's, in one step for whoever looks."""
        folder = self.home.replicas / replica_id
        if folder.is_dir():
            away = self.home.replicas / f".old-{secrets.token_hex(8)}"
            with translated(folder, f"remove replica {replica_id}"):
                folder.rename(away)
            shutil.rmtree(away, ignore_errors=True)
