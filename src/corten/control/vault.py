"""The values of secrets: files of the owner's alone, called by ids that say nothing of them. The state has the ids."""

from __future__ import annotations

import secrets
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from corten.errors import CortenError
from corten.store.writing import atomic_write, translated


@dataclass(frozen=True, slots=True)
class Vault:
    """What `folder` holds. A value is written once and never changed: a new one has a new id."""

    folder: Path

    def keep(self, given: Mapping[str, bytes], before: Mapping[str, str]) -> dict[str, str]:
        """Write down what is not there yet; name and id of each. A value that is as it was `before` keeps its id.

        Raises CortenError as `store.writing` does.
        """
        return {name: self._keep(value, before.get(name, "")) for name, value in given.items()}

    def read(self, ids: Mapping[str, str]) -> dict[str, bytes]:
        """Name and value of each. Raises CortenError `secret.lost`."""
        return {name: self._read(name, one) for name, one in ids.items()}

    def sweep(self, wanted: Container[str]) -> int:
        """Remove all but these; how many those were."""
        removed = 0
        with suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _keep(self, value: bytes, known: str) -> str:
        with suppress(OSError):
            if known and (self.folder / known).read_bytes() == value:
                return known
        new = secrets.token_hex(16)
        with translated(self.folder, "keep a secret"):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            atomic_write(self.folder / new, value, mode=0o600)
        return new

    def _read(self, name: str, one: str) -> bytes:
        try:
            return (self.folder / one).read_bytes()
        except OSError as error:
            raise CortenError(
                "secret.lost",
                f"secret `{name}` is not there any more",
                where=str(self.folder / one),
                why=error.strerror or str(error),
                hint=f"deploy again with `--secret {name}=PATH`",
            ) from error
