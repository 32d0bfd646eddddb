"""An image leaves this machine and comes back: push, copy, pull and serve, through the console script."""

import base64
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from registries import DockerRegistry, layout_in, put_image, put_sparse_image
from stories import CORTEN, Corten, make_home, until

from corten.testing.registry import TestRegistry

MB = 1 << 20


@pytest.fixture
def homes():
    import shutil

    made = [Corten(make_home()), Corten(make_home())]
    yield made
    for corten in made:
        shutil.rmtree(corten.home, ignore_errors=True)


@pytest.mark.registry
def test_an_image_goes_through_two_repositories_to_another_machine(homes, tmp_path):
    mine, theirs = homes
    image = put_image(layout_in(mine.home), os.urandom(MB), name="iris")
    registry = DockerRegistry(tmp_path).start()
    try:
        pushed = mine.run("push", "iris", f"{registry.name}/team/iris:1")
        assert pushed.out == f"{registry.name}/team/iris@{image.digest}\n"
        assert "1.0 MB in 2 blobs" in pushed.err
        again = mine.run("push", "iris", f"{registry.name}/team/iris:1", "--json").json
        assert (again["sent_bytes"], again["digest"]) == (0, str(image.digest))
        copied = mine.run("copy", f"{registry.name}/team/iris:1", f"{registry.name}/prod/iris:1", "--json").json
        assert (copied["blobs_mounted"], copied["sent_bytes"]) == (2, 0)
        pulled = theirs.run("pull", copied["pinned"], "--name", "iris")
        assert pulled.out == f"{registry.name}/prod/iris@{image.digest}\n"
    finally:
        registry.kill()
    assert layout_in(theirs.home).resolve("iris").digest == image.digest
    gone = theirs.run("pull", f"{registry.name}/prod/iris:1", "--json", code=4).json
    assert gone["error"]["code"] == "registry.unreachable"


@pytest.mark.registry
@pytest.mark.network
@pytest.mark.examples
def test_a_second_model_shares_all_but_its_own_bytes_in_store_and_registry(corten, digits_model, tmp_path):
    paths = digits_model["paths"]
    first, second = (corten.run("build", path, "--name", f"dedup-{n}", "--json").json for n, path in enumerate(paths))
    own = own_bytes(first, second)
    assert own < 0.05 * second["size_bytes"], "base, wheels and server are the very same blobs"
    assert {layer["kind"] for layer in second["layers"] if not layer["cached"]} <= {"weights", "code"}
    registry = DockerRegistry(tmp_path).start()
    try:
        corten.run("push", "dedup-0", f"{registry.name}/team/first:1")
        before = stored_bytes(tmp_path)
        pushed = corten.run("push", "dedup-1", f"{registry.name}/team/second:1", "--json").json
        grown = stored_bytes(tmp_path) - before
    finally:
        registry.kill()
    assert pushed["blobs_mounted"] >= len([layer for layer in second["layers"] if layer["digest"] in digests(first)])
    # Config, manifests, lock, SBOM and provenance are its own too.
    assert own <= pushed["sent_bytes"] <= own + 100_000
    assert own <= grown <= own + 100_000


def own_bytes(first, second):
    return sum(layer["size_bytes"] for layer in second["layers"] if layer["digest"] not in digests(first))


def digests(built):
    return {layer["digest"] for layer in built["layers"]}


def stored_bytes(folder):
    return sum(path.stat().st_size for path in folder.glob("data/docker/registry/v2/blobs/sha256/*/*/data"))


def test_a_password_is_in_no_output_no_argument_and_no_file(homes, tmp_path):
    mine, _ = homes
    secret = "canary-5c1d"
    text = base64.b64encode(f"ada:{secret}".encode()).decode()
    put_image(layout_in(mine.home), os.urandom(MB), name="iris")
    with TestRegistry(users={"ada": "another"}) as registry:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.name: {"auth": text}}}))
        env = {"DOCKER_CONFIG": str(tmp_path)}
        refused = mine.run("push", "iris", f"{registry.name}/iris:1", "-v", env=env, code=4)
        registry.users = {"ada": secret}
        taken = mine.run("push", "iris", f"{registry.name}/iris:1", "-v", env=env)
        assert registry.requests("GET", "/token")[-1].authorization == f"Basic {text}"
    said = f"{refused.out}{refused.err}{taken.out}{taken.err}"
    assert "registry.denied" in said
    kept = [path for path in mine.home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert not [word for word in (secret, text, registry.token()) if word in said]
    assert not kept


def test_a_pull_that_is_killed_leaves_a_valid_store_and_the_next_one_takes_the_rest(homes):
    mine, theirs = homes
    image = put_image(layout_in(mine.home), *(os.urandom(24 * MB) for _ in range(10)), name="iris")
    with TestRegistry() as registry:
        mine.run("push", "iris", f"{registry.name}/iris:1")
        words = [str(CORTEN), "pull", f"{registry.name}/iris:1"]
        process = subprocess.Popen(
            words, env={**os.environ, "CORTEN_HOME": str(theirs.home)}, stderr=subprocess.DEVNULL
        )
        blobs = theirs.home / "store" / "blobs" / "sha256"
        until(lambda: blobs.is_dir() and any(blobs.iterdir()), "a first blob", 30)
        process.kill()
        process.wait(10)
        assert not layout_in(theirs.home).images()
        done = theirs.run("pull", f"{registry.name}/iris:1", "--json").json
    assert done["sent_bytes"] < done["size_bytes"]
    assert layout_in(theirs.home).verify(image.digest).digest == image.digest


def test_ctrl_c_in_the_middle_of_a_push_ends_it_soon_and_without_a_tag(homes):
    mine, _ = homes
    layout = layout_in(mine.home)
    put_sparse_image(layout, "big", 2 << 30)
    with TestRegistry() as registry:
        words = [str(CORTEN), "push", "big", f"{registry.name}/big:1"]
        process = subprocess.Popen(
            words, env={**os.environ, "CORTEN_HOME": str(mine.home)}, stderr=subprocess.PIPE, text=True
        )
        until(lambda: registry.requests("PATCH"), "an upload", 30)
        time.sleep(0.2)
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130
        assert time.monotonic() - began_s < 5
        assert not registry.content.tags
    assert "interrupted" in said


def test_ctrl_c_ends_a_pull_from_a_registry_that_hangs(homes):
    mine, theirs = homes
    put_image(layout_in(mine.home), os.urandom(MB), name="iris")
    with TestRegistry() as registry:
        mine.run("push", "iris", f"{registry.name}/iris:1")
        registry.faults.hang_downloads = 99
        words = [str(CORTEN), "pull", f"{registry.name}/iris:1", "-q"]
        process = subprocess.Popen(
            words, env={**os.environ, "CORTEN_HOME": str(theirs.home)}, stderr=subprocess.DEVNULL
        )
        until(lambda: len(registry.requests("GET", "/blobs/")) == 2, "both blobs are asked for", 30)
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert time.monotonic() - began_s < 5


def test_the_local_store_is_served_until_it_is_told_to_end(homes):
    mine, theirs = homes
    image = put_image(layout_in(mine.home), os.urandom(MB), name="iris")
    process = subprocess.Popen(
        [str(CORTEN), "registry", "serve", "--port", "0", "-q"],
        env={**os.environ, "CORTEN_HOME": str(mine.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = re.fullmatch(r"http://127\.0\.0\.1:(\d+)\n", process.stdout.readline())[1]
        taken = mine.run("registry", "serve", "--port", port, code=2)
        assert "http.cannot_listen" in taken.err
        pulled = theirs.run("pull", f"localhost:{port}/iris", "--json").json
        assert pulled["digest"] == str(image.digest)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.registry
def test_a_layer_of_three_gibibytes_goes_there_and_back_in_little_memory(homes, tmp_path):
    mine, theirs = homes
    put_sparse_image(layout_in(mine.home), "big", 3 << 30)
    registry = DockerRegistry(tmp_path).start()
    try:
        pushed = peak_mb(mine, "push", "big", f"{registry.name}/big:1")
        pulled = peak_mb(theirs, "pull", f"{registry.name}/big:1")
    finally:
        registry.kill()
    assert max(pushed, pulled) < 80


def peak_mb(corten, *words):
    """The command's own peak: it is read while the process is there, as wait4's would count what was forked."""
    process = subprocess.Popen(
        [str(CORTEN), *words], env={**os.environ, "CORTEN_HOME": str(corten.home)}, stdout=subprocess.DEVNULL
    )
    peak = 0
    deadline = time.monotonic() + 140
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text()):
            peak = max(peak, int(found[1]))
        time.sleep(0.05)
    assert process.wait(1) == 0
    return peak / 1024
