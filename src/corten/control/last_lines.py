"""What the last lines of a replica's log say to people: each line, and what they advise."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from corten.adapters.py_files import distribution_of

_LONGEST_LINE = 500
_MISSING = re.compile(r"No module named '([\w.]+)'")


def for_people(line: str) -> str:
    """A line of a replica's log for people: of the server's own JSON the message, the error and where it was raised."""
    entry: Any = None
    with suppress(ValueError):
        entry = json.loads(line)
    if not isinstance(entry, dict) or "message" not in entry:
        return line[:_LONGEST_LINE]
    error = entry.get("error")
    if not isinstance(error, dict):
        return f"{entry.get('level', '')}: {entry['message']}"[:_LONGEST_LINE]
    raised = [str(part).strip() for part in error.get("traceback", [])][-1:]
    return "\n".join([f"{entry['message']}: {error.get('type')}: {error.get('message')}"[:_LONGEST_LINE], *raised])


def advice(lines: Sequence[str]) -> str:
    """What mends it, where the lines tell: a module that is not in the image; else empty."""
    missing = next((found[1] for line in reversed(lines) if (found := _MISSING.search(line))), "")
    module = missing.partition(".")[0]
    if not module:
        return ""
    if module in sys.stdlib_module_names:
        return f"`{module}` is Python's own, and the base's Python lacks it: take a base with a whole one"
    return f"`{module}` is not in the image: add `{distribution_of(module)}`, with `-r` or to its requirements"
