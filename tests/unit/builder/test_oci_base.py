"""What the layers of another image tell of it: its Python, its C library, its packages."""

from __future__ import annotations

import foreign_base as foreign
import pytest
from foreign_base import DEBIAN, installed, put_base, python

from corten.builder.entry import Entry, EntryKind
from corten.builder.image import env_over
from corten.builder.interpreter import Libc, LibcFamily
from corten.builder.lock import Pin
from corten.builder.oci_base import Installed, OciBase, accounts, as_base, choose_python
from corten.builder.oci_base_facts import read_facts
from corten.core.digest import Digest
from corten.core.image import LayerKind
from corten.core.platform import Platform
from corten.errors import UsageError
from corten.store.layout import Layout

AMD64 = Platform("amd64")
PIN = Pin("localhost:5000/team/python:3.12", Digest.of(b"index"), Digest.of(b"image"))
GLIBC = Libc(LibcFamily.GLIBC, "2.36")
ALPINE = [
    Entry("etc/os-release", data=b'ID=alpine\nVERSION_ID=3.21.0\nPRETTY_NAME="Alpine Linux v3.21"\n'),
    Entry("lib/ld-musl-x86_64.so.1", mode=0o755, data=foreign.MUSL),
    Entry("lib/apk/db/installed", data=b"C:Q1\nP:musl\nV:1.2.5-r8\nA:x86_64\nL:MIT\n\nP:zlib\nV:1.3.1-r2\nA:x86_64\n"),
]


@pytest.fixture
def look(tmp_path):
    """Read the layers of an image of these entries."""

    def read(*layers, platform=AMD64, **more):
        layout = Layout(tmp_path / "store")
        image = layout.image(put_base(layout, *layers, **more).digest)
        facts, seen = read_facts(layout, image.layers, image.env, platform)
        assert [layer.digest for layer in seen] == [layer.digest for layer in image.layers]
        assert all(layer.tar_bytes >= 1024 for layer in seen)
        return facts, seen, image.env

    return read


@pytest.fixture
def on(look):
    """The base such an image makes, with its first Python or the one asked for."""

    def make(*layers, asked="", preferred="", **more):
        facts, layers_seen, env = look(*layers, **more)
        chosen = choose_python(facts, PIN, asked=asked, preferred=preferred)
        return OciBase(PIN, as_base(layers_seen, PIN), env, facts, chosen)

    return make


def test_a_python_below_usr_local_has_its_packages_there(on) -> None:
    base = on(DEBIAN, python())

    assert base.python.parts == (
        "3.12", "/usr/local/bin/python3.12", "usr/local", "usr/local/lib/python3.12/site-packages",
    )  # fmt: skip
    assert base.python.libc == GLIBC
    assert base.facts.system.title == "Debian GNU/Linux 12 (bookworm)"
    assert [layer.kind for layer in base.layers] == [LayerKind.BASE, LayerKind.BASE]
    assert base.layers[1].title == "localhost:5000/team/python:3.12 2/2"


def test_debians_own_python_looks_for_packages_in_usr_local(on) -> None:
    base = on([*DEBIAN, *python("usr", "3.11", patched=b"dist-packages")])

    assert base.python.parts == (
        "3.11", "/usr/bin/python3.11", "usr/local", "usr/local/lib/python3.11/dist-packages",
    )  # fmt: skip


def test_the_python_of_another_distribution_in_usr_has_its_packages_beside_it(on) -> None:
    assert on([*DEBIAN, *python("usr", "3.13")]).python.site == "usr/lib/python3.13/site-packages"


def test_fedoras_python_has_its_library_in_lib64_and_looks_for_packages_in_usr_local(on) -> None:
    packages_only = [Entry("usr/lib/python3.12/site-packages/pip/__init__.py")]
    fedora = python("usr", "3.12", lib="lib64", patched=b"'RPM_BUILD_ROOT' not in os.environ")

    assert on([*DEBIAN, *fedora, *packages_only]).python.parts == (
        "3.12", "/usr/bin/python3.12", "usr/local", "usr/local/lib64/python3.12/site-packages",
    )  # fmt: skip


def test_a_library_in_lib64_without_a_patch_has_packages_beside_it(on) -> None:
    assert on([*DEBIAN, *python("usr", "3.13", lib="lib64")]).python.site == "usr/lib64/python3.13/site-packages"


def test_a_virtual_environment_of_a_python_in_lib64_has_its_packages_in_lib(on) -> None:
    environment = [
        Entry("opt/venv/bin/python3", EntryKind.SYMLINK, target="/usr/bin/python3.12"),
        Entry("opt/venv/pyvenv.cfg", data=b"home = /usr/bin\n"),
        Entry("opt/venv/lib64", EntryKind.SYMLINK, target="lib"),
    ]
    base = on([*DEBIAN, *python("usr", lib="lib64")], environment, env=["PATH=/opt/venv/bin:/usr/bin"])

    assert base.python.site == "opt/venv/lib/python3.12/site-packages"


def test_a_library_folder_that_is_a_link_is_written_where_it_leads(on) -> None:
    # Our layer would put a folder in the place of the link, and the base would lose what is behind it.
    files = [*DEBIAN, *python("opt/real", "3.12"), Entry("opt/py", EntryKind.SYMLINK, target="real")]
    base = on(files, env=["PATH=/opt/py/bin:/usr/bin"])

    assert (base.python.prefix, base.python.site) == ("opt/real", "opt/real/lib/python3.12/site-packages")


def test_a_virtual_environment_is_started_by_its_own_path(on) -> None:
    environment = [
        Entry("opt/venv/bin/python3", EntryKind.SYMLINK, target="/usr/local/bin/python3.12"),
        Entry("opt/venv/pyvenv.cfg", data=b"home = /usr/local/bin\n"),
    ]
    base = on([*DEBIAN, *python()], environment, env=["PATH=/opt/venv/bin:/usr/local/bin"])

    assert base.python.parts == (
        "3.12", "/opt/venv/bin/python3", "opt/venv", "opt/venv/lib/python3.12/site-packages",
    )  # fmt: skip


def test_a_musl_system_gets_musl_wheels(on) -> None:
    base = on([*ALPINE, *python("usr", "3.12", loader=b"/lib/ld-musl-x86_64.so.1")])

    assert base.python.libc == Libc(LibcFamily.MUSL, "1.2")
    assert base.facts.packages == (
        Installed("apk", "musl", "1.2.5-r8", "x86_64"),
        Installed("apk", "zlib", "1.3.1-r2", "x86_64"),
    )


def test_of_several_pythons_the_one_asked_for_is_taken_then_the_models_then_the_first_on_path(on) -> None:
    both = [*DEBIAN, *python("usr", "3.11", patched=b"dist-packages"), *python("usr/local", "3.13")]

    assert on(both).python.version == "3.13"
    assert on(both, preferred="3.11").python.version == "3.11"
    assert on(both, preferred="3.9").python.version == "3.13"
    assert on(both, asked="3.11", preferred="3.13").python.version == "3.11"
    with pytest.raises(UsageError) as caught:
        on(both, asked="3.12")
    assert caught.value.code == "base.no_python"
    assert "3.13 at /usr/local/bin/python3.13" in caught.value.why
    assert "3.11 at /usr/bin/python3.11" in caught.value.why


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([], "nothing called bin/python3"),
        ([Entry("usr/bin/python3", mode=0o755, data=b"#!/bin/sh\n")], "is no program"),
        (python(machine=183), "for another processor"),
        (python("usr", "3.9"), "is Python 3.9, Corten's server needs 3.11"),
        ([one for one in python() if "asyncio" not in one.name], "a part of its standard library"),
        ([one for one in python() if "/os.py" not in one.name], "no standard library in /usr/local/lib or lib64"),
        (python(loader=b""), "statically linked"),
        (python(loader=b"/lib/ld-musl-x86_64.so.1"), "no C library that says its version"),
    ],
)
def test_a_python_that_cannot_be_used_is_named_with_the_reason(on, files, why) -> None:
    with pytest.raises(UsageError) as caught:
        on([*DEBIAN, *files])
    assert caught.value.code == "base.no_python"
    assert why in caught.value.why
    assert caught.value.hint


def test_packages_are_those_that_are_installed_and_distributions_of_its_site_folder(look) -> None:
    site = "usr/local/lib/python3.12/site-packages"
    facts, _, _ = look(DEBIAN, python(), installed(site, "My_Pip", "24.0", ["pip/__init__.py"]))

    assert facts.packages == (Installed("deb", "libc6", "2.36-9", "amd64"), Installed("wheel", "my-pip", "24.0"))
    assert facts.listed


def test_a_system_without_a_readable_database_says_so(look) -> None:
    facts, _, _ = look([one for one in DEBIAN if "dpkg" not in one.name], python())
    assert (facts.packages, facts.listed) == ((), False)


def test_status_files_of_images_without_dpkg_are_read_too(look) -> None:
    folder = "var/lib/dpkg/status.d"
    files = [
        Entry(f"{folder}/libssl3", data=b"Package: libssl3\nVersion: 3.0\nArchitecture: amd64\n"),
        Entry(f"{folder}/libssl3.md5sums", data=b"abc  usr/lib/x\n"),
    ]
    facts, _, _ = look([one for one in DEBIAN if "dpkg" not in one.name], python(), files)
    assert facts.packages == (Installed("deb", "libssl3", "3.0", "amd64"),)


def test_what_a_later_layer_removes_is_not_there(look) -> None:
    gone = [Entry("usr/local/bin/python3.12", EntryKind.WHITEOUT), Entry("usr/local/bin/python3", EntryKind.WHITEOUT)]
    facts, _, _ = look([*DEBIAN, *python()], gone)
    assert facts.pythons == ()


def test_the_user_gets_a_name_beside_those_of_the_base(on) -> None:
    entries = {one.name: one for one in accounts(on(DEBIAN, python()), [])}

    assert entries["etc/passwd"].data.decode().splitlines() == [
        "root:x:0:0::/root:/bin/sh", "www:x:33:33::/:/bin/false",
        "nonroot:x:65532:65532::/nonexistent:/usr/sbin/nologin",
    ]  # fmt: skip
    assert entries["etc/group"].data == b"root:x:0:\nnonroot:x:65532:\n"
    assert entries["app"].kind is entries["models"].kind is EntryKind.DIRECTORY


def test_a_base_that_knows_the_user_keeps_its_files(on) -> None:
    known = [Entry("etc/passwd", data=b"app:x:65532:65532::/:/bin/false\n"), Entry("etc/group", data=b"app:x:65532:\n")]
    assert not [one for one in accounts(on(DEBIAN, python(), known), []) if one.name.startswith("etc/")]


def test_a_distribution_that_is_installed_anew_is_hidden_file_by_file_and_no_other(on) -> None:
    site = "usr/local/lib/python3.12/site-packages"
    layer = [
        *installed(site, "numpy", "1.26.0", ["numpy/__init__.py", "../../../bin/f2py", "shared/a.py"]),
        *installed(site, "other", "1.0", ["shared/b.py"]),
    ]
    hidden = [one.name for one in accounts(on(DEBIAN, python(), layer), ["numpy"]) if one.kind is EntryKind.WHITEOUT]

    assert hidden == [
        "usr/local/bin/f2py", f"{site}/numpy-1.26.0.dist-info", f"{site}/numpy/__init__.py", f"{site}/shared/a.py",
    ]  # fmt: skip


def test_the_environment_is_the_bases_and_ours_where_it_says_nothing(on) -> None:
    base = on(DEBIAN, python(), env=[f"PATH={foreign.PATH}", "LANG=de_DE.UTF-8", "MINE=1", "PYTHONUNBUFFERED="])

    assert env_over(base) == {
        "LANG": "de_DE.UTF-8", "MINE": "1", "PATH": foreign.PATH, "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "", "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    }  # fmt: skip


def test_no_certificates_are_promised_that_are_not_there(on) -> None:
    bare = [one for one in DEBIAN if "ssl" not in one.name]
    assert "SSL_CERT_FILE" not in env_over(on(bare, python(), env=[]))


def test_a_base_without_the_c_plus_plus_library_is_a_warning(on) -> None:
    bare = [one for one in DEBIAN if "libstdc++" not in one.name]
    assert "libstdc++.so.6" in on(bare, python()).warnings[0]
    assert on(DEBIAN, python()).warnings == ()
