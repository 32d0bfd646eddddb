import json
import threading
import time
from contextlib import contextmanager

import pytest

from corten.core.digest import Digest
from corten.core.events import nobody
from corten.core.image import CONFIG, INDEX, LAYER, MANIFEST, Descriptor
from corten.errors import RemoteError
from corten.registry.documents import read_manifest
from corten.registry.transfer import gather, transfer


class Box:
    """A source and a target in memory that writes down what is done to it."""

    def __init__(self, broken=()):
        self.content, self.listed, self.done, self.broken = {}, {}, [], set(broken)
        self.signed = {}
        self.lock = threading.Lock()

    # source
    def manifest(self, descriptor):
        return read_manifest(self.content[descriptor.digest], descriptor.media_type, "box")

    def referrers(self, subject):
        return tuple(self.listed.get(subject, ()))

    def signatures(self, subject):
        return self.signed.get(subject)

    @contextmanager
    def open(self, blob, offset_bytes):
        yield None

    # target
    def complete(self, manifest):
        return manifest.digest in self.content

    def has(self, blob):
        return blob.digest in self.content

    def take(self, blob, source, sent):
        if blob.digest in self.broken:
            raise RemoteError("registry.unreachable", "gone")
        with self.lock:
            self.content[blob.digest] = source.content[blob.digest]
            self.done.append(("blob", blob.digest))
        sent(blob.size_bytes)
        return True

    def put(self, manifest):
        assert all(blob.digest in self.content for blob in (*manifest.blobs, *manifest.children))
        self.content[manifest.digest] = manifest.data
        self.done.append(("manifest", manifest.digest))
        return False

    def attach(self, subject, referrers):
        self.done.append(("listed", subject, tuple(one.digest for one in referrers)))

    def sign(self, subject, signatures):
        assert subject in self.content
        assert all(blob.digest in self.content for blob in signatures.blobs)
        self.done.append(("signatures", subject))

    def tag(self, manifest):
        self.done.append(("tag", manifest.digest))

    # filling
    def blob(self, data, kind=LAYER):
        self.content[Digest.of(data)] = data
        return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}

    def document(self, **parts):
        data = json.dumps({"schemaVersion": 2, **parts}).encode()
        return self.blob(data, parts["mediaType"])

    def image(self, *layers, subject=None):
        more = {"subject": subject, "artifactType": "x/y"} if subject else {}
        layers = [self.blob(data) for data in layers]
        made = self.document(mediaType=MANIFEST, config=self.blob(b"{}", CONFIG), layers=layers, **more)
        if subject:
            self.listed.setdefault(Digest.parse(subject["digest"]), []).append(descriptor(made))
        return made


def descriptor(document):
    return Descriptor(document["mediaType"], Digest.parse(document["digest"]), document["size"])


def move(source, target, root):
    freight = gather(source, source.manifest(descriptor(root)))
    return transfer(source, target, freight, step="push", listen=nobody, stop=threading.Event())


def test_blobs_come_before_manifests_children_before_their_index_and_the_tag_last():
    source, target = Box(), Box()
    images = [source.image(b"one", b"both"), source.image(b"two", b"both")]
    index = source.document(mediaType=INDEX, manifests=images)
    sbom = source.image(b"sbom", subject=index)
    moved = move(source, target, index)
    kinds = [kind for kind, *_ in target.done]
    assert kinds == ["blob"] * 5 + ["manifest"] * 4 + ["listed", "tag"]
    put = [str(digest) for kind, digest, *_ in target.done if kind == "manifest"]
    assert {*put[:2]} == {one["digest"] for one in images}, "which of them is first is chance: they go side by side"
    assert put[2:] == [index["digest"], sbom["digest"]]
    assert (moved.blobs, moved.blobs_sent, moved.referrers) == (5, 5, 1)


def test_signatures_under_a_tag_come_after_what_they_are_about_and_before_the_name():
    source, target = Box(), Box()
    image = source.image(b"one")
    signed = source.document(mediaType=MANIFEST, config=source.blob(b"{'s'}", CONFIG), layers=[source.blob(b"payload")])
    subject = Digest.parse(image["digest"])
    source.signed[subject] = source.manifest(descriptor(signed))
    move(source, target, image)

    assert [kind for kind, _ in target.done] == ["blob"] * 4 + ["manifest", "signatures", "tag"]
    assert target.done[-2] == ("signatures", subject)


def test_what_is_there_is_not_moved_again():
    source, target = Box(), Box()
    move(source, target, source.image(b"old", b"same"))
    moved = move(source, target, source.image(b"new", b"same"))
    assert (moved.blobs, moved.blobs_sent, moved.sent_bytes) == (3, 1, 3)


def test_an_index_waits_for_the_slowest_of_its_images_and_what_refers_for_the_index():
    source, target = Box(), Box()
    images = [source.image(bytes([number])) for number in range(3)]
    index = source.document(mediaType=INDEX, manifests=images)
    source.image(b"sbom", subject=index)
    slow, put = Digest.parse(images[0]["digest"]), target.put

    def slowly(manifest):
        if manifest.digest == slow:
            time.sleep(0.05)
        return put(manifest)

    target.put = slowly
    move(source, target, index)
    order = [digest for kind, digest, *_ in target.done if kind == "manifest"]
    assert order.index(slow) == 2
    assert str(order[3]) == index["digest"]


def test_an_index_of_indexes_comes_after_them():
    source, target = Box(), Box()
    inner = source.document(mediaType=INDEX, manifests=[source.image(b"one")])
    outer = source.document(mediaType=INDEX, manifests=[inner])
    put = target.put

    def slowly(manifest):
        if str(manifest.digest) == inner["digest"]:
            time.sleep(0.05)
        return put(manifest)

    target.put = slowly
    move(source, target, outer)
    order = [str(digest) for kind, digest, *_ in target.done if kind == "manifest"]
    assert order[1:] == [inner["digest"], outer["digest"]]


def test_after_a_failure_there_is_no_manifest_and_no_tag():
    source = Box()
    image = source.image(b"one", b"two", b"three")
    target = Box(broken=[Digest.of(b"two")])
    with pytest.raises(RemoteError):
        move(source, target, image)
    assert {kind for kind, *_ in target.done} <= {"blob"}


def test_all_that_refers_to_an_image_is_listed_in_one_go():
    # Three requests of a registry without the referrers API, each time.
    source, target = Box(), Box()
    image = source.image(b"one")
    attached = [source.image(data, subject=image) for data in (b"lock", b"sbom", b"provenance")]
    move(source, target, image)
    digests = tuple(descriptor(one).digest for one in attached)
    assert [entry for entry in target.done if entry[0] == "listed"] == [("listed", descriptor(image).digest, digests)]


def test_a_manifest_that_is_listed_as_a_referrer_but_refers_to_something_else_is_left_out():
    source, target = Box(), Box()
    image, other = source.image(b"one"), source.image(b"two")
    stray = source.image(b"sbom", subject=other)
    source.listed[descriptor(image).digest] = [descriptor(stray)]
    assert move(source, target, image).referrers == 0


def test_signatures_of_an_sbom_travel_too_and_circles_end():
    source, target = Box(), Box()
    image = source.image(b"one")
    sbom = source.image(b"sbom", subject=image)
    source.image(b"signature", subject=sbom)
    source.listed[descriptor(sbom).digest].append(descriptor(image))
    assert move(source, target, image).referrers == 2
