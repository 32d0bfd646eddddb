"""pytest as somebody who is not root: with user ids to hand out, a way to a network of his own, and nothing of root's.

All of it in mounts and a PID namespace of his own: the machine stays as it is, and nothing runs on when he has ended.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "nobody"
# Whatever is marked `docker` takes root's, whose containers have limits; these suites were tried with a user's.
ASKED = "CORTEN_TEST_DOCKER_WITHOUT_ROOT"
ROOT = Path(__file__).parents[2]
# His: not root's folders, nor what root has told of engines.
_UNTOLD = ("XDG_", "CORTEN_", "DOCKER_", "CONTAINER", "PYTEST_", "COV_", "LOGNAME", "USER", "TMPDIR", "SUDO_")


def lacks() -> str:
    """Why nobody else can be become here, with containers of his own; empty when it works."""
    if os.geteuid():
        return "takes root, to become somebody else"
    absent = [name for name in ("newuidmap", "runuser", "unshare") if not shutil.which(name)]
    return f"not installed: {', '.join(absent)}" if absent else ""


def pytest_as_nobody(*words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run it from the repository; its process and all that it started have ended afterwards."""
    with _folder() as folder:
        env = {name: value for name, value in os.environ.items() if not name.startswith(_UNTOLD)}
        env |= {"XDG_RUNTIME_DIR": str(folder / "run"), "PYTHONDONTWRITEBYTECODE": "1"}
        env[ASKED] = "1"
        tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *words]
        script = "\n".join(["set -e", *_mounts(folder), f"cd {shlex.quote(str(ROOT))}", 'exec "$@"'])
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh",
             "runuser", "-u", USER, "--", "env", f"HOME={folder}/home", *tests],
            env=env, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="corten-user-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        (folder / "ids").write_text(f"{USER}:100000:65536\n")
        # runc goes to a container's files as a user that podman's user has handed out.
        for name, mode in (("home", 0o755), ("run", 0o700)):
            (folder / name).mkdir(mode=mode)
            shutil.chown(folder / name, USER)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mounts(folder: Path) -> Iterator[str]:
    # Which numbers a user may hand out stands in files of the system.
    yield from (f"mount --bind {folder}/ids /etc/{name}" for name in ("subuid", "subgid"))
    # slirp4netns opens it for him; on many machines it is root's alone.
    yield "mount -t tmpfs -o mode=755 tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200"
    # Python and the repository may be below a folder that is root's alone: of it he sees these.
    for closed, paths in _closed().items():
        for number, path in enumerate(paths):
            hold = folder / "hold" / closed.name / str(number)
            yield f"mkdir -p {hold} && mount --bind {shlex.quote(str(path))} {hold}"
        yield f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(closed))}"
        for number, path in enumerate(paths):
            yield f"mkdir -p {path} && mount --bind {folder}/hold/{closed.name}/{number} {shlex.quote(str(path))}"


def _closed() -> dict[Path, list[Path]]:
    """What he needs below folders that he may not enter."""
    found: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(Path(each).resolve() for each in (ROOT, sys.prefix, sys.base_prefix, ROOT / ".tools")):
        above = (folder for folder in reversed((path, *path.parents)) if not folder.stat().st_mode & 0o001)
        if (folder := next(above, None)) is not None:
            found.setdefault(folder, []).append(path)
    return found
