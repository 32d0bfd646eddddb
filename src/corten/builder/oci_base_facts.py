"""What the layers of a base tell: which Pythons it has, which C library, what is installed. Read, never run.

Nothing but the bytes of its layers decides, so that the same digest gives the same answer on any machine.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from corten.adapters.distributions import distribution
from corten.builder.interpreter import Interpreter, Libc, LibcFamily
from corten.builder.oci_base import OLDEST_MINOR, Facts, Installed, System
from corten.builder.rpmdb import read_rpmdb
from corten.builder.stack import Stack, read_stack
from corten.core.image import Layer
from corten.core.platform import Platform
from corten.store.layout import Layout

# Changes whenever the same layers would be read in another way.
FORMAT: Final = 3
# What Docker and Podman set where an image has no PATH.
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
_MACHINES: Final = {"amd64": 62, "arm64": 183}  # e_machine of ELF: EM_X86_64, EM_AARCH64
_HEAD_BYTES: Final = 4096
_TEXT_BYTES: Final = 32 << 20
_LIBRARY_BYTES: Final = 8 << 20
_PROGRAM: Final = re.compile(r"(?:.*/)?bin/python3(?:\.(\d+))?")
_LIBRARY: Final = re.compile(r"(?:.*/)?python3\.\d+")
# What Debian's and Fedora's site.py have: there /usr is the package manager's, /usr/local everybody else's.
_OTHERS_IN_USR_LOCAL: Final = (b"dist-packages", b"RPM_BUILD_ROOT")
_RPM_DATABASES: Final = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")
_DATABASE_BYTES: Final = 256 << 20
_TEXTS: Final = re.compile(
    r"(?:usr/lib|etc)/os-release|etc/passwd|etc/group|(?:usr/)?lib/apk/db/installed|var/lib/dpkg/status"
    r"|var/lib/dpkg/status\.d/[^/]+|.*/site\.py|.*/pyvenv\.cfg|pyvenv\.cfg"
    r"|.*/(?:site|dist)-packages/[^/]+\.dist-info/RECORD"
)
_LIBRARIES: Final = re.compile(r"(?:.*/)?(?:libc\.so\.6|libc-2\.\d+\.so|ld-musl-[^/]+\.so\.1|libc\.musl-[^/]+\.so\.1)")
_LOADER: Final = re.compile(rb"/[\w./-]*/(ld-linux[\w.-]*|ld-musl[\w.-]*)\0")
_GLIBC: Final = re.compile(rb"GNU C Library [^\n]*?version (2\.\d+)")
_MUSL: Final = re.compile(rb"\0(1\.\d+)\.\d+\0")
_OS_FIELD: Final = re.compile(r'^([A-Z_]+)="?([^"\n]*)"?$', re.MULTILINE)


def read_facts(
    layout: Layout, layers: Sequence[Layer], env: Mapping[str, str], platform: Platform
) -> tuple[Facts, tuple[Layer, ...]]:
    """Read the stored layers of a base; gives them with the sizes of their plain tars as well.

    Raises NotFoundError `store.blob_missing`, PolicyError `layer.malformed`, `layer.unsafe_member`,
    `layer.wrong_content`.
    """
    stack = read_stack(layout, layers, _wanted)
    pythons, unusable = _pythons(stack, env, platform)
    records = {site: _records(stack, site) for site in dict.fromkeys(python.site for python in pythons)}
    distributions = {one for found in records.values() for one in found}
    system_packages = tuple(_packages(stack))
    wheels = sorted((name, version) for name, version in distributions)
    return (
        Facts(
            system=_system(stack),
            pythons=pythons,
            unusable=unusable,
            packages=(*system_packages, *(Installed("wheel", name, version) for name, version in wheels)),
            listed=bool(system_packages),
            records={site: {name: files for (name, _), files in found.items()} for site, found in records.items()},
            passwd=_text(stack, "etc/passwd"),
            group=_text(stack, "etc/group"),
            certificates=stack.file(_CERTIFICATES) is not None,
            libstdcxx=any(name.endswith("/libstdc++.so.6") for name, _ in stack.walk()),
        ),
        tuple(replace(one, tar_bytes=size) for one, size in zip(layers, stack.plain_bytes, strict=True)),
    )


def _wanted(name: str, size_bytes: int) -> int:
    if _PROGRAM.fullmatch(name):
        return _HEAD_BYTES
    if _LIBRARIES.fullmatch(name):
        return _LIBRARY_BYTES
    if name in _RPM_DATABASES and size_bytes <= _DATABASE_BYTES:
        return size_bytes
    if _TEXTS.fullmatch(name) and size_bytes <= _TEXT_BYTES:
        return size_bytes
    return 0


# -- Python


def _pythons(
    stack: Stack, env: Mapping[str, str], platform: Platform
) -> tuple[tuple[Interpreter, ...], tuple[str, ...]]:
    """Those that can be used, in the order of PATH, each once; of the others why not."""
    found: dict[str, Interpreter] = {}
    unusable: dict[str, str] = {}
    for path in _candidates(stack, env):
        seen = _python(stack, path, platform)
        if isinstance(seen, Interpreter):
            found.setdefault(seen.program, seen)
        else:
            unusable.setdefault(stack.resolve(path), f"/{path} {seen}")
    return tuple(found.values()), tuple(unusable.values())


def _candidates(stack: Stack, env: Mapping[str, str]) -> Iterator[str]:
    folders = [text.strip("/") for text in (env.get("PATH") or _PATH).split(":") if text.startswith("/")]
    for folder in folders:
        # `python3` says which of several is meant.
        names = [name for name in stack.names(folder) if _PROGRAM.fullmatch(f"bin/{name}")]
        yield from (f"{folder}/{name}" for name in names)
    yield from (name for name, _ in stack.walk() if _PROGRAM.fullmatch(name))


def _python(stack: Stack, path: str, platform: Platform) -> Interpreter | str:
    """The Python a path leads to, or why it cannot be used."""
    real = stack.resolve(path)
    program = stack.file(path)
    if program is None or program.data[:4] != b"\x7fELF":
        return "is no program"
    machine = int.from_bytes(program.data[18:20], "little")
    if machine != _MACHINES[platform.architecture]:
        return f"is for another processor (ELF machine {machine}), not for {platform}"
    home, environment = _prefix(real), _prefix(path)
    library = _library(stack, home, real)
    if not library:
        return f"has no standard library in /{home}/lib or lib64"
    version = library.rpartition("/python")[2]
    if int(version.partition(".")[2]) < OLDEST_MINOR:
        return f"is Python {version}, Corten's server needs 3.{OLDEST_MINOR}"
    if "asyncio" not in stack.names(library):
        return f"is Python {version} with a part of its standard library only (no asyncio)"
    libc = _libc(stack, program.data)
    if isinstance(libc, str):
        return libc
    if stack.file(f"{environment}/pyvenv.cfg"):
        # A virtual environment is found by the path its program is started by (PEP 405).
        prefix, program_path = stack.resolve(environment), path
    else:
        prefix, program_path = home, real
    return Interpreter(version, f"/{program_path}", *_folders(stack, prefix, home, library), libc)


def _folders(stack: Stack, prefix: str, home: str, library: str) -> tuple[str, str]:
    """The prefix of wheels' other files, and the folder packages are imported from."""
    if prefix != home:
        return prefix, stack.resolve(f"{prefix}/lib/{PurePosixPath(library).name}/site-packages")
    site = stack.file(f"{library}/site.py")
    patched = next((mark for mark in _OTHERS_IN_USR_LOCAL if site and mark in site.data), b"")
    if patched and prefix == "usr":
        prefix = "usr/local"
    packages = "dist-packages" if patched == b"dist-packages" else "site-packages"
    return prefix, stack.resolve(f"{prefix}/{library.removeprefix(home).strip('/')}/{packages}")


def _library(stack: Stack, home: str, program: str) -> str:
    """The folder of the standard library at a prefix: by the program's name, or as the only one there is; else empty.

    It is in what Python calls `platlibdir`: `lib64` with Fedora, RHEL, SUSE and theirs, where `lib` has packages only.
    """
    found = {
        PurePosixPath(path).name: path
        for path in (f"{home}/{lib}/{name}" for lib in ("lib64", "lib") for name in stack.names(f"{home}/{lib}"))
        if _LIBRARY.fullmatch(path) and stack.file(f"{path}/os.py")
    }
    named = _PROGRAM.fullmatch(program)
    if named and named[1]:
        return found.get(f"python3.{named[1]}", "")
    return next(iter(found.values())) if len(found) == 1 else ""


def _libc(stack: Stack, program: bytes) -> Libc | str:
    """The C library a program is linked with, by the loader it asks for."""
    loader = _LOADER.search(program)
    if loader is None:
        return "is statically linked, so that no wheel with compiled code can be loaded"
    musl = loader[1].startswith(b"ld-musl")
    pattern = _MUSL if musl else _GLIBC
    for name, file in stack.walk():
        if _LIBRARIES.fullmatch(name) and ("musl" in PurePosixPath(name).name) == musl:
            data = (stack.file(name) or file).data
            if found := pattern.search(data):
                return Libc(LibcFamily.MUSL if musl else LibcFamily.GLIBC, found[1].decode())
    return f"asks for {loader[1].decode()}, and no C library that says its version is there"


def _prefix(program: str) -> str:
    return str(PurePosixPath(program).parent.parent)


# -- packages


def _records(stack: Stack, site: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """What is installed in a site folder: (normalised name, version) to its files, below the root."""
    found = {}
    for folder in stack.names(site):
        if folder.endswith(".dist-info"):
            name, _, version = folder.removesuffix(".dist-info").rpartition("-")
            record = stack.file(f"{site}/{folder}/RECORD")
            files = _recorded(record.data, site) if record else ()
            # Its own folder goes as a whole: an empty one would still be taken for an installed distribution.
            rest = (file for file in files if not file.startswith(f"{site}/{folder}/"))
            found[distribution(name), version] = (f"{site}/{folder}", *rest)
    return found


def _recorded(record: bytes, site: str) -> Iterator[str]:
    for row in csv.reader(io.StringIO(record.decode(errors="replace"))):
        parts: list[str] = []
        for part in [*site.split("/"), *(row[0].split("/") if row else ())]:
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        # Absolute names and such that lead nowhere sensible are left as they are there.
        if row and not row[0].startswith("/") and len(parts) > 1:
            yield "/".join(parts)


def _packages(stack: Stack) -> Iterator[Installed]:
    """Debian's, Alpine's and rpm's packages, by name; none of rpm's older databases, which are not SQLite."""
    found: dict[tuple[str, str], Installed] = {}
    texts = [_text(stack, "var/lib/dpkg/status")]
    texts += [
        _text(stack, f"var/lib/dpkg/status.d/{name}")
        for name in stack.names("var/lib/dpkg/status.d")
        if not name.endswith(".md5sums")
    ]
    for stanza in (stanza for text in texts for stanza in text.split("\n\n")):
        fields = _fields(stanza, ": ")
        state = fields.get("Status", "install ok installed")
        if "Package" in fields and state.endswith(" installed"):
            one = Installed("deb", fields["Package"], fields.get("Version", ""), fields.get("Architecture", ""))
            found[one.name, one.architecture] = one
    for name in ("lib/apk/db/installed", "usr/lib/apk/db/installed"):
        for stanza in _text(stack, name).split("\n\n"):
            fields = _fields(stanza, ":")
            if "P" in fields:
                one = Installed("apk", fields["P"], fields.get("V", ""), fields.get("A", ""))
                found[one.name, one.architecture] = one
    for path in _RPM_DATABASES:
        if (file := stack.file(path)) and file.data:
            for rpm in read_rpmdb(file.data):
                # Several versions of one (kernels, say) stand side by side.
                found[rpm.name, f"{rpm.architecture} {rpm.version}"] = Installed(
                    "rpm", rpm.name, rpm.version, rpm.architecture
                )
    yield from (found[key] for key in sorted(found))


def _fields(stanza: str, separator: str) -> dict[str, str]:
    lines = (line.partition(separator) for line in stanza.splitlines() if line[:1] not in (" ", "\t"))
    return {name: text.strip() for name, found, text in lines if found}


def _system(stack: Stack) -> System:
    fields = dict(_OS_FIELD.findall(_text(stack, "etc/os-release") or _text(stack, "usr/lib/os-release")))
    return System(fields.get("ID", ""), fields.get("VERSION_ID", ""), fields.get("PRETTY_NAME", ""))


def _text(stack: Stack, path: str) -> str:
    file = stack.file(path)
    return file.data.decode(errors="replace") if file else ""
