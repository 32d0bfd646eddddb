"""Where a source comes from: the commit of the git work tree it lies in. Asks `git`, runs nothing of the tree."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from corten.builder.remote import without_credentials

_TIMEOUT_S = 5.0
# A work tree may be a stranger's: nothing its configuration names is to be run.
_HARMLESS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.pager=cat")
# `user@host:path`, what git calls the scp-like syntax.
_SCP_LIKE = re.compile(r"(?:[^@/\s]+@)?([^:/\s]+):(?!//)(\S+)")
_REMOTE = "remote.origin.url"
_ASKED = r"^(remote\.origin\.url|filter\..*\.(clean|process))$"
_OWN_SCOPES = ("local", "worktree")
_NO_FILTER = (("clean", ""), ("process", ""), ("required", "false"))
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Commit:
    """The state of a work tree. `remote` is a URL without credentials, `path` the source's place in the tree;
    `dirty`: the source differs from the commit, or is not in it.
    """

    revision: str
    dirty: bool
    branch: str = ""
    remote: str = ""
    path: str = ""


def commit_of(source: Path, env: Mapping[str, str]) -> Commit | None:
    """The commit a file or folder lies in; None outside a work tree, before its first commit, without `git`, or when
    git refuses or takes more than 5 s.
    """
    folder, name = (source, ".") if source.is_dir() else (source.parent, source.name)
    settings = read_settings(_git(folder, env, "config", "-z", "--show-scope", "--get-regexp", _ASKED) or "")
    words = ("status", "--porcelain=v2", "--branch", "--ignore-submodules=dirty", "--", name)
    seen = _git(folder, {**env, **_without_filters(settings)}, *words)
    state = read_status(seen) if seen is not None else None
    if state is None:
        return None
    revision, branch, dirty = state
    inside = (_git(folder, env, "rev-parse", "--show-prefix") or "").strip() + ("" if source.is_dir() else name)
    return Commit(revision, dirty, branch, public_remote(settings.get(_REMOTE, "")), inside.rstrip("/"))


def read_settings(text: str) -> dict[str, str]:
    """What a work tree's own configuration says, from `git config -z --show-scope`; not the user's or the system's."""
    words = text.split("\0")
    pairs = zip(words[::2], words[1::2], strict=False)
    return {key: value for scope, pair in pairs if scope in _OWN_SCOPES for key, _, value in (pair.partition("\n"),)}


def _without_filters(settings: Mapping[str, str]) -> dict[str, str]:
    """Variables that make git run no filter the work tree's own configuration names (gitattributes(5), `filter`)."""
    drivers = {key.rpartition(".")[0] for key in settings if key != _REMOTE}
    if not drivers:
        return {}
    pairs = [(f"{driver}.{key}", text) for driver in sorted(drivers) for key, text in _NO_FILTER]
    variables = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, text) in enumerate(pairs):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": text}
    return variables


def read_status(text: str) -> tuple[str, str, bool] | None:
    """Revision, branch and whether anything is changed or new, from `git status --porcelain=v2 --branch`."""
    head = dict(line[2:].split(" ", 1) for line in text.splitlines() if line.startswith("# "))
    revision = head.get("branch.oid", "")
    if not _COMMIT.fullmatch(revision):
        return None
    branch = head.get("branch.head", "")
    changed = any(line and not line.startswith("#") for line in text.splitlines())
    return revision, "" if branch == "(detached)" else branch, changed


def public_remote(url: str) -> str:
    """A remote as it may be shown: no credentials, and nothing of a path on this machine."""
    if match := _SCP_LIKE.fullmatch(url):
        return f"ssh://{match[1]}/{match[2].lstrip('/')}"
    split = urlsplit(url)
    return without_credentials(url) if split.hostname and split.scheme != "file" else ""


def _git(folder: Path, env: Mapping[str, str], *words: str) -> str | None:
    # GIT_DIR and its kin would answer for another tree than the one the source lies in.
    clean = {name: text for name, text in env.items() if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_")}
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *_HARMLESS, "-C", os.fspath(folder), *words],
            capture_output=True,
            env=clean | quiet,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
