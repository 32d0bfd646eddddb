"""The weights alone, mounted by somebody else's runtime: the same blobs, the same file."""

import json
import subprocess
from pathlib import Path

import pytest

from corten.core.digest import Digest
from corten.store.layout import Layout

pytestmark = [pytest.mark.network, pytest.mark.examples]


@pytest.fixture(scope="module")
def built(warm_home, digits_model):
    document = warm_home.run("build", digits_model["paths"][0], "--name", "digits", "--weights-image", "--json").json
    return warm_home, document


def test_it_adds_no_blob_but_documents(built):
    corten, document = built
    layout = Layout(corten.home / "store")
    image, weights = (layout.image(layout.resolve(name).digest) for name in ("digits", "digits-weights"))
    assert document["weights_image"] == f"digits-weights@{weights.digest}"
    assert {layer.digest for layer in weights.layers} < {layer.digest for layer in image.layers}


@pytest.mark.skopeo
def test_skopeo_inspects_and_copies_it_unchanged(built, tmp_path):
    corten, document = built
    source = f"oci:{corten.home}/store:digits-weights"
    done = subprocess.run(["skopeo", "inspect", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Digest"] == document["weights_image"].partition("@")[2]
    copied = subprocess.run(
        ["skopeo", "copy", "--preserve-digests", source, f"oci:{tmp_path}/copy:w"], capture_output=True, timeout=60
    )
    assert copied.returncode == 0, copied.stderr


@pytest.mark.podman
def test_podman_mounts_it_and_the_model_file_is_the_one_that_was_trained(built, folder, digits_model):
    corten, _ = built
    storage = ["podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    pulled = subprocess.run(
        [*storage, "pull", f"oci:{corten.home}/store:digits-weights"], capture_output=True, text=True, timeout=60
    )
    assert pulled.returncode == 0, pulled.stderr
    image = pulled.stdout.strip().splitlines()[-1]
    mounted = subprocess.run([*storage, "image", "mount", image], capture_output=True, text=True, timeout=60)
    assert mounted.returncode == 0, mounted.stderr
    try:
        found = subprocess.run(
            ["find", mounted.stdout.strip().splitlines()[-1], "-type", "f"], capture_output=True, text=True, timeout=30
        ).stdout.splitlines()
        assert [path.rpartition("/models/")[2] for path in found] == ["digits.joblib"]
        assert Digest.of_file(Path(found[0])) == Digest.of_file(digits_model["paths"][0])
    finally:
        subprocess.run([*storage, "image", "umount", image], capture_output=True, timeout=30)


def test_it_stays_when_the_store_is_tidied(built):
    corten, _ = built
    corten.run("gc")
    layout = Layout(corten.home / "store")
    assert layout.verify(layout.resolve("digits-weights").digest).layers


def test_a_model_of_code_alone_is_told_that_it_has_none(warm_home, folder):
    (folder / "echo.py").write_text(
        "class Echo:\n    def predict(self, text: str) -> str:\n        return text\n", encoding="utf-8"
    )
    refused = warm_home.run("build", f"{folder}/echo.py:Echo", "--weights-image", "--json", code=2).json["error"]
    assert refused["code"] == "build.no_weights"
