"""Tidying up beside everything else: running models go on, builds finish, kill -9 leaves everything valid."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from ports import free_port
from stories import CORTEN, Corten, ask, end, make_home, until

from corten.core.digest import Digest
from corten.store.layout import Layout

pytestmark = [
    pytest.mark.network, pytest.mark.examples, pytest.mark.bwrap, pytest.mark.envoy,
]  # fmt: skip
# Nothing younger than a minute goes.
A_WHILE_S = 120


@pytest.fixture(scope="module")
def corten(digits_model):
    """A home with a deployment at its second revision, and its URL."""
    corten = Corten(make_home())
    project = corten.home / "digits"
    project.mkdir()
    # Of the first revision nothing is kept to go back to at once: its image would be in use.
    (project / "corten.toml").write_text('name = "digits"\nsource = "digits.joblib"\nkeep_previous_s = 0\n')
    port = str(free_port())
    for path in digits_model["paths"]:
        shutil.copyfile(path, project / "digits.joblib")
        url = corten.up(project, "--port", port)["url"]
    yield corten, url
    end(corten)


def age(home):
    """Make everything look as if it was made a while ago."""
    for path in (home / "store" / "blobs" / "sha256").iterdir():
        os.utime(path, (time.time() - A_WHILE_S,) * 2)


def check(home):
    """Whatever is listed is there, whole."""
    layout = Layout(home / "store")
    for path in (home / "store" / "blobs" / "sha256").iterdir():
        assert Digest.of_file(path).hex == path.name
    for entry in layout.listed():
        assert layout.has(entry.digest)
    for name, entry in layout.images():
        if name:
            layout.verify(entry.digest)


def answers(url):
    return ask(url, {"inputs": [[0.0] * 64]})[0] == 200


def test_a_dry_run_says_what_would_go_and_removes_nothing(corten):
    corten, _ = corten
    age(corten.home)
    blobs = sorted(path.name for path in (corten.home / "store" / "blobs" / "sha256").iterdir())

    def unreached():
        document = corten.run("gc", "--keep", "1", "--dry-run", "--json").json
        return document["store"]["manifests"] and document["freed_bytes"]

    until(unreached, "the replica of the first revision has ended, so that its image is not in use")
    assert blobs == sorted(path.name for path in (corten.home / "store" / "blobs" / "sha256").iterdir())


def test_the_name_of_what_runs_stays(corten):
    corten, url = corten
    refused = corten.run("images", "remove", "digits", "--json", code=1).json["error"]
    assert (refused["code"], refused["hint"]) == ("store.image_in_use", "corten stop digits")
    assert "digits" in [one["name"] for one in corten.run("images", "--json").json["images"]]
    assert answers(url)


def test_a_revision_that_can_be_gone_back_to_stays(corten):
    corten, url = corten
    age(corten.home)
    assert corten.run("gc", "--keep", "2", "--json").json["store"]["manifests"] == 0
    corten.run("rollback", "digits")
    assert answers(url)
    corten.run("rollback", "digits", "--to", "r2")


def test_killed_at_any_moment_it_leaves_everything_valid_and_the_model_answering(corten):
    corten, url = corten
    age(corten.home)
    for round_number in range(12):
        process = subprocess.Popen(
            [str(CORTEN), "gc", "--keep", "1", "--cache-max-mb", "0"],
            env={**os.environ, "CORTEN_HOME": str(corten.home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.12 + 0.02 * round_number)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        check(corten.home)
        assert answers(url)
    corten.run("gc", "--keep", "1", "--cache-max-mb", "0")
    check(corten.home)
    assert answers(url)
    assert corten.run("gc", "--keep", "1", "--cache-max-mb", "0", "--json").json["freed_bytes"] == 0
    assert not list((corten.home / "trees").glob(".swept-*"))


def test_what_was_collected_is_built_again_while_collecting_goes_on(corten, digits_model):
    corten, url = corten
    old = corten.deployment("digits")["image"]
    corten.run("build", digits_model["paths"][0], "--name", "digits")
    builds = [
        subprocess.Popen(
            [str(CORTEN), "build", str(digits_model["paths"][number % 2]), "--name", f"copy-{number}"],
            env={**os.environ, "CORTEN_HOME": str(corten.home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]  # fmt: skip
    while any(build.poll() is None for build in builds):
        age(corten.home)  # so that only the lock protects what a build takes from the cache
        corten.run("gc", "--keep", "1")
    for build in builds:
        out, errors = build.communicate(timeout=60)
        assert build.returncode == 0, errors.decode()
        digest = Digest.parse(out.decode().strip().partition("@")[2])
        Layout(corten.home / "store").verify(digest)
    assert corten.deployment("digits")["image"] == old
    assert answers(url)


def test_after_a_stop_only_named_images_are_left(corten):
    corten, _ = corten
    corten.run("stop", "digits")
    age(corten.home)
    corten.run("gc")
    named = {entry.digest for name, entry in Layout(corten.home / "store").images() if name}
    assert named == {entry.digest for _, entry in Layout(corten.home / "store").images()}
    check(corten.home)
