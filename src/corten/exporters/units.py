"""Units of systemd that run a container with podman: a quadlet (podman 4.5 and newer), or a service for older ones.

podman-systemd.unit(5), systemd.service(5), systemd.syntax(7).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from corten.exporters.base import HTTP_PORT, SecretVariable, Workload, refuse
from corten.exporters.container import PROCESSES, TMP_BYTES, TMPFS, USER, alive, check, environment, stop_s

_PODMAN: Final = "/usr/bin/podman"
_PORT: Final = f"127.0.0.1:{HTTP_PORT}:{HTTP_PORT}"


class Quadlet:
    """`NAME.container`, for /etc/containers/systemd or ~/.config/containers/systemd."""

    name = "quadlet"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """The one file. Raises UsageError `render.unsupported`."""
        check(self.name, workload)
        return {f"{workload.name}.container": _text(_quadlet(workload))}


class Systemd:
    """`NAME.service`, which calls podman itself."""

    name = "systemd"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """The one file. Raises UsageError `render.unsupported`."""
        check(self.name, workload)
        return {f"{workload.name}.service": _text(_service(workload))}


def _quadlet(workload: Workload) -> Iterator[str]:
    yield from _unit(workload)
    yield "[Container]"
    yield f"ContainerName={workload.name}"
    yield f"Image={workload.image}"
    yield from (f"User={USER}", f"Group={USER}", "ReadOnly=true", *(f"Tmpfs={each}" for each in TMPFS))
    yield from ("DropCapability=all", "NoNewPrivileges=true")
    yield f"PublishPort={_PORT}"
    yield from (f"Environment={_quoted(f'{name}={text}')}" for name, text in environment(workload))
    yield from (f"Secret={_secret(each)}" for each in workload.secrets)
    yield f"HealthCmd={_alive()}"
    yield from ("HealthInterval=30s", "HealthTimeout=5s", "HealthRetries=3")
    yield from (f"AddDevice={device}" for device in _devices(workload))
    yield f"PodmanArgs={' '.join(_limits(workload))}"
    yield ""
    yield "[Service]"
    yield from _kept(workload)
    yield from _installed()


def _service(workload: Workload) -> Iterator[str]:
    yield from _unit(workload)
    yield "[Service]"
    yield from ("Type=notify", "NotifyAccess=all")
    yield f"ExecStart={' '.join(map(_quoted, _run(workload)))}"
    yield f"ExecStop={_PODMAN} stop --ignore --time {stop_s(workload)} {workload.name}"
    yield from _kept(workload)
    yield from _installed()


def _run(workload: Workload) -> Iterator[str]:
    yield from (_PODMAN, "run", "--rm", "--replace", "--name", workload.name, "--sdnotify=conmon", "--cgroups=split")
    yield from ("--user", f"{USER}:{USER}", "--read-only", *(word for each in TMPFS for word in ("--tmpfs", each)))
    yield from ("--cap-drop=all", "--security-opt=no-new-privileges", "--publish", _PORT)
    yield from _limits(workload)
    yield from ("--health-cmd", _alive(), "--health-interval=30s", "--health-timeout=5s", "--health-retries=3")
    for name, text in environment(workload):
        yield from ("--env", f"{name}={text}")
    for each in workload.secrets:
        yield from ("--secret", _secret(each))
    for device in _devices(workload):
        yield from ("--device", device)
    yield str(workload.image)


def _alive() -> str:
    """As podman takes a command that no shell is to run: there is none in the image."""
    return json.dumps(alive())


def _unit(workload: Workload) -> Iterator[str]:
    yield "[Unit]"
    yield f"Description=Corten: {workload.name} {workload.version}"
    yield from ("Wants=network-online.target", "After=network-online.target", "")


def _kept(workload: Workload) -> Iterator[str]:
    yield from ("Restart=always", "RestartSec=1")
    yield f"TimeoutStartSec={int(workload.settings.ready_timeout_s) + 600}"  # the image may have to be pulled
    yield f"TimeoutStopSec={stop_s(workload) + 5}"
    yield ""


def _installed() -> Iterator[str]:
    yield from ("[Install]", "WantedBy=default.target")


def _limits(workload: Workload) -> Iterator[str]:
    resources = workload.settings.resources
    yield f"--pids-limit={PROCESSES}"
    yield f"--shm-size={TMP_BYTES}"
    yield f"--stop-timeout={stop_s(workload)}"
    if resources.memory_bytes:
        yield from (f"--memory={resources.memory_bytes}", f"--memory-swap={resources.memory_bytes}")
    if resources.cpus:
        yield f"--cpus={resources.cpus:g}"


def _devices(workload: Workload) -> Iterator[str]:
    """By the Container Device Interface; of GPUs the first ones, for a unit has no scheduler."""
    yield from (f"nvidia.com/gpu={number}" for number in range(workload.gpus))
    yield from workload.settings.resources.devices


def _secret(secret: SecretVariable) -> str:
    # podman's secrets have no keys of their own: each is one value.
    return f"{secret.secret}-{secret.key},type=env,target={secret.variable}"


def _quoted(text: str) -> str:
    r"""A word for a unit: plain where it can be, else in quotes, with `%`, `$`, `"` and `\` as themselves."""
    if any(ord(char) < 32 for char in text):
        raise refuse("systemd", "a variable with control characters", why=f"a unit is lines of text: {text[:40]!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    # Go's generator takes white space of any script from the ends of a line.
    plain = escaped and all("!" <= char <= "~" and char not in "'\";\\" for char in escaped)
    return escaped if plain else f'"{escaped}"'


def _text(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"
