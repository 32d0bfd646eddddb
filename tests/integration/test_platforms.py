"""One build for several processors: an index whose other half runs elsewhere, shown by running it here under QEMU."""

import json
import shutil
import struct
import subprocess

import pytest
from ports import free_port
from stories import Corten, ask, diagnosis_in, end, get, make_home, until

from corten.core.platform import Platform
from corten.engine.plain import plain_process
from corten.store.layout import Layout
from corten.store.trees import Trees

pytestmark = [pytest.mark.network, pytest.mark.examples]
ARM64 = Platform("arm64")
AARCH64 = 183  # e_machine of elf(5)


@pytest.fixture(scope="module")
def built():
    """The diagnosis example built once for both platforms: (corten, the build's document)."""
    corten = Corten(make_home())
    source = diagnosis_in(corten.home)
    try:
        yield corten, corten.run("build", source, "--platform", "linux/amd64,linux/arm64", "--json").json
    finally:
        end(corten)


def machines(root):
    """How many ELF files of each machine a tree holds."""
    found = {}
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as stream:
            header = stream.read(20)
        if header[:4] == b"\x7fELF":
            machine = struct.unpack_from("<H", header, 18)[0]
            found[machine] = found.get(machine, 0) + 1
    return found


def test_the_name_points_at_an_index_with_an_image_for_each_platform(built):
    corten, document = built
    layout = Layout(corten.home / "store")
    index = layout.resolve("diagnosis")
    assert str(index.digest) == document["digest"]
    assert {str(entry.platform): str(entry.digest) for entry in layout.platforms(index.digest)} == {
        one["platform"]: one["digest"] for one in document["platforms"]
    }
    assert [one["platform"] for one in document["platforms"]] == ["linux/amd64", "linux/arm64"]


def test_one_lock_file_holds_a_lock_for_each_platform(built):
    corten, _ = built
    locks = json.loads((corten.home / "diagnosis" / "corten.lock").read_text())["locks"]
    assert [lock["platform"] for lock in locks] == ["linux/amd64", "linux/arm64"]
    assert any(wheel["filename"].endswith("aarch64.whl") for wheel in locks[1]["wheels"])
    assert not any("x86_64" in wheel["filename"] for wheel in locks[1]["wheels"])


def test_weights_code_and_server_are_the_same_blobs_for_both(built):
    _, document = built
    one, other = ({layer["digest"]: layer["kind"] for layer in each["layers"]} for each in document["platforms"])
    assert {one[digest] for digest in one.keys() & other.keys()} == {"runtime", "weights", "code"}


def test_building_again_gives_the_same_index(built):
    corten, document = built
    again = corten.run(
        "build", corten.home / "diagnosis", "--platform", "linux/arm64,linux/amd64", "--json", "--offline"
    )
    assert again.json["digest"] == document["digest"]


@pytest.mark.skopeo
@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_skopeo_finds_each_platform_in_the_index(built, architecture):
    done = subprocess.run(
        ["skopeo", f"--override-arch={architecture}", "inspect", f"oci:{built[0].home}/store:diagnosis"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Architecture"] == architecture


@pytest.mark.bwrap
@pytest.mark.envoy
def test_an_index_is_deployed_as_this_machines_image(built):
    corten, document = built
    deployed = corten.run("deploy", "diagnosis", "--port", str(free_port()), "--json").json
    here = str(Platform.of_machine())
    assert deployed["image"] == next(one["digest"] for one in document["platforms"] if one["platform"] == here)
    assert corten.run("predict", "diagnosis", "--json", "--example").code == 0


@pytest.fixture(scope="module")
def arm64(built):
    """The arm64 image unpacked: (image, prepared, folder with app and models)."""
    layout = Layout(built[0].home / "store")
    image = layout.image(layout.resolve("diagnosis").digest, ARM64)
    trees = Trees(layout, built[0].home / "trees-arm64")
    prepared = trees.prepare(image)
    return image, prepared, trees.view(image, prepared)


def test_every_program_and_library_of_the_arm64_image_is_for_arm64(arm64):
    _, prepared, _ = arm64
    found = machines(prepared.root)
    assert set(found) == {AARCH64}
    assert found[AARCH64] > 100, "Python, its extensions, numpy, scipy, scikit-learn"


@pytest.mark.qemu
@pytest.mark.bwrap
@pytest.mark.envoy
@pytest.mark.slow
def test_the_arm64_image_answers_as_this_machines_does(built, arm64, tmp_path):
    # scikit-learn, as onnxruntime's library crashes at import under QEMU 7.2.
    image, prepared, view = arm64
    body = {"inputs": [[0.5] * 30, [20.0] * 30]}
    url = f"http://127.0.0.1:{free_port()}/"
    plain = plain_process(image, prepared.root, view, {**image.env, "CORTEN_LISTEN": url.split("/")[2]})
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [shutil.which("qemu-aarch64-static"), *plain.argv],
            env=dict(plain.env), cwd=plain.working_dir, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: ready(process, url), "the emulated server is ready", deadline_s=240)
        status, emulated = ask(url, body, timeout_s=60)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert status == 200
    native = built[0].run("deploy", "diagnosis", "--json").json["url"]
    assert emulated["outputs"] == pytest.approx(ask(native, body)[1]["outputs"])


def ready(process, url):
    assert process.poll() is None, "the emulated server ended"
    try:
        return get(url, "readyz")[0] == 200
    except OSError:
        return False
