"""Secrets: what a model may read and nobody may see. In a replica each is a file; here they are names and bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from corten.errors import UsageError

# Where a replica finds them: one file a secret, called as it is.
SECRETS: Final = "/run/secrets"
MOST_BYTES: Final = 64 << 10
# They go to the daemon in one request.
MOST_BYTES_IN_ALL: Final = 512 << 10
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def variable(name: str) -> str:
    """The environment variable that says where a secret's file is."""
    return f"{name}_FILE"


def check_secrets(secrets: Mapping[str, str | bytes], env: Mapping[str, str]) -> dict[str, bytes]:
    """Names and bytes of secrets a replica can be given; `env` is what is set beside them.

    Raises UsageError `secret.bad_name` or `secret.bad_value`; no message holds a value.
    """
    given = {name: value.encode() if isinstance(value, str) else value for name, value in secrets.items()}
    for name, value in given.items():
        if not _NAME.fullmatch(name) or name.startswith("CORTEN_"):
            raise UsageError(
                "secret.bad_name",
                f"a secret cannot be called `{name[:128]}`",
                why="expected letters, digits and `_`, not beginning with a digit or CORTEN_",
                hint="--secret NAME=PATH",
            )
        if taken := {name, variable(name)} & env.keys():
            raise UsageError(
                "secret.bad_name",
                f"`{name}` is a secret, and `{min(taken)}` is set by --env",
                why=f"{variable(name)} says where the secret's file is",
                hint="leave one of them out, or call the secret something else",
            )
        if not value or len(value) > MOST_BYTES:
            why = f"more than {MOST_BYTES >> 10} KiB" if value else "it is empty"
            raise UsageError("secret.bad_value", f"secret `{name}` cannot be used", why=why, hint="--secret NAME=PATH")
    if sum(map(len, given.values())) > MOST_BYTES_IN_ALL:
        raise UsageError(
            "secret.bad_value",
            "the secrets are too large together",
            why=f"more than {MOST_BYTES_IN_ALL >> 10} KiB",
            hint="give what is no secret in another way",
        )
    return given
