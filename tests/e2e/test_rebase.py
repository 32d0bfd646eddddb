"""A newer Debian below an image: one layer is new, the others are the same blobs, and the model answers as before."""

import json
import shutil

import pytest
from stories import Corten, ask, diagnosis_in, end, make_home

from corten.store.layout import Layout

pytestmark = [pytest.mark.network, pytest.mark.examples]
BODY = {"inputs": [[0.5] * 30, [20.0] * 30]}
# A package nothing else needs: an image locked without it is what one looks like before Debian added it.
LATER = "tzdata"


@pytest.fixture(scope="module")
def outdated():
    """An image of a project whose lock is behind what Debian has: (corten, source, its image)."""
    corten = Corten(make_home())
    source = diagnosis_in(corten.home)
    corten.run("build", source)
    path = source / "corten.lock"
    document = json.loads(path.read_text())
    for lock in document["locks"]:
        assert LATER in [deb["name"] for deb in lock["debs"]]
        lock["debs"] = [deb for deb in lock["debs"] if deb["name"] != LATER]
    path.write_text(json.dumps(document))
    corten.run("build", source, "--locked")
    layout = Layout(corten.home / "store")
    yield corten, source, layout.image(layout.resolve("diagnosis").digest)
    end(corten)


@pytest.fixture(scope="module")
def rebased(outdated):
    """What `corten rebase` said, having tried the new image first, and told of that."""
    done = outdated[0].run("rebase", "diagnosis", "--test", "--json")
    told = [json.loads(line)["event"] for line in done.err.splitlines()]
    assert [one["message"] for one in told if one["step"] == "gate" and one["phase"] == "done"]
    return done.json


@pytest.mark.bwrap
def test_it_says_which_packages_changed(rebased, outdated):
    assert rebased["changed"]
    assert rebased["before"] == str(outdated[2].digest)
    (image,) = rebased["images"]
    assert [(one["name"], one["before"]) for one in image["packages"]] == [(LATER, "")]


@pytest.mark.bwrap
def test_every_layer_but_the_base_is_the_blob_it_was(rebased, outdated):
    corten, _, before = outdated
    layout = Layout(corten.home / "store")
    after = layout.verify(layout.resolve("diagnosis").digest)
    assert after.layers[0].digest != before.layers[0].digest
    assert after.layers[1:] == before.layers[1:]
    assert (after.env, after.entrypoint, after.labels) == (before.env, before.entrypoint, before.labels)


@pytest.mark.bwrap
def test_lock_sbom_and_the_test_of_the_new_image_are_attached_to_it(rebased, outdated):
    layout = Layout(outdated[0].home / "store")
    attached = [one.artifact_type for one in layout.referrers(layout.resolve("diagnosis").digest)]
    assert set(attached) == {
        "application/vnd.corten.lock.v1+json", "application/vnd.cyclonedx+json", "application/vnd.in-toto+json",
    }  # fmt: skip


@pytest.mark.bwrap
def test_rebasing_again_changes_nothing(rebased, outdated):
    again = outdated[0].run("rebase", "diagnosis", "--json").json
    assert not again["changed"]
    assert again["digest"] == rebased["digest"]


@pytest.mark.bwrap
def test_building_with_the_newest_packages_gives_the_very_same_image(rebased, outdated):
    corten, source, _ = outdated
    assert corten.run("build", source, "--upgrade", "--json").json["digest"] == rebased["digest"]


@pytest.mark.bwrap
@pytest.mark.envoy
def test_it_is_deployed_like_any_other_and_answers_as_before(rebased, outdated, port):
    corten, _, before = outdated
    named = ["--name", "diagnosis", "--port", str(port)]
    url = corten.run("deploy", str(before.digest), *named, "--json").json["url"]
    expected = ask(url, BODY)
    assert expected[0] == 200
    deployed = corten.run("deploy", "diagnosis", "--json").json
    assert (deployed["revision"], deployed["image"]) == ("r2", rebased["digest"])
    assert ask(url, BODY) == expected


def test_without_the_network_nothing_moves(outdated):
    corten, source, _ = outdated
    corten.run("build", source, "--name", "stays")
    before = Layout(corten.home / "store").resolve("stays").digest
    shutil.rmtree(corten.home / "cache" / "debs")
    refused = corten.run(
        "rebase", "stays", "--json", code=None, env={"CORTEN_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"}
    )
    assert refused.json["error"]["code"].startswith("debian.")
    assert Layout(corten.home / "store").resolve("stays").digest == before
