"""What is attached to an image goes with it through a real registry, and says the same on the other side."""

import pytest
import small_image

from corten.errors import PolicyError
from corten.ops.inspect import inspect
from corten.ops.keygen import keygen
from corten.ops.pull import pull
from corten.ops.push import push
from corten.ops.sign import sign
from corten.ops.verify import verify

pytestmark = pytest.mark.registry


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "ours", env={})


def test_signature_sbom_provenance_and_lock_go_through_a_registry(docker_registry, here, there, env, keys):
    small_image.store(here).attach()
    sign("iris", keys.private, home=here, env={})

    push("iris", f"{docker_registry.name}/team/iris:1", home=here, env=env)
    pull(f"{docker_registry.name}/team/iris:1", name="iris", home=there, env=env)

    assert verify("iris", keys.public, home=there) == verify("iris", keys.public, home=here)
    before, after = inspect("iris", home=here), inspect("iris", home=there)
    assert (after.packages, after.provenance) == (before.packages, before.provenance)
    assert {one.digest for one in after.attached} == {one.digest for one in before.attached}
    assert {one.predicate for one in after.attached} == {one.predicate for one in before.attached}


def test_what_was_pushed_unsigned_is_refused_on_the_other_side(docker_registry, here, there, env, keys):
    small_image.store(here).attach()
    push("iris", f"{docker_registry.name}/team/iris:1", home=here, env=env)
    pull(f"{docker_registry.name}/team/iris:1", name="iris", home=there, env=env)

    with pytest.raises(PolicyError) as caught:
        verify("iris", keys.public, home=there)
    assert caught.value.code == "signature.missing"
