"""What a container engine is and can do here, asked once."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from corten.core.home import Home
from corten.engine.cdi import described, podmans_folders
from corten.engine.docker_api import DockerApi, Info, Version
from corten.engine.folders import make_private
from corten.engine.seccomp_profile import stricter
from corten.errors import EngineError
from corten.store.writing import atomic_write

_log = logging.getLogger(__name__)


class ContainerHost:
    """The engine behind `api`, used by the user with that uid."""

    def __init__(self, home: Home, api: DockerApi, uid: int) -> None:
        self._home = home
        self._api = api
        self._uid = uid

    @cached_property
    def version(self) -> Version:
        """Who answers."""
        return self._api.version()

    @cached_property
    def info(self) -> Info:
        """How it is set up."""
        return self._api.info()

    @property
    def is_podman(self) -> bool:
        """Whether it is podman, whatever the socket is called."""
        return self.version.is_podman

    @property
    def keeps_id(self) -> bool:
        """Whether a container's user can be ours: podman's without root, since 4.3."""
        return self._uid != 0 and self.is_podman

    @property
    def limits(self) -> bool:
        """Whether it can limit what a container uses."""
        return self.info.memory_limit and self._has_cgroups

    @property
    def has_selinux(self) -> bool:
        """Whether files need a label before a container may open them."""
        return any("selinux" in option for option in self.info.security_options or ())

    @property
    def has_old_cgroups(self) -> bool:
        """Whether they are of version 1."""
        return self.info.cgroup_version == "1"

    @property
    def _has_cgroups(self) -> bool:
        """Without root there are only those of version 2, whatever podman says it has."""
        return not (self.keeps_id and self.has_old_cgroups)

    @cached_property
    def seccomp(self) -> str:
        """The file of podman's profile made stricter; Docker's own is."""
        if not self.is_podman:
            return ""
        path = self._home.state / "podman-seccomp.json"
        try:
            make_private(path.parent)
            atomic_write(path, stricter(Path(self._api.podman_seccomp()).read_bytes()))
        except (OSError, ValueError, EngineError) as error:
            _log.warning("podman's own seccomp profile is used as it is: %s", error)
            return ""
        return str(path)

    def _cdi(self) -> Mapping[str, str]:
        """Of which devices it knows the names; nothing where only it can tell."""
        if self.is_podman:
            folders = podmans_folders(os.environ)
        elif told := self.info.cdi_folders:
            folders = tuple(map(Path, told))
        else:
            why = f"Docker {self.version.version} takes no devices by name: 25 and newer do, where CDI is switched on"
            return {"cdi": f"none: {why}"}
        names = described(folders)
        return {} if names is None else {"cdi": " ".join(sorted(names))}

    def describe(self) -> Mapping[str, str]:
        """What replicas are kept from here, for people."""
        try:
            version, info = self.version, self.info
        except EngineError as error:
            return {"sandbox": f"unknown: {error.why or error.what}"}
        filtered = any("seccomp" in option for option in info.security_options or ())
        known = {"memory": info.memory_limit, "cpu": info.cpu_cfs_quota, "processes": info.pids_limit}
        lacking = [name for name, works in known.items() if not (works and self._has_cgroups)]
        own = "podman" if version.is_podman else "docker"
        return {
            "sandbox": f"{own} {version.version}",
            "user": "uid 65532, outside your own" if self.keeps_id else "uid 65532, outside too",
            "network": "none; with egress the engine's bridge",
            "system calls": "filtered by seccomp" if filtered else "not filtered: the engine has no seccomp",
            "files": "read-only root",
            "devices": "those asked for",
            **self._cdi(),
            "limits": f"none for {' and '.join(lacking)}: the engine has none" if lacking else "memory, cpu, processes",
        }
