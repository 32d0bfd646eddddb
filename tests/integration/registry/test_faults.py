"""Push and pull through what goes wrong between us and a registry."""

import base64
import json
import os
from functools import partial

import pytest
from registries import layout_in, put_image, put_index, put_referrer

from corten.core.digest import Digest
from corten.errors import NotFoundError, PolicyError, RemoteError, UsageError
from corten.ops.copy import copy
from corten.ops.pull import pull
from corten.ops.push import push
from corten.registry.retry import Retries
from corten.testing.registry import TestRegistry

MB = 1 << 20


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("corten.registry.session.Retries", partial(Retries, delays_s=(0.01, 0.02, 0.03)))


def test_what_was_pushed_comes_back_with_the_same_digest_and_what_refers_to_it(fake, here, there, env):
    one, two = layout_in(here.root), layout_in(there.root)
    shared = os.urandom(MB)
    index = put_index(one, "iris", put_image(one, shared, b"a"), put_image(one, shared, b"b", architecture="arm64"))
    sbom = put_referrer(one, index)
    signature = put_referrer(one, sbom, b"signed", "application/vnd.example.signature")
    pushed = push("iris", f"{fake.name}/team/iris:1", home=here, env=env)
    assert (pushed.moved.digest, pushed.moved.referrers) == (index.digest, 2)
    pulled = pull(f"{fake.name}/team/iris:1", name="iris", home=there, env=env)
    assert pulled.moved.digest == index.digest == two.resolve("iris").digest
    assert [entry.digest for entry in two.referrers(index.digest)] == [sbom.digest]
    assert [entry.digest for entry in two.referrers(sbom.digest)] == [signature.digest]
    assert len(two.platforms(index.digest)) == 2


def test_a_blob_both_platforms_have_is_sent_once_and_the_tag_comes_last(fake, here, env):
    layout = layout_in(here.root)
    shared = os.urandom(MB)
    put_index(layout, "iris", put_image(layout, shared), put_image(layout, shared, b"x", architecture="arm64"))
    push("iris", f"{fake.name}/team/iris:1", home=here, env=env)
    assert len([one for one in fake.requests("PUT", "/blobs/") if one.content_length == MB]) == 1
    puts = fake.requests("PUT")
    assert puts[-1].path.endswith("/manifests/1")
    assert all("/blobs/" in one.path for one in puts[: -sum("/manifests/" in one.path for one in puts)])


def test_a_second_push_sends_nothing(fake, here, env):
    layout = layout_in(here.root)
    put_image(layout, os.urandom(MB), name="iris")
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    fake.seen.clear()
    again = push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert again.moved.sent_bytes == 0
    assert not fake.requests("POST")


def test_a_copy_within_a_registry_that_mounts_nothing_streams_from_it_to_itself(fake, here, env):
    image = put_image(layout_in(here.root), os.urandom(MB), b"small", name="iris")
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    fake.faults.ignore_mounts = 99
    copied = copy(f"{fake.name}/iris:1", f"{fake.name}/prod/iris:1", env=env)
    assert (copied.moved.digest, copied.moved.blobs_sent) == (image.digest, 3)


def test_what_another_repository_of_the_registry_has_is_mounted(fake, here, env):
    put_image(layout_in(here.root), os.urandom(MB), name="iris")
    push("iris", f"{fake.name}/one/iris:1", home=here, env=env)
    fake.seen.clear()
    second = push("iris", f"{fake.name}/two/iris:1", home=here, env=env)
    assert (second.moved.blobs_mounted, second.moved.sent_bytes) == (2, 0)
    assert not fake.requests("PATCH")
    assert not fake.requests("PUT", "/blobs/")
    third = copy(f"{fake.name}/two/iris:1", f"{fake.name}/three/iris:1", env=env)
    assert (third.moved.blobs_mounted, third.moved.digest) == (2, second.moved.digest)


def test_a_small_blob_goes_with_the_request_that_ends_its_upload_and_a_large_one_before_it(fake, here, env):
    small, large = os.urandom(MB), os.urandom(5 * MB)
    put_image(layout_in(here.root), small, large, name="iris")
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert [one.content_length for one in fake.requests("PATCH")] == [5 * MB]
    assert sorted(one.content_length for one in fake.requests("PUT", "/blobs/"))[0::2] == [0, MB]
    assert fake.content.blobs["iris", str(Digest.of(small))] == small


@pytest.mark.parametrize("status", [400, 404, 405, 411, 416, 500, 501])
def test_a_registry_that_takes_no_blob_with_the_end_of_an_upload_gets_it_before(fake, here, env, status):
    data = os.urandom(MB)
    put_image(layout_in(here.root), data, name="iris")
    fake.faults.no_whole_blobs = status
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert MB in [one.content_length for one in fake.requests("PATCH")]
    assert fake.content.blobs["iris", str(Digest.of(data))] == data


def test_a_small_blob_that_breaks_off_goes_on_where_the_registry_has_it(fake, here, env):
    data = os.urandom(3 * MB)
    put_image(layout_in(here.root), data, name="iris")
    fake.faults.drop_uploads, fake.faults.drop_after_bytes = 1, 2 * MB
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert [one.content_length for one in fake.requests("PATCH")] == [MB]
    assert fake.content.blobs["iris", str(Digest.of(data))] == data


def test_a_small_blob_that_is_too_large_all_the_same_is_sent_in_smaller_ones(fake, here, env):
    data = os.urandom(3 * MB)
    put_image(layout_in(here.root), data, name="iris")
    fake.faults.largest_body_bytes = 2 * MB
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert fake.content.blobs["iris", str(Digest.of(data))] == data


def test_an_upload_that_breaks_off_goes_on_where_the_registry_has_it(fake, here, env):
    data = os.urandom(8 * MB)
    put_image(layout_in(here.root), data, name="iris")
    fake.faults.drop_uploads, fake.faults.drop_after_bytes = 2, 3 * MB
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    lengths = [one.content_length for one in fake.requests("PATCH") if one.content_length > 1000]
    assert lengths == [8 * MB, 5 * MB, 2 * MB]
    assert fake.content.blobs["iris", str(Digest.of(data))] == data


def test_a_download_that_breaks_off_goes_on_where_it_was(fake, here, there, env):
    data = os.urandom(8 * MB)
    put_image(layout_in(here.root), data, name="iris")
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    fake.faults.drop_downloads, fake.faults.drop_after_bytes = 3, 3 * MB
    pulled = pull(f"{fake.name}/iris:1", home=there, env=env)
    assert pulled.moved.sent_bytes == pulled.moved.size_bytes
    assert layout_in(there.root).path(Digest.of(data)).read_bytes() == data


def test_a_download_that_always_breaks_off_is_given_up_and_leaves_nothing(fake, here, there, env):
    put_image(layout_in(here.root), os.urandom(8 * MB), name="iris")
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    fake.faults.drop_downloads, fake.faults.drop_after_bytes = 99, 1000
    with pytest.raises(RemoteError) as failed:
        pull(f"{fake.name}/iris:1", home=there, env=env)
    assert failed.value.code == "registry.unreachable"
    assert not layout_in(there.root).images()
    assert not list((there.store / ".incoming").iterdir())


def test_a_wrong_bit_is_fetched_once_more_and_a_second_one_refused(fake, here, there, env):
    put_image(layout_in(here.root), os.urandom(MB), name="iris")
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    fake.faults.flip_downloads = 1
    pull(f"{fake.name}/iris:1", home=there, env=env)
    other = type(there)(there.root.with_name("other"))
    fake.faults.flip_downloads = 99
    with pytest.raises(PolicyError) as refused:
        pull(f"{fake.name}/iris:1", home=other, env=env)
    assert refused.value.code == "registry.digest_mismatch"
    assert not layout_in(other.root).images()


def test_a_blob_that_is_shorter_than_its_manifest_says_is_refused(fake, here, there, env):
    put_image(layout_in(here.root), os.urandom(MB), name="iris")
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    fake.faults.cut_downloads = 99
    with pytest.raises(PolicyError, match="is not what came"):
        pull(f"{fake.name}/iris:1", home=there, env=env)


@pytest.mark.parametrize("size_bytes", [1000, MB, 5 * MB])
def test_a_corrupt_blob_of_the_store_is_put_aside_and_never_becomes_an_image(fake, here, env, size_bytes):
    layout = layout_in(here.root)
    data = os.urandom(size_bytes)
    put_image(layout, data, name="iris")
    layout.path(Digest.of(data)).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PolicyError) as refused:
        push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert refused.value.code == "store.blob_corrupt"
    assert not layout.has(Digest.of(data))
    assert not fake.content.manifests
    assert ("iris", str(Digest.of(data))) not in fake.content.blobs


def test_too_many_requests_are_waited_for_three_times_and_not_more(fake, here, env):
    put_image(layout_in(here.root), b"layer", name="iris")
    fake.faults.refuse = 3
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    fake.faults.refuse = 99
    fake.seen.clear()
    with pytest.raises(RemoteError) as refused:
        pull(f"{fake.name}/iris:1", home=here, env=env)
    assert refused.value.code == "registry.refused"
    assert "429" in refused.value.why
    assert "TOOMANYREQUESTS" in refused.value.why
    assert len(fake.seen) == 4


def test_a_registry_that_wants_a_long_pause_is_not_waited_for(fake, here, env):
    put_image(layout_in(here.root), b"layer", name="iris")
    fake.faults.refuse, fake.faults.retry_after = 99, "3600"
    with pytest.raises(RemoteError):
        push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert len(fake.seen) == 1


def test_a_body_that_is_too_large_is_sent_in_smaller_ones(fake, here, env):
    data = os.urandom(9 * MB)
    put_image(layout_in(here.root), data, name="iris")
    fake.faults.largest_body_bytes = 5 * MB
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert fake.content.blobs["iris", str(Digest.of(data))] == data
    assert fake.requests("PATCH", "/blobs/")[-1].content_length <= 5 * MB


def test_no_credential_follows_a_redirect_to_another_host(here, there, env, tmp_path):
    secret = "canary-7f3a"
    config = {"auths": {}}
    with TestRegistry(users={"ada": secret}) as front, TestRegistry() as storage:
        config["auths"][front.name] = {"auth": base64.b64encode(f"ada:{secret}".encode()).decode()}
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
        put_image(layout_in(here.root), os.urandom(MB), name="iris")
        push("iris", f"{front.name}/iris:1", home=here, env=env)
        storage.content.blobs = dict(front.content.blobs)
        front.faults.redirect_blobs_to = storage.url
        pull(f"{front.name}/iris:1", home=there, env=env)
    assert len(storage.requests("GET", "/blobs/")) == 2
    assert [one.authorization for one in storage.seen] == ["", ""]
    tokens = {one.authorization for one in front.requests("GET", "/manifests/")}
    assert f"Bearer {front.token()}" in tokens


def test_an_identity_token_buys_a_token(fake, here, env, tmp_path):
    fake.users = {"ada": "unused"}
    (tmp_path / ".docker").mkdir()
    config = {"auths": {fake.name: {"identitytoken": fake.identity_token}}}
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
    put_image(layout_in(here.root), b"layer", name="iris")
    push("iris", f"{fake.name}/iris:1", home=here, env=env)
    assert len(fake.requests("POST", "/token")) == 1
    assert not fake.requests("GET", "/token")


def test_a_wrong_password_is_told_without_the_password(fake, here, env, tmp_path):
    fake.users = {"ada": "right"}
    text = base64.b64encode(b"ada:wrong-canary").decode()
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": {fake.name: {"auth": text}}}))
    put_image(layout_in(here.root), b"layer", name="iris")
    with pytest.raises(RemoteError) as refused:
        push("iris", f"{fake.name}/iris:1", home=here, env=env)
    shown = json.dumps(refused.value.as_dict()) + repr(refused.value.__cause__)
    assert refused.value.code == "registry.denied"
    assert "canary" not in shown
    assert text not in shown


def test_the_list_of_referrers_survives_writers_that_undo_each_other(here, there, env):
    with TestRegistry(referrers=False) as old:
        layout = layout_in(here.root)
        image = put_image(layout, b"layer", name="iris")
        first, second = put_referrer(layout, image), put_referrer(layout, image, b"other", "application/x-other")
        old.faults.forget_referrers = 2
        push("iris", f"{old.name}/iris:1", home=here, env=env)
        pull(f"{old.name}/iris:1", home=there, env=env)
    found = {entry.digest for entry in layout_in(there.root).referrers(image.digest)}
    assert found == {first.digest, second.digest}


def test_an_unknown_tag_is_not_found(fake, here, env):
    with pytest.raises(NotFoundError) as missing:
        pull(f"{fake.name}/iris:nope", home=here, env=env)
    assert missing.value.code == "registry.unknown"


def test_a_registry_elsewhere_is_not_asked_without_tls(here, env):
    put_image(layout_in(here.root), b"layer", name="iris")
    # Nothing listens there; what matters is that https is what was tried.
    with pytest.raises(RemoteError) as failed:
        push("iris", "registry.invalid:1/iris:1", home=here, env=env)
    assert failed.value.where.startswith("https://")


def test_a_target_with_a_digest_is_refused(here, env):
    with pytest.raises(UsageError) as refused:
        push("iris", f"localhost:1/iris@{Digest.of(b'')}", home=here, env=env)
    assert refused.value.code == "registry.digest_given"
