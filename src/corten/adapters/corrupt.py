"""What is said of a model file that begins like one of its kind and does not go on like one."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from corten.errors import UsageError

# What Python's reader raises for bytes that are no zip depends on where they go wrong: NotImplementedError is a way to
# compress that it does not know, RuntimeError a member with a password.
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


def corrupt(path: Path, what: str, why: Exception | str, *, hint: str) -> UsageError:
    """The error `adapter.corrupt_model`: `what` is said of the path's name ("is not a complete ONNX file").

    `why` may be the exception that reading it ended with; a KeyError's argument is what is not in it.
    """
    return UsageError("adapter.corrupt_model", f"`{path.name}` {what}", where=str(path), why=_reason(why), hint=hint)


def _reason(why: Exception | str) -> str:
    if isinstance(why, KeyError) and why.args:
        return f"`{why.args[0]}` is not in it"
    return str(why) or type(why).__name__
