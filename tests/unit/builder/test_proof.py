"""What is attached to every image: bytes that depend on the image only, in the formats others read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import small_image

from corten.builder import artifact, contents, layer_facts, lock, proof
from corten.builder.artifact import LOCK_TYPE, SBOM_TYPE, STATEMENT_TYPE
from corten.builder.entry import Entry
from corten.builder.layer import write_layer
from corten.builder.provenance import PREDICATE, commit_from, predicate_of
from corten.builder.sbom import deb_purl, packages_of, wheel_purl
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import Compression, LayerKind
from corten.errors import NotFoundError, UsageError
from corten.ops.inspect import inspect


@pytest.fixture
def small(tmp_path):
    return small_image.store(Home(tmp_path))


NO_DIGEST = json.dumps(
    {"components": [{"purl": "pkg:pypi/a@1", "name": "a", "version": "1", "hashes": [{"content": "../x"}]}]}
).encode()


def attached(small, kind):
    return json.loads(artifact.attached(small.layout, small.image.digest, kind))


@pytest.mark.parametrize("kind", [LOCK_TYPE, SBOM_TYPE, STATEMENT_TYPE])
def test_an_artifact_is_a_manifest_with_its_image_as_subject(small, kind):
    small.attach()

    (descriptor,) = small.layout.referrers(small.image.digest, kind)
    manifest = json.loads(small.layout.read(descriptor.digest))
    assert manifest["artifactType"] == manifest["layers"][0]["mediaType"] == kind
    assert manifest["subject"] == {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": str(small.image.digest),
        "size": small.manifest.size_bytes,
    }
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    assert manifest["annotations"]["org.opencontainers.image.created"] == "1970-01-01T00:00:00Z"


def test_the_same_image_gets_the_same_artifacts_in_another_home(small, tmp_path):
    other = small_image.store(Home(tmp_path / "other"))

    assert small.attach() == other.attach()


def test_a_later_build_of_the_same_image_replaces_what_was_attached(small):
    small.attach()
    small.attach(replace(small_image.COMMIT, revision="b" * 40))

    assert len(small.layout.referrers(small.image.digest)) == 3
    assert commit_from(predicate_of(json.dumps(attached(small, STATEMENT_TYPE)).encode(), "")).revision == "b" * 40


def test_another_commit_moves_the_provenance_and_nothing_else(small):
    before = {one.artifact_type: one.digest for one in small.attach()}
    after = {one.artifact_type: one.digest for one in small.attach(None)}

    assert [kind for kind in before if before[kind] != after[kind]] == [STATEMENT_TYPE]


def test_what_somebody_else_attached_stays(small):
    signature = artifact.put(small.layout, artifact.Artifact("x/signature", "s", b"{}"), small.manifest)
    small.layout.attach(small.image.digest, [signature])

    small.attach()
    small.attach(None)

    assert "x/signature" in [one.artifact_type for one in small.layout.referrers(small.image.digest)]


def test_another_statement_about_the_image_stays_and_is_not_taken_for_its_provenance(small):
    gate = artifact.Artifact(STATEMENT_TYPE, "gate", b"{}", {proof.PREDICATE_ANNOTATION: "x/test-result"})
    small.attach()
    small.layout.attach(small.image.digest, [artifact.put(small.layout, gate, small.manifest)])
    assert inspect("iris", home=small.home).provenance.commit == small_image.COMMIT

    small.attach()

    seen = inspect("iris", home=small.home)
    assert {one.predicate for one in seen.attached if one.type == STATEMENT_TYPE} == {"x/test-result", PREDICATE}


def test_the_attached_lock_is_the_plans_without_credentials(small, tmp_path):
    small.attach()

    path = tmp_path / "corten.lock"
    path.write_bytes(artifact.attached(small.layout, small.image.digest, LOCK_TYPE))
    assert lock.read(path) == (proof.public(small.plan.lock),)
    assert b"secret" not in path.read_bytes()


# SBOM


def test_an_sbom_lists_debian_packages_wheels_and_the_model_with_digests_and_licences(small):
    small.attach()

    components = {one["name"]: one for one in attached(small, SBOM_TYPE)["components"]}
    zlib, six, model = components["zlib1g"], components["six-pack"], components["iris"]
    assert zlib["purl"] == "pkg:deb/debian/zlib1g@1%3A1.2.13%2Bb1?arch=amd64&distro=debian-12"
    assert zlib["licenses"] == [{"license": {"name": "Zlib", "acknowledgement": "declared"}}]
    assert six["purl"] == "pkg:pypi/six-pack@1.17.0"
    assert six["hashes"] == [{"alg": "SHA-256", "content": small_image.wheel().digest.hex}]
    assert six["licenses"] == [{"expression": "MIT", "acknowledgement": "declared"}]
    assert six["externalReferences"][0]["url"] == "https://files.example/six_pack.whl"
    assert model["type"] == "machine-learning-model"
    assert model["modelCard"]["modelParameters"]["inputs"] == [{"format": "x: float64[*,4]"}]
    assert [one["name"] for one in model["components"]] == ["/models/m.joblib"]
    assert model["components"][0]["hashes"][0]["content"] == Digest.of(b"weights").hex


def test_a_wheel_from_this_machine_has_no_address_in_the_sbom(tmp_path):
    local = small_image.wheel(url="file:///home/someone/six_pack.whl")
    small = small_image.store(Home(tmp_path), small_image.plan(wheels=[local]))
    small.attach()

    assert "/home/someone" not in json.dumps(attached(small, SBOM_TYPE))


def test_packages_are_read_back_from_an_sbom(small):
    small.attach()

    found = packages_of(artifact.attached(small.layout, small.image.digest, SBOM_TYPE), "")
    assert [(one.kind, one.name, one.version, one.licence) for one in found] == [
        ("deb", "zlib1g", "1:1.2.13+b1", "Zlib"),
        ("wheel", "six-pack", "1.17.0", "MIT"),
    ]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"components": [{"purl": "pkg:pypi/a@1"}]}', NO_DIGEST, b"\xff"])
def test_a_malformed_sbom_is_refused(data):
    with pytest.raises(UsageError) as caught:
        packages_of(data, "somewhere")
    assert (caught.value.code, caught.value.where) == ("store.malformed", "somewhere")


def test_names_in_package_urls_are_escaped():
    assert deb_purl(small_image.deb("libstdc++6", "12.2"), "bookworm").startswith("pkg:deb/debian/libstdc%2B%2B6@12.2?")
    assert wheel_purl(replace(small_image.wheel(), name="Ruamel.Yaml", version="1+local")) == (
        "pkg:pypi/ruamel-yaml@1%2Blocal"
    )


# Provenance


def test_a_provenance_names_the_image_the_source_and_all_it_was_made_of(small):
    small.attach()

    statement = attached(small, STATEMENT_TYPE)
    definition = statement["predicate"]["buildDefinition"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [{"name": "iris", "digest": {"sha256": small.image.digest.hex}}]
    assert definition["externalParameters"]["source"] == "m.joblib"
    commit, *rest = definition["resolvedDependencies"]
    assert commit == {
        "name": "source",
        "uri": "git+https://git.example/team/iris",
        "digest": {"gitCommit": "a" * 40},
        "annotations": {"dirty": True, "branch": "main", "path": "models"},
    }
    assert [one.get("name", one.get("uri")) for one in rest] == [
        "pkg:deb/debian/zlib1g@1%3A1.2.13%2Bb1?arch=amd64&distro=debian-12",
        "pkg:pypi/six-pack@1.17.0",
        "app/corten.json",
        "app/run.sh",
        "models/m.joblib",
    ]


def test_a_provenance_tells_no_secret_and_no_path_of_the_machine(small):
    project = small_image.project()
    project = replace(project, settings=replace(project.settings, env={"API_KEY": "hunter2"}))
    small.attach(project=project)

    text = json.dumps(attached(small, STATEMENT_TYPE))
    assert "API_KEY" in text
    for hidden in ("hunter2", "secret", "/home"):
        assert hidden not in text


def test_the_commit_is_read_back_from_a_provenance(small):
    small.attach()
    data = artifact.attached(small.layout, small.image.digest, STATEMENT_TYPE)

    assert commit_from(predicate_of(data, "")) == small_image.COMMIT


@pytest.mark.parametrize("data", [b"", b"[]", b'{"predicate": 1}', b'{"predicateType": "x", "predicate": {}}'])
def test_a_malformed_provenance_is_refused(data):
    with pytest.raises(UsageError) as caught:
        predicate_of(data, "somewhere")
    assert caught.value.code == "store.malformed"


# Contents of layers


def layer(small, kind):
    return next(one for one in small.image.layers if one.kind is kind)


def test_a_wheel_in_the_cache_and_the_layer_made_of_it_tell_the_same(small, tmp_path):
    path = small_image.wheel_file(tmp_path / "six_pack-1.17.0-py3-none-any.whl")
    wheels = layer(small, LayerKind.WHEELS)

    by_file = contents.read(small.layout, wheels, cache=tmp_path / "a", wheels=[path])
    by_layer = contents.read(small.layout, wheels, cache=tmp_path / "b")

    assert by_file == by_layer
    assert [one.name for one in by_file.packages] == ["six-pack"]


def test_files_looked_at_while_a_layer_is_written_and_the_layer_itself_tell_the_same(small, tmp_path):
    (tmp_path / "large.bin").write_bytes(b"weights" * 400_000)
    (tmp_path / "empty").touch()
    entries = [
        Entry("models/a/large.bin", data=tmp_path / "large.bin"),
        Entry("models/config.json", data=b"{}"),
        Entry("models/empty", data=tmp_path / "empty"),
    ]
    hashes = layer_facts.FileHashes()
    written = write_layer(
        hashes.watched(entries), small.layout, kind=LayerKind.WEIGHTS, title="w", compression=Compression.NONE
    )
    assert hashes.contents() == layer_facts.of_layer(small.layout, written)
    assert len(hashes.contents().files) == 3


def test_a_damaged_wheel_in_the_cache_is_not_asked(small, tmp_path):
    path = tmp_path / "six_pack-1.17.0-py3-none-any.whl"
    path.write_bytes(b"PK\x03\x04 but no zip")

    found = contents.read(small.layout, layer(small, LayerKind.WHEELS), cache=tmp_path, wheels=[path])

    assert [one.expression for one in found.packages] == ["MIT"]


def test_contents_are_remembered_by_the_layers_digest(small, tmp_path):
    weights = layer(small, LayerKind.WEIGHTS)
    before = contents.read(small.layout, weights, cache=tmp_path)
    small.layout.path(weights.digest).unlink()

    assert contents.read(small.layout, weights, cache=tmp_path) == before
    with pytest.raises(NotFoundError):
        contents.read(small.layout, weights, cache=tmp_path / "another")


@pytest.mark.parametrize(
    ("metadata", "expression", "licences"),
    [
        ("License: BSD-3-Clause\n", "", ("BSD-3-Clause",)),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n", "", ("MIT License",)),
        (
            "License: Long\n   \n  text of it\nClassifier: License :: OSI Approved :: BSD License\n",
            "",
            ("BSD License",),
        ),
        ("License: MIT\nLicense-Expression: MIT OR Apache-2.0\n", "MIT OR Apache-2.0", ()),
        ("\nLicense: in the description\n", "", ()),
        ("", "", ()),
    ],
)
def test_the_licence_is_what_a_wheels_metadata_declare(metadata, expression, licences):
    fact = layer_facts.wheel_fact("a-1", f"Name: A\nVersion: 1\n{metadata}")

    assert (fact.expression, fact.licences) == (expression, licences)
