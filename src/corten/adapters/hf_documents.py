"""Read the JSON documents of a Hugging Face folder; whatever is wrong with one is said of it by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corten.adapters.corrupt import corrupt
from corten.errors import UsageError

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
_MAX_JSON_BYTES = 64 << 20
_LFS = b"version https://git-lfs"


def check_there(path: Path) -> None:
    """A file that is there and is itself, not what git-lfs leaves in its place."""
    if not path.is_file():
        raise UsageError("adapter.missing_weights", f"`{path.name}` is not there", where=str(path))
    with path.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            raise UsageError(
                "adapter.missing_weights",
                f"`{path.name}` is a pointer of git-lfs, not the file",
                where=str(path),
                why="the repository was cloned without its large files",
                hint="git lfs pull",
            )


def place_in(text: str, path: Path) -> str:
    """A relative path of a document, below the folder. Raises UsageError `adapter.unsafe_path`."""
    parts = Path(text).parts
    if text.startswith("/") or ".." in parts or "\\" in text or "\0" in text:
        raise UsageError("adapter.unsafe_path", f"`{text[:80]}` lies outside of its folder", where=str(path))
    return "/".join(parts)


def mapping(path: Path) -> dict[str, Any]:
    """The object a document holds. Raises UsageError `adapter.corrupt_model`, `adapter.missing_weights`."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise broken(path, f"it holds a {type(document).__name__}")
    return document


def read_json(path: Path) -> Any:
    """What a document holds. Raises UsageError `adapter.corrupt_model`, `adapter.missing_weights`."""
    check_there(path)
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise broken(path, "it is too long")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise broken(path, str(error)) from error


def positive(value: Any) -> int | None:
    """A whole number above 0; None for all else that may stand there."""
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9 else None


def broken(path: Path, why: Exception | str) -> UsageError:
    """The error for a document or file that does not hold what its name says."""
    return corrupt(path, "is not what it should be", why, hint="save or download the folder again")


def unfit(path: Path, what: str, *, known: str = "") -> UsageError:
    """The error for what is whole and not known here; `known` is what is."""
    return UsageError(
        "adapter.contract",
        what,
        where=str(path),
        why=f"known: {known}" if known else "",
        hint="write a class with `predict` that loads it: `corten up file.py:Class`",
    )
