"""Who builds: Corten, and the same Dockerfiles in BuildKit (as it is in dockerd) and in buildah.

Each has its own folder, caches and registry. `Base` is what a Dockerfile begins with; it is in every rival's store and
registry before anything is timed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loopback import DebianMirror, Index, Registry
from works import Work

BIN = Path(sys.executable).parent
DEADLINE_S = 300
_UV = """\
FROM {base}
COPY pinned.txt /app/
RUN --mount=type=bind,from={tools},source=/,target=/tools --mount=type=cache,target=/root/.cache/uv \\
    /tools/uv pip install --system --break-system-packages --link-mode=copy --index-url {index}/simple -r /app/pinned.txt
COPY model /app/model
COPY serve.py /app/
CMD ["python3", "/app/serve.py"]
"""
_PIP = """\
FROM {base}
COPY pinned.txt /app/
RUN --mount=type=bind,from={tools},source=/,target=/tools \\
    PYTHONPATH=/tools/pip python3 -m pip install --no-cache-dir --break-system-packages --root-user-action=ignore \\
    --index-url {index}/simple -r /app/pinned.txt
COPY model /app/model
COPY serve.py /app/
CMD ["python3", "/app/serve.py"]
"""


class FailedError(Exception):
    """A builder that cannot do its part here; the others go on."""


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, and of processors, where the kernel tells (None where it does not)."""

    wall_s: float
    cpu_s: float | None


class Meter:
    """A control group that tells what processor time the processes in it took, daemons included."""

    def __init__(self, name: str) -> None:
        self.name = f"corten-bench-{os.getpid()}-{name}"
        self.group: Path | None = Path("/sys/fs/cgroup/cpuacct") / self.name
        try:
            self.group.mkdir()
        except OSError:
            self.group = None  # cgroup v2 or no right to: seconds by the clock must do

    def command(self, words: list[str]) -> list[str]:
        if self.group is None:
            return words
        return ["sh", "-c", f'echo $$ > {self.group}/cgroup.procs && exec "$@"', "sh", *words]

    def run(self, words: list[str], env: dict[str, str]) -> tuple[Took, str]:
        before_s, began_s = self._cpu_s(), time.perf_counter()
        done = subprocess.run(
            self.command(words), capture_output=True, text=True, env=env, timeout=DEADLINE_S, check=False
        )
        wall_s, after_s = time.perf_counter() - began_s, self._cpu_s()
        if done.returncode:
            raise FailedError(
                f"{' '.join(words[:6])} … gave {done.returncode}: {(done.stderr or done.stdout)[-1500:].strip()}"
            )
        cpu_s = None if before_s is None or after_s is None else round(after_s - before_s, 3)
        return Took(round(wall_s, 3), cpu_s), done.stdout

    def _cpu_s(self) -> float | None:
        return int((self.group / "cpuacct.usage").read_text()) / 1e9 if self.group else None

    def close(self) -> None:
        # A runtime makes the group in the other hierarchies as well.
        for group in sorted(Path("/sys/fs/cgroup").glob(f"*/{self.name}/**/"), reverse=True):
            with suppress(OSError):
                group.rmdir()


@dataclass(frozen=True)
class Size:
    """An image: as a registry gets it and unpacked, in bytes; the base of it as a registry gets it."""

    stored_bytes: int
    unpacked_bytes: int
    base_bytes: int


class Builder(ABC):
    """One row of the table. Only `build` and `push` are timed."""

    name: str
    repeats_cold = 2

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.index = index
        self.meter = Meter(folder.name)
        self.registry = Registry(folder / "registry").__enter__()

    @abstractmethod
    def clear(self, work: Work) -> None:
        """Empty caches and store; of a Dockerfile's base all is there."""

    @abstractmethod
    def prepare(self, work: Work) -> None:
        """What is no part of the build: the build's context, as it is now."""

    @abstractmethod
    def build(self, work: Work) -> Took: ...

    @abstractmethod
    def push(self, work: Work) -> Took: ...

    @abstractmethod
    def digest(self, work: Work) -> str: ...

    def size(self, work: Work) -> Size:
        """As its registry has it."""
        layers = self._manifest(work)["layers"]
        stored = [layer["size"] for layer in layers]
        return Size(sum(stored), self.unpacked_bytes(work), stored[0])

    @abstractmethod
    def unpacked_bytes(self, work: Work) -> int: ...

    def _manifest(self, work: Work) -> dict:
        kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
        request = urllib.request.Request(
            f"http://{self.registry.host}/v2/{work.name}/manifests/latest", headers={"Accept": kinds}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def reference(self, work: Work) -> str:
        return f"{self.registry.host}/{work.name}:latest"

    def close(self) -> None:
        self.registry.__exit__(None, None, None)
        self.meter.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Corten(Builder):
    """`corten build` with a home of its own."""

    name = "corten"

    def __init__(self, folder: Path, index: Index, mirror: DebianMirror) -> None:
        super().__init__(folder, index)
        self.home = folder / "home"
        # A machine may forbid Python to keep bytecode, an installation has it.
        env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.env = {
            **env,
            "CORTEN_HOME": str(self.home),
            "CORTEN_DEBIAN_MIRROR": mirror.url,
            "UV_DEFAULT_INDEX": f"{index.url}/simple",
            "UV_INSECURE_HOST": "127.0.0.1",
        }

    def clear(self, work: Work) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        (work.project / "corten.lock").unlink(missing_ok=True)

    def clear_but_base(self, work: Work) -> None:
        """As the Dockerfiles begin: the base is there, wheels and lock are not."""
        (work.project / "corten.lock").unlink(missing_ok=True)
        for name in ("wheels", "uv", "locks", "inspections"):
            shutil.rmtree(self.home / "cache" / name, ignore_errors=True)
        for path in (self.home / "cache" / "contents").iterdir():
            if b'"libc6"' not in path.read_bytes():  # what is in the base
                path.unlink()
        kept = set()
        for path in (self.home / "cache" / "layers").glob("*.json"):
            layer = json.loads(path.read_text())
            if layer["kind"] == "base":
                kept.add(layer["digest"]["hex"])
            else:
                path.unlink()
        for path in (self.home / "store" / "blobs" / "sha256").iterdir():
            if path.name not in kept:
                path.unlink()
        (self.home / "store" / "index.json").unlink()

    def prepare(self, work: Work) -> None:
        """Nothing: it builds from the project as it is."""

    def build(self, work: Work) -> Took:
        return self.meter.run([str(BIN / "corten"), "build", str(work.project), "-q"], self.env)[0]

    def push(self, work: Work) -> Took:
        words = [str(BIN / "corten"), "push", work.name, self.reference(work), "--plain-http", "-q"]
        return self.meter.run(words, self.env)[0]

    def digest(self, work: Work) -> str:
        return self._report(work)["digest"]

    def unpacked_bytes(self, work: Work) -> int:
        return sum(layer["tar_bytes"] for layer in self._report(work)["layers"])

    def attached_bytes(self, work: Work) -> int:
        """What lock, SBOM and provenance take in the registry."""
        tag = self.digest(work).replace(":", "-")
        url = f"http://{self.registry.host}/v2/{work.name}/manifests"
        total = 0
        for one in self._json(f"{url}/{tag}", "application/vnd.oci.image.index.v1+json")["manifests"]:
            inner = self._json(f"{url}/{one['digest']}", "application/vnd.oci.image.manifest.v1+json")
            total += one["size"] + sum(layer["size"] for layer in inner["layers"])
        return total

    def _json(self, url: str, kind: str) -> dict:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": kind}), timeout=30) as answer:
            return json.load(answer)

    def _report(self, work: Work) -> dict:
        words = [str(BIN / "corten"), "build", str(work.project), "-q", "--json"]
        return json.loads(self.meter.run(words, self.env)[1])

    def gather_wheels(self, work: Work) -> None:
        """Build from the public index once, untimed: the wheels it takes are what everybody gets."""
        env = {name: text for name, text in self.env.items() if name not in ("UV_DEFAULT_INDEX", "UV_INSECURE_HOST")}
        work.edit_dependencies(more=True)
        self.meter.run([str(BIN / "corten"), "build", str(work.project), "-q"], env)
        lock = work.project / "corten.lock"
        wheels = json.loads(lock.read_text())["locks"][0]["wheels"]
        for wheel in wheels:
            self.index.add(self.home / "cache" / "wheels" / wheel["digest"].removeprefix("sha256:") / wheel["filename"])
        work.pins = tuple(f"{wheel['name']}=={wheel['version']}" for wheel in wheels)
        work.edit_dependencies(more=False)
        lock.unlink()


@dataclass(frozen=True)
class Base:
    """What Dockerfiles begin with: a root file system, and an image with uv and pip that is only mounted."""

    rootfs: Path
    tools: Path


def make_base(folder: Path) -> Base:
    """A python:3.11-slim look-alike out of Debian bookworm, and the tools; both as tar files."""
    rootfs = folder / "base.tar"
    _run(["mmdebstrap", "--variant=minbase", "--include=python3,ca-certificates,tzdata", "bookworm", str(rootfs)])
    return Base(rootfs, make_tools(folder))


def make_tools(folder: Path) -> Path:
    tools = folder / "tools"
    tools.mkdir()
    shutil.copy2(BIN / "uv", tools / "uv")
    _run([str(BIN / "uv"), "pip", "install", "--quiet", "--no-deps", "--target", str(tools / "pip"), "pip"])
    _run(["tar", "-C", str(tools), "-cf", str(folder / "tools.tar"), "."])
    return folder / "tools.tar"


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode:
        raise FailedError(f"{' '.join(words[:4])} … gave {done.returncode}: {done.stderr[-1500:].strip()}")


class Dockerfile(Builder):
    """A builder of Dockerfiles: the context is the project, the base is in its store."""

    dockerfile: str

    def prepare(self, work: Work) -> None:
        context = self._context(work)
        context.mkdir(exist_ok=True)
        _run(["cp", "-a", f"{work.project}/.", str(context)])
        text = self.dockerfile.format(base=self.base_name, tools=self.tools_name, index=self.index.url)
        (context / "Dockerfile").write_text(text)
        (context / ".dockerignore").write_text("corten.lock\n")

    def _context(self, work: Work) -> Path:
        return self.folder / f"context-{work.name}"

    @property
    def base_name(self) -> str:
        return f"{self.registry.host}/base:latest"

    @property
    def tools_name(self) -> str:
        return "localhost/bench-tools:latest"


class Dockerd:
    """A docker daemon below a folder, without network or iptables; two rows share it."""

    def __init__(self, folder: Path, meter: Meter) -> None:
        self.folder = folder
        self.socket = f"unix://{folder}/docker.sock"
        self._log = (folder / "dockerd.log").open("ab")
        words = [
            "dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "-H", self.socket,
            "--pidfile", f"{folder}/pid", "--iptables=false", "--bridge=none", "--ip-forward=false",
            "--default-ulimit", "nofile=1024:4096", "--default-ulimit", "nproc=4096:4096",
        ]  # fmt: skip
        if driver := os.environ.get("BENCH_STORAGE_DRIVER"):
            words += ["--storage-driver", driver]
        if meter.group is not None:
            words += ["--cgroup-parent", f"/{meter.name}"]
        self._process = subprocess.Popen(meter.command(words), stdout=self._log, stderr=self._log)
        for _ in range(300):
            if self._process.poll() is not None:
                break
            if (folder / "docker.sock").exists() and self._answers():
                return
            time.sleep(0.1)
        self.close()
        raise FailedError(f"dockerd does not start: {(folder / 'dockerd.log').read_text()[-1500:].strip()}")

    def _answers(self) -> bool:
        done = subprocess.run([docker(), "-H", self.socket, "version"], capture_output=True, timeout=20, check=False)
        return done.returncode == 0

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
        self._log.close()


def docker() -> str:
    # Another client of that name may come first in PATH and speak a newer protocol than Debian's daemon.
    return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"


class BuildKit(Dockerfile):
    """`docker build` with BuildKit, in a daemon of its own."""

    name = "buildkit + uv"
    dockerfile = _UV

    def __init__(self, folder: Path, index: Index, base: Base) -> None:
        if not shutil.which("dockerd"):
            raise FailedError("dockerd is not installed (apt-get install docker.io)")
        super().__init__(folder, index)
        self.base = base
        self.daemon = Dockerd(folder, self.meter)
        self.env = {**os.environ, "DOCKER_BUILDKIT": "1", "DOCKER_HOST": self.daemon.socket}
        self._docker("import", str(base.rootfs), self.base_name)
        self._docker("import", str(base.tools), self.tools_name)
        self._docker("push", "-q", self.base_name)

    def clear(self, work: Work) -> None:
        del work
        for image in self._docker("images", "-q", "--filter", "reference=*/*:latest")[1].split():
            if image not in self._kept():
                self._docker("rmi", "-f", image)
        self._docker("builder", "prune", "-af")

    def forget_base(self) -> None:
        """The next build fetches it from the registry, over loopback."""
        self._docker("rmi", "-f", self.base_name)

    def remember_base(self) -> None:
        self._docker("pull", "-q", self.base_name)

    def _kept(self) -> set[str]:
        return set(self._docker("images", "-q", self.base_name)[1].split()) | set(
            self._docker("images", "-q", self.tools_name)[1].split()
        )

    def build(self, work: Work) -> Took:
        return self._docker("build", "-q", "--network", "host", "-t", self.reference(work), str(self._context(work)))[0]

    def push(self, work: Work) -> Took:
        return self._docker("push", "-q", self.reference(work))[0]

    def digest(self, work: Work) -> str:
        return self._docker("inspect", "--format", "{{.Id}}", self.reference(work))[1].strip()

    def unpacked_bytes(self, work: Work) -> int:
        return int(self._docker("inspect", "--format", "{{.Size}}", self.reference(work))[1])

    def _docker(self, *words: str) -> tuple[Took, str]:
        return self.meter.run([docker(), *words], self.env)

    def close(self) -> None:
        self.daemon.close()
        super().close()


class BuildKitPip(BuildKit):
    """The same with pip, as most write it."""

    name = "buildkit + pip"
    dockerfile = _PIP
    repeats_cold = 1


class Buildah(Dockerfile):
    """`buildah bud --layers`, without a daemon."""

    name = "buildah + uv"
    dockerfile = _UV

    def __init__(self, folder: Path, index: Index, base: Base) -> None:
        if not shutil.which("buildah"):
            raise FailedError("buildah is not installed (apt-get install buildah)")
        super().__init__(folder, index)
        self.base = base
        self.store = folder / "store"
        # The cache mount lies below TMPDIR.
        self.env = {**os.environ, "TMPDIR": f"{folder}/tmp"}
        self.clear()
        self._buildah("push", "-q", "--tls-verify=false", self.base_name)

    def clear(self, work: Work | None = None) -> None:
        del work
        for folder in (self.store, self.folder / "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
        (self.folder / "tmp").mkdir()
        for name, tar in ((self.base_name, self.base.rootfs), (self.tools_name, self.base.tools)):
            container = self._buildah("from", "scratch")[1].strip()
            self._buildah("add", "-q", container, str(tar), "/")
            self._buildah("commit", "-q", container, name)
            self._buildah("rm", container)

    def build(self, work: Work) -> Took:
        return self._buildah(
            "bud", "--isolation", "chroot", "--layers", "--pull=never", "--network", "host", "-q",
            "-t", self.reference(work), str(self._context(work)),
        )[0]  # fmt: skip

    def push(self, work: Work) -> Took:
        return self._buildah("push", "-q", "--tls-verify=false", self.reference(work))[0]

    def digest(self, work: Work) -> str:
        return str(self._image(work)["id"])

    def unpacked_bytes(self, work: Work) -> int:
        size = self._image(work)["size"]
        return _bytes(size) if isinstance(size, str) else int(size)

    def _image(self, work: Work) -> dict:
        images = json.loads(self._buildah("images", "--json")[1])
        return next(one for one in images if self.reference(work) in (one.get("names") or ()))

    def _buildah(self, *words: str) -> tuple[Took, str]:
        driver = os.environ.get("BENCH_STORAGE_DRIVER", "overlay")
        store = ["--root", f"{self.store}/root", "--runroot", f"{self.store}/run", "--storage-driver", driver]
        return self.meter.run(["buildah", *store, *words], self.env)


def _bytes(text: str) -> int:
    """`416 MB` as buildah writes it."""
    number, unit = text.split()
    return round(float(number) * {"B": 1, "KB": 1e3, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit])
