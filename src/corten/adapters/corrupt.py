"""What is said of a model file that begins like one of its kind and does not go on like one."""

from __future__ import annotations

from pathlib import Path

from corten.errors import UsageError


def corrupt(path: Path, what: str, why: Exception | str, *, hint: str) -> UsageError:
    """The error `adapter.corrupt_model`: `what` is said of the path's name ("is not a complete ONNX file").

    `why` may be the exception that reading it ended with; a KeyError's argument is what is not in it.
    """
    return UsageError("adapter.corrupt_model", f"`{path.name}` {what}", where=str(path), why=_reason(why), hint=hint)


def _reason(why: Exception | str) -> str:
    if isinstance(why, KeyError) and why.args:
        return f"`{why.args[0]}` is not in it"
    return str(why) or type(why).__name__
