"""The Envoys of a home: who serves, whom it took over from, and the file in which the next daemon finds them."""

from __future__ import annotations

from pathlib import Path

from corten.core.front import Front
from corten.gateway import hot
from corten.gateway.process import Process, Record


class Lineage:
    """Who serves, and who only answers its last requests. `epoch` and `made_of` are those of the one that serves."""

    def __init__(self, file: Path) -> None:
        self.serving: Process | None = None
        self.before: Process | None = None
        self.epoch = hot.COLD
        self.made_of = ""
        self._file = file

    def record(self) -> Record | None:
        """What is written down of the one that serves."""
        return Record.read(self._file)

    def find(self) -> Process | None:
        """The one that is written down, if it runs."""
        record = self.record()
        return Process.find(record.pid, record.start_ticks) if record else None

    def write(self, front: Front, process: Process | None = None) -> None:
        """Write down who serves; or `process`, which is about to."""
        found, before = process or self.serving, self.before
        if found is None:
            return
        Record(
            found.pid,
            found.start_ticks,
            front.host,
            front.port,
            front.http_port,
            self.epoch,
            self.made_of,
            (before.pid, before.start_ticks) if before is not None else None,
        ).write(self._file)

    def forget(self) -> None:
        """Write down that there is none."""
        self._file.unlink(missing_ok=True)

    def see_before(self, front: Front) -> None:
        """Let go of the one before when it has ended."""
        if self.before is not None and not self.before.running:
            self.before.close()
            self.before = None
            self.write(front)

    async def end_before(self) -> None:
        """End it, where nobody is left that would miss it."""
        if self.before is not None:
            await self.before.end()
            self.before = None

    def let_go(self) -> None:
        """Leave them alone."""
        for process in (self.serving, self.before):
            if process is not None:
                process.close()
        self.serving = self.before = None
