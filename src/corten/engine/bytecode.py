"""Bytecode for images that ship none: made once for each root, so that later replicas need not compile.

Importing scikit-learn from source costs 1.5 s more than from bytecode. What a replica writes is never run by another:
the first replica of a root keeps no bytecode (a thousand small files cost half a second of its start), it only says
which modules it imported, and of these *names* are taken. The bytecode later replicas get is compiled from the
read-only root in a sandbox that runs nothing but the image's own interpreter and standard library (`-I -S`: no code of
a wheel, of the model or of the user), and is mounted read-only.

::

    trees/pyc/CHAIN_ID          finished bytecode of one root, laid out as PYTHONPYCACHEPREFIX wants it
    trees/pyc/.making/CHAIN_ID  list, cache/, log, status of a compilation under way
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.engine.launch import Launched, SandboxProbe, launch_sandbox, reap
from corten.engine.record import ReplicaFolder
from corten.engine.sandbox import GID, RUN, UID, Bounds, Cell, Host
from corten.errors import CortenError
from corten.store.trees import PYCACHE

# The list of what it loaded, in a replica's own folder (runtime contract, 2.5).
LOADED: Final = "loaded"
_LOOK_EVERY_S: Final = 2.0
_COMPILE_S: Final = 300.0
_LONGEST_LIST_BYTES: Final = 4 << 20
# /usr/lib/python3.11/json/__init__.py; only what is in the root: user code is mounted over it.
_NAME: Final = re.compile(r"/((?:usr|opt)/[\w./+-]+\.py)")

# Runs inside. UNCHECKED_HASH: the root never changes, so that nobody need look at the source again (PEP 552).
_COMPILE: Final = f"""
import importlib.util, sys
from py_compile import PyCompileError, PycInvalidationMode, compile
sys.pycache_prefix = "{RUN}/cache"
for line in open("{RUN}/list", encoding="utf-8"):
    source = "/" + line.rstrip("\\n")
    try:
        target = importlib.util.cache_from_source(source)
        compile(source, target, doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    except (OSError, PyCompileError):
        pass
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """A root file system, and the Python in it: what its images run."""

    chain: Digest
    root: Path
    program: str


@dataclass(slots=True)
class _Job:
    """A compilation under way."""

    folder: Path
    launched: Launched
    deadline_s: float


class Bytecode:
    """Finds, learns and makes bytecode. One object a process; `monotonic` is its clock."""

    def __init__(self, trees: Path, bounds: Bounds, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._trees = trees
        self._bounds = bounds
        self._monotonic = monotonic
        self._jobs: dict[Digest, _Job] = {}
        self._given_up: set[Digest] = set()
        self._looked: dict[str, tuple[float, int]] = {}

    def published(self, chain: Digest) -> Path | None:
        """The finished bytecode of a root, if there is any."""
        path = self._trees / "pyc" / chain.hex
        return path if path.is_dir() else None

    def environment(self, chain: Digest, env: Mapping[str, str]) -> dict[str, str]:
        """Variables that let a replica use finished bytecode, or else say what it imports."""
        if self.published(chain):
            return {**env, "PYTHONPYCACHEPREFIX": f"/{PYCACHE}"}
        return {"CORTEN_TRACE_IMPORTS": LOADED, **env}

    def learn(self, tree: Tree, run: Path, found: SandboxProbe) -> None:
        """Look at a running replica that says what it imported; once it says nothing more, begin to compile.

        Cheap to call often. Failures cost nothing but speed and are not repeated in this process.
        """
        now_s, chain = self._monotonic(), tree.chain
        if chain in self._jobs or chain in self._given_up or self.published(chain):
            return
        since_s, before = self._looked.get(run.name, (now_s, 0))
        if run.name in self._looked and now_s - since_s < _LOOK_EVERY_S:
            return
        modules = sorted(set(_modules(run / LOADED)))
        self._looked[run.name] = (now_s, len(modules))
        if not modules or len(modules) != before:
            return
        try:
            self._jobs[chain] = self._begin(tree, modules, found, now_s)
        except (CortenError, OSError):
            self._given_up.add(chain)

    def finish(self) -> None:
        """Publish what has been compiled."""
        for chain, job in [*self._jobs.items()]:
            process = job.launched.process
            running = process is not None and process.alive
            if running and self._monotonic() < job.deadline_s:
                continue
            del self._jobs[chain]
            if process is not None:
                process.kill()
            if not self._publish(chain, job):
                self._given_up.add(chain)
            shutil.rmtree(job.folder, ignore_errors=True)

    def forget(self, replica_id: str) -> None:
        """The replica is gone."""
        self._looked.pop(replica_id, None)

    def _begin(self, tree: Tree, modules: list[str], found: SandboxProbe, now_s: float) -> _Job:
        folder = self._trees / "pyc" / ".making" / f"{tree.chain.hex[:16]}-{secrets.token_hex(4)}"
        shared = folder / "shared"
        (shared / "cache").mkdir(parents=True)
        (shared / "list").write_text("".join(f"{name}\n" for name in modules), encoding="utf-8")
        if found.host is Host.NOBODY:
            for path in (self._trees / "pyc", self._trees / "pyc" / ".making", folder):
                path.chmod(0o755)
            os.chown(shared / "cache", UID, GID)
        cell = Cell(
            root=tree.root,
            hostname="compile",
            command=(tree.program, "-I", "-S", "-c", _COMPILE),
            env={"PATH": "/usr/local/bin:/usr/bin", "LANG": "C.UTF-8"},
            run=shared,
        )
        launched = launch_sandbox(
            found,
            cell,
            self._bounds,
            Platform.of_machine(),
            marker=f"CORTEN_START={secrets.token_hex(16)}",
            log=folder / "log",
            status=folder / "status",
            started=lambda _: None,
        )
        return _Job(folder, launched, now_s + _COMPILE_S)

    def _publish(self, chain: Digest, job: _Job) -> bool:
        folder = ReplicaFolder(job.folder)
        deadline_s = time.monotonic() + 1.0
        watcher = job.launched.watcher
        while (code := folder.status().exit_code) is None and watcher and watcher.alive:
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.001)
        if watcher:
            reap(watcher.pid)
        if code != 0:
            return False
        cache = job.folder / "shared" / "cache"
        try:
            _take_over(cache)
            cache.rename(self._trees / "pyc" / chain.hex)
        except OSError:
            return self.published(chain) is not None
        return True


def _modules(listed: Path) -> Iterator[str]:
    """Sources a replica says it imported.

    The file is its to fill: a link is not followed, a pipe not waited for, and what is read is only matched as text.
    """
    try:
        descriptor = os.open(listed, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
        text = stream.read(_LONGEST_LIST_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    for line in text.decode("utf-8", "replace").splitlines():
        match = _NAME.fullmatch(line)
        if match and ".." not in match[1].split("/"):
            yield match[1]


def _take_over(folder: Path) -> None:
    """Make compiled files ours, so that uid 65532 cannot change them afterwards, and readable by it."""
    uid, gid = os.geteuid(), os.getegid()
    for path, _, names in os.walk(folder):
        os.chown(path, uid, gid)
        Path(path).chmod(0o755)
        for name in names:
            file = Path(path, name)
            with suppress(FileNotFoundError):
                os.chown(file, uid, gid, follow_symlinks=False)
                if not file.is_symlink():
                    file.chmod(0o644)
