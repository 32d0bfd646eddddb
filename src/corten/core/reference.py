"""References to images in registries: `registry/repository:tag@digest` (distribution-spec, "Pulling manifests").

The registry is always named: a short name that silently means somebody's public registry is a way to run the wrong
image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from corten.core.digest import Digest
from corten.errors import UsageError

_LABEL = r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][-a-zA-Z0-9._]{0,127}")
# Host and repository together, as clients and registries bound it (distribution-spec, "Pulling manifests").
_LONGEST = 255
_DEFAULT_TAG = "latest"


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A manifest in a registry: by `tag` (empty when there is none), by `digest`, or both (the digest decides)."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `localhost:5000/team/iris:1`; the tag is `latest` when neither tag nor digest is given.

        Raises UsageError `reference.malformed`, also when no registry is named.
        """
        rest, at, digest = text.partition("@")
        registry, _, path = rest.partition("/")
        repository, colon, tag = path.partition(":")
        if not path or not (registry == "localhost" or "." in registry or ":" in registry):
            raise _malformed(text, "no registry is named", hint=f"put it in front, e.g. `localhost:5000/{rest[:60]}`")
        if not _HOST.fullmatch(registry) or not _port_possible(registry):
            raise _malformed(text, f"`{registry[:60]}` is no host or host:port")
        if not _REPOSITORY.fullmatch(repository) or len(registry) + len(repository) >= _LONGEST:
            raise _malformed(
                text, "a repository is of a-z, 0-9 and single `.`, `_`, `-` between them, parts joined by `/`"
            )
        if colon and not _TAG.fullmatch(tag):
            raise _malformed(text, "a tag is 1 to 128 of a-z, A-Z, 0-9, `_`, `.` and `-`, not led by `.` or `-`")
        if at:
            return cls(registry, repository, tag, Digest.parse(digest))
        return cls(registry, repository, tag or _DEFAULT_TAG)

    @property
    def name(self) -> str:
        """Without the digest, as the local store names it: `registry/repository:tag`."""
        return str(replace(self, digest=None))

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest where there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def is_repository(text: str) -> bool:
    """Whether a registry could have a repository of that name."""
    return _REPOSITORY.fullmatch(text) is not None and len(text) < _LONGEST


def _port_possible(registry: str) -> bool:
    host, colon, port = registry.rpartition(":")
    return not colon or host.endswith(":") or not port.isdigit() or 0 < int(port) <= 65535


def _malformed(text: str, why: str, hint: str = "") -> UsageError:
    return UsageError(
        "reference.malformed",
        f"not a reference: `{text[:120]}`",
        why=why,
        hint=hint or "expected `registry/repository:tag`, e.g. `ghcr.io/team/iris:1`",
    )
