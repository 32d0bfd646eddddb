"""Let uv resolve requirements for a platform, and read the pylock.toml (PEP 751) it answers with. Pure but for uv."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from corten.builder.interpreter import Interpreter, Libc, LibcFamily
from corten.builder.remote import shown, without_user
from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.errors import CortenError, RemoteError, UsageError
from corten.store.writing import translated

_TIMEOUT_S = 600.0
# Of uv's own variables only those that say where packages come from; the rest (VIRTUAL_ENV, UV_PYTHON, UV_PROJECT,
# UV_CONSTRAINT ...) would make the answer depend on the shell it was asked in.
_KEPT_VARIABLES = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|INDEX_STRATEGY|INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)|FIND_LINKS"
    r"|KEYRING_PROVIDER|TORCH_BACKEND|INSECURE_HOST|NATIVE_TLS|SYSTEM_CERTS|HTTP_TIMEOUT|HTTP_RETRIES|EXCLUDE_NEWER)"
)
# Who has sources of their own decides there which build of PyTorch they have; its own index may be out of reach.
_OWN_SOURCES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_TORCH_BACKEND = "UV_TORCH_BACKEND"
_DROPPED_VARIABLES = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "RUST_LOG"}
# What uv says when an index answers 401 or 403; the packages it has are then "not found".
_REFUSED = re.compile(r"An index URL \((\S+)\) could not be queried[^(]*\((40[13] [\w ]+)\)")
_REPOSITORY = re.compile(r"([\w.-]+\s*(\[[^]]*\])?\s*@\s*)?(git|hg|svn|bzr)\+", re.IGNORECASE)
_NOT_PARSED = re.compile(r"Couldn't parse requirement in `-` at position (\d+)")
_ANSWERED = re.compile(r"HTTP status \w+ error \((\d{3}[\w ]*)")
_CUT = re.compile(r"Failed to extract archive: (\S+\.whl)")
# How uv ends a line on what the system refused it; sockets are refused for other reasons than files.
_WRITING = re.compile(r"\(os error (\d+)\)")
_NO_ROOM_OR_RIGHT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_NO_NETWORK = ("Request failed after", "error sending request", "dns error", "tcp connect error", "Failed to fetch")
# The platforms uv has a name for (`uv pip compile --help`); it takes the newest that is no newer than the base's glibc.
_GLIBCS_OF_UV = (17, 28, *range(31, 41))
_OLD_MANYLINUX = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True, slots=True)
class Locked:
    """One wheel, pinned: where it is, what it must hash to. `size_bytes` 0: the index did not say."""

    name: str
    version: str
    url: str
    digest: Digest
    size_bytes: int
    filename: str


def check_requirement(line: str) -> str:
    """Return a requirement line if it is one; raises UsageError `build.bad_requirement` for options and the like.

    A line that begins with `-` would be an option of uv: another index, or a path to read. Of a repository uv would run
    git, only to find that there is no wheel in it.
    """
    text = line.strip()
    if not text or not re.match(r"[A-Za-z0-9]", text) or "\n" in text or "\r" in text or "\0" in text:
        raise _no_requirement(
            line, "expected a PEP 508 line such as `scikit-learn==1.7.2`; options are not allowed",
            hint="set an index by UV_DEFAULT_INDEX",
        )  # fmt: skip
    if _REPOSITORY.match(text):
        raise _no_requirement(
            line, "it names a repository; only wheels go into images, and no source is run to make one",
            hint="build its wheel (`uv build --wheel`) and name that, `NAME @ file:///PATH.whl`",
        )  # fmt: skip
    return text


def _no_requirement(line: str, why: str, *, hint: str) -> UsageError:
    return UsageError("build.bad_requirement", f"not a requirement: `{shown(line)[:100]}`", why=why, hint=hint)


def source_variables(env: Mapping[str, str]) -> dict[str, str]:
    """What in the environment decides where packages come from; part of a lock's inputs."""
    return {name: text for name, text in sorted(env.items()) if _KEPT_VARIABLES.fullmatch(name)}


def resolve(
    requirements: Sequence[str],
    *,
    python: Interpreter,
    platform: Platform,
    cache: Path,
    env: Mapping[str, str],
    gpu: bool = False,
    constraints: Sequence[str] = (),
) -> tuple[Locked, ...]:
    """Pin every wheel the requirements need on that platform, sorted by name. Asks the package index.

    `constraints` hold for packages that are needed anyway. `gpu`: PyTorch may be the index's build for GPUs. Raises
    UsageError `build.lock_failed` (with uv's reason), `build.cuda_torch`, RemoteError `build.index_unreachable`,
    `build.index_refused`, CortenError `store.disk_full`, `store.write_failed`.
    """
    options = () if gpu else torch_options(env)
    with _file_of(constraints) as file:
        options += ("--constraints", str(file)) if file else ()
        text = _run_uv(requirements, options, python=python, platform=platform, cache=cache, env=env)
    locked = parse(text, python=python, platform=platform, folder=cache)
    if not gpu and not env.get(_TORCH_BACKEND):
        check_torch(locked)
    return locked


@contextmanager
def _file_of(constraints: Sequence[str]) -> Iterator[Path | None]:
    """The constraints as uv reads them, for the time of the call."""
    if not constraints:
        yield None
        return
    lines = "".join(f"{check_requirement(line)}\n" for line in constraints)
    with tempfile.TemporaryDirectory(prefix="corten-constraints-") as folder:
        file = Path(folder) / "constraints.txt"
        file.write_text(lines, encoding="utf-8")
        yield file


def torch_options(env: Mapping[str, str]) -> tuple[str, ...]:
    """Which build of PyTorch uv is to take: the one for CPUs, unless UV_TORCH_BACKEND or an own index says."""
    if env.get(_TORCH_BACKEND) or any(env.get(name) for name in _OWN_SOURCES):
        return ()
    return ("--torch-backend", "cpu")


def check_torch(locked: Sequence[Locked]) -> None:
    """Refuse PyTorch's build for CUDA where nobody asked for it: 3 GB that a replica without a GPU cannot use."""
    cuda = [wheel for wheel in locked if wheel.name.startswith("nvidia-")]
    if cuda and any(wheel.name == "torch" for wheel in locked):
        raise UsageError(
            "build.cuda_torch",
            f"`torch` would bring {len(cuda)} packages for NVIDIA's GPUs",
            why=", ".join(wheel.name for wheel in cuda[:4]) + " ...; your index has no build for CPUs of this release",
            hint="put the `+cpu` wheels of https://download.pytorch.org/whl/cpu there, or set `gpu = true`",
        )


def parse(text: str, *, python: Interpreter, platform: Platform, folder: Path) -> tuple[Locked, ...]:
    """Read a pylock.toml; of several wheels of one release the one an installer would take. `folder`: of its paths."""
    import tomllib

    try:
        packages = tomllib.loads(text).get("packages", [])
        locked = [_locked(package, python, platform, folder) for package in packages]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise CortenError(
            "build.lock_failed", "uv's answer cannot be read", why=f"{type(error).__name__}: {error}"
        ) from error
    return tuple(sorted(locked, key=lambda wheel: (wheel.name, wheel.version)))


def rank(filename: str, *, python: Interpreter, machine: str) -> tuple[int, ...] | None:
    """How well a wheel fits, higher is better, None: not at all. The order of PEP 425 tags as installers take them.

    Exact interpreter before stable ABI before pure Python; among equals the newest C library the base still has.
    """
    parts = filename.removesuffix(".whl").split("-")
    if len(parts) < 5 or not filename.endswith(".whl"):
        return None
    interpreters, abis, platforms = (part.split(".") for part in parts[-3:])
    interpreter = max(
        (_interpreter_rank(tag, abi, python.minor) for tag in interpreters for abi in abis), default=(-1, 0)
    )
    fit = max((_platform_rank(tag, python.libc, machine) for tag in platforms), default=(-1, 0))
    if interpreter[0] < 0 or fit[0] < 0:
        return None
    return (*interpreter, *fit)


def _interpreter_rank(tag: str, abi: str, minor: int) -> tuple[int, int]:
    match = re.fullmatch(r"(cp|py)3(\d*)", tag)
    if not match:
        return (-1, 0)
    kind, version = match[1], int(match[2] or 0)
    if kind == "cp" and abi == f"cp3{minor}" and version == minor:
        return (3, version)
    if kind == "cp" and abi == "abi3" and version <= minor:
        return (2, version)
    if kind == "cp" and abi == "none" and version == minor:
        return (1, version)
    if kind == "py" and abi == "none" and version <= minor:
        return (0, version)
    return (-1, 0)


def _platform_rank(tag: str, libc: Libc, machine: str) -> tuple[int, int]:
    if tag == "any":
        return (0, 0)
    if not tag.endswith(f"_{machine}"):
        return (-1, 0)
    form = tag.removesuffix(f"_{machine}")
    if form == "linux":
        return (1, 0)  # no promise about the C library: only from an index of one's own
    match = re.fullmatch(rf"{libc.family.value}_(\d+)_(\d+)", form)
    old = _OLD_MANYLINUX.get(form) if libc.family is LibcFamily.GLIBC else None
    needed = (int(match[1]), int(match[2])) if match else old
    if needed is None or needed > libc.number:
        return (-1, 0)
    return (2, needed[0] * 1000 + needed[1])


def _locked(package: Mapping[str, Any], python: Interpreter, platform: Platform, folder: Path) -> Locked:
    name, version = package["name"], package.get("version", "")
    files = [dict(wheel) for wheel in package.get("wheels", [])]
    if archive := package.get("archive"):
        files.append(dict(archive))
    ranked = [
        (fit, filename, file)
        for file in files
        if (fit := rank(filename := _filename(file), python=python, machine=platform.machine))
    ]
    if not ranked:
        seen = ", ".join(sorted(_filename(file) for file in files)[:5]) or "only a source distribution"
        raise UsageError(
            "build.no_wheel",
            f"no wheel of `{name} {version}` for {platform}",
            why=f"Python {python.version}, {python.libc}; found {seen}",
            hint=_hint(
                python.libc,
                "Corten runs nothing of a source distribution: take another version, or build the wheel yourself "
                f"and require `{name} @ file:///path/to.whl`",
            ),
        )
    _, filename, file = max(ranked, key=lambda item: item[:2])
    digest = (file.get("hashes") or {}).get("sha256", "")
    if not digest:
        raise UsageError(
            "build.no_hash",
            f"the index gives no sha256 for `{filename}`",
            hint="use an index that does (PEP 503), or a wheel by its path",
        )
    return Locked(
        name, version or filename.split("-")[1], _url(file, folder), Digest.parse(f"sha256:{digest}"),
        int(file.get("size", 0)), filename,
    )  # fmt: skip


def _filename(file: Mapping[str, Any]) -> str:
    text = file.get("name") or unquote(urlsplit(file.get("url", "")).path) or file.get("path", "")
    return str(text).rsplit("/", 1)[-1]


def _url(file: Mapping[str, Any], folder: Path) -> str:
    # A lock is kept with the source and attached to images; who may fetch the file is told elsewhere.
    return without_user(str(file["url"])) if "url" in file else (folder / file["path"]).resolve().as_uri()


def _run_uv(
    requirements: Sequence[str],
    options: Sequence[str],
    *,
    python: Interpreter,
    platform: Platform,
    cache: Path,
    env: Mapping[str, str],
) -> str:
    import subprocess

    command = [
        _find_uv(), "pip", "compile", "-", "--quiet", "--format", "pylock.toml", "--no-header", "--no-annotate",
        "--python-version", python.version, "--python-platform", _platform_of_uv(python.libc, platform),
        "--only-binary", ":all:", "--no-config",
        "--python", sys.executable, "--no-python-downloads", "--cache-dir", str(cache / "uv"), "--color", "never",
        *options,
    ]  # fmt: skip
    with translated(cache, "make the cache"):
        cache.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{check_requirement(line)}\n" for line in requirements)
    try:
        done = subprocess.run(
            command, input=lines, capture_output=True, text=True, encoding="utf-8", errors="replace",
            env=_clean(env), cwd=cache, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RemoteError(
            "build.index_unreachable", "locking the requirements took too long", why=f"gave up after {_TIMEOUT_S:.0f} s"
        ) from error
    except OSError as error:
        raise CortenError("build.uv_failed", "could not run `uv`", where=command[0], why=str(error)) from error
    if done.returncode:
        check_disk(done.stderr, cache / "uv")
        raise _explained(done.stderr, requirements, python.libc)
    return done.stdout


def _platform_of_uv(libc: Libc, platform: Platform) -> str:
    match libc.family:
        case LibcFamily.MUSL:
            return f"{platform.machine}-unknown-linux-musl"
        case LibcFamily.GLIBC:
            older = [minor for minor in _GLIBCS_OF_UV if (2, minor) <= libc.number]
            return f"{platform.machine}-manylinux_2_{max(older, default=_GLIBCS_OF_UV[0])}"


def _find_uv() -> str:
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        if found := shutil.which("uv"):
            return found
        raise CortenError(
            "build.uv_failed", "`uv` is not installed", why=str(error), hint="pip install --force-reinstall corten"
        ) from error


def _clean(env: Mapping[str, str]) -> dict[str, str]:
    kept = {name: text for name, text in env.items() if not name.startswith("UV_") and name not in _DROPPED_VARIABLES}
    # uv trusts its own list of authorities, Python the system's; behind a company's proxy only that one works.
    return kept | {"UV_SYSTEM_CERTS": "true"} | source_variables(env)


def check_disk(stderr: str, folder: Path) -> None:
    """Raise CortenError `store.disk_full` or `store.write_failed` when that is why uv failed: no version mends it."""
    found = _WRITING.search(stderr)
    if found and (number := int(found[1])) in _NO_ROOM_OR_RIGHT:
        with translated(folder, "keep what the package index says"):
            raise OSError(number, os.strerror(number))


def _explained(stderr: str, requirements: Sequence[str], libc: Libc) -> CortenError:
    reason = condensed(stderr)
    if refused := _REFUSED.search(stderr):
        return RemoteError(
            "build.index_refused",
            "the package index wants other credentials",
            where=shown(refused[1]),
            why=f"it answered {refused[2]}",
            hint="docs/how-to/use-a-private-index.md lists the places for a user and a password",
        )
    if any(mark in stderr for mark in _NO_NETWORK):
        answers = _ANSWERED.search(stderr)
        return RemoteError(
            "build.index_unreachable",
            f"the package index answers {answers[1]}" if answers else "the package index cannot be reached",
            why=reason,
            hint="check the network, HTTPS_PROXY or UV_DEFAULT_INDEX; a locked project builds without it",
        )
    if unread := _NOT_PARSED.search(stderr):
        line = _line_at(int(unread[1]), requirements)
        return _no_requirement(line, reason, hint="one distribution a line, as `scikit-learn==1.7.2` or `numpy>=2,<3`")
    if cut := _CUT.search(stderr):
        from corten.builder import wheel

        return wheel.broken(cut[1], reason)
    return UsageError(
        "build.lock_failed",
        "no set of wheels satisfies the requirements",
        where=shown(", ".join(requirements)),
        why=reason,
        hint=_hint(libc, "loosen or correct a version (`--requirement` or `requirements` in corten.toml)"),
    )


def _line_at(position: int, lines: Sequence[str]) -> str:
    """The line of what uv was given that a position is in."""
    for line in lines:
        position -= len(line) + 1
        if position < 0:
            return line
    return lines[-1]


def _hint(libc: Libc, hint: str) -> str:
    """What else mends it where the base has musl, which many packages, onnxruntime and torch among them, have no
    wheels for.
    """
    if libc.family is LibcFamily.GLIBC:
        return hint
    return (
        f"many packages have no wheels for musl: take a base with glibc, or Debian's by leaving `base` out; else {hint}"
    )


def condensed(stderr: str) -> str:
    """The essential lines of what uv says when it fails: its causes, without the decoration."""
    lines = [line.strip() for line in stderr.splitlines()]
    essential = [
        re.sub(r"^[^A-Za-z`]*(cause|error|Caused by): ?|^[\W_]+", "", line)
        for line in lines
        if line and not line.startswith(("hint:", "warning:", "Resolved"))
    ]
    if len(essential) > 1 and essential[0].startswith("No solution found"):
        del essential[0]
    return shown("; ".join(essential[:6]))[:1500]
