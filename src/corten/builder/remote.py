"""What is to be fetched and how servers are reached, as values: no network and no heavy import here."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from corten.core.digest import Digest
from corten.core.proxy import proxies_from


@dataclass(frozen=True, slots=True)
class Download:
    """A file to fetch. `size_bytes` 0 means unknown; `path` is where it goes when it is what `digest` says."""

    url: str
    digest: Digest
    size_bytes: int
    path: Path


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach servers: `authorization` header values by host, proxy URLs by scheme (`no_proxy` under "no")."""

    authorization: Mapping[str, str] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Access:
        """Credentials from uv's index variables (uv leaves them out of locks) and the usual proxy variables."""
        authorization = {}
        for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX"):
            for text in env.get(name, "").split():
                url = urlsplit(text.partition("=")[2] if "=" in text.partition("://")[0] else text)
                if url.hostname and url.username:
                    authorization[host_of(url)] = basic(url)
        return cls(authorization, proxies_from(env))


def without_credentials(url: str) -> str:
    """A URL as it may be shown: user, password and query left out."""
    split = urlsplit(url)
    return split._replace(netloc=host_of(split), query="", fragment="").geturl()


def host_of(split: SplitResult) -> str:
    """Host and port, without credentials."""
    return (split.hostname or "") + (f":{split.port}" if split.port else "")


def basic(url: SplitResult) -> str:
    """The value of an Authorization header from a URL's user and password (RFC 7617)."""
    pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
