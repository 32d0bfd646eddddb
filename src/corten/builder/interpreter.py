"""The Python an image runs: where it is, where it looks for packages, which C library wheels must fit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class LibcFamily(Enum):
    """C libraries there are wheels for; the value is what their platform tags are called after."""

    GLIBC = "manylinux"
    MUSL = "musllinux"


@dataclass(frozen=True, slots=True)
class Libc:
    """A C library and its version, major and minor ("2.36")."""

    family: LibcFamily
    version: str

    @property
    def key(self) -> str:
        """What it is called in the inputs of a lock."""
        return self.version if self.family is LibcFamily.GLIBC else f"musl {self.version}"

    def __str__(self) -> str:
        return f"{self.family.name.lower()} {self.version}"

    @property
    def number(self) -> tuple[int, int]:
        """The version to compare by."""
        major, _, minor = self.version.partition(".")
        return int(major), int(minor)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of minor version `version` ("3.11").

    `program` is its absolute path. `site` is the folder it imports packages from, `prefix` the one `bin`, `include` and
    data of wheels go below; both relative to the image's root.
    """

    version: str
    program: str
    prefix: str
    site: str
    libc: Libc

    @property
    def minor(self) -> int:
        """11 of "3.11"."""
        return int(self.version.partition(".")[2])

    @property
    def parts(self) -> tuple[str, ...]:
        """What decides where files of wheels go and what they say: for keys of caches."""
        return (self.version, self.program, self.prefix, self.site)


def debian_python(version: str, glibc: str) -> Interpreter:
    """Debian's own Python. It looks for what is not Debian's below /usr/local, in `dist-packages`."""
    return Interpreter(
        version=version,
        program="/usr/bin/python3",
        prefix="usr/local",
        site=f"usr/local/lib/python{version}/dist-packages",
        libc=Libc(LibcFamily.GLIBC, glibc),
    )
