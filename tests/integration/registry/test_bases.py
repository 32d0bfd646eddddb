"""Bases out of registries and the store: pinned once, taken by digest, refused in words."""

import io
import json
import tarfile

import pytest
from foreign_base import AMD64, DEBIAN, program, put_base, python
from registries import put_image, put_index

from corten.builder.entry import Entry
from corten.builder.lock import Pin
from corten.builder.locking import Rules
from corten.core.digest import Digest
from corten.core.image import DOCKER_INDEX, DOCKER_MANIFEST, Descriptor
from corten.core.platform import Platform
from corten.core.reference import Reference
from corten.errors import CortenError, NotFoundError, PolicyError, RemoteError, UsageError
from corten.ops.oci_base import Bases
from corten.ops.pull import pull
from corten.ops.push import push
from corten.ops.transfers import session
from corten.store.layout import Layout

ARM64 = Platform("arm64")
ARM = [*[one for one in DEBIAN if "x86_64" not in one.name], *python(machine=183, loader=b"/lib/ld-linux-aarch64.so.1")]
GLIBC_OF_ARM = [Entry("usr/lib/aarch64-linux-gnu/libc.so.6", data=b"GNU C Library version 2.36.")]


@pytest.fixture
def bases(there, env):
    """A function: what finds bases for a store that is `there`."""

    def make(*, offline=False, listen=lambda _: None):
        talk = lambda: session(plain_http=False, ca=None, env=env)  # noqa: E731
        return Bases(Layout(there.store), there.cache, talk, listen, offline=offline)

    return make


@pytest.fixture
def pushed(here, env, fake):
    """A base in a registry, by a tag: (reference, digest)."""
    layout = Layout(here.store)
    image = put_base(layout, DEBIAN, python())
    layout.tag("base", image)
    push("base", f"{fake.name}/python:3.12", home=here, env=env)
    return Reference.parse(f"{fake.name}/python:3.12"), image.digest


def move(here, env, reference, *layers):
    """Let the tag lead to another image."""
    layout = Layout(here.store)
    image = put_base(layout, *layers)
    layout.tag("base", image)
    push("base", str(reference), home=here, env=env)
    return image.digest


def test_a_tag_is_pinned_by_its_digest_and_the_layers_come_into_the_store(bases, pushed, there):
    reference, digest = pushed
    found = bases()
    pin = found.pin(reference, AMD64, None, Rules())
    base = found.obtain(pin, AMD64)

    assert pin == Pin(reference.name, digest, digest)
    assert (base.python.version, base.python.program) == ("3.12", "/usr/local/bin/python3.12")
    layout = Layout(there.store)
    assert all(Digest.of_file(layout.path(layer.digest)) == layer.digest for layer in base.layers)
    assert [name for name, _ in layout.images()] == []


def test_what_a_lock_pins_is_taken_without_asking_though_the_tag_moved(bases, pushed, here, env, fake):
    reference, digest = pushed
    pin = bases().pin(reference, AMD64, None, Rules())
    newer = move(here, env, reference, DEBIAN, python("usr/local", "3.13"))
    fake.seen.clear()

    assert bases().pin(reference, AMD64, pin, Rules()) == pin
    assert bases().pin(reference, AMD64, pin, Rules(locked=True)) == pin
    assert fake.seen == []
    assert bases().obtain(pin, AMD64).pin.digest == digest
    assert bases().pin(reference, AMD64, pin, Rules(anew=True)).digest == newer


def test_a_base_that_was_read_before_costs_no_request_and_works_offline(bases, pushed, fake):
    reference, _ = pushed
    pin = bases().pin(reference, AMD64, None, Rules())
    first = bases().obtain(pin, AMD64)
    fake.seen.clear()

    assert bases(offline=True).obtain(pin, AMD64) == first
    assert fake.seen == []


def test_a_layer_that_went_missing_is_pulled_again(bases, pushed, there, fake):
    reference, _ = pushed
    pin = bases().pin(reference, AMD64, None, Rules())
    base = bases().obtain(pin, AMD64)
    Layout(there.store).path(base.layers[1].digest).unlink()
    fake.seen.clear()

    assert bases().obtain(pin, AMD64) == base
    assert len(fake.requests("GET", "/blobs/")) == 1
    Layout(there.store).path(base.layers[1].digest).unlink()
    with pytest.raises(UsageError) as caught:
        bases(offline=True).obtain(pin, AMD64)
    assert caught.value.code == "build.offline"


def test_a_digest_in_the_reference_decides_whatever_the_tag_leads_to(bases, pushed, here, env):
    reference, digest = pushed
    move(here, env, reference, DEBIAN, python("usr/local", "3.13"))
    by_both = Reference.parse(f"{reference}@{digest}")

    assert bases().pin(by_both, AMD64, None, Rules(locked=True)).digest == digest


def test_a_tag_nobody_pinned_is_refused_when_locked_before_anybody_is_asked(bases, pushed, fake):
    fake.seen.clear()
    for rules in (Rules(locked=True), Rules(frozen=True)):
        with pytest.raises(UsageError) as caught:
            bases().pin(pushed[0], AMD64, None, rules)
        assert caught.value.code == "build.lock_outdated"
        assert "sha256" in caught.value.hint
    assert fake.seen == []


def test_offline_a_tag_means_what_was_pulled_under_it(bases, pushed, there, env):
    reference, digest = pushed
    with pytest.raises(UsageError) as caught:
        bases(offline=True).pin(reference, AMD64, None, Rules())
    assert caught.value.code == "build.offline"
    assert f"corten pull {reference.name}" in caught.value.hint
    pull(reference, home=there, env=env)
    assert bases(offline=True).pin(reference, AMD64, None, Rules()).digest == digest


def test_each_platform_gets_its_image_out_of_an_index_that_is_asked_for_once(bases, here, env, fake):
    layout = Layout(here.store)
    amd, arm = put_base(layout, DEBIAN, python()), put_base(layout, [*ARM, *GLIBC_OF_ARM], platform=ARM64)
    index = put_index(layout, "both", amd, arm)
    push("both", f"{fake.name}/python:3", home=here, env=env)
    reference = Reference.parse(f"{fake.name}/python:3")
    fake.seen.clear()
    found = bases()
    pins = [found.pin(reference, platform, None, Rules()) for platform in (AMD64, ARM64)]

    assert [(pin.digest, pin.manifest) for pin in pins] == [(index.digest, amd.digest), (index.digest, arm.digest)]
    assert len(fake.requests("GET", "/manifests/3")) == 1
    assert found.obtain(pins[1], ARM64).python.program == "/usr/local/bin/python3.12"
    # The other platform's layers are not pulled.
    assert all(
        str(layer["digest"]) not in json.dumps([one.path for one in fake.seen]) for layer in _layers(layout, amd)
    )


def test_a_lock_that_pairs_an_index_with_an_image_that_is_not_in_it_is_refused(bases, here, env, fake):
    layout = Layout(here.store)
    index = put_index(layout, "one", put_base(layout, DEBIAN, python()))
    other = put_base(layout, DEBIAN, python("usr/local", "3.13"))
    layout.tag("other", other)
    for name in ("one", "other"):
        push(name, f"{fake.name}/python:{name}", home=here, env=env)
    with pytest.raises(UsageError) as caught:
        bases().obtain(Pin(f"{fake.name}/python:one", index.digest, other.digest), AMD64)
    assert caught.value.code == "lock.broken"


def _layers(layout, descriptor):
    return json.loads(layout.read(descriptor.digest))["layers"]


def test_a_platform_the_base_is_not_for_is_named_with_those_it_is_for(bases, pushed, here, env, fake):
    pin = bases().pin(pushed[0], ARM64, None, Rules())
    with pytest.raises(UsageError) as alone:
        bases().obtain(pin, ARM64)
    layout = Layout(here.store)
    put_index(layout, "one", put_base(layout, DEBIAN, python()))
    push("one", f"{fake.name}/index:1", home=here, env=env)
    with pytest.raises(UsageError) as among:
        bases().pin(Reference.parse(f"{fake.name}/index:1"), ARM64, None, Rules())
    for caught in (alone, among):
        assert caught.value.code == "base.wrong_platform"
        assert "linux/amd64" in caught.value.why


def test_images_and_indexes_in_dockers_older_words_are_taken(bases, here, env, fake):
    layout = Layout(here.store)
    media = {
        "manifest": DOCKER_MANIFEST,
        "config": "application/vnd.docker.container.image.v1+json",
        "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    }
    image = put_base(layout, DEBIAN, python(), media=media)
    entry = {"mediaType": image.media_type, "digest": str(image.digest), "size": image.size_bytes}
    index = {
        "schemaVersion": 2,
        "mediaType": DOCKER_INDEX,
        "manifests": [{**entry, "platform": {"architecture": "amd64", "os": "linux"}}],
    }
    put = layout.put(json.dumps(index).encode(), DOCKER_INDEX)
    layout.tag("docker", Descriptor(DOCKER_INDEX, put.digest, put.size_bytes))
    push("docker", f"{fake.name}/python:docker", home=here, env=env)
    found = bases()
    base = found.obtain(found.pin(Reference.parse(f"{fake.name}/python:docker"), AMD64, None, Rules()), AMD64)

    assert {layer.media_type for layer in base.layers} == {"application/vnd.oci.image.layer.v1.tar+gzip"}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"flip_downloads": 99}, (PolicyError, "registry.digest_mismatch")),
        ({"cut_downloads": 99}, (CortenError, "registry.")),
        ({"refuse": 99, "refuse_status": 403}, (RemoteError, "registry.denied")),
    ],
)
def test_a_base_that_does_not_come_as_it_is_called_is_no_base(bases, pushed, fake, fault, expected):
    pin = bases().pin(pushed[0], AMD64, None, Rules())
    for name, count in fault.items():
        setattr(fake.faults, name, count)
    kind, code = expected
    with pytest.raises(kind) as caught:
        bases().obtain(pin, AMD64)
    assert caught.value.code.startswith(code)
    for name in fault:
        setattr(fake.faults, name, 0)
    assert bases().obtain(pin, AMD64).python.version == "3.12"


def test_a_registry_that_is_busy_is_asked_again_after_the_time_it_names(bases, pushed, fake):
    fake.faults.refuse, fake.faults.refuse_status, fake.faults.retry_after = 2, 429, "0"
    assert bases().pin(pushed[0], AMD64, None, Rules()).digest == pushed[1]


def test_a_tag_nobody_has_is_not_found(bases, fake):
    with pytest.raises(NotFoundError) as caught:
        bases().pin(Reference.parse(f"{fake.name}/python:nothing"), AMD64, None, Rules())
    assert caught.value.code == "registry.unknown"


def test_a_base_with_a_device_in_it_is_refused_by_its_name(bases, here, env, fake):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        info = tarfile.TarInfo("dev/sda")
        info.type = tarfile.BLKTYPE
        archive.addfile(info)
        info = tarfile.TarInfo("usr/bin/python3.12")
        info.size = len(program())
        archive.addfile(info, io.BytesIO(program()))
    put_image(Layout(here.store), content.getvalue(), name="device")
    push("device", f"{fake.name}/python:device", home=here, env=env)
    found = bases()
    pin = found.pin(Reference.parse(f"{fake.name}/python:device"), AMD64, None, Rules())
    with pytest.raises(PolicyError) as caught:
        found.obtain(pin, AMD64)
    assert caught.value.code == "layer.unsafe_member"
    assert "dev/sda" in str(caught.value)
