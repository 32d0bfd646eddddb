"""What is written down of a replica: enough for the next daemon to find it, end it and tell how it ended.

::

    replicas/ID/record.json   this record, replaced in one step
    replicas/ID/status        what bubblewrap says: its child's PID, later the exit code
    replicas/ID/log           what the replica writes; log.1 is the end of what was cut off

The record appears before the process does, with a token that is put into the process's environment. So a daemon
killed between any two steps leaves a replica that is found by the record, by the status or by the token.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from corten.core.digest import Digest
from corten.core.process import ProcessId
from corten.engine.sandbox import Host
from corten.errors import UsageError

# In the environment of a replica and of the bubblewrap that watches it.
START_VARIABLE: Final = "CORTEN_START"
_ID: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,62}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Record:
    """One replica. `host` is None for a plain process. The environment is left out: it may hold secrets.

    `process` is None until it is known to run; `watcher` is the bubblewrap that reports its end. `ended`: SIGTERM was
    asked for and would have ended it, so that is what its exit code says. `learning`: it writes its own bytecode.
    `frozen`: written before it is frozen and after it is thawed, so that one that may be frozen is always known.
    `program` is what it runs. `groups` are its cgroups' folders. `reason` is why it ended, where more is known
    than a code.
    """

    id: str
    deployment: str
    revision: int
    image: Digest
    chain: Digest
    token: str
    address: str
    host: Host | None = None
    process: ProcessId | None = None
    watcher: ProcessId | None = None
    exit_code: int | None = None
    ended: bool = False
    learning: bool = False
    frozen: bool = False
    program: str = "/usr/bin/python3"
    groups: tuple[str, ...] = ()
    reason: str = ""
    format: int = 1


@dataclass(frozen=True, slots=True)
class Status:
    """What bubblewrap wrote: None where it has not written that (yet)."""

    child: int | None = None
    exit_code: int | None = None


class ReplicaFolder:
    """The files of one replica."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"
        self.status_file = path / "status"
        self._record = path / "record.json"

    @property
    def id(self) -> str:
        """The replica's id."""
        return self.path.name

    def read(self) -> Record | None:
        """The record; None when there is none or it is not readable as one."""
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._record.read_bytes(), type=Record)
        return None

    def write(self, record: Record) -> Record:
        """Replace the record in one step and return it. Raises OSError.

        Not synced: after a power cut no replica runs any more, and each sync costs a start 10 ms.
        """
        unfinished = self.path / ".record"
        unfinished.write_bytes(msgspec.json.encode(record))
        unfinished.replace(self._record)
        return record

    def status(self) -> Status:
        """Read bubblewrap's status: JSON documents one after the other (bwrap(1), `--json-status-fd`)."""
        found: dict[str, int] = {}
        with suppress(OSError):
            for line in self.status_file.read_text().splitlines():
                # The last line may be half-written.
                with suppress(ValueError, TypeError):
                    found |= json.loads(line)
        return Status(found.get("child-pid"), found.get("exit-code"))


def check_id(replica_id: str) -> str:
    """Return the id if it can be the name of a folder and a host, else raise UsageError `engine.bad_id`."""
    if not _ID.fullmatch(replica_id):
        raise UsageError(
            "engine.bad_id",
            f"not a replica id: `{replica_id[:80]}`",
            why="expected 1 to 64 of a-z, 0-9 and `-`, not at the ends",
        )
    return replica_id
