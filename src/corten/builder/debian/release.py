"""The Debian releases an image can be based on, and what a resolved package is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from corten.builder.interpreter import Interpreter, debian_python
from corten.core.digest import Digest
from corten.errors import UsageError

PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
DEFAULT_MIRROR = "https://deb.debian.org"


@dataclass(frozen=True, slots=True)
class Deb:
    """One package file to install: where it is, and the digest and size its signed index gives for it."""

    name: str
    version: str
    architecture: str
    url: str
    digest: Digest
    size_bytes: int

    def __post_init__(self) -> None:
        """Refuse what may come from a lock somebody edited: name and digest become names of files."""
        Digest.parse(str(self.digest))
        if not PACKAGE_NAME.fullmatch(self.name):
            raise UsageError(
                "debian.package_name",
                f"not a Debian package name: `{self.name[:60]}`",
                why="expected at least two of a-z, 0-9, `+`, `-`, `.` (policy 5.6.1)",
            )


@dataclass(frozen=True, slots=True)
class Suite:
    """One signed part of a release: `MIRROR/ARCHIVE/dists/NAME`. `moves` says that it is signed anew every few days."""

    name: str
    archive: str
    moves: bool


@dataclass(frozen=True, slots=True)
class Release:
    """A Debian release as Corten uses it.

    `python` and `glibc` are the versions its packages bring ("3.11", "2.36"); `packages` is the whole content of the
    base, named one by one because a closure of dependencies would bring a shell, perl and dpkg along. `fingerprints`
    are the OpenPGP certificates (primary keys, 40 lower-case hex digits) whose signatures count, and no others.
    """

    codename: str
    version_id: str
    python: str
    glibc: str
    suites: tuple[Suite, ...]
    packages: tuple[str, ...]
    fingerprints: tuple[str, ...]

    @property
    def interpreter(self) -> Interpreter:
        """The Python of its packages."""
        return debian_python(self.python, self.glibc)

    @property
    def title(self) -> str:
        """For people."""
        return f"Debian {self.version_id} ({self.codename})"


def _suites(codename: str) -> tuple[Suite, ...]:
    return (
        Suite(codename, "debian", moves=False),
        Suite(f"{codename}-updates", "debian", moves=True),
        Suite(f"{codename}-security", "debian-security", moves=True),
    )


_COMMON = (
    "base-files",
    "ca-certificates",
    "libbz2-1.0",
    "libc-bin",  # for the locale C.UTF-8, of which C++ throws when it is named and not there; its programs are dropped
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libgomp1",
    "liblzma5",
    "libsqlite3-0",
    "libstdc++6",
    "libuuid1",
    "media-types",
    "netbase",
    "tzdata",
    "zlib1g",
)

_BOOKWORM = Release(
    codename="bookworm",
    version_id="12",
    python="3.11",
    glibc="2.36",
    suites=_suites("bookworm"),
    packages=(
        *_COMMON,
        "gcc-12-base",  # the licences of libgcc-s1, libgomp1 and libstdc++6, nothing else
        "libcrypt1",
        "libpython3.11-minimal",
        "libpython3.11-stdlib",
        "libssl3",
        "python3.11-minimal",
    ),
    # Archive (automatic), security (automatic) and stable keys of Debian 12: https://ftp-master.debian.org/keys.html
    fingerprints=(
        "b8b80b5b623eab6ad8775c45b7c5d7d6350947f8",
        "05ab90340c0c5e797f44a8c8254cf3b5aec0a8f0",
        "4d64fec119c2029067d6e791f8d2585b8783d481",
    ),
)

_TRIXIE = Release(
    codename="trixie",
    version_id="13",
    python="3.13",
    glibc="2.41",
    suites=_suites("trixie"),
    packages=(
        *_COMMON,
        "gcc-14-base",
        "libpython3.13-minimal",
        "libpython3.13-stdlib",
        "libssl3t64",
        "libzstd1",  # libcrypto of trixie is linked with it
        "python3.13-minimal",
    ),
    fingerprints=(
        "04b54c3cdca79751b16bc6b5225629df75b188bd",
        "5e04a1e3223a19a20706e20f9904613d4cce68c6",
        "41587f7db8c774bccf131416762f67a0b2c39de4",
    ),
)

RELEASES: Mapping[str, Release] = {release.codename: release for release in (_BOOKWORM, _TRIXIE)}


def release_with_python(python: str) -> Release:
    """The release with exactly this Python ("3.13"). Raises UsageError `build.no_python`."""
    for release in RELEASES.values():
        if release.python == python:
            return release
    known = ", ".join(f"{release.python} ({release.codename})" for release in RELEASES.values())
    raise UsageError(
        "build.no_python",
        f"no Debian release Corten builds on has Python {python}",
        why=f"known: {known}",
        hint='set `python` to one of these, or name an image that has it: base = "registry/python:TAG"',
    )


def release_for_python(python: str) -> Release:
    """The release with the nearest Python to a version ("3.11"): 3.12 gets 3.13, an unknown one gets 3.11."""
    minor = minor_version(python)
    return _TRIXIE if minor and int(minor.partition(".")[2]) >= 12 else _BOOKWORM


def minor_version(python: str) -> str:
    """Major and minor version: "3.11" of "3.11.9"; empty for what is no version of Python 3."""
    match = re.match(r"3\.[0-9]+", python)
    return match[0] if match else ""
