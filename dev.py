#!/usr/bin/env python3
"""Set-up and the everyday commands of this repository, with nothing but Python 3.11 on the machine.

    python3 dev.py demo      build, start and ask a really trained model
    python3 dev.py test      the tests (what the machine lacks is skipped; `--need NAME` makes that a failure)
    python3 dev.py unit      the unit tests alone, on all processors
    python3 dev.py lint      formatting, lint, types, layers
    python3 dev.py check     the same, and the tests that take a minute
    python3 dev.py setup     only the set-up the others begin with

Set-up means: `uv` (the wheel pinned in uv.lock, checked by its hash) into .tools/, the locked environment into .venv/,
and bubblewrap from Debian's packages when this user may install it. Nothing else on the machine is touched.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
import tomllib
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TOOLS = ROOT / ".tools"
UV = TOOLS / "uv"
BIN = ROOT / ".venv" / "bin"
MEMORY = Path("/dev/shm")  # noqa: S108
PROCESSORS = os.cpu_count() or 1
ON_ALL_PROCESSORS = ("-n", str(min(4, PROCESSORS)))
# Real processes are waited for half of the time: twice as many tests as processors at once.
WAITING = ("-n", str(min(8, 2 * PROCESSORS)), "--dist=loadfile")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):
        say(f"Corten needs Python 3.11 or newer; this is {platform.python_version()} ({sys.executable})")
        return 2
    verb, *rest = arguments or ["help"]
    if verb not in VERBS:
        say(__doc__ or "")
        return 0 if verb in ("help", "-h", "--help") else 2
    started_s = time.monotonic()
    set_up()
    say(f"set-up done in {time.monotonic() - started_s:.1f} s")
    code = VERBS[verb](rest)
    say(f"{verb}: {'done' if code == 0 else 'failed'} in {time.monotonic() - started_s:.1f} s, set-up included")
    return code


def set_up() -> None:
    ensure_bubblewrap()
    ensure_uv()
    environment = {
        "UV_SYSTEM_CERTS": "true",  # as Python does; uv's own list misses a company's authority
        **os.environ,
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
        "VIRTUAL_ENV": "",
    }
    # What CI must not skip may need more: the groups of that name in pyproject.toml.
    groups = ["examples", *(need for need in needed() if need in ("frameworks", "clients", "kubernetes"))]
    wanted = [word for group in groups for word in ("--group", group)]
    command = [str(UV), "sync", "--frozen", "--quiet", "--project", str(ROOT), *wanted]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise SystemExit("the environment could not be installed; uv says why above")


def ensure_uv() -> None:
    """Fetch the uv wheel that uv.lock pins for this machine and take the binary out of it."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    package = next(entry for entry in lock["package"] if entry["name"] == "uv")
    stamp = TOOLS / "uv.version"
    if UV.exists() and stamp.exists() and stamp.read_text() == package["version"]:
        return
    wheel = next((entry for entry in package["wheels"] if fits_this_machine(entry["url"])), None)
    if wheel is None:
        raise SystemExit(f"no uv wheel for {platform.system()} {platform.machine()}; install uv and put it at {UV}")
    say(f"fetching uv {package['version']} ({wheel['size'] / 1e6:.0f} MB)")
    data = fetch(wheel["url"])
    seen = "sha256:" + hashlib.sha256(data).hexdigest()
    if seen != wheel["hash"]:
        raise SystemExit(f"the uv wheel is not the locked one: expected {wheel['hash']}, got {seen}")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
        TOOLS.mkdir(exist_ok=True)
        beside = TOOLS / "uv.new"
        beside.write_bytes(archive.read(member))
    beside.chmod(beside.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    beside.replace(UV)
    stamp.write_text(package["version"])


def fits_this_machine(url: str) -> bool:
    name = url.rsplit("/", 1)[-1]
    libc = "musllinux" if platform.libc_ver()[0] != "glibc" else "manylinux"
    system = {"Linux": libc, "Darwin": "macosx"}.get(platform.system(), "win")
    return system in name and platform.machine() in name


def fetch(url: str) -> bytes:
    last: Exception | None = None
    for attempt in range(4):
        try:
            with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310  (https, from uv.lock)
                return bytes(answer.read())
        except OSError as error:
            last = error
            time.sleep(2**attempt)
    raise SystemExit(f"could not fetch {url}: {last}")


def ensure_bubblewrap() -> None:
    """Install bubblewrap where that needs no question; else say what is lost without it."""
    if platform.system() != "Linux" or shutil.which("bwrap"):
        return
    apt = shutil.which("apt-get")
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if apt and (not sudo or may_sudo()):
        say("installing bubblewrap (the sandbox of the embedded engine) with apt-get")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*sudo, apt, "update", "-qq"], env=environment, stdout=subprocess.DEVNULL, check=False)
        install = [*sudo, apt, "install", "-y", "-qq", "--no-install-recommends", "bubblewrap"]
        subprocess.run(install, env=environment, stdout=subprocess.DEVNULL, check=False)
    if not shutil.which("bwrap"):
        say(
            "\n*** bubblewrap is not installed: replicas will run as PLAIN PROCESSES, without a sandbox.\n"
            "*** To isolate them: apt-get install bubblewrap (or your distribution's package of that name).\n"
        )


def may_sudo() -> bool:
    """Whether this user becomes root without being asked for a password."""
    if not shutil.which("sudo"):
        return False
    return subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0


def demo(rest: list[str]) -> int:
    return subprocess.run([str(BIN / "python"), str(ROOT / "examples" / "demo.py"), *rest], check=False).returncode


def needed() -> list[str]:
    """What CI must not skip is named in CORTEN_TEST_NEED (`podman bwrap ...`), so that the command stays one."""
    return os.environ.get("CORTEN_TEST_NEED", "").split()


def test(rest: list[str]) -> int:
    # As one word each: before conftest.py is read, pytest would take the second word for a path.
    needs = [f"--need={name}" for name in needed()]
    if rest:
        return pytest(*needs, *rest)
    if failed := unit_tests(*needs):
        return failed  # at once: whoever runs what failed once more (.ci/run) would not be told of these
    histories = pytest(*needs, *ON_ALL_PROCESSORS, "tests/simulation", in_memory=True)
    # Stories under load have at most one other beside them.
    loads = pytest(*needs, "-n", "2", "--dist=loadfile", "-m", "load", "tests/e2e")
    files = largest_first("contract", "docs", "e2e", "integration")
    others = pytest(*needs, *WAITING, "--no-loadscope-reorder", "-m", "not load", *map(str, files))
    return histories or loads or others


def largest_first(*folders: str) -> list[Path]:
    """Their files of tests, in the order to give them out in: what is likely to take long is not the last to begin."""
    files = [file for folder in folders for file in (ROOT / "tests" / folder).rglob("test_*.py")]
    return sorted(files, key=lambda file: (-file.stat().st_size, file))


def unit_tests(*words: str) -> int:
    """Each processor its share of the files, as processes that know nothing of each other: no test is told of twice."""
    shares: list[list[Path]] = [[] for _ in range(min(4, PROCESSORS))]
    for file in largest_first("unit"):
        min(shares, key=lambda share: sum(each.stat().st_size for each in share)).append(file)
    command = [str(BIN / "pytest"), "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *words]
    environment = environment_of_tests(in_memory=True)
    running = [
        subprocess.Popen([*command, *map(str, sorted(share))], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        for share in shares
    ]
    for process in running:
        sys.stdout.buffer.write(process.communicate()[0])
        sys.stdout.flush()
    return max(process.returncode for process in running)


def pytest(*words: str, in_memory: bool = False) -> int:
    environment = environment_of_tests(in_memory=in_memory)
    return subprocess.run([str(BIN / "pytest"), *words], cwd=ROOT, env=environment, check=False).returncode


def environment_of_tests(*, in_memory: bool) -> dict[str, str]:
    """This process' own, but Python may keep bytecode: compiling it anew takes a quarter of the unit tests' time.

    `in_memory`: temporary files are in memory where the system offers that, so that no fsync waits for a disk.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if in_memory and MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        environment["TMPDIR"] = str(MEMORY)
    return environment


def lint(rest: list[str]) -> int:
    del rest
    return run_all(["ruff", "format", "--check", "."], ["ruff", "check", "."], ["mypy"], ["lint-imports"])


def check(rest: list[str]) -> int:
    quick = ["pytest", "-q", "-m", "not slow"]
    linted = lint(rest)
    units = unit_tests()
    tested = run_all(
        [*quick, "tests/contract", "tests/docs", "tests/integration/test_doctor.py", "tests/integration/adapters"]
    )
    return linted or units or tested


def run_all(*steps: list[str]) -> int:
    """Run them all, whatever becomes of each, and name those that failed."""
    # `test` tries more examples in CI (tests/conftest.py).
    environment = {**environment_of_tests(in_memory=True), "HYPOTHESIS_PROFILE": "quick"}
    failed = [
        " ".join(step)
        for step in steps
        if subprocess.run([str(BIN / step[0]), *step[1:]], cwd=ROOT, env=environment, check=False).returncode
    ]
    for step in failed:
        say(f"failed: {step}")
    return 1 if failed else 0


VERBS = {
    "demo": demo,
    "test": test,
    "unit": lambda rest: unit_tests(*rest),
    "check": check,
    "lint": lint,
    "setup": lambda rest: 0 if not rest else 2,
}

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
