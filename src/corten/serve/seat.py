"""The place of a process among those of a replica, as its master tells it in CORTEN_SEAT."""

from __future__ import annotations

from typing import Self

import msgspec


class Seat(msgspec.Struct, frozen=True):
    """`line` and `board` are inherited descriptors; `alone`: it is not to be forked; `master` is the master's pid."""

    line: int
    board: int
    slot: int
    workers: int
    alone: bool
    master: int

    @property
    def text(self) -> str:
        """As a variable's value."""
        return ":".join(str(int(part)) for part in msgspec.structs.astuple(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` made; raises ValueError."""
        line, board, slot, workers, alone, master = map(int, text.split(":"))
        return cls(line, board, slot, workers, bool(alone), master)
