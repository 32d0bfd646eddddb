"""`corten doctor`: what this machine can and cannot do for Corten, found out by trying, and how to mend the rest."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from corten.core.home import Home
from corten.core.platform import Platform
from corten.errors import CortenError, UsageError

_LEAST_FREE_BYTES = 2 << 30
_CONNECT_S = 5.0
_RUN_S = 10.0


class Outcome(Enum):
    """FAILED: something Corten needs here is missing. WARNING: it works, with less. INFO: nice to know."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and one action that mends it when something is wrong."""

    name: str
    outcome: Outcome
    found: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {"name": self.name, "outcome": self.outcome.value, "found": self.found, "hint": self.hint}


def doctor(*, home: Home, env: Mapping[str, str], port: int = 8080, offline: bool = False) -> tuple[Check, ...]:
    """Run all checks; none of them raises. Without `offline`, the mirror and the index are asked for a connection."""
    return tuple(_checks(home, env, port, offline=offline))


def _checks(home: Home, env: Mapping[str, str], port: int, *, offline: bool) -> Iterator[Check]:
    yield _python()
    yield _platform()
    yield _home(home)
    yield _space(home)
    yield _resolver()
    yield from _sandbox(home, env)
    yield _gateway(env)
    yield _port(port, home)
    yield _cgroups()
    yield _devices()
    for tool in ("podman", "docker"):
        yield _tool(tool)
    if not offline:
        yield _reachable("debian", "deb.debian.org", "set CORTEN_DEBIAN_MIRROR to a mirror you reach")
        yield _reachable("index", "pypi.org", "set UV_DEFAULT_INDEX to a Python package index you reach")


def _python() -> Check:
    return Check("python", Outcome.OK, f"{platform.python_version()} ({sys.executable})")


def _platform() -> Check:
    try:
        here = Platform.of_machine()
    except UsageError as error:
        return Check(
            "platform", Outcome.FAILED, error.why, "build elsewhere: images are made for linux/amd64 and linux/arm64"
        )
    if sys.platform != "linux":
        return Check(
            "platform",
            Outcome.WARNING,
            f"{sys.platform}: images can be built, not run, by the embedded engine",
            "run them with podman or docker, or on a Linux machine",
        )
    libc = " ".join(platform.libc_ver()) or "an unknown libc"
    return Check("platform", Outcome.OK, f"{here}, Linux {platform.release()}, {libc}")


def _home(home: Home) -> Check:
    try:
        home.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home.root):
            pass
    except OSError as error:
        return Check(
            "home",
            Outcome.FAILED,
            f"cannot write {home.root}: {error.strerror}",
            "set CORTEN_HOME to a folder of yours",
        )
    closed = next(
        (parent for parent in home.root.parents if os.geteuid() == 0 and not parent.stat().st_mode & 0o001), None
    )
    if closed:
        return Check(
            "home",
            Outcome.WARNING,
            f"{home.root}; {closed} is closed to uid 65532, so replicas are mapped to root outside their sandbox",
            "leave CORTEN_HOME at /var/lib/corten, or open the folder for others to pass (chmod o+x)",
        )
    return Check("home", Outcome.OK, str(home.root))


def _space(home: Home) -> Check:
    free_bytes = shutil.disk_usage(home.root if home.root.exists() else Path("/")).free
    found = f"{free_bytes / 1e9:.1f} GB free"
    if free_bytes < _LEAST_FREE_BYTES:
        return Check("disk", Outcome.WARNING, found, "free some space, or set CORTEN_HOME to another disk")
    return Check("disk", Outcome.OK, found)


def _resolver() -> Check:
    try:
        import uv

        version = _output([uv.find_uv_bin(), "--version"])
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return Check("uv", Outcome.FAILED, f"cannot run uv: {error}", "reinstall corten; its dependency uv is broken")
    return Check("uv", Outcome.OK, version)


def _sandbox(home: Home, env: Mapping[str, str]) -> Iterator[Check]:
    if sys.platform != "linux":
        return
    from corten.engine.embedded import Embedded

    try:
        told = Embedded.from_env(home, env).describe()
    except CortenError as error:
        yield Check("sandbox", Outcome.FAILED, str(error), error.hint)
        return
    isolated = not told["sandbox"].startswith("none")
    yield Check(
        "sandbox",
        Outcome.OK if isolated else Outcome.WARNING,
        "; ".join(text if key == "sandbox" else f"{key}: {text}" for key, text in told.items()),
        "" if isolated else _mend_sandbox(env),
    )


def _mend_sandbox(env: Mapping[str, str]) -> str:
    if env.get("CORTEN_SANDBOX") == "none":
        return "unset CORTEN_SANDBOX"
    if not shutil.which("bwrap"):
        return "install bubblewrap: `apt-get install bubblewrap`"
    limit = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if limit.exists() and limit.read_text().strip() == "1":
        return "AppArmor forbids user namespaces here: allow bwrap in an AppArmor profile, or run Corten as root"
    return "user namespaces are switched off: `sysctl -w user.max_user_namespaces=15000`"


def _gateway(env: Mapping[str, str]) -> Check:
    from corten.gateway.process import find_binary, require_binary

    try:
        chosen = env.get("CORTEN_ENVOY")
        binary = require_binary(Path(chosen)) if chosen else find_binary()
        version = _output([str(binary), "--version"])
    except (CortenError, OSError, subprocess.SubprocessError) as error:
        hint = error.hint if isinstance(error, CortenError) else "set CORTEN_ENVOY to an Envoy binary that runs here"
        return Check("gateway", Outcome.FAILED, f"no Envoy: {error}", hint)
    release = next((part for part in version.split("/") if part[:1].isdigit()), version)
    return Check("gateway", Outcome.OK, f"Envoy {release} ({binary})")


def _port(port: int, home: Home) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            ours = " (perhaps by Corten's own gateway)" if home.daemon_socket.exists() else ""
            return Check(
                "port", Outcome.WARNING, f"{port}: {error.strerror}{ours}", "choose another: `corten up … --port 8081`"
            )
    return Check("port", Outcome.OK, f"{port} is free")


def _cgroups() -> Check:
    if sys.platform != "linux":
        return Check("limits", Outcome.INFO, "no cgroups: memory and processors of replicas cannot be limited")
    from corten.core.resources import Resources
    from corten.engine.cgroups import Cgroups

    lacking = Cgroups().lacking(Resources(memory_bytes=1 << 30, cpus=1))
    if lacking:
        hint = "run Corten as root, or in a unit of systemd with Delegate=yes (`corten service install`)"
        return Check("limits", Outcome.WARNING, f"no cgroup can be made here to limit {' and '.join(lacking)}", hint)
    return Check("limits", Outcome.OK, "memory, processors and processes of a replica, by cgroups")


def _devices() -> Check:
    from corten.engine.cdi import CDI_FOLDERS, SUFFIXES
    from corten.engine.devices import gpus_here

    gpus = gpus_here()
    described = sorted(str(path) for folder in CDI_FOLDERS for path in folder.glob("*") if path.suffix in SUFFIXES)
    told = f"described for containers by {', '.join(described)}" if described else "no CDI specification"
    found = f"{len(gpus)} NVIDIA GPUs; {told}"
    if gpus and not described:
        hint = "describe them for podman: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
        return Check("devices", Outcome.WARNING, found, hint)
    return Check("devices", Outcome.INFO, found)


def _tool(name: str) -> Check:
    path = shutil.which(name)
    if not path:
        return Check(name, Outcome.INFO, "not installed (not needed)")
    try:
        return Check(name, Outcome.INFO, _output([path, "--version"]))
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, Outcome.INFO, f"installed, but does not run: {error}")


def _reachable(name: str, host: str, hint: str) -> Check:
    try:
        socket.create_connection((host, 443), timeout=_CONNECT_S).close()
    except OSError as error:
        return Check(name, Outcome.WARNING, f"{host} does not answer: {error}", hint)
    return Check(name, Outcome.OK, f"{host} answers")


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, check=True)
    return (done.stdout or done.stderr).strip().splitlines()[0]
