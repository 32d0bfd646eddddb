"""Names people give: one pattern at the edge, so that no name can be a path, a host or a flag."""

from __future__ import annotations

import re

from corten.errors import UsageError

# A DNS label (RFC 1123): it becomes a host name, a path segment, a folder and a Kubernetes name.
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,38}[a-z0-9])?")


def parse_name(text: str) -> str:
    """Return the name if it is one (1-40 of a-z, 0-9 and `-`, not at the ends), else raise UsageError."""
    if not _NAME.fullmatch(text):
        suggestion = suggest_name(text)
        shown = "".join(letter if letter.isprintable() else "?" for letter in text[:60])
        raise UsageError(
            "name.malformed",
            f"not a name: `{shown}`",
            why="expected 1 to 40 of a-z, 0-9 and `-`, not at the ends",
            hint=f"try `{suggestion}`" if suggestion else "",
        )
    return text


def suggest_name(text: str) -> str:
    """The nearest valid name to any text (`My Model_v2.joblib` gives `my-model-v2-joblib`), or `model`."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return slug or "model"
