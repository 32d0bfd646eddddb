"""What is told of images in the store, and of the difference between two."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import msgspec
import pytest
import small_image

from corten.builder.artifact import STATEMENT_TYPE, Artifact, put
from corten.builder.gate import PREDICATE, attach_gate
from corten.builder.index import index_json
from corten.builder.proof import PREDICATE_ANNOTATION
from corten.control.state import State
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import INDEX, LayerKind
from corten.core.platform import Platform
from corten.core.schema import DType, Tensor
from corten.errors import CortenError, NotFoundError, PolicyError, UsageError
from corten.ops.diff import Change, diff
from corten.ops.gc import gc
from corten.ops.images import images, remove_images
from corten.ops.inspect import inspect
from corten.ops.rebuild import Compared, Rebuilt, rebuild


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def small(home):
    stored = small_image.store(home)
    stored.attach()
    return stored


def test_an_empty_store_has_no_images(home):
    assert images(home=home).images == ()
    assert images(home=home).stored_bytes == 0


def test_images_are_listed_by_name_with_those_that_lost_theirs_last(home, small):
    newer = small_image.store(home, weights=b"newer")

    found = images(home=home).images

    assert [(one.name, one.digest) for one in found] == [("iris", newer.image.digest), ("", small.image.digest)]
    assert [len(one.attached) for one in found] == [0, 3]
    assert found[1].size_bytes == small.image.size_bytes


# Names that go


def deploy(home, digest, name="fraud"):
    home.state.mkdir(exist_ok=True)
    state = State.open(home.state / "corten.db")
    state.deploy(name, digest, Settings(), generation=None, now_s=1.0)
    state.close()


def names(home):
    return [one.name for one in images(home=home).images]


def test_a_name_that_is_removed_leaves_the_image_to_be_collected(home, small):
    removed = remove_images(["iris"], home=home)

    assert removed.as_dict() == {
        "dry_run": False, "removed": [{"name": "iris", "digest": str(small.image.digest)}],
    }  # fmt: skip
    assert names(home) == [""]
    gc(home=home, now_s=time.time() + 120)
    assert images(home=home).images == ()
    assert images(home=home).stored_bytes == 0


def test_a_dry_run_removes_no_name(home, small):
    assert remove_images(["iris"], home=home, dry_run=True).names == (("iris", small.image.digest),)
    assert names(home) == ["iris"]


def test_digits_of_a_digest_mean_all_names_of_that_image(home, small):
    small.layout.tag("localhost:5000/iris:1", small.manifest)

    assert len(remove_images([small.image.digest.hex[:8]], home=home).names) == 2
    with pytest.raises(UsageError) as caught:
        remove_images([str(small.image.digest)], home=home)
    assert caught.value.code == "store.image_unnamed"


def test_a_name_with_a_digest_means_that_name(home, small):
    small.layout.tag("localhost:5000/iris:1", small.manifest)

    remove_images([f"iris@{small.image.digest}"], home=home)
    assert names(home) == ["localhost:5000/iris:1"]


def test_one_unknown_name_keeps_all(home, small):
    del small
    with pytest.raises(NotFoundError) as caught:
        remove_images(["iris", "irsi"], home=home)
    assert caught.value.code == "store.image_unknown"
    assert names(home) == ["iris"]


def test_the_last_name_of_what_a_deployment_runs_stays(home, small):
    deploy(home, small.image.digest)
    with pytest.raises(CortenError) as caught:
        remove_images(["iris"], home=home)
    assert (caught.value.code, caught.value.exit_code) == ("store.image_in_use", 1)
    assert "`fraud`" in caught.value.why
    assert caught.value.hint == "corten stop fraud"
    assert names(home) == ["iris"]

    small.layout.tag("other", small.manifest)
    remove_images(["iris"], home=home)
    assert names(home) == ["other"]


def test_a_platform_of_an_index_in_use_keeps_the_indexs_name(home, small):
    index = small.layout.put(index_json([(Platform("amd64"), small.manifest)]), INDEX)
    small.layout.tag("iris", index)
    deploy(home, small.image.digest)

    with pytest.raises(CortenError) as caught:
        remove_images(["iris"], home=home)
    assert caught.value.code == "store.image_in_use"


def test_the_name_of_an_image_that_cannot_be_read_can_go(home, small):
    small.layout.path(small.image.digest).write_bytes(b"{")

    remove_images(["iris"], home=home)
    assert names(home) == [""]


def test_what_a_test_found_is_told_and_compared(home, small):
    assert inspect("iris", home=home).tested is None
    code = small.image.layers[-1].digest
    attach_gate(small.layout, small.manifest, name="iris", code=code, checks=("predict: answered", "readyz"))
    other = small_image.store(home, small_image.plan(spec=small_image.renamed(small_image.SPEC, "other")))
    recorded = ("predict: recorded", "readyz")
    attach_gate(other.layout, other.manifest, name="other", code=code, checks=recorded)

    tested = inspect("iris", home=home).tested
    assert (tested.result, tested.passed) == ("PASSED", ("predict: answered", "readyz"))
    (change,) = [one for one in diff("iris", "other", home=home).settings if one.kind == "gate"]
    assert (change.before, change.after) == ("passed; predict: answered, readyz", "passed; predict: recorded, readyz")


def test_an_image_that_was_not_tested_differs_from_one_that_was(home, small):
    other = small_image.store(home, small_image.plan(spec=small_image.renamed(small_image.SPEC, "other")))
    attach_gate(other.layout, other.manifest, name="other", code=other.image.digest, checks=("readyz",))

    assert Change("gate", "result", "not tested", "passed; readyz") in diff("iris", "other", home=home).settings


def test_a_malformed_test_result_is_refused_by_name(home, small):
    artifact_of_nothing = Artifact(STATEMENT_TYPE, "x", b'{"predicate": []}', {PREDICATE_ANNOTATION: PREDICATE})
    small.layout.attach(small.image.digest, [put(small.layout, artifact_of_nothing, small.manifest)])

    with pytest.raises(UsageError) as caught:
        inspect("iris", home=home)
    assert caught.value.code == "store.malformed"


def test_an_image_that_cannot_be_read_is_listed_with_its_trouble(home, small):
    small.layout.path(small.image.digest).unlink()

    (found,) = images(home=home).images

    assert found.name == "iris"
    assert "not in the store" in found.trouble


def test_an_image_tells_its_model_packages_files_and_commit(home, small):
    seen = inspect("iris", home=home)

    assert seen.reference == f"iris@{small.image.digest}"
    assert seen.spec.schema == small_image.SCHEMA
    assert [(one.kind, one.name, one.version) for one in seen.packages] == [
        ("deb", "zlib1g", "1:1.2.13+b1"),
        ("wheel", "six-pack", "1.17.0"),
    ]
    assert [one.name for one in seen.files] == ["app/corten.json", "app/run.sh", "models/m.joblib"]
    assert seen.provenance.commit == small_image.COMMIT
    assert len(seen.attached) == 3
    json.dumps(seen.as_dict())


def test_an_image_nothing_is_attached_to_tells_its_packages_by_its_layers(home):
    small_image.store(home)

    seen = inspect("iris", home=home)

    assert [(one.name, one.version, one.licence, one.digest) for one in seen.packages] == [
        ("zlib1g", "1:1.2.13+b1", "Zlib", None),
        ("six-pack", "1.17.0", "MIT", None),
    ]
    assert seen.provenance is None


def test_a_damaged_sbom_is_refused(home, small):
    descriptor = small.layout.referrers(small.image.digest, "application/vnd.cyclonedx+json")[0]
    blob = json.loads(small.layout.read(descriptor.digest))["layers"][0]["digest"]
    small.layout.path(Digest.parse(blob)).write_bytes(b"{}")

    with pytest.raises(PolicyError) as caught:
        inspect("iris", home=home)
    assert caught.value.code == "store.blob_corrupt"


def other(home, **options):
    spec = msgspec.structs.replace(small_image.SPEC, name="other", **options.pop("spec", {}))
    weights = options.pop("weights", b"weights")
    stored = small_image.store(home, small_image.plan(spec=spec, **options), weights=weights)
    stored.attach()
    return stored


def test_one_image_by_two_names_does_not_differ(home, small):
    found = diff("iris", str(small.image.digest), home=home)

    assert found.same
    assert (found.packages, found.files, found.schema, found.settings) == ((), (), (), ())


def test_changed_weights_are_told_by_digest(home, small):
    other(home, weights=b"others")

    found = diff("iris", "other", home=home)

    (change,) = found.files
    assert (change.kind, change.name) == ("weights", "/models/m.joblib")
    assert change.before == f"{Digest.of(b'weights').short} (7 bytes)"
    assert not found.packages


def test_packages_that_came_went_and_changed_are_told(home, small):
    newer = small_image.wheel("1.18.0")
    other(home, wheels=[newer, replace(newer, name="numpy")], debs=[])

    assert diff("iris", "other", home=home).packages == (
        Change("deb", "zlib1g", "1:1.2.13+b1", ""),
        Change("wheel", "numpy", "", "1.18.0"),
        Change("wheel", "six-pack", "1.17.0", "1.18.0"),
    )


def test_another_file_of_the_same_version_is_a_change(home, small):
    other(home, wheels=[replace(small_image.wheel(), digest=Digest.of(b"patched"))])

    (change,) = diff("iris", "other", home=home).packages
    assert change.after == f"1.17.0 ({Digest.of(b'patched').short})"


def test_settings_and_labels_that_changed_are_told_once(home, small):
    other(home, spec={"method": "predict_proba"}, labels={"team": "fraud"})

    changed = {(one.kind, one.name): (one.before, one.after) for one in diff("iris", "other", home=home).settings}
    assert changed == {
        ("label", "team"): ("", "fraud"),
        ("label", "org.opencontainers.image.title"): ("iris", "other"),
        ("model", "method"): ("predict", "predict_proba"),
    }


def test_a_schema_that_breaks_clients_is_told_so(home, small):
    schema = msgspec.structs.replace(small_image.SCHEMA, inputs=(Tensor("x", DType.FLOAT64, (None, 5)),))
    other(home, spec={"schema": schema})

    found = diff("iris", "other", home=home)
    assert found.breaking
    assert found.as_dict()["schema"] == [
        {"what": "input `x` has the shape [*, 5], had [*, 4]", "breaking": True},
    ]


# Rebuild


def test_an_image_without_its_lock_cannot_be_built_again(home):
    small_image.store(home)

    with pytest.raises(NotFoundError) as caught:
        rebuild("iris", home=home)
    assert caught.value.code == "rebuild.no_lock"
    assert not list(home.cache.glob("rebuild-*"))


def rebuilt(after, *, built_by="0.1.0"):
    a, b = Digest.of(b"a"), Digest.of(b"b")
    layers = (Compared(LayerKind.BASE.value, "Debian", a, a), Compared(LayerKind.WHEELS.value, "numpy 2", a, after))
    return (
        Rebuilt("iris", a, after, layers, built_by, "0.1.0", 1.0)
        if after
        else Rebuilt("iris", a, b, layers[:1], built_by, "0.1.0", 1.0)
    )


def test_a_rebuild_that_gives_the_same_is_no_error():
    rebuilt(Digest.of(b"a")).verify()


def test_a_rebuild_that_gives_something_else_names_the_layers():
    with pytest.raises(PolicyError) as caught:
        rebuilt(Digest.of(b"b")).verify()
    assert (caught.value.code, caught.value.exit_code) == ("rebuild.differs", 7)
    assert "layers that differ: numpy 2" in caught.value.why
    assert "Debian" not in caught.value.why


def test_another_version_of_corten_is_given_as_the_likely_cause():
    with pytest.raises(PolicyError) as caught:
        rebuilt(Digest.of(b"b"), built_by="0.0.9").verify()
    assert "0.0.9" in caught.value.why


def test_a_manifest_may_differ_while_no_layer_does():
    with pytest.raises(PolicyError) as caught:
        rebuilt(None).verify()
    assert "config or manifest" in caught.value.why
