"""What Python's reader raises for bytes that are no zip: it depends on where they go wrong."""

from __future__ import annotations

import struct
import zipfile

# NotImplementedError is a way to compress that it does not know, RuntimeError a member with a password.
BROKEN_ZIP = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    struct.error,
    NotImplementedError,
    RuntimeError,
)
# And what reading a document in one raises that is not of the shape it should have; RecursionError is a RuntimeError.
BROKEN_CONTENT = (*BROKEN_ZIP, KeyError, TypeError, AttributeError, IndexError)
