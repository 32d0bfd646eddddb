"""Images others could have made, to build on: small ones of made-up files, and one of real Debian packages."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from pathlib import Path

from corten.builder import base as debian_base
from corten.builder.debian import RELEASES, fetch, resolve
from corten.builder.entry import Entry, EntryKind
from corten.builder.layer import write_layer
from corten.builder.tar import in_order, tar
from corten.core.image import CONFIG, MANIFEST, Compression, LayerKind
from corten.core.platform import Platform
from corten.store.documents import descriptor_to

AMD64 = Platform("amd64")
PATH = "/usr/local/bin:/usr/bin:/bin"
GLIBC = b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n\0"
MUSL = b"\0musl libc (x86_64)\nVersion %s\0" + b"\x001.2.5\0"


def program(machine=62, loader=b"/lib64/ld-linux-x86-64.so.2"):
    """The beginning of an ELF file, as much of it as is looked at."""
    head = b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + machine.to_bytes(2, "little")
    return head.ljust(64, b"\0") + b"\0" + loader + b"\0"


def python(
    prefix="usr/local", version="3.12", *, loader=b"/lib64/ld-linux-x86-64.so.2", machine=62, patched=b"", lib="lib"
):
    """A Python as far as anybody looks: program, link, standard library; `patched` is what its site.py has more."""
    return [
        Entry(f"{prefix}/bin/python{version}", mode=0o755, data=program(machine, loader)),
        Entry(f"{prefix}/bin/python3", EntryKind.SYMLINK, target=f"python{version}"),
        Entry(f"{prefix}/{lib}/python{version}/os.py"),
        Entry(f"{prefix}/{lib}/python{version}/site.py", data=b"sitepackages " + patched),
        Entry(f"{prefix}/{lib}/python{version}/asyncio/__init__.py"),
    ]


def installed(site, name, version, files):
    """A distribution in a site folder, with its RECORD."""
    info = f"{name}-{version}.dist-info"
    rows = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD", f"{info}/METADATA"])
    return [
        *(Entry(f"{site}/{file}", data=b"old") for file in files if not file.startswith("..")),
        Entry(f"{site}/{info}/METADATA"),
        Entry(f"{site}/{info}/RECORD", data=rows.encode()),
    ]


DEBIAN = [
    Entry("etc/os-release", data=b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'),
    Entry("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\nwww:x:33:33::/:/bin/false"),
    Entry("etc/group", data=b"root:x:0:\n"),
    Entry("etc/ssl/certs/ca-certificates.crt", data=b"-----"),
    Entry("lib", EntryKind.SYMLINK, target="usr/lib"),
    Entry("lib64", EntryKind.SYMLINK, target="usr/lib64"),
    Entry("usr/lib/x86_64-linux-gnu/libc.so.6", mode=0o755, data=GLIBC),
    Entry("usr/lib/x86_64-linux-gnu/libstdc++.so.6", data=b"x"),
    Entry(
        "var/lib/dpkg/status",
        data=b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\nDepends: a,\n b\n\n"
        b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
    ),
]


def put_base(layout, *layers, env=(f"PATH={PATH}",), platform=AMD64, compression=Compression.GZIP, media=None):
    """An image of these layers' entries in a store; gives its manifest's descriptor. `media` are other media types."""
    media = media or {}
    made = [
        write_layer(in_order(entries), layout, kind=LayerKind.BASE, title="x", compression=compression)
        for entries in layers
    ]
    config = {
        "architecture": platform.architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in made]},
        "config": {"Env": list(env), "Cmd": ["/bin/sh"], "Labels": {"of": "the base"}},
    }
    manifest_type = media.get("manifest", MANIFEST)
    document = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": descriptor_to(layout.put(json.dumps(config).encode(), media.get("config", CONFIG))),
        "layers": [
            {
                "mediaType": media.get("layer", layer.media_type),
                "digest": str(layer.digest),
                "size": layer.size_bytes,
            }
            for layer in made
        ],
    }
    return layout.put(json.dumps(document).encode(), manifest_type)


# Of real packages


def debian_tree(cache, codename="bookworm"):
    """A root file system of Debian's packages with Python in it, as entries by name, with dpkg's database."""
    release = RELEASES[codename]
    debs = resolve(release, AMD64, cache=cache, now_s=time.time())
    paths = fetch(debs, cache)
    tree = {entry.name: entry for entry in debian_base.entries(list(zip(debs, paths, strict=True)), release, AMD64)}
    stanzas = []
    for name in [name for name in tree if name.startswith("var/lib/dpkg/status.d/")]:
        control = tree.pop(name).data.rstrip(b"\n")
        stanzas.append(control.replace(b"\nVersion:", b"\nStatus: install ok installed\nVersion:", 1) + b"\n")
    tree["var/lib/dpkg/status"] = Entry("var/lib/dpkg/status", data=b"\n".join(stanzas))
    return tree


def in_usr_local(tree, version):
    """The same tree with Python where the image `python` of Docker Hub has it: below /usr/local, in site-packages.

    Debian's program has its site module frozen into it, and goes on looking for dist-packages: a link leads it.
    """
    moved = {}
    for name, entry in tree.items():
        if name.startswith(("usr/local/", "usr/bin/python3")):
            continue
        library = name.startswith(f"usr/lib/python{version}")
        place = "usr/local/" + name.removeprefix("usr/") if library else name
        moved[place] = dataclasses.replace(entry, name=place)
    home = f"usr/local/lib/python{version}"
    site = moved[f"{home}/site.py"]
    new = [
        dataclasses.replace(site, data=site.data.replace(b"dist-packages", b"site-packages")),
        dataclasses.replace(tree[f"usr/bin/python{version}"], name=f"usr/local/bin/python{version}"),
        Entry("usr/local/bin/python3", EntryKind.SYMLINK, target=f"python{version}"),
        Entry(f"{home}/site-packages", EntryKind.DIRECTORY, 0o755),
        Entry(f"{home}/dist-packages", EntryKind.SYMLINK, target="site-packages"),
    ]
    return moved | {entry.name: entry for entry in new}


def in_lib64(tree, version):
    """The same tree with Python's library where Fedora and its like have it. It needs PYTHONPLATLIBDIR=lib64.

    Debian's program has its site module frozen into it, and goes on looking for dist-packages: a link leads it.
    """
    moved = {}
    for name, entry in tree.items():
        if not name.startswith(("usr/local/", "var/lib/dpkg/")):
            place = name.replace(f"usr/lib/python{version}", f"usr/lib64/python{version}", 1)
            moved[place] = dataclasses.replace(entry, name=place)
    site = moved[f"usr/lib64/python{version}/site.py"]
    new = [
        dataclasses.replace(site, data=site.data.replace(b"dist-packages", b"RPM_BUILD_ROOT")),
        Entry("etc/os-release", data=b'ID=fedora\nVERSION_ID=40\nPRETTY_NAME="Fedora Linux 40"\n'),
        Entry(f"usr/lib/python{version}/site-packages", EntryKind.DIRECTORY, 0o755),
        Entry(f"usr/local/lib64/python{version}/site-packages", EntryKind.DIRECTORY, 0o755),
        Entry(
            f"usr/local/lib/python{version}/dist-packages",
            EntryKind.SYMLINK,
            target=f"../../lib64/python{version}/site-packages",
        ),
    ]
    return moved | {entry.name: entry for entry in new}


RPM_DATABASE = "usr/lib/sysimage/rpm/rpmdb.sqlite"
_SPEC = """
Name: {name}
Version: {version}
Release: 2.fc40
{more}
Summary: A package
License: MIT
BuildArch: noarch
%description
Nothing.
%files
"""


def rpm_database(folder: Path):
    """The bytes of a database in which rpm installed two packages, one of them with an epoch."""
    root = folder / "root"
    for name, version, more in (("probe", "1.5", "Epoch: 3"), ("another-probe", "2.0~rc1", "")):
        (folder / f"{name}.spec").write_text(_SPEC.format(name=name, version=version, more=more))
        _run("rpmbuild", "-bb", "--define", f"_topdir {folder}/top", f"{folder}/{name}.spec")
    packages = sorted(str(path) for path in folder.glob("top/RPMS/noarch/*.rpm"))
    root.mkdir()
    place = f"_dbpath /{RPM_DATABASE.rpartition('/')[0]}"
    _run("rpm", "--root", str(root), "--define", place, "--justdb", "--nodeps", "-i", *packages)
    return (root / RPM_DATABASE).read_bytes()


def _run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def import_by_podman(tree, folder: Path, reference, *changes):
    """Let Podman make an image of a tree: its layer is compressed, its config written by Podman."""
    path = folder / "root.tar"
    with path.open("wb") as stream:
        for piece in tar(in_order(tree.values())):
            stream.write(piece)
    words = [word for change in changes for word in ("-c", change)]
    subprocess.run(
        ["podman", "import", "-q", *words, str(path), reference], check=True, capture_output=True, timeout=120
    )
    path.unlink()


def push_by_podman(reference, *words):
    subprocess.run(["podman", "push", "-q", *words, reference], check=True, capture_output=True, timeout=120)
