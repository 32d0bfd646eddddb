"""A base with an rpm database, made by rpm itself: its packages are known without rpm."""

import subprocess

import pytest
from foreign_base import DEBIAN, put_base, python

from corten.builder.entry import Entry
from corten.builder.lock import Pin
from corten.builder.oci_base import Installed, OciBase, as_base, choose_python, read_facts
from corten.builder.rpmdb import read_rpmdb
from corten.builder.sbom import installed_purl
from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.store.layout import Layout

pytestmark = pytest.mark.rpm
PLACE = "usr/lib/sysimage/rpm"
SPEC = """
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


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The file of a database in which two packages are installed, one of them with an epoch."""
    folder = tmp_path_factory.mktemp("rpm")
    root = folder / "root"
    for name, version, more in (("probe", "1.5", "Epoch: 3"), ("another-probe", "2.0~rc1", "")):
        (folder / f"{name}.spec").write_text(SPEC.format(name=name, version=version, more=more))
        run("rpmbuild", "-bb", "--define", f"_topdir {folder}/top", f"{folder}/{name}.spec")
    packages = sorted(str(path) for path in folder.glob("top/RPMS/noarch/*.rpm"))
    root.mkdir()
    run("rpm", "--root", str(root), "--define", f"_dbpath /{PLACE}", "--justdb", "--nodeps", "-i", *packages)
    return (root / PLACE / "rpmdb.sqlite").read_bytes()


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_its_packages_are_listed_for_the_sbom(database, tmp_path):
    layout = Layout(tmp_path / "store")
    fedora = [one for one in DEBIAN if one.name != "etc/os-release"]
    fedora += [
        Entry("etc/os-release", data=b"ID=fedora\nVERSION_ID=40\n"),
        Entry(f"{PLACE}/rpmdb.sqlite", data=database),
    ]
    image = layout.image(put_base(layout, fedora, python()).digest)
    facts, layers = read_facts(layout, image.layers, image.env, Platform("amd64"))
    assert facts.listed
    assert [one for one in facts.packages if one.kind == "rpm"] == [
        Installed("rpm", "another-probe", "2.0~rc1-2.fc40", "noarch"),
        Installed("rpm", "probe", "3:1.5-2.fc40", "noarch"),
    ]
    pin = Pin("localhost:5000/fedora:40", Digest.of(b"index"), Digest.of(b"image"))
    base = OciBase(pin, as_base(layers, pin), image.env, facts, choose_python(facts, pin, asked="", preferred=""))
    purls = [installed_purl(one, base.facts.system) for one in facts.packages if one.kind == "rpm"]
    assert purls[1] == "pkg:rpm/fedora/probe@1.5-2.fc40?arch=noarch&distro=fedora-40&epoch=3"


def test_a_damaged_database_says_less_and_fails_nothing(database):
    half = database[: len(database) // 2]
    for damaged in (half, database[:100] + bytes(len(database) - 100), database[:100], b""):
        assert read_rpmdb(damaged) == ()
