"""Words between the master and its workers: one datagram each, some with a descriptor."""

from __future__ import annotations

import socket
from enum import Enum

_MOST_DESCRIPTORS = 1
_LONGEST = 4096


class Word(Enum):
    """What they say to each other."""

    CONNECTION = b"connection"  # to a worker: serve this one
    ALL_READY = b"all-ready"  # to a worker: the replica is ready
    DRAIN = b"drain"  # to a worker: the replica is stopping
    FINISH = b"finish"  # to a worker: nobody new will come; end when all is answered
    FORK = b"fork"  # to a loader, with a worker's end of its line: make a worker
    LOADED = b"loaded"  # from a loader: it can be forked
    ALONE = b"alone"  # from a loader: it cannot, and is a worker itself
    READY = b"ready"  # from a worker
    CUT_SHORT = b"cut-short"  # from a worker that ends: requests were left unanswered


class Line:
    """One end of a line between two processes; never waits."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)

    @staticmethod
    def pair() -> tuple[Line, socket.socket]:
        """A line: our end, and the other one to be given away."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Line(ours), theirs

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._end.fileno()

    def say(self, word: Word, text: str = "", descriptor: int | None = None) -> bool:
        """Send; False when the other side is gone or does not listen."""
        data = word.value + b" " + text.encode()[:_LONGEST]
        try:
            socket.send_fds(self._end, [data], [] if descriptor is None else [descriptor])
        except OSError:
            return False
        return True

    def hear(self) -> tuple[Word, str, int | None] | None:
        """The next word, its text and its descriptor, None at the end of the line. BlockingIOError: nothing yet."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, _LONGEST + 64, _MOST_DESCRIPTORS)
        except ConnectionError:
            return None
        if not data:
            return None
        word, _, text = data.partition(b" ")
        return Word(word), text.decode(), descriptors[0] if descriptors else None

    def wait(self) -> tuple[Word, str, int | None] | None:
        """The next word, waited for."""
        self._end.setblocking(True)
        return self.hear()

    def close(self) -> None:
        """Hang up."""
        self._end.close()
