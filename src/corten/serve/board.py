"""Memory that all processes of a replica share: a slot for each worker, and one for what ended workers had counted.

Nobody waits for anybody here. Each slot has one writer; readers take what is there, and look again when it changed
while they looked (a sequence lock: odd while it is written).
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Self

_SLOT_BYTES = 256 << 10  # of virtual memory; what is never written takes no RAM
_FIELDS = struct.Struct("<6q")  # pid, connections, received, beat_ns, sequence, size
_PID, _CONNECTIONS, _RECEIVED, _BEAT, _SEQUENCE, _SIZE = range(0, 48, 8)
_NUMBER = struct.Struct("<q")
_DATA = 64
_LOOKS = 5
ENDED = 0  # the slot of those that are no more; workers have 1, 2 ...


class Board:
    """The slots of one replica."""

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self.workers = workers
        self._memory = mmap.mmap(descriptor, (workers + 2) * _SLOT_BYTES)

    @property
    def drift(self) -> int:
        """The slot for what one of the workers tells of features."""
        return self.workers + 1

    @classmethod
    def new(cls, workers: int) -> Self:
        """An empty one; its descriptor can be given to other processes."""
        descriptor = os.memfd_create("corten-board")
        os.ftruncate(descriptor, (workers + 2) * _SLOT_BYTES)
        return cls(descriptor, workers)

    def take(self, slot: int, pid: int) -> None:
        """A new process writes this slot."""
        _FIELDS.pack_into(self._memory, slot * _SLOT_BYTES, pid, 0, 0, 0, 0, 0)

    def pid(self, slot: int) -> int:
        """Who writes it; 0: nobody yet."""
        return self._get(slot, _PID)

    def pids(self) -> list[int]:
        """All that write it, the master first where it does."""
        return [pid for slot in range(self.workers + 1) if (pid := self.pid(slot))]

    def count(self, slot: int, *, connections: int, received: int, beat_ns: int) -> None:
        """Say how a worker is: its open connections, how many it was handed in all, when it said so."""
        self._set(slot, _CONNECTIONS, connections)
        self._set(slot, _RECEIVED, received)
        self._set(slot, _BEAT, beat_ns)

    def load(self, slot: int, handed: int) -> int:
        """The connections of a worker, those under way to it included; `handed` is how many it was given in all."""
        return self._get(slot, _CONNECTIONS) + handed - self._get(slot, _RECEIVED)

    def beat_ns(self, slot: int) -> int:
        """When its writer was last alive."""
        return self._get(slot, _BEAT)

    def publish(self, slot: int, data: bytes) -> None:
        """Put what a worker has counted; too much of it is left out."""
        if len(data) > _SLOT_BYTES - _DATA:
            return
        sequence = self._get(slot, _SEQUENCE)
        self._set(slot, _SEQUENCE, sequence + 1)
        self._set(slot, _SIZE, len(data))
        start = slot * _SLOT_BYTES + _DATA
        self._memory[start : start + len(data)] = data
        self._set(slot, _SEQUENCE, sequence + 2)

    def published(self, slot: int) -> bytes:
        """What was last put there; empty when there is nothing, or its writer ended within."""
        start = slot * _SLOT_BYTES + _DATA
        for _ in range(_LOOKS):
            before = self._get(slot, _SEQUENCE)
            data = self._memory[start : start + self._get(slot, _SIZE)]
            if before % 2 == 0 and before == self._get(slot, _SEQUENCE):
                return data
        return b""

    def _get(self, slot: int, field: int) -> int:
        value: int = _NUMBER.unpack_from(self._memory, slot * _SLOT_BYTES + field)[0]
        return value

    def _set(self, slot: int, field: int, value: int) -> None:
        _NUMBER.pack_into(self._memory, slot * _SLOT_BYTES + field, value)
