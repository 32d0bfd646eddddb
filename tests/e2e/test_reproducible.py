"""The same inputs give the same digest, whoever builds, where, when; and others' tools can read and run the image."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from others import python_for_others
from stories import CORTEN, Corten, end, make_home, until

pytestmark = [pytest.mark.network, pytest.mark.examples]
PODMAN_RUN = ("--runtime", "runc")
# Rlimits of the outer container cannot be raised, only kept.
PODMAN_LIMITS = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096")


@pytest.fixture(scope="module")
def image(digits_model):
    """The digits model built in a fresh home as root with the usual umask; (corten, reference)."""
    corten = Corten(make_home())
    reference = corten.run("build", digits_model["paths"][0]).out.strip()
    yield corten, reference
    end(corten)


def test_standard_output_is_the_digest_reference_and_nothing_else(image):
    name, _, digest = image[1].partition("@")
    assert name == "digits"
    assert digest.startswith("sha256:")
    assert len(digest) == len("sha256:") + 64


def test_another_folder_time_umask_zone_and_locale_give_the_same_digest(image, cold, folder, digits_model):
    copy = folder / "elsewhere" / "digits.joblib"
    copy.parent.mkdir()
    shutil.copyfile(digits_model["paths"][0], copy)
    os.utime(copy, (1_000_000_000, 1_000_000_000))
    copy.chmod(0o600)
    done = subprocess.run(
        [str(CORTEN), "build", "digits.joblib"],
        cwd=copy.parent, capture_output=True, text=True, timeout=240, umask=0o077,
        env={**os.environ, "CORTEN_HOME": str(cold.home), "TZ": "Pacific/Chatham", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == image[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can build as somebody else")
def test_another_user_gets_the_same_digest(image, folder, digits_model):
    python, packages = python_for_others()
    home = folder / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    model = folder / "digits.joblib"
    shutil.copyfile(digits_model["paths"][0], model)
    model.chmod(0o644)
    done = subprocess.run(
        [python, "-m", "corten", "build", str(model)],
        capture_output=True, text=True, timeout=240, cwd=folder, user=65534, group=65534, extra_groups=[],
        env={
            # Certificates and proxies are the machine's; the rest is the other user's own.
            **{key: text for key, text in os.environ.items() if key.startswith("SSL_") or key.lower().endswith("_proxy")},
            "PATH": "/usr/bin:/bin", "PYTHONPATH": packages, "HOME": str(home),
            "CORTEN_HOME": str(home / "corten"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == image[1]


def test_building_again_with_nothing_changed_takes_the_same_digest_from_the_cache(image, digits_model):
    corten, reference = image
    started_s = time.monotonic()
    assert corten.run("build", digits_model["paths"][0], "--offline").out.strip() == reference
    assert time.monotonic() - started_s < 5


@pytest.mark.skopeo
def test_skopeo_reads_the_image(image):
    corten, reference = image
    name, _, digest = reference.partition("@")
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{corten.home / 'store'}:{name}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["Digest"] == digest
    assert seen["Os"] == "linux"
    assert "dev.corten.schema" in seen["Labels"]


@pytest.mark.podman
def test_podman_runs_it_as_nobody_read_only_without_capabilities_or_network(image, folder, digits_model):
    corten, reference = image
    name = reference.partition("@")[0]
    storage = ["podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    pulled = subprocess.run(
        [*storage, "pull", "-q", f"oci:{corten.home / 'store'}:{name}"], capture_output=True, text=True, timeout=200
    )
    assert pulled.returncode == 0, pulled.stderr
    container = subprocess.run(
        [
            *storage, *PODMAN_RUN, "run", "--detach", *PODMAN_LIMITS, "--read-only", "--cap-drop", "all",
            "--security-opt", "no-new-privileges", "--network", "none", "--tmpfs", "/tmp",
            pulled.stdout.strip(),
        ],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert container.returncode == 0, container.stderr
    identity = container.stdout.strip()
    rows = digits_model["rows"]
    asks = (
        "import http.client,sys,os\n"
        "c=http.client.HTTPConnection('127.0.0.1',8080,timeout=30)\n"
        "c.request('POST','/predict',sys.stdin.read(),{'content-type':'application/json'})\n"
        "print(os.getuid(), c.getresponse().read().decode())\n"
    )

    def answer():
        done = subprocess.run(
            [*storage, *PODMAN_RUN, "exec", "-i", identity, "/usr/bin/python3", "-c", asks],
            input=json.dumps({"inputs": rows.tolist()}), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout if '"outputs"' in done.stdout else ""

    try:
        uid, _, document = until(answer, "the container answers", deadline_s=60).partition(" ")
        assert uid == "65532"
        assert json.loads(document)["outputs"] == digits_model["models"][0].predict(rows).tolist()
    finally:
        subprocess.run([*storage, *PODMAN_RUN, "rm", "-f", "-t", "0", identity], capture_output=True, timeout=60)
        subprocess.run([*storage, "rmi", "-af"], capture_output=True, timeout=60)


def test_python_can_be_asked_for_the_same(image, digits_model):
    corten, reference = image
    code = (
        "import corten, sys, time, pathlib; from corten.core.home import Home; "
        f"print(corten.build({str(digits_model['paths'][0])!r}, home=Home(pathlib.Path({str(corten.home)!r})), "
        "now_s=time.time()).reference)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == reference, done.stderr
