"""What `--input` says: JSON on the command line, in a file, or on standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from corten.errors import UsageError

HELP = "JSON, `@file`, or `-` for standard input"


def read_json(text: str) -> Any:
    """The body to ask with; a bare array is taken as `inputs`. Raises UsageError `cli.input_*`."""
    where = "--input"
    if text == "-":
        where, text = "standard input", sys.stdin.read()
    elif text.startswith("@"):
        where = text[1:]
        try:
            text = Path(where).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(
                "cli.input_unreadable", f"cannot read `{where}`", why=error.strerror or str(error)
            ) from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError("cli.input_not_json", "the input is not JSON", where=where, why=str(error)) from error
    return {"inputs": value} if isinstance(value, list) else value
