"""Who we are to a registry: docker's and podman's files and credential helpers.

Formats: `~/.docker/config.json` (docker CLI), `auth.json` (containers-auth.json(5)), the helper protocol of
docker-credential-helpers: `docker-credential-NAME get`, the host on stdin, JSON on stdout.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corten.errors import CortenError, UsageError

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_TIMEOUT_S = 30.0
# What a helper says as the user name when its secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105 - a mark, not a secret
_LIMIT_BYTES = 4 << 20
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = ("index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credential:
    """A user with a password, or an identity token (OAuth2 refresh token). Never shown: `repr` leaves secrets out."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def credential_files(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Where to look, in this order: what the environment names, podman's file, docker's."""
    home = env.get("HOME", "")
    candidates = [
        env.get("REGISTRY_AUTH_FILE", ""),
        f"{env['DOCKER_CONFIG']}/config.json" if env.get("DOCKER_CONFIG") else "",
        f"{env['XDG_RUNTIME_DIR']}/containers/auth.json" if env.get("XDG_RUNTIME_DIR") else "",
        f"{home}/.docker/config.json" if home else "",
    ]
    return tuple(Path(path) for path in candidates if path)


def find(files: Sequence[Path], registry: str, repository: str, env: Mapping[str, str]) -> Credential | None:
    """The first credential any of the files has for a repository, or None.

    Raises UsageError `registry.bad_config` for a file that cannot be read, CortenError `registry.helper_failed`.
    """
    for path in files:
        config = _read(path)
        if config is not None and (found := _in_config(config, registry, repository, env, str(path))):
            return found
    return None


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        with path.open("rb") as stream:
            config = json.loads(stream.read(_LIMIT_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        # Never the content: it holds passwords.
        raise _bad_config(str(path), type(error).__name__) from error
    if not isinstance(config, dict):
        raise _bad_config(str(path), f"expected an object, found {type(config).__name__}")
    return config


def _in_config(
    config: Mapping[str, Any], registry: str, repository: str, env: Mapping[str, str], where: str
) -> Credential | None:
    helpers = {host_of_key(key): name for key, name in _mapping(config, "credHelpers", where).items()}
    auths = {host_of_key(key): entry for key, entry in _mapping(config, "auths", where).items()}
    helper = helpers.get(_own_name(registry)) or config.get("credsStore")
    if helper and (found := ask_helper(str(helper), registry, env)):
        return found
    for key in _keys(_own_name(registry), repository):
        if isinstance(entry := auths.get(key), dict) and (found := _from_entry(entry, where)):
            return found
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """The most special first: podman's files may tell repositories of one registry apart."""
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join((registry, *parts[:count]))
    yield registry


def host_of_key(key: str) -> str:
    """A key as we compare it: docker wrote URLs with `/v1/` at their end."""
    text = re.sub(r"^https?://", "", key).rstrip("/")
    text = re.sub(r"/v[12]$", "", text)
    host, slash, path = text.partition("/")
    return _own_name(host) + slash + path


def _own_name(registry: str) -> str:
    return _DOCKER_HUB if registry in _DOCKER_HUB_NAMES else registry


def _from_entry(entry: Mapping[str, Any], where: str) -> Credential | None:
    token = str(entry.get("identitytoken") or "")
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if text := entry.get("auth"):
        try:
            user, _, password = base64.b64decode(str(text), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            # Without its cause: that shows the bytes.
            raise _bad_config(where, "`auth` is not the base64 of `user:password`") from None
        password = password.rstrip("\0")  # docker pads what it wrote on Windows
    return Credential(user, password, token) if user or token else None


def ask_helper(name: str, registry: str, env: Mapping[str, str]) -> Credential | None:
    """Run `docker-credential-NAME get`; None when it knows nothing. Raises CortenError `registry.helper_failed`."""
    if not _HELPER.fullmatch(name):
        raise _helper_failed(name, "that is no helper's name")
    server = "https://index.docker.io/v1/" if registry == _DOCKER_HUB else registry
    try:
        done = subprocess.run(
            [f"docker-credential-{name}", "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_TIMEOUT_S,
            check=False,
            env=dict(env),
        )
    except FileNotFoundError as error:
        raise _helper_failed(name, "the program is not on the PATH") from error
    except subprocess.TimeoutExpired as error:
        raise _helper_failed(name, f"no answer within {_HELPER_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise _helper_failed(name, str(error.strerror)) from error
    if done.returncode:
        if b"credentials not found" in done.stdout + done.stderr:
            return None
        raise _helper_failed(name, f"it ended with exit code {done.returncode}")
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise _helper_failed(name, "its answer is not the JSON of a credential") from None
    return Credential(identity_token=secret) if user == _TOKEN_USER else Credential(user, secret)


def _mapping(config: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise _bad_config(where, f"`{key}` is no object")
    return value


def _bad_config(where: str, why: str) -> UsageError:
    return UsageError(
        "registry.bad_config",
        "the file with registry credentials cannot be read",
        where=where,
        why=why,
        hint="log in again: podman login REGISTRY",
    )


def _helper_failed(name: str, why: str) -> CortenError:
    return UsageError(
        "registry.helper_failed",
        f"the credential helper `docker-credential-{name[:60]}` gave no credential",
        why=why,
        hint="run it by hand, or take it out of credHelpers/credsStore in ~/.docker/config.json",
    )
