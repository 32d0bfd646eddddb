"""The base: one distroless root filesystem made of package files, without running anything of them.

What the packages' scripts would do (and dpkg, debconf, ldconfig) is done here where it matters: the bundle of
certificates, users, name service, the usr-merge links. No ld.so cache is written: the loader's built-in folders are the
ones Debian's libraries are in.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Self

from corten.builder import accounts
from corten.builder import deb as deb_format
from corten.builder.debian.release import Deb, Release
from corten.builder.entry import Entry, EntryKind
from corten.core.platform import Platform
from corten.errors import PolicyError

# Folders a running server never reads. Copyright files stay: licences ask for it.
_DROPPED_FOLDERS = (
    "etc/apt/",
    "etc/cron.",
    "etc/init.d/",
    "etc/logrotate.d/",
    "etc/profile.d/",
    "etc/python3",  # sitecustomize.py, which looks for Ubuntu's crash reporter at every start
    "etc/update-motd.d/",
    "usr/include/",
    "usr/lib/valgrind/",
    "usr/share/applications/",
    "usr/share/base-files/",
    "usr/share/bash-completion/",
    "usr/share/binfmts/",
    "usr/share/bug/",
    "usr/share/debconf/",
    "usr/share/gcc",
    "usr/share/gdb/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/menu/",
    "usr/share/perl5/",
    "usr/share/pixmaps/",
    "usr/share/zoneinfo/posix/",  # the same zones twice more
    "usr/share/zoneinfo/right/",
)
_DROPPED = re.compile(
    r"usr/share/doc/[^/]+/(?!copyright$).*"
    r"|usr/lib/[^/]+/gconv(/.*)?"
    r"|usr/lib/(python3[^/]*/)(idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|test|config-[^/]*)(/.*)?"
    r"|usr/lib/python3[^/]*/((?!.*site-packages).*/)?tests?(/.*)?"
    r"|usr/lib/python3[^/]*/(EXTERNALLY-MANAGED|sitecustomize\.py|turtle\.py|distutils/command/wininst.*)"
    r"|usr/lib/python3[^/]*/lib-dynload/_?(ctypes_test|test|xxtestfuzz|xxlimited).*"
    r"|usr/sbin/(update-ca-certificates|tzconfig|iconvconfig|ldconfig|zic)"
    r"|usr/bin/(py3?clean|py3?compile|tzselect|zdump|ld\.so|ldd|pldd|catchsegv|getconf|getent|iconv|locale|localedef)"
    r"|etc/(issue|issue\.net|motd|ca-certificates\.conf|legal|bindresvport\.blacklist|default/.*|gai\.conf)"
    r"|var/(cache|backups|log|lib/dpkg)/.+"
)
_CERTIFICATES = "usr/share/ca-certificates/"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"

_FOLDERS = (
    "app", "dev", "etc", "home", "home/nonroot", "models", "proc", "root", "run", "sys", "usr/bin", "usr/lib",
    "usr/local/bin", "usr/sbin", "var", "var/lib",
)  # fmt: skip
_SHARED_FOLDERS = ("tmp", "var/tmp")

_NSSWITCH = b"""\
passwd: files
group: files
hosts: files dns
networks: files
protocols: files
services: files
"""

_Tree = dict[str, Entry]


class Unpacking:
    """Package files read in the background, each once, in the order in which they come. Leaving it joins the threads.

    Two of them: unpacking xz lets go of the interpreter's lock, and is most of the time a base takes.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="corten-deb")
        self._begun: dict[Path, Future[deb_format.Package]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def begin(self, path: Path) -> Future[deb_format.Package]:
        """Read a file that is there; asked again, the same one. Its errors are those of `deb.read`."""
        with self._lock:
            if path not in self._begun:
                self._begun[path] = self._threads.submit(deb_format.read, path)
            return self._begun[path]


def entries(
    debs: Sequence[tuple[Deb, Path]], release: Release, platform: Platform, unpacking: Unpacking | None = None
) -> Iterator[Entry]:
    """The tree as entries sorted by name, parents before children; the same packages give the same entries.

    `unpacking` may be reading some of them already. Raises PolicyError: `base.conflict` when two packages disagree
    about a path, `base.foreign` for a package of another architecture, and what `build.deb.read` raises.
    """
    with nullcontext(unpacking) if unpacking else Unpacking() as threads:
        tree = _installed(debs, platform, threads)
    _write_certificates(tree)
    _write_system(tree, release, platform)
    _add_parents(tree)
    _check_parents(tree)
    return iter([tree[name] for name in sorted(tree)])


def _installed(debs: Sequence[tuple[Deb, Path]], platform: Platform, unpacking: Unpacking) -> _Tree:
    in_order = sorted(debs, key=lambda pair: pair[0].name)
    for deb, path in in_order:
        if deb.architecture not in {platform.debian, "all"}:
            raise PolicyError(
                "base.foreign",
                f"`{deb.name}` is for another platform",
                where=str(path),
                why=f"its architecture is {deb.architecture}, the image's is {platform.debian}",
            )
    # The largest first: what ends last decides.
    for _, path in sorted(debs, key=lambda pair: -pair[0].size_bytes):
        unpacking.begin(path)
    tree: _Tree = {}
    owners: dict[str, str] = {}
    for deb, path in in_order:
        _install(tree, owners, deb, unpacking.begin(path).result())
    return tree


def _install(tree: _Tree, owners: dict[str, str], deb: Deb, package: deb_format.Package) -> None:
    # Scanners (Trivy, Grype, Syft) list the packages of an image without dpkg's database by these files.
    record = Entry(f"var/lib/dpkg/status.d/{deb.name}", data=package.control)
    for entry in (*(one for one in package.entries if not _is_dropped(one)), record):
        earlier = tree.get(entry.name)
        if earlier is None:
            tree[entry.name], owners[entry.name] = entry, deb.name
        elif EntryKind.DIRECTORY is entry.kind is earlier.kind:
            continue  # folders belong to all who use them; the first package's mode holds
        elif earlier != entry:
            raise PolicyError(
                "base.conflict",
                f"two packages disagree about `{entry.name}`",
                why=f"{owners[entry.name]} and {deb.name} both have it, with different content",
                hint=f"leave out one of {owners[entry.name]} and {deb.name}",
            )


def _is_dropped(entry: Entry) -> bool:
    name = entry.name
    if entry.kind is EntryKind.DIRECTORY:
        # Folders that stay empty are noise; those with files come back as parents, and these few are wanted as such.
        return not name.startswith(("etc", "var", "usr/local", "home", "root", "srv", "opt", "mnt", "media"))
    return name.startswith(_DROPPED_FOLDERS) or _DROPPED.fullmatch(name) is not None


def _write_certificates(tree: _Tree) -> None:
    """What update-ca-certificates would do: one file of all, in the order of their names."""
    names = sorted(name for name in tree if name.startswith(_CERTIFICATES))
    found = [tree.pop(name) for name in names]
    pems = [
        one.data.rstrip(b"\n") + b"\n" for one in found if isinstance(one.data, bytes) and one.kind is EntryKind.FILE
    ]
    if pems:
        tree[_BUNDLE] = Entry(_BUNDLE, data=b"".join(pems))
        # Where OpenSSL of Debian looks when it is told nothing (OPENSSLDIR).
        _put(tree, _link("usr/lib/ssl/cert.pem", f"/{_BUNDLE}"), _link("usr/lib/ssl/certs", "/etc/ssl/certs"))


def _write_system(tree: _Tree, release: Release, platform: Platform) -> None:
    _put(
        tree,
        *(Entry(name, EntryKind.DIRECTORY, 0o755) for name in _FOLDERS),
        # `site` puts it on sys.path only if it is there when Python starts.
        Entry(f"usr/local/lib/python{release.python}/dist-packages", EntryKind.DIRECTORY, 0o755),
        *(Entry(name, EntryKind.DIRECTORY, 0o1777) for name in _SHARED_FOLDERS),
        Entry("etc/passwd", data=accounts.PASSWD.encode()),
        Entry("etc/group", data=accounts.GROUP.encode()),
        Entry("etc/nsswitch.conf", data=_NSSWITCH),
        # Bound over by the engine where there is a network; has to exist to be bound over.
        Entry("etc/hosts", data=b"127.0.0.1 localhost\n::1 localhost\n"),
        Entry("etc/resolv.conf"),
        _link("usr/bin/python3", f"python{release.python}"),
        _link("usr/local/bin/python", f"/usr/bin/python{release.python}"),
        *(_link(name, f"usr/{name}") for name in _merged_folders(platform)),
    )
    if "etc/os-release" not in tree:
        _put(tree, Entry("etc/os-release", data=_os_release(release)))
    if "usr/share/zoneinfo/Etc/UTC" in tree:
        # tzdata's script would ask debconf, whose answer without a user is this.
        _put(tree, _link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"), Entry("etc/timezone", data=b"Etc/UTC\n"))
    if "usr/lib64" not in tree and "lib64" in tree:
        _put(tree, Entry("usr/lib64", EntryKind.DIRECTORY, 0o755))


def _merged_folders(platform: Platform) -> tuple[str, ...]:
    return ("bin", "lib", "lib64", "sbin") if platform.architecture == "amd64" else ("bin", "lib", "sbin")


def _os_release(release: Release) -> bytes:
    return (
        f'PRETTY_NAME="Debian GNU/Linux {release.version_id} ({release.codename})"\nNAME="Debian GNU/Linux"\n'
        f'VERSION_ID="{release.version_id}"\nVERSION_CODENAME={release.codename}\nID=debian\n'
    ).encode()


def _link(name: str, target: str) -> Entry:
    return Entry(name, EntryKind.SYMLINK, 0o777, target=target)


def _put(tree: _Tree, *new: Entry) -> None:
    tree.update((entry.name, entry) for entry in new)


def _add_parents(tree: _Tree) -> None:
    for name in list(tree):
        for parent in _parents(name):
            if parent in tree:
                break
            tree[parent] = Entry(parent, EntryKind.DIRECTORY, 0o755)


def _check_parents(tree: Mapping[str, Entry]) -> None:
    """A name below a link would land where the link leads, outside the tree if it leads there."""
    for name in tree:
        parent = name.rpartition("/")[0]
        if parent and tree[parent].kind is not EntryKind.DIRECTORY:
            raise PolicyError(
                "base.conflict",
                f"two packages disagree about `{parent}`",
                why=f"it is a {tree[parent].kind.value}, and there is a `{name}` below it",
            )


def _parents(name: str) -> Iterable[str]:
    while name := name.rpartition("/")[0]:
        yield name
