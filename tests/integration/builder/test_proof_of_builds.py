"""What whole builds attach to their images, read by others' tools, and proved by building again."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from corten.builder import artifact
from corten.builder import contents as facts
from corten.builder import image as documents
from corten.builder.artifact import LOCK_TYPE, SBOM_TYPE, STATEMENT_TYPE
from corten.builder.entry import Entry
from corten.builder.layer import write_layer
from corten.core.home import Home
from corten.core.image import CONFIG, MANIFEST, Compression, LayerKind
from corten.errors import NotFoundError, PolicyError
from corten.ops.build import build
from corten.ops.diff import diff
from corten.ops.inspect import inspect
from corten.ops.rebuild import rebuild
from corten.store.layout import Layout

pytestmark = [pytest.mark.network, pytest.mark.examples]


@pytest.fixture(scope="module")
def home():
    folder = Path(tempfile.mkdtemp(prefix="corten-proof-"))
    yield Home(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder with a model, in a git work tree."""
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("tree") / "flowers"
    folder.mkdir()
    inputs, classes = load_iris(return_X_y=True)
    joblib.dump(LogisticRegression(max_iter=500).fit(inputs, classes), folder / "m.joblib")
    (folder / "corten.toml").write_text('name = "flowers"\nsource = "m.joblib"\n[labels]\nteam = "garden"\n')
    _git(folder, "init", "-q", "-b", "trunk")
    return folder


@pytest.fixture(scope="module")
def built(home, project):
    return build(project, home=home)


def _git(folder, *words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, "-C", str(folder), *words], capture_output=True, timeout=30, check=True)


def test_a_build_attaches_lock_sbom_and_provenance(home, built):
    layout = Layout(home.store)

    assert {one.artifact_type for one in layout.referrers(built.digest)} == {LOCK_TYPE, SBOM_TYPE, STATEMENT_TYPE}
    sbom = artifact.attached(layout, built.digest, SBOM_TYPE).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom) is None
    seen = inspect("flowers", home=home)
    assert {one.name for one in seen.of_kind("wheel")} == {one.name for one in built.plan.lock.wheels}
    assert {one.name for one in seen.of_kind("deb")} == {one.name for one in built.plan.lock.debs}
    assert all(one.licence for one in seen.of_kind("wheel"))


def test_wheels_and_the_layers_made_of_them_tell_the_same(home, built, tmp_path):
    layout = Layout(home.store)
    wheels = [layer for layer in built.image.layers if layer.kind is LayerKind.WHEELS]
    assert wheels
    for layer in wheels:
        by_file = facts.read(layout, layer, cache=home.cache)  # as the build left it
        assert facts.read(layout, layer, cache=tmp_path) == by_file
        assert by_file.packages


def test_a_commit_moves_the_provenance_and_not_the_digest(home, project, built):
    _git(project, "add", ".")
    _git(project, "commit", "-q", "-m", "first")

    again = build(project, home=home, offline=True)
    seen = inspect("flowers", home=home)

    assert again.digest == built.digest
    assert (seen.provenance.commit.branch, seen.provenance.commit.dirty) == ("trunk", False)
    assert len(seen.attached) == 3


def test_the_image_comes_out_again_from_its_lock_and_itself(home, built):
    names = sorted(path.name for path in home.store.iterdir())

    rebuilt = rebuild("flowers", home=home, offline=True)

    rebuilt.verify()
    assert rebuilt.after == built.digest
    assert len(rebuilt.layers) == len(built.layers)
    assert not list(home.cache.glob("rebuild-*"))
    assert sorted(path.name for path in home.store.iterdir()) == names


def test_an_image_with_something_slipped_into_it_does_not_come_out_again(home, built):
    layout = Layout(home.store)
    slipped = write_layer(
        [Entry("usr/local/lib/python3.11/dist-packages/corten/evil.py", data=b"import os\n")],
        layout, kind=LayerKind.RUNTIME, title="server", compression=Compression.ZSTD,
    )  # fmt: skip
    layers = [slipped if one.kind is LayerKind.RUNTIME else one for one in built.image.layers]
    config = layout.put(documents.config_json(built.plan, layers), CONFIG)
    manifest = layout.put(documents.manifest_json(config, layers), MANIFEST)
    layout.tag("slipped", manifest)
    lock = artifact.Artifact(LOCK_TYPE, "corten.lock", artifact.attached(layout, built.digest, LOCK_TYPE))
    layout.attach(manifest.digest, [artifact.put(layout, lock, manifest)])

    rebuilt = rebuild("slipped", home=home, offline=True)

    assert [one.title for one in rebuilt.differing] == ["server"]
    with pytest.raises(PolicyError):
        rebuilt.verify()
    layout.untag("slipped")


def test_a_build_over_its_budget_takes_no_name(home, project):
    with pytest.raises(PolicyError) as caught:
        build(project, home=home, name="heavy", offline=True, max_image_mb=20)

    assert caught.value.code == "build.over_budget"
    with pytest.raises(NotFoundError):
        inspect("heavy", home=home)
    assert build(project, home=home, offline=True, max_image_mb=200).image


def test_the_report_tells_the_size_of_every_package(built):
    by_title = {layer.title: layer.contents for layer in built.layers}

    sizes = [one.size_bytes for one in by_title["small wheels"]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) > 1
    assert all(sizes)


def test_two_builds_are_told_apart_by_what_changed(home, project, built):
    other = build(project, home=home, name="flowers-next", offline=True, method="predict_proba")

    found = diff("flowers", "flowers-next", home=home)

    assert other.digest != built.digest
    assert found.breaking  # other outputs
    assert not found.packages
    assert not found.files
    assert ("model", "method", "predict", "predict_proba") in [
        (one.kind, one.name, one.before, one.after) for one in found.settings
    ]


@pytest.mark.skopeo
def test_skopeo_still_reads_and_copies_the_layout(home, built, tmp_path):
    seen = subprocess.run(
        ["skopeo", "inspect", f"oci:{home.store}:flowers"], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(seen.stdout)["Digest"] == str(built.digest)
    subprocess.run(
        ["skopeo", "copy", "--preserve-digests", f"oci:{home.store}:flowers", f"oci:{tmp_path / 'copy'}:flowers"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert Layout(tmp_path / "copy").resolve("flowers").digest == built.digest
