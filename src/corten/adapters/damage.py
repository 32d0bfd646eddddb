"""Say of a file that no reader knows whether it is one of theirs cut short: then only its first bytes are as they were.

A zip (of PyTorch, Keras, skops) is known by what is at its end, which a broken download
lacks; a compressed pickle by what is in it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from corten.adapters.broken_zip import BROKEN_ZIP
from corten.adapters.corrupt import corrupt
from corten.adapters.plainfile import BROKEN, compression_of, open_plain
from corten.errors import UsageError

_ZIP = b"PK\x03\x04"
_LOOK_BYTES = 4096


def damage(path: Path) -> UsageError | None:
    """The error for a file that begins like a zip or compressed data and cannot be read as such; else None."""
    with path.open("rb") as stream:
        head = stream.read(len(_ZIP) * 2)
    hint = f"copy or download it again, in binary mode; {path.stat().st_size} bytes are here"
    if head.startswith(_ZIP):
        try:
            zipfile.ZipFile(path).close()
        except BROKEN_ZIP as error:
            why = f"its list of members, which is at the end, cannot be read: {error}"
            return corrupt(path, "is a zip, as PyTorch, Keras and skops write them, and not whole", why, hint=hint)
    if kind := compression_of(head):
        try:
            with open_plain(path) as (stream, _):
                stream.read(_LOOK_BYTES)
        except BROKEN as error:
            return corrupt(path, f"is compressed with {kind} and damaged", error, hint=hint)
    return None
