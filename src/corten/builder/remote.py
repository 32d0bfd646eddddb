"""What is to be fetched and how servers are reached, as values: no network and no heavy import here."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from corten.core.digest import Digest
from corten.core.proxy import proxies_from

if TYPE_CHECKING:
    from corten.builder.keyring import Keyring

_URL = re.compile(r"https?://[^\s,;`'\")]+")
_INDEXES = ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX")


@dataclass(frozen=True, slots=True)
class Download:
    """A file to fetch. `size_bytes` 0 means unknown; `path` is where it goes when it is what `digest` says."""

    url: str
    digest: Digest
    size_bytes: int
    path: Path


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach servers: `authorization` header values by host, proxy URLs by scheme (`no_proxy` under "no").

    `keyring` knows further hosts, where one is to be asked.
    """

    authorization: Mapping[str, str] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)
    keyring: Keyring | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str], requirements: Iterable[str] = ()) -> Access:
        """Credentials as uv finds them, which leaves them out of its locks, and the usual proxy variables.

        They are in the index variables' URLs, in UV_INDEX_NAME_USERNAME and _PASSWORD for an index `name=URL`, in
        URLs among the requirements, and in netrc (NETRC, else ~/.netrc), in this order; for indexes of which none of
        them tells a password in the keyring, with UV_KEYRING_PROVIDER=subprocess.
        """
        authorization = _netrc(env)
        for line in requirements:
            for found in _URL.finditer(line):
                authorization |= _by_url(found[0])
        indexes = [*_indexes(env)]
        keyring = _keyring(indexes, env)
        for title, url in indexes:
            if keyring is None or host_of(urlsplit(url)) not in keyring:
                authorization |= _by_name(title, url, env)
                authorization |= _by_url(url)
        return cls(authorization, proxies_from(env), keyring)

    def authorization_for(self, url: SplitResult) -> str:
        """The value of an Authorization header for an address, empty when nothing is known of its host."""
        if url.username:
            return basic(url)
        host = host_of(url)
        known = self.authorization.get(host) or self.authorization.get(url.hostname or "", "")  # netrc knows no ports
        return known or (self.keyring.authorization(host) if self.keyring else "")


def _indexes(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name (or nothing) and URL of each index the environment names."""
    for name in _INDEXES:
        for text in env.get(name, "").split():
            title, url = text.split("=", 1) if "=" in text.partition("://")[0] else ("", text)
            yield title, url


def _keyring(indexes: Iterable[tuple[str, str]], env: Mapping[str, str]) -> Keyring | None:
    """Of the indexes whose password nobody tells, where uv asks a keyring for it."""
    if env.get("UV_KEYRING_PROVIDER", "") != "subprocess":
        return None
    from corten.builder.keyring import Entry, Keyring

    entries = {}
    for title, url in indexes:
        split = urlsplit(url)
        user, word = _named(title, env)
        if split.hostname and not split.password and not word:
            user = unquote(split.username or "") or user
            entries[host_of(split)] = Entry(without_user(url), host_of(split), user)
    return Keyring(entries, env) if entries else None


def _by_url(url: str) -> dict[str, str]:
    split = urlsplit(url)
    return {host_of(split): basic(split)} if split.hostname and split.username else {}


def _by_name(title: str, url: str, env: Mapping[str, str]) -> dict[str, str]:
    user, word = _named(title, env)
    split = urlsplit(url)
    return {host_of(split): authorization_of(user, word)} if split.hostname and (user or word) else {}


def _named(title: str, env: Mapping[str, str]) -> tuple[str, str]:
    """The variables of uv for an index with a name: letters and digits of it in upper case, `_` for all else."""
    prefix = f"UV_INDEX_{re.sub('[^A-Z0-9]', '_', title.upper())}"
    return (env.get(f"{prefix}_USERNAME", ""), env.get(f"{prefix}_PASSWORD", "")) if title else ("", "")


def _netrc(env: Mapping[str, str]) -> dict[str, str]:
    import netrc

    path = Path(env.get("NETRC") or Path(env.get("HOME", "/")) / ".netrc")
    try:
        entries = netrc.netrc(str(path)).hosts if path.is_file() else {}
    except (netrc.NetrcParseError, OSError):
        return {}  # uv passes over one it cannot read as well
    return {host: authorization_of(user, word or "") for host, (user, _, word) in entries.items() if host != "default"}


def without_credentials(url: str) -> str:
    """A URL as it may be shown: user, password and query left out."""
    split = urlsplit(url)
    return split._replace(netloc=host_of(split), query="", fragment="").geturl()


def shown(text: str) -> str:
    """A text with the URLs in it as they may be shown."""
    return _URL.sub(lambda found: without_credentials(found[0]), text)


def without_user(url: str) -> str:
    """A URL without user and password, all else as it is."""
    split = urlsplit(url)
    return split._replace(netloc=split.netloc.rpartition("@")[2]).geturl()


def host_of(split: SplitResult) -> str:
    """Host and port, without credentials."""
    return (split.hostname or "") + (f":{split.port}" if split.port else "")


def basic(url: SplitResult) -> str:
    """The value of an Authorization header from a URL's user and password."""
    return authorization_of(unquote(url.username or ""), unquote(url.password or ""))


def authorization_of(user: str, word: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()
