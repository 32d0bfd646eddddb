"""The daemon as a service of systemd: there after a boot, and again at once whenever it dies.

Replicas and gateway outlive the daemon as a service too (`KillMode=process`), so restarting it, for a new version of
Corten say, disturbs no request. See systemd.service(5), systemd.resource-control(5).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from corten.control.client import connect
from corten.core.home import Home
from corten.errors import CortenError, EngineError, NotFoundError
from corten.store.writing import atomic_write, translated

_SYSTEM: Final = Path("/etc/systemd/system")
_CARRIED: Final = (
    "CORTEN_SANDBOX",
    "CORTEN_BWRAP",
    "CORTEN_ENVOY",
    "CONTAINER_HOST",
    "DOCKER_HOST",
    "CONTAINERS_STORAGE_CONF",
    "XDG_RUNTIME_DIR",
    "PATH",
)
_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Service:
    """A unit of systemd: its name, its file, and whether it is the system's (else the user's own)."""

    name: str
    file: Path
    system: bool

    @classmethod
    def of(cls, home: Home, env: Mapping[str, str], *, uid: int, user: bool = False) -> Service:
        """Root's is the system's, if not `user`. A home that is not the usual one has a unit named by its path."""
        usual = Home.from_env({key: value for key, value in env.items() if key != "CORTEN_HOME"}, uid=uid)
        words = [] if home == usual else [part for part in home.root.parts if part != "/"]
        name = "-".join(["corten", *("".join(c if c.isalnum() else "_" for c in word) for word in words)]) + ".service"
        if uid == 0 and not user:
            return cls(name, _SYSTEM / name, system=True)
        base = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME", "~")).expanduser() / ".config")
        return cls(name, base / "systemd/user" / name, system=False)

    def unit(self, home: Home, env: Mapping[str, str], python: str = sys.executable) -> str:
        """The unit's text."""
        carried = [f"Environment={_quoted(f'{key}={env[key]}')}" for key in _CARRIED if env.get(key)]
        command = " ".join(map(_quoted, (python, "-m", "corten.control.daemon", "--home", str(home.root))))
        return "\n".join(
            (
                "[Unit]",
                f"Description=Corten: what is deployed in {_plain(str(home.root))}",
                "After=network.target",
                "StartLimitIntervalSec=0",
                "",
                "[Service]",
                "Type=exec",
                f"ExecStart={command} --service yes",
                *carried,
                "Restart=always",
                "RestartSec=0.2",
                "# Replicas and gateway outlive the daemon; `corten stop` ends them.",
                "KillMode=process",
                "# One that is ended for its memory ends alone.",
                "OOMPolicy=continue",
                "# For the limits of replicas.",
                "Delegate=yes",
                "TasksMax=infinity",
                "",
                "[Install]",
                f"WantedBy={'multi-user' if self.system else 'default'}.target",
                "",
            )
        )

    @property
    def controls(self) -> tuple[str, ...]:
        """How systemd is asked about it."""
        return ("systemctl",) if self.system else ("systemctl", "--user")


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A unit and how systemd says it is: `active`, `inactive`, `failed` ..., or `not installed`."""

    service: Service
    state: str

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {"name": self.service.name, "file": str(self.service.file), "state": self.state}


def install(*, home: Home | None = None, env: Mapping[str, str] | None = None, user: bool = False) -> ServiceStatus:
    """Write the unit, have it started now and at every boot. Repeating it brings an older unit up to date.

    `user`: the caller's own, also root's. A daemon that runs hands over to it; replicas and gateway go on. Raises
    EngineError `service.no_systemd`, `service.refused`.
    """
    home, env = _defaults(home, env)
    service = Service.of(home, env, uid=os.geteuid(), user=user)
    _need_systemd(service)
    with translated(service.file, "write the unit"):
        service.file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(service.file, service.unit(home, env).encode())
    _systemctl(service, "daemon-reload")
    _systemctl(service, "enable", service.name)
    if status(home=home, env=env, user=user).state != "active":
        with suppress(NotFoundError):
            connect(home, start=False).shut_down(until_s=time.monotonic() + _TIMEOUT_S)
    _systemctl(service, "restart", service.name)
    _until_it_answers(home, service)
    return status(home=home, env=env, user=user)


def uninstall(*, home: Home | None = None, env: Mapping[str, str] | None = None, user: bool = False) -> ServiceStatus:
    """Take the unit away. What is deployed goes on, with a daemon that is started on demand.

    Raises NotFoundError `service.not_installed`, EngineError `service.refused`.
    """
    home, env = _defaults(home, env)
    service = Service.of(home, env, uid=os.geteuid(), user=user)
    if not service.file.exists():
        raise NotFoundError(
            "service.not_installed", "there is no such service", where=str(service.file), hint="corten service install"
        )
    _systemctl(service, "disable", "--now", service.name)
    with translated(service.file, "remove the unit"):
        service.file.unlink()
    _systemctl(service, "daemon-reload")
    return ServiceStatus(service, "not installed")


def status(*, home: Home | None = None, env: Mapping[str, str] | None = None, user: bool = False) -> ServiceStatus:
    """How the service is."""
    home, env = _defaults(home, env)
    service = Service.of(home, env, uid=os.geteuid(), user=user)
    if not service.file.exists() or not shutil.which("systemctl"):
        return ServiceStatus(service, "not installed")
    done = _run(service, "is-active", service.name)
    return ServiceStatus(service, done.stdout.strip() or "unknown")


def _defaults(home: Home | None, env: Mapping[str, str] | None) -> tuple[Home, Mapping[str, str]]:
    env = os.environ if env is None else env
    return home or Home.from_env(env, uid=os.getuid()), env


def _until_it_answers(home: Home, service: Service) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline_s:
        with suppress(NotFoundError):
            connect(home, start=False)
            return
        time.sleep(_POLL_S)
    raise EngineError(
        "service.refused",
        "the service was started and does not answer",
        where=str(service.file),
        hint=f"see `tail {home.state / 'daemon.log'}` and `systemctl status {service.name}`",
    )


def _need_systemd(service: Service) -> None:
    if shutil.which("systemctl") and Path("/run/systemd/system").is_dir():
        return
    raise EngineError(
        "service.no_systemd",
        "systemd does not run here",
        why="`systemctl` is missing, or another init system is in charge",
        hint=f"have yours run: {sys.executable} -m corten.control.daemon --home HOME --service yes",
        where=str(service.file),
    )


def _systemctl(service: Service, *words: str) -> None:
    done = _run(service, *words)
    if done.returncode:
        raise EngineError(
            "service.refused",
            f"systemd refused `{' '.join((*service.controls, *words))}`",
            where=str(service.file),
            why=done.stderr.strip()[-500:] or f"exit code {done.returncode}",
            hint=f"see `journalctl {'' if service.system else '--user '}-u {service.name}`",
        )


def _run(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [*service.controls, *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError("service.refused", "systemd does not answer", why=str(error)) from error


def _quoted(text: str) -> str:
    r"""A word for a unit: in quotes, `%`, `$`, `"` and `\` as themselves (systemd.syntax(7), systemd.service(5))."""
    if any(ord(char) < 32 for char in text):
        raise CortenError("service.bad_path", "a unit cannot hold this text", why=repr(text))
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")
