"""Credentials that a program gets: `users: exec` of a kubeconfig (client.authentication.k8s.io, v1 and v1beta1).

lightkube's own knows tokens of v1beta1 alone; clouds' programs speak v1, some give certificates, and tokens say when
they are over.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from corten.cluster.way import Way
from corten.errors import RemoteError

_GROUP = "client.authentication.k8s.io"
_LONGEST_S = 60.0  # it may open a browser
_EARLY_S = 10.0  # a token that is over on its way helps nobody
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a program gave: a token, or a certificate and its key (PEM); `until_s` (since the epoch) is 0 if unsaid."""

    token: str = ""
    certificate: str = ""
    key: str = ""
    until_s: float = 0.0


def ask(program: Any, cluster: Any, way: Way, folder: Path) -> Credentials:
    """Run the program of a kubeconfig in `folder`. Raises RemoteError `kubernetes.unauthorized`, with its own words."""
    wanted = str(program.apiVersion)
    told = {
        "apiVersion": wanted,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"server": cluster.server, **_trust(cluster, folder), **way.told()}},
    }
    env = {
        **os.environ,
        **{one.name: one.value for one in program.env or []},
        "KUBERNETES_EXEC_INFO": json.dumps(told),
    }
    command = program.command
    if os.sep in command:
        command = str(folder / command)
    try:
        done = subprocess.run(
            [command, *(program.args or [])],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused(program, str(error)) from error
    if done.returncode:
        raise _refused(program, f"it ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    try:
        given = json.loads(done.stdout)
        version, status = given["apiVersion"], given["status"]
        found = Credentials(
            status.get("token", ""),
            status.get("clientCertificateData", ""),
            status.get("clientKeyData", ""),
            _seconds(status.get("expirationTimestamp", "")),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _refused(program, f"it did not print an ExecCredential with a status: {done.stdout[:200]!r}") from error
    if version != wanted:
        raise _refused(program, f"it speaks {version}, and the kubeconfig says {wanted}")
    if not found.token and not (found.certificate and found.key):
        raise _refused(program, "its status has neither a token nor a certificate with its key")
    return found


class ProgramAuth(httpx2.Auth):  # type: ignore[misc]
    """Shows a program's token; asks the program again when that is over, or refused. Many threads share one."""

    def __init__(
        self, first: Credentials, renew: Callable[[], Credentials], now_s: Callable[[], float] = time.time
    ) -> None:
        self._now = first
        self._renew = renew
        self._now_s = now_s
        self._lock = threading.Lock()

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        """Once more where the first try was refused."""
        shown = self._now
        if shown.until_s and shown.until_s - _EARLY_S <= self._now_s():
            shown = self._instead_of(shown)
        self._show(request, shown)
        answer = yield request
        if answer.status_code == _UNAUTHORIZED:
            self._show(request, self._instead_of(shown))
            yield request

    def _instead_of(self, shown: Credentials) -> Credentials:
        with self._lock:
            if self._now is shown:  # else another thread was faster
                self._now = self._renew()
            return self._now

    @staticmethod
    def _show(request: httpx2.Request, credentials: Credentials) -> None:
        if credentials.token:
            request.headers["Authorization"] = f"Bearer {credentials.token}"


def _trust(cluster: Any, folder: Path) -> dict[str, str]:
    if cluster.certificate_auth_data:
        return {"certificate-authority-data": cluster.certificate_auth_data}
    if cluster.certificate_auth:
        trusted = (folder / cluster.certificate_auth).read_bytes()
        return {"certificate-authority-data": base64.b64encode(trusted).decode()}
    return {}


def _seconds(timestamp: str) -> float:
    return dt.datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0


def _refused(program: Any, why: str) -> RemoteError:
    return RemoteError(
        "kubernetes.unauthorized",
        f"`{program.command}` gets no credentials for the cluster",
        why=why,
        hint=program.installHint or "run the program of your kubeconfig (users: exec) by hand: it says what it lacks",
    )
