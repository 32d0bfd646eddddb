"""The base: what packages become."""

import tarfile

import pytest

from corten.builder import base
from corten.builder.debian.release import RELEASES, Deb
from corten.builder.entry import EntryKind
from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.errors import PolicyError
from corten.testing.debian import make_deb, tar_member

AMD64 = Platform("amd64")
BOOKWORM = RELEASES["bookworm"]


@pytest.fixture
def tree(tmp_path):
    """A function: packages as {name: members} to the tree as {name: entry}."""

    def build(packages, *, platform=AMD64, release=BOOKWORM, architecture="amd64"):
        debs = []
        for name, members in packages.items():
            data = make_deb(f"Package: {name}\nVersion: 1\nArchitecture: {architecture}\n", members)
            path = tmp_path / name
            path.write_bytes(data)
            debs.append((Deb(name, "1", architecture, "https://mirror/x.deb", Digest.of(data), len(data)), path))
        return {entry.name: entry for entry in base.entries(debs, release, platform)}

    return build


def test_entries_are_sorted_and_every_parent_comes_before_its_children(tree):
    names = list(tree({"liba": [tar_member("./usr/share/deep/er/file", b"1"), tar_member("./opt/x", b"2")]}))
    assert names == sorted(names)
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or parent in names[: names.index(name)]


def test_the_order_of_the_packages_does_not_matter(tree):
    one, two = [tar_member("./usr/one", b"1")], [tar_member("./usr/two", b"2")]
    assert list(tree({"liba": one, "libb": two}).values()) == list(tree({"libb": two, "liba": one}).values())


def test_what_the_engine_mounts_on_is_there(tree):
    names = tree({})
    for name in ("proc", "sys", "dev", "run", "tmp", "app", "models", "etc", "home/nonroot"):
        assert names[name].kind is EntryKind.DIRECTORY
    assert names["tmp"].mode == 0o1777
    assert {"etc/hosts", "etc/resolv.conf"} <= set(names)


def test_nothing_is_setuid_and_only_tmp_is_writable_by_all(tree):
    members = [
        tar_member("./usr/bin/su", b"elf", mode=0o6755),
        tar_member("./var/mail/", kind=tarfile.DIRTYPE, mode=0o2775),
    ]
    entries = tree({"liba": members})
    assert all(not entry.mode & 0o6000 for entry in entries.values())
    writable = {name for name, entry in entries.items() if entry.mode & 0o002 and entry.kind is not EntryKind.SYMLINK}
    assert writable == {"tmp", "var/tmp"}


def test_python_is_found_by_its_usual_names(tree):
    entries = tree({})
    assert entries["usr/bin/python3"].target == "python3.11"
    assert entries["usr/local/bin/python"].target == "/usr/bin/python3.11"
    assert entries["usr/local/lib/python3.11/dist-packages"].kind is EntryKind.DIRECTORY
    assert tree({}, release=RELEASES["trixie"])["usr/bin/python3"].target == "python3.13"


def test_top_level_folders_are_links_into_usr_as_the_platform_has_them(tree):
    assert {name: entry.target for name, entry in tree({}).items() if "/" not in name and entry.target} == {
        "bin": "usr/bin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "sbin": "usr/sbin",
    }
    assert "lib64" not in tree({}, platform=Platform("arm64"))
    assert tree({})["usr/lib64"].kind is EntryKind.DIRECTORY


def test_users_and_os_release_are_there(tree):
    entries = tree({})
    assert b"nonroot:x:65532:65532:" in entries["etc/passwd"].data
    assert b"nonroot:x:65532:" in entries["etc/group"].data
    assert b'VERSION_ID="12"' in entries["etc/os-release"].data


def test_debians_own_os_release_is_kept(tree):
    entries = tree({"base-files": [tar_member("./etc/os-release", b"ID=debian\n")]})
    assert entries["etc/os-release"].data == b"ID=debian\n"


def test_certificates_become_one_file_in_the_order_of_their_names(tree):
    folder = "./usr/share/ca-certificates/mozilla"
    entries = tree(
        {"ca-certificates": [tar_member(f"{folder}/B.crt", b"bbb\n"), tar_member(f"{folder}/A.crt", b"aaa")]}
    )
    assert entries["etc/ssl/certs/ca-certificates.crt"].data == b"aaa\nbbb\n"
    assert entries["usr/lib/ssl/cert.pem"].target == "/etc/ssl/certs/ca-certificates.crt"
    assert not any(name.endswith((".crt", "mozilla")) for name in entries if "etc/ssl" not in name)


def test_the_link_to_the_licence_another_package_has_stays(tree):
    entries = tree({"libgomp1": [tar_member("./usr/share/doc/libgomp1", kind=tarfile.SYMTYPE, link="gcc-12-base")]})
    assert entries["usr/share/doc/libgomp1"].target == "gcc-12-base"


def test_local_time_is_universal_time_where_time_zones_are(tree):
    entries = tree({"tzdata": [tar_member("./usr/share/zoneinfo/Etc/UTC", b"TZif")]})
    assert entries["etc/localtime"].target == "/usr/share/zoneinfo/Etc/UTC"
    assert "etc/localtime" not in tree({})


def test_each_package_leaves_its_control_file_for_scanners(tree):
    assert tree({"libx": []})["var/lib/dpkg/status.d/libx"].data == b"Package: libx\nVersion: 1\nArchitecture: amd64\n"


@pytest.mark.parametrize(
    "name",
    [
        "usr/share/man/man1/a.1.gz", "usr/share/info/a.info", "usr/share/locale/de/LC_MESSAGES/a.mo",
        "usr/share/doc/a/README", "usr/share/doc/a/changelog.gz", "usr/share/lintian/overrides/a",
        "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so", "usr/lib/python3.11/test/test_a.py",
        "usr/lib/python3.11/unittest/test/x.py", "usr/lib/python3.11/idlelib/a.py", "usr/lib/python3.11/lib2to3/a.py",
        "usr/lib/python3.11/ensurepip/a.py", "usr/lib/python3.11/pydoc_data/topics.py",
        "usr/lib/python3.11/config-3.11-x86_64-linux-gnu/Makefile", "usr/lib/python3.11/EXTERNALLY-MANAGED",
        "usr/lib/python3.11/sitecustomize.py", "etc/python3.11/sitecustomize.py",
        "usr/lib/python3.11/distutils/command/wininst-10.0.exe", "usr/share/zoneinfo/right/UTC",
        "usr/sbin/update-ca-certificates", "usr/include/zlib.h",
    ],
)  # fmt: skip
def test_what_a_server_never_reads_is_dropped(tree, name):
    entries = tree({"liba": [tar_member(f"./{name}", b"x")]})
    assert name not in entries


@pytest.mark.parametrize(
    "name",
    [
        "usr/share/doc/a/copyright", "usr/share/common-licenses/GPL-2", "usr/lib/python3.11/os.py",
        "usr/lib/python3.11/unittest/mock.py", "usr/lib/python3.11/testing.py", "usr/share/zoneinfo/Europe/Berlin",
        "usr/lib/x86_64-linux-gnu/libz.so.1", "etc/mime.types", "usr/lib/python3.11/lib-dynload/_ctypes.so",
        "usr/lib/python3.11/latest/x.py",
    ],
)  # fmt: skip
def test_what_a_server_or_a_licence_needs_stays(tree, name):
    assert tree({"liba": [tar_member(f"./{name}", b"x")]})[name].data == b"x"


def test_two_packages_may_share_a_folder_and_an_equal_file(tree):
    shared = [tar_member("./usr/s/", kind=tarfile.DIRTYPE, mode=0o755), tar_member("./usr/s/f", b"same")]
    assert tree({"liba": shared, "libb": shared})["usr/s/f"].data == b"same"


def test_two_packages_that_disagree_about_a_file_are_refused_by_name(tree):
    with pytest.raises(PolicyError) as caught:
        tree({"liba": [tar_member("./usr/f", b"1")], "libb": [tar_member("./usr/f", b"2")]})
    assert caught.value.code == "base.conflict"
    assert "liba and libb" in caught.value.why


def test_a_file_below_another_packages_link_is_refused(tree):
    link = tar_member("./usr/share/x", kind=tarfile.SYMTYPE, link="/etc")
    with pytest.raises(PolicyError) as caught:
        tree({"liba": [link], "libb": [tar_member("./usr/share/x/passwd", b"evil")]})
    assert caught.value.code == "base.conflict"


def test_a_package_cannot_replace_what_the_base_writes(tree):
    entries = tree(
        {
            "liba": [
                tar_member("./etc/passwd", b"root::0:0::/:/bin/sh\n"),
                tar_member("./tmp", kind=tarfile.SYMTYPE, link="/app"),
            ]
        }
    )
    assert b"nonroot" in entries["etc/passwd"].data
    assert entries["tmp"].kind is EntryKind.DIRECTORY


def test_a_package_for_another_platform_is_refused(tree):
    with pytest.raises(PolicyError) as caught:
        tree({"liba": []}, platform=Platform("arm64"))
    assert caught.value.code == "base.foreign"
    assert "var/lib/dpkg/status.d/liba" in tree({"liba": []}, platform=Platform("arm64"), architecture="all")
