"""Whole builds with the real index and mirror: what is made, what is made again, what is refused."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from corten.core.events import Phase
from corten.core.home import Home
from corten.core.image import Compression, LayerKind, Packing
from corten.core.platform import Platform
from corten.errors import CortenError, PolicyError, RemoteError, UsageError
from corten.ops.build import build
from corten.ops.rebuild import rebuild
from corten.store.layout import Layout

pytestmark = [pytest.mark.network, pytest.mark.examples]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two forests on digits, of different seeds."""
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    folder = tmp_path_factory.mktemp("models")
    inputs, classes = load_digits(return_X_y=True)
    for seed in (0, 1):
        forest = RandomForestClassifier(10, random_state=seed).fit(inputs, classes)
        joblib.dump(forest, folder / f"digits{seed}.joblib")
    return folder


@pytest.fixture(scope="module")
def home():
    """One installation for all builds of this module, so that wheels are downloaded once."""
    folder = Path(tempfile.mkdtemp(prefix="corten-build-"))
    yield Home(folder)
    shutil.rmtree(folder)


@pytest.fixture
def model(models, tmp_path):
    shutil.copy(models / "digits0.joblib", tmp_path / "digits.joblib")
    return tmp_path / "digits.joblib"


def _by_kind(built):
    kinds = {}
    for layer in built.image.layers:
        kinds.setdefault(layer.kind, []).append(layer)
    return kinds


def test_an_image_has_base_wheels_server_weights_and_code(model, home):
    built = build(model, home=home)

    kinds = _by_kind(built)
    assert built.reference == f"digits@{built.digest}"
    assert [len(kinds[kind]) for kind in (LayerKind.BASE, LayerKind.RUNTIME, LayerKind.WEIGHTS, LayerKind.CODE)] == [
        1
    ] * 4
    assert {layer.title.split()[0] for layer in kinds[LayerKind.WHEELS]} >= {"numpy", "scipy", "scikit-learn", "small"}
    assert built.size_bytes < 110_000_000
    assert kinds[LayerKind.WEIGHTS][0].compression is Compression.NONE
    layout = Layout(home.store)
    layout.verify(built.digest)
    assert layout.resolve("digits").digest == built.digest
    with tarfile.open(layout.path(kinds[LayerKind.WEIGHTS][0].digest)) as archive:
        assert archive.extractfile("models/digits.joblib").read() == model.read_bytes()


def test_an_unchanged_build_takes_everything_from_the_cache(model, home):
    first = build(model, home=home)
    second = build(model, home=home, offline=True, locked=True)

    assert second.digest == first.digest
    assert all(layer.cached for layer in second.layers)


def test_changed_weights_move_one_layer_and_the_manifest(model, models, home):
    before = build(model, home=home)
    shutil.copy(models / "digits1.joblib", model)
    after = build(model, home=home)

    moved = {layer.kind for layer in after.image.layers} - {
        layer.kind for layer in after.image.layers if layer in before.image.layers
    }
    assert moved == {LayerKind.WEIGHTS}
    assert [layer.kind for layer in after.layers if not layer.cached] == ["weights"]


def test_an_empty_layer_cache_gives_the_same_digest(model, home):
    before = build(model, home=home)
    shutil.rmtree(home.cache / "layers")
    shutil.rmtree(home.cache / "inspections")
    shutil.rmtree(home.store)

    after = build(model, home=home)

    assert after.digest == before.digest
    assert not [layer for layer in after.layers if layer.cached]


def test_a_damaged_wheel_in_the_cache_is_fetched_again(model, home):
    before = build(model, home=home)
    wheel = next(home.cache.glob("wheels/*/joblib-*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:-100] + bytes(100))
    shutil.rmtree(home.cache / "layers")

    assert build(model, home=home).digest == before.digest


def test_a_damaged_blob_is_found_and_made_again(model, home):
    built = build(model, home=home)
    layout = Layout(home.store)
    layer = next(layer for layer in built.image.layers if layer.title == "small wheels")
    path = layout.path(layer.digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(PolicyError):
        layout.verify(built.digest)
    assert build(model, home=home).digest == built.digest
    layout.verify(built.digest)


def test_a_platform_is_built_on_another(model, home):
    built = build(model, home=home, platform=Platform("arm64"), name="digits-arm")

    assert str(built.image.platform) == "linux/arm64"
    layout = Layout(home.store)
    numpy = next(layer for layer in built.image.layers if layer.title.startswith("numpy"))
    with tarfile.open(layout.path(numpy.digest)) as archive:
        machines = {
            int.from_bytes(archive.extractfile(member).read(20)[18:20], "little")
            for member in archive
            if member.name.endswith(".so")
        }
    assert machines == {183}, "EM_AARCH64"


def test_others_tools_read_the_image(model, home):
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    built = build(model, home=home)
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{home.store}:digits"], capture_output=True, text=True, timeout=60, check=True
    )
    seen = json.loads(done.stdout)

    assert seen["Digest"] == str(built.digest)
    assert seen["Layers"] == [str(layer.digest) for layer in built.image.layers]


@pytest.mark.parametrize("packing", [Packing.GZIP, Packing.ZSTD])
def test_one_compression_of_all_layers_can_be_asked_for(model, home, packing):
    built = build(model, home=home, packing=packing, name=f"digits-{packing.value}")

    plain = build(model, home=home)
    assert {layer.compression for layer in built.image.layers} == {Compression[packing.name], Compression.NONE}
    # The last layer names the model, which has another name here; all others hold the same files.
    contents = [[layer.diff_id for layer in image.layers[:-1]] for image in (built.image, plain.image)]
    assert contents[0] == contents[1]
    again = rebuild(built.name, home=home)
    assert again.before == again.after


def test_wheels_stay_in_the_compression_they_came_in(model, home):
    kinds = _by_kind(build(model, home=home))

    assert {layer.compression for layer in kinds[LayerKind.WHEELS]} == {Compression.GZIP}
    assert {layer.compression for layer in kinds[LayerKind.BASE]} == {Compression.ZSTD}
    largest = max(kinds[LayerKind.WHEELS], key=lambda layer: layer.size_bytes)
    wheel = max(home.cache.rglob("scipy-*.whl"), key=lambda path: path.stat().st_size)
    assert largest.title.startswith("scipy")
    assert largest.size_bytes < wheel.stat().st_size * 1.02


@pytest.fixture
def project(model):
    (model.parent / "corten.toml").write_text('name = "own"\nsource = "digits.joblib"\n')
    return model.parent


def test_a_projects_lock_lies_beside_it_and_is_kept(project, home):
    build(project, home=home)
    lock = (project / "corten.lock").read_text()

    build(project, home=home, locked=True)

    assert (project / "corten.lock").read_text() == lock
    assert str(project) not in lock


def test_a_lock_alone_makes_the_same_image_in_another_installation(project, home, tmp_path):
    built = build(project, home=home)
    (tmp_path / "other" / "cache").mkdir(parents=True)
    for kind in ("wheels", "debs"):
        shutil.copytree(home.cache / kind, tmp_path / "other" / "cache" / kind)

    again = build(project, home=Home(tmp_path / "other"), offline=True, locked=True)

    assert again.digest == built.digest


def test_a_lock_that_no_longer_fits_is_not_changed_when_locked(project, home):
    build(project, home=home)
    before = (project / "corten.lock").read_text()

    with pytest.raises(UsageError) as caught:
        build(project, home=home, requirements=["narwhals<2"], locked=True)

    assert caught.value.code == "build.lock_outdated"
    assert (project / "corten.lock").read_text() == before


def test_offline_without_a_lock_is_refused(model, tmp_path):
    with pytest.raises(UsageError) as caught:
        build(model, home=Home(tmp_path / "empty"), offline=True)
    assert caught.value.code == "build.offline"


def test_a_dry_run_says_what_would_be_and_writes_nothing_into_the_project(project, home):
    built = build(project, home=home, dry_run=True)

    assert "numpy" in built.plan.describe()
    assert built.reference == ""
    assert not (project / "corten.lock").exists()
    with pytest.raises(UsageError):
        _ = built.digest


def test_requirements_nobody_can_satisfy_are_told_with_the_reason(model, home):
    with pytest.raises(UsageError) as caught:
        build(model, home=home, requirements=["scipy>=99"])

    assert caught.value.code == "build.lock_failed"
    assert "scipy" in caught.value.why
    assert "error:" not in caught.value.why


def test_an_index_that_is_not_there_is_a_remote_error(model, tmp_path):
    env = {**os.environ, "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}

    with pytest.raises(RemoteError) as caught:
        build(model, home=Home(tmp_path / "home"), env=env)

    assert caught.value.code == "build.index_unreachable"
    # What was made beside the lock, weights and base, may be there; an image is not.
    assert not Layout(Home(tmp_path / "home").store).listed()


def test_what_no_adapter_knows_is_told_with_its_first_bytes(tmp_path, home):
    (tmp_path / "model.bin").write_bytes(b"GARBAGE!")

    with pytest.raises(UsageError) as caught:
        build(tmp_path / "model.bin", home=home)

    assert caught.value.code == "build.unknown_model"
    assert "GARBAGE!" in caught.value.why


def test_two_models_in_a_folder_are_ambiguous(models, home):
    with pytest.raises(UsageError) as caught:
        build(models, home=home)
    assert caught.value.code == "build.several_models"


def test_a_class_and_a_file_beside_it_are_told_how_to_be_one_model(model, home):
    (model.parent / "ask.py").write_text("class Ask:\n    def predict(self, text: str) -> str:\n        return text\n")
    with pytest.raises(UsageError) as caught:
        build(model.parent, home=home)
    assert caught.value.code == "build.several_models"
    assert f"corten build {model.parent}/ask.py --file {model}" in caught.value.hint


def test_steps_are_told_as_they_happen(model, tmp_path, home):
    events = []
    build(model, home=home, name="told", listen=events.append)

    steps = [event.step for event in events if event.phase is Phase.DONE]
    assert [steps.index(step) for step in ("inspect", "lock", "base", "image")] == sorted(
        steps.index(step) for step in ("inspect", "lock", "base", "image")
    )


def test_weights_are_packed_while_the_lock_is_made(models, home, tmp_path):
    fresh = tmp_path / "fresh.joblib"
    fresh.write_bytes((models / "digits1.joblib").read_bytes())
    events = []
    build(fresh, home=home, name="early", upgrade=True, listen=events.append)

    told = [(event.step, event.phase) for event in events]
    assert told.index(("weights", Phase.STARTED)) < told.index(("lock", Phase.DONE))


def test_a_failed_build_leaves_no_name(model, home, monkeypatch):
    def fail(*args, **more):
        raise CortenError("store.disk_full", "no space")

    monkeypatch.setattr("corten.store.layout.Layout.put", fail)
    with pytest.raises(CortenError):
        build(model, home=home, name="never")
    assert "never" not in [name for name, _ in Layout(home.store).images()]
