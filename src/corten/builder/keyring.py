"""Passwords of package indexes in this machine's keyring, asked for as uv asks: with the command `keyring`.

uv (crates/uv-auth/src/keyring.rs) looks under the index's URL first and under its host then, by the user name where
one is known, else for a pair (`--mode creds`).
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from corten.builder.remote import authorization_of

_TIMEOUT_S = 60.0  # somebody may have to unlock it


@dataclass(frozen=True, slots=True)
class Entry:
    """What to look for: the index's `url` without user and password, its `host` with the port, the `user` if known."""

    url: str
    host: str
    user: str = ""


class Keyring:
    """Asks once an entry, and only when a file is to be fetched from its host. Safe for several threads."""

    def __init__(self, entries: Mapping[str, Entry], env: Mapping[str, str]) -> None:
        self._entries = entries
        self._env = dict(env)
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    def __contains__(self, host: str) -> bool:
        return host in self._entries

    def authorization(self, host: str) -> str:
        """The value of an Authorization header for a host, empty when the keyring has none."""
        entry = self._entries.get(host)
        if entry is None:
            return ""
        with self._lock:
            if host not in self._known:
                self._known[host] = self._found(entry)
            return self._known[host]

    def _found(self, entry: Entry) -> str:
        for service in (entry.url, entry.host):
            if pair := self._asked(service, entry.user):
                return authorization_of(*pair)
        return authorization_of(entry.user, "") if entry.user else ""

    def _asked(self, service: str, user: str) -> tuple[str, str] | None:
        words = [user] if user else ["--mode", "creds"]
        try:
            done = subprocess.run(
                ["keyring", "get", service, *words], env=self._env, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            return None  # as uv does: who has none is refused by the index, which is told then
        lines = done.stdout.splitlines()
        if done.returncode or len(lines) < (1 if user else 2):
            return None
        return (user, lines[-1]) if user else (lines[-2], lines[-1])
