"""Layers as other tools take them, in either compression or both; unpacked, copied and run by umoci, skopeo, Podman."""

import json
import subprocess

import pytest

from corten.store.layout import Layout

pytestmark = [pytest.mark.network]
SHOUT = "class Shout:\n    def predict(self, text: str) -> str:\n        return text.upper()\n"


@pytest.fixture(scope="module")
def built(warm_home, tmp_path_factory):
    """The same model with weights beside it, by each way to store layers: what `build --json` says, by name."""
    folder = tmp_path_factory.mktemp("shout")
    (folder / "shout.py").write_text(SHOUT)
    (folder / "words.txt").write_text("a b c\n" * 1000)
    settings = 'name = "shout"\nsource = "shout.py:Shout"\nfiles = ["words.txt"]\n'
    made = {}
    for compression in ("auto", "zstd", "gzip"):
        (folder / "corten.toml").write_text(f'{settings}compression = "{compression}"\n')
        made[compression] = warm_home.run("build", folder, "--name", f"shout-{compression}", "--json").json
    (folder / "corten.toml").write_text(settings)
    made["flag"] = warm_home.run("build", folder, "--name", "shout-gzip", "--compress", "gzip", "--json").json
    return made


def media_types(corten, name):
    layout = Layout(corten.home / "store")
    manifest = json.loads(layout.read(layout.resolve(name).digest))
    return {layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]}


def test_the_setting_and_the_flag_give_the_same_image_and_weights_stay_plain(corten, built):
    assert built["flag"]["digest"] == built["gzip"]["digest"] != built["zstd"]["digest"]
    assert media_types(corten, "shout-gzip") == {"tar+gzip", "tar"}
    assert media_types(corten, "shout-zstd") == {"tar+zstd", "tar"}
    assert media_types(corten, "shout-auto") == {"tar+zstd", "tar+gzip", "tar"}
    for name in ("shout-auto", "shout-gzip"):
        assert corten.run("rebuild", name, "--verify", "--offline").out.startswith("the same: ")


@pytest.mark.umoci
def test_umoci_unpacks_gzip(corten, built, tmp_path):
    store = f"{corten.home}/store:shout-gzip"
    done = subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", store, str(tmp_path / "bundle")], capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "app" / "shout.py").read_text() == SHOUT
    assert (root / "models" / "words.txt").read_text() == "a b c\n" * 1000
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert config["process"]["args"] == ["/usr/bin/python3", "-m", "corten.serve"]
    assert (config["process"]["user"]["uid"], config["process"]["cwd"]) == (65532, "/app")


@pytest.mark.skopeo
@pytest.mark.parametrize("compression", ["auto", "gzip"])
def test_skopeo_keeps_the_digest_only_when_it_is_told_to(corten, built, tmp_path, compression):
    source = f"oci:{corten.home}/store:shout-{compression}"

    def copied(name, *words):
        target = tmp_path / name
        subprocess.run(["skopeo", "copy", "-q", *words, source, f"oci:{target}:x"], check=True, timeout=120)
        return json.loads((target / "index.json").read_text())["manifests"][0]["digest"]

    assert copied("kept", "--preserve-digests") == built[compression]["digest"]
    # The trap: weights are compressed on the way, and the signature is about another image then.
    assert copied("changed") != built[compression]["digest"]


@pytest.mark.podman
@pytest.mark.parametrize("compression", ["auto", "zstd", "gzip"])
def test_podman_runs_each(corten, built, compression):
    source = f"oci:{corten.home}/store:shout-{compression}"
    pulled = subprocess.run(["podman", "pull", "-q", source], capture_output=True, text=True, timeout=200)
    assert pulled.returncode == 0, pulled.stderr
    image = pulled.stdout.split()[-1]
    limits = ["--runtime", "runc", "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096", "--network", "none"]
    words = ["-c", "import shout, corten.serve; print(shout.Shout().predict('a'), open('/models/words.txt').read(5))"]
    try:
        done = subprocess.run(
            ["podman", "run", "--rm", *limits, "--entrypoint", "/usr/bin/python3", image, *words],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (done.stdout, done.returncode) == ("A a b c\n", 0), done.stderr
    finally:
        subprocess.run(["podman", "rmi", "-f", image], capture_output=True, timeout=60)


def test_an_unknown_compression_is_named(corten, folder):
    (folder / "shout.py").write_text(SHOUT)
    (folder / "corten.toml").write_text('source = "shout.py:Shout"\ncompression = "brotli"\n')
    error = corten.run("build", folder, "--json", code=2).json["error"]
    assert (error["code"], "compression" in error["why"]) == ("source.bad_config", True)
    assert corten.run("build", folder, "--compress", "brotli", code=2).out == ""
