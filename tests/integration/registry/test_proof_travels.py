"""What is attached to an image goes with it through a real registry, and says the same on the other side."""

import json
import subprocess

import pytest
import small_image

from corten.builder.artifact import BUNDLE_TYPE
from corten.builder.gate import PREDICATE as GATE
from corten.builder.gate import attach_gate
from corten.core.home import Home
from corten.errors import PolicyError
from corten.ops.copy import copy
from corten.ops.export import export
from corten.ops.import_ import import_
from corten.ops.inspect import inspect
from corten.ops.keygen import keygen
from corten.ops.pull import pull
from corten.ops.push import push
from corten.ops.sign import sign
from corten.ops.verify import verify
from corten.store.layout import Layout
from corten.store.signature_tag import SIGNATURE_ANNOTATION, payloads_of

pytestmark = pytest.mark.registry


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "ours", env={})


def test_signature_sbom_provenance_and_lock_go_through_a_registry(docker_registry, here, there, env, keys):
    small = small_image.store(here)
    small.attach()
    attach_gate(small.layout, small.manifest, name="iris", code=small.image.layers[-1].digest, checks=("readyz",))
    assert GATE in sign("iris", keys.private, home=here, env={}).statements

    push("iris", f"{docker_registry.name}/team/iris:1", home=here, env=env)
    pull(f"{docker_registry.name}/team/iris:1", name="iris", home=there, env=env)

    assert verify("iris", keys.public, home=there) == verify("iris", keys.public, home=here)
    assert GATE in verify("iris", keys.public, home=there).statements
    before, after = inspect("iris", home=here), inspect("iris", home=there)
    assert (after.packages, after.provenance) == (before.packages, before.provenance)
    assert after.tested == before.tested
    assert after.tested.result == "PASSED"
    assert {one.digest for one in after.attached} == {one.digest for one in before.attached}
    assert {one.predicate for one in after.attached} == {one.predicate for one in before.attached}


def under_tag(home):
    layout = Layout(home.store)
    digest = layout.resolve("iris").digest
    return [one.annotations[SIGNATURE_ANNOTATION] for one in payloads_of(layout, digest)]


def test_the_signature_of_older_tools_goes_along_and_others_signatures_stay(
    docker_registry, here, there, env, tmp_path
):
    ours, theirs = keygen(tmp_path / "ours", env={}), keygen(tmp_path / "theirs", env={})
    name = f"{docker_registry.name}/team/iris:1"
    for home, keys in ((here, ours), (there, theirs)):
        small_image.store(home)
        sign("iris", keys.private, home=home, env={})
        push("iris", name, home=home, env=env)
    both = {*under_tag(here), *under_tag(there)}
    assert len(both) == 2
    assert push("iris", name, home=here, env=env).moved.sent_bytes == 0  # nothing is undone

    fresh = Home(tmp_path / "fresh")
    copy(name, f"{docker_registry.name}/prod/iris:1", env=env)
    pull(f"{docker_registry.name}/prod/iris:1", name="iris", home=fresh, env=env)
    assert set(under_tag(fresh)) == both

    export("iris", tmp_path / "iris.tar", home=fresh)
    imported = Home(tmp_path / "imported")
    import_(tmp_path / "iris.tar", home=imported)
    assert set(under_tag(imported)) == both
    digest = Layout(imported.store).resolve("iris").digest
    bundles = [one.digest for one in Layout(imported.store).referrers(digest, BUNDLE_TYPE)]
    Layout(imported.store).attach(digest, [], instead_of=bundles)
    for keys in (ours, theirs):
        assert verify("iris", keys.public, home=imported).digest == digest


@pytest.mark.skopeo
def test_the_signatures_are_where_podman_and_cosign_look_for_them(docker_registry, here, env, keys):
    small_image.store(here)
    sign("iris", keys.private, home=here, env={})
    done = push("iris", f"{docker_registry.name}/team/iris:1", home=here, env=env)
    tag = f"{docker_registry.name}/team/iris:sha256-{done.moved.digest.hex}.sig"
    words = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{tag}"]
    seen = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=60).stdout)
    assert [layer["mediaType"] for layer in seen["layers"]] == ["application/vnd.dev.cosign.simplesigning.v1+json"]
    assert under_tag(here) == [seen["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"]]


def test_what_was_pushed_unsigned_is_refused_on_the_other_side(docker_registry, here, there, env, keys):
    small_image.store(here).attach()
    push("iris", f"{docker_registry.name}/team/iris:1", home=here, env=env)
    pull(f"{docker_registry.name}/team/iris:1", name="iris", home=there, env=env)

    with pytest.raises(PolicyError) as caught:
        verify("iris", keys.public, home=there)
    assert caught.value.code == "signature.missing"
