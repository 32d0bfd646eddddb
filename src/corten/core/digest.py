"""Content digests as the OCI image spec writes them: `sha256:<64 hex digits>`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from corten.errors import UsageError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The sha256 of some bytes; never moves. `hex` is 64 lower-case digits."""

    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:...`; raises UsageError for anything else."""
        if not _DIGEST.fullmatch(text):
            raise UsageError(
                "digest.malformed", f"not a digest: `{text}`", why="expected `sha256:` and 64 hexadecimal digits"
            )
        return cls(text.removeprefix("sha256:"))

    @classmethod
    def of(cls, data: bytes | memoryview) -> Self:
        """The digest of bytes in memory."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_stream(cls, stream: BinaryIO) -> Self:
        """The digest of what is left in a stream, read in pieces."""
        state = hashlib.sha256()
        while piece := stream.read(_CHUNK_BYTES):
            state.update(piece)
        return cls(state.hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The digest of a file's content."""
        with path.open("rb") as stream:
            return cls.of_stream(stream)

    @property
    def short(self) -> str:
        """Twelve digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
