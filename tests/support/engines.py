"""Container engines for tests, each with images and containers of its own, and none left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from corten.core.process import with_environment

UP_S = 60
DOWN_S = 30
ROOTLESS_DOCKERD = "/usr/share/docker.io/contrib/dockerd-rootless.sh"


class NoEngineError(Exception):
    """An engine cannot be started here; its last words."""


@contextmanager
def podman_storage(images: Path | None = None) -> Iterator[Mapping[str, str]]:
    """The environment in which podman keeps images and containers in a folder of their own.

    The engine starts podman's service by itself. `images`: where it keeps them instead.
    """
    with _folder("corten-podman-") as folder:
        conf = folder / "storage.conf"
        root = images or folder / "root"
        conf.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{root}"\nrunroot = "{folder}/run"\n')
        env = {"CONTAINERS_STORAGE_CONF": str(conf)}
        try:
            yield env
        finally:
            told = {**os.environ, **env}
            subprocess.run(
                ["podman", "rm", "--all", "--force", "--time", "0"], env=told, capture_output=True, timeout=60
            )
            subprocess.run(["podman", "rmi", "--all", "--force"], env=told, capture_output=True, timeout=60)
            end_podmans_service(env)


def end_podmans_service(env: Mapping[str, str]) -> None:
    """Ended, not waited for: it ends by itself when nobody has asked for ten seconds."""
    for process in with_environment(f"CONTAINERS_STORAGE_CONF={env['CONTAINERS_STORAGE_CONF']}"):
        process.kill()


@contextmanager
def dockerd(path: Path | None = None, images: Path | None = None) -> Iterator[Mapping[str, str]]:
    """A Docker daemon of its own, with the environment that leads to it: a user's without root. Raises NoEngineError.

    `path`: a folder where it finds programs, besides the usual ones. `images`: where it keeps images and containers
    instead.
    """
    with _folder("corten-docker-") as folder:
        log, settings = folder / "log", folder / "daemon.json"
        settings.write_text("{}")  # not this machine's
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [
                    ROOTLESS_DOCKERD if os.geteuid() else "dockerd", "--host", f"unix://{folder}/s", "--pidfile", folder / "pid", "--bridge=none", "--iptables=false",
                    "--data-root", images or folder / "data", "--exec-root", folder / "exec", "--config-file", settings,
                ],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
                env={
                    **os.environ,
                    "PATH": ":".join([os.environ["PATH"], "/usr/sbin", *([str(path)] if path else [])]),
                    **({"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)} if os.geteuid() else {}),
                },
            )  # fmt: skip
        try:
            _until_it_listens(folder / "s", process, log)
            yield {"DOCKER_HOST": f"unix://{folder}/s"}
        finally:
            _end(process)


def _until_it_listens(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + UP_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                time.sleep(0.05)
                continue
            # It listens before it is ready, and answers when it is.
            probe.settimeout(UP_S)
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            if b" 200 " in probe.recv(64):
                return
    raise NoEngineError(log.read_text(errors="replace")[-600:])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(DOWN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    # Not on a tmpfs, over which the kernel may lay no overlay, and short: there are sockets in it.
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/var/tmp"))
    try:
        yield folder
    finally:
        for mount in sorted(_mounts_below(folder), reverse=True):
            subprocess.run(["umount", "--lazy", mount], capture_output=True)
        if os.geteuid() and shutil.which("rootlesskit"):
            # Files of a user's containers are those of users he has handed out.
            subprocess.run(["rootlesskit", "rm", "-rf", folder], capture_output=True, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    mounts = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return [mount for mount in mounts if mount.startswith(f"{folder}/")]


class OnEmbedded:
    """The built-in engine: no containers, no images of its own."""

    name: str = "embedded"
    env: Mapping[str, str] = {}
    sandbox: str = "bubblewrap"

    def containers(self) -> list[str]:
        return []

    def running(self) -> list[str]:
        return []

    def images(self) -> list[str]:
        return []

    def folders(self) -> list[Path]:
        return []

    def ask(self, *words: str) -> bytes:
        raise AssertionError(f"nobody to ask {words}")


class InContainers:
    """podman and Docker, asked by their own commands."""

    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        self.name, self.env, self.sandbox = name, env, name

    def containers(self) -> list[str]:
        return self.ask("ps", "--all", "--quiet").decode().split()

    def running(self) -> list[str]:
        """Without those that are paused, and those that have ended, of which some are kept for their logs."""
        return self.ask("ps", "--quiet", "--filter", "status=running").decode().split()

    def images(self) -> list[str]:
        return sorted(self.ask("images", "--quiet").decode().split())  # of the same age, they come in any order

    def folders(self) -> list[Path]:
        """Where it keeps what it knows of containers: their settings, logs and states."""
        own = self.env.get("CONTAINERS_STORAGE_CONF") or self.env["DOCKER_HOST"].removeprefix("unix://")
        names = ("root/overlay-containers", "run", "data/containers", "exec")
        return [folder for name in names if (folder := Path(own).parent / name).is_dir()]

    def ask(self, *words: str) -> bytes:
        """What its command answers."""
        return subprocess.run(
            [self.name, *words], env={**os.environ, **self.env}, capture_output=True, check=True
        ).stdout
