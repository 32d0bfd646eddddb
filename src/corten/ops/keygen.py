"""Make a pair of keys to sign images with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corten.builder import signature
from corten.errors import UsageError
from corten.store.writing import sync_folder, translated

PASSWORD_VARIABLE = "CORTEN_SIGN_PASSWORD"  # noqa: S105 (the name of a variable)


@dataclass(frozen=True, slots=True)
class Keys:
    """Where a new pair lies, and whether the private one is encrypted."""

    private: Path
    public: Path
    encrypted: bool


def keygen(prefix: str | Path, *, env: Mapping[str, str] | None = None) -> Keys:
    """Write `PREFIX.key` (mode 0600, encrypted with CORTEN_SIGN_PASSWORD when that is set) and `PREFIX.pub`.

    Raises UsageError `signature.key_exists`: a key is never overwritten. CortenError `store.write_failed`.
    """
    env = os.environ if env is None else env
    password = env.get(PASSWORD_VARIABLE, "").encode()
    private, public = Path(f"{prefix}.key").absolute(), Path(f"{prefix}.pub").absolute()
    pems = signature.new_key(password)
    for path, pem, mode in zip((private, public), pems, (0o600, 0o644), strict=True):
        with translated(path, "write a key"):
            _write(path, pem, mode)
    return Keys(private, public, bool(password))


def _write(path: Path, pem: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise UsageError(
            "signature.key_exists",
            f"`{path.name}` is there already",
            where=str(path),
            why="a key is never overwritten: what it signed could not be signed again",
            hint="choose another name, or move it away",
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)
    sync_folder(path.parent)
