"""What one command's talk with registries shares: trust, credentials, retries, and the sign to give up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from corten.core.reference import Reference
from corten.registry.ask import Trust
from corten.registry.auth import Authorizer
from corten.registry.client import Repository
from corten.registry.credentials import Credential, credential_files, find
from corten.registry.retry import Retries
from corten.registry.transport import Transport


@dataclass(frozen=True, slots=True)
class Chance:
    """What is not decided by arguments: `clock` gives monotonic seconds, `jitter` numbers from 0 to 1."""

    clock: Callable[[], float]
    jitter: Callable[[], float]


class _Stop(threading.Event):
    """Threads that wait for a registry wake up when it is set: they look at it between pieces only."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def set(self) -> None:
        """Give up, now."""
        super().set()
        self._then()


class Session:
    """Makes repositories that share connections. Use as a context manager: leaving it closes them.

    `env` tells where credentials are (`HOME`, `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`) and the PATH of helpers.
    """

    def __init__(self, trust: Trust, env: Mapping[str, str], chance: Chance) -> None:
        self.stop: threading.Event = _Stop(self._cut)
        self.retries = Retries(chance.jitter, self.stop.wait)
        self._trust = trust
        self._env = env
        self._chance = chance
        self._transports: dict[str, Transport] = {}
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._owned.close()

    def _cut(self) -> None:
        for transport in self._transports.values():
            transport.cut()

    def reading(self, reference: Reference) -> Repository:
        """A repository to pull from."""
        return self._repository(reference, ["pull"])

    def writing(self, reference: Reference, mounts: Sequence[str] = ()) -> Repository:
        """A repository to push to; `mounts` are others of that registry that blobs may be mounted from."""
        return self._repository(reference, ["pull,push"], mounts)

    def _repository(self, reference: Reference, actions: Sequence[str], mounts: Sequence[str] = ()) -> Repository:
        registry, name = reference.registry, reference.repository
        if registry == "docker.io" and "/" not in name:
            name = f"library/{name}"
        if registry not in self._transports:
            transport = Transport(registry, self._trust, self._chance.clock)
            self._transports[registry] = self._owned.enter_context(transport)
        scopes = [
            *(f"repository:{name}:{action}" for action in actions),
            *(f"repository:{other}:pull" for other in mounts),
        ]

        def credential() -> Credential | None:
            return find(credential_files(self._env), registry, name, self._env)

        transport = self._transports[registry]
        return Repository(transport, name, Authorizer(transport, scopes, credential, self._chance.clock), self.retries)
