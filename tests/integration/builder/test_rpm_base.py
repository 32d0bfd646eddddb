"""A base with an rpm database, made by rpm itself: its packages are known without rpm."""

import pytest
from foreign_base import DEBIAN, RPM_DATABASE, put_base, python, rpm_database

from corten.builder.entry import Entry
from corten.builder.lock import Pin
from corten.builder.oci_base import Installed, OciBase, as_base, choose_python
from corten.builder.oci_base_facts import read_facts
from corten.builder.rpmdb import read_rpmdb
from corten.builder.sbom import installed_purl
from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.store.layout import Layout

pytestmark = pytest.mark.rpm


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return rpm_database(tmp_path_factory.mktemp("rpm"))


def test_its_packages_are_listed_for_the_sbom(database, tmp_path):
    layout = Layout(tmp_path / "store")
    fedora = [one for one in DEBIAN if one.name != "etc/os-release"]
    fedora += [
        Entry("etc/os-release", data=b"ID=fedora\nVERSION_ID=40\n"),
        Entry(RPM_DATABASE, data=database),
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
