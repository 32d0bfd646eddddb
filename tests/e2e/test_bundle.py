"""From a machine with a network to one without, in one file; other tools read it too."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from stories import CORTEN, Corten, ask, end, make_home

from corten.store.layout import Layout

pytestmark = [pytest.mark.network, pytest.mark.examples]


@pytest.fixture(scope="module")
def bundles(digits_model):
    """Two versions of a model as a bundle and as a delta to it: (corten, folder)."""
    corten = Corten(make_home())
    folder = make_home()
    corten.run("build", digits_model["paths"][0], "--name", "digits")
    corten.run("export", "digits", folder / "one.tar")
    corten.run("build", digits_model["paths"][1], "--name", "digits")
    corten.run("export", "digits", folder / "two.tar", "--delta-from", folder / "one.tar")
    yield corten, folder
    end(corten)
    shutil.rmtree(folder)


@pytest.mark.bwrap
@pytest.mark.envoy
def test_a_machine_without_a_network_runs_what_was_carried_to_it(bundles, cold, port):
    _, folder = bundles
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    first = cold.run("import", folder / "one.tar", "--json", env=offline).json
    assert first["attached"] >= 1, "at least the lock came along"
    url = cold.run("deploy", "digits", "--port", str(port), "--json", env=offline).json["url"]
    assert ask(url, {"inputs": [[0.0] * 64]})[0] == 200
    second = cold.run("import", folder / "two.tar", "--json", env=offline).json
    assert second["images"][0]["digest"] != first["images"][0]["digest"]
    deployed = cold.run("deploy", "digits", "--json", env=offline).json
    assert (deployed["revision"], deployed["image"]) == ("r2", second["images"][0]["digest"])


def test_a_delta_is_as_small_as_what_changed(bundles):
    corten, folder = bundles
    layers = Layout(corten.home / "store").image(Layout(corten.home / "store").resolve("digits").digest).layers
    changed = sum(layer.size_bytes for layer in layers if layer.kind.value in ("weights", "code"))
    # Manifest, config and what is attached (the SBOM lists every file's package) besides the changed layers.
    assert (folder / "two.tar").stat().st_size < changed + 400_000
    assert (folder / "one.tar").stat().st_size > 20 * (folder / "two.tar").stat().st_size


def test_a_delta_alone_is_refused_by_name(bundles, cold):
    refused = cold.run("import", bundles[1] / "two.tar", "--json", code=3).json["error"]
    assert refused["code"] == "bundle.incomplete"
    assert "scikit-learn" in refused["why"] or "numpy" in refused["why"]
    assert Layout(cold.home / "store").images() == ()


@pytest.mark.skopeo
def test_skopeo_copies_it_with_the_same_digest(bundles, tmp_path):
    corten, folder = bundles
    done = subprocess.run(
        ["skopeo", "copy", "--preserve-digests", f"oci-archive:{folder / 'one.tar'}", f"oci:{tmp_path / 'copy'}:digits"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "copy" / "index.json").read_text())
    with_names = corten.run("import", folder / "one.tar", "--name", "again", "--json").json
    assert index["manifests"][0]["digest"] == with_names["images"][0]["digest"]


@pytest.mark.podman
def test_podman_loads_it(bundles, folder):
    storage = ["podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    done = subprocess.run(
        [*storage, "load", "-i", str(bundles[1] / "one.tar")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "localhost/digits" in done.stdout


def test_an_import_killed_at_any_moment_leaves_a_valid_store_and_is_simply_repeated(bundles, cold):
    archive, ends = bundles[1] / "one.tar", []
    for round_number in range(8):
        process = subprocess.Popen(
            [str(CORTEN), "import", str(archive)], env={**os.environ, "CORTEN_HOME": str(cold.home)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.15 + 0.03 * round_number)
        process.send_signal(signal.SIGKILL)
        ends.append(process.wait(timeout=10))
        layout = Layout(cold.home / "store")
        for _, entry in layout.images():
            layout.verify(entry.digest)
    assert -signal.SIGKILL in ends
    cold.run("import", archive)
    Layout(cold.home / "store").verify(Layout(cold.home / "store").resolve("digits").digest)


def test_a_disk_that_is_full_is_said_and_the_import_repeated_once_there_is_room(bundles, folder):
    small = folder / "small"
    small.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)], capture_output=True, timeout=10
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("no right to mount a small file system")
    try:
        corten = Corten(small / "home")
        refused = corten.run("import", bundles[1] / "one.tar", "--json", code=1).json["error"]
        assert refused["code"] == "store.disk_full"
        assert Layout(corten.home / "store").images() == ()
        subprocess.run(["mount", "-o", "remount,size=400m", str(small)], check=True, timeout=10)
        corten.run("import", bundles[1] / "one.tar")
    finally:
        subprocess.run(["umount", str(small)], check=True, timeout=10)
