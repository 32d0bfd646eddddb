"""Push an image of the local store, and what refers to it, to a registry."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from corten.core.digest import Digest
from corten.core.events import Listener, nobody
from corten.core.home import Home
from corten.core.image import BASE_NAME, KIND_ANNOTATION, Descriptor, LayerKind
from corten.core.reference import Reference
from corten.errors import CortenError, UsageError
from corten.ops.transfers import Transferred, digest_given, session, told
from corten.registry.local import LocalSource
from corten.registry.remote import RemoteTarget
from corten.registry.transfer import Freight, gather, transfer
from corten.store.guard import using
from corten.store.layout import Layout


def push(
    image: str | Digest,
    reference: str | Reference,
    *,
    home: Home | None = None,
    plain_http: bool = False,
    ca: str | Path | None = None,
    listen: Listener = nobody,
    env: Mapping[str, str] | None = None,
) -> Transferred:
    """Push an image (name, `NAME@sha256:...`, digest or its first digits; of all its platforms) to `reference`.

    The registry gets the very bytes of the store, so the digest is the same there; the store remembers the name, which
    tells a later push what to mount. `ca` is a PEM file of authorities besides the system's, `plain_http` leaves TLS
    out. Raises NotFoundError, UsageError, RemoteError (`registry.*`), PolicyError for content that is not its digest.
    """
    env = os.environ if env is None else env
    home = home or Home.from_env(env, uid=os.getuid())
    reference = Reference.parse(reference) if isinstance(reference, str) else reference
    if reference.digest is not None:
        raise digest_given(reference, f"corten push {image}")
    layout = Layout(home.store)
    with using(home.store):
        root = layout.resolve(str(image))
        source = LocalSource(layout)
        freight = gather(source, source.manifest(root))
        mounts = _mounts(layout, source, reference) | _beneath(freight, reference)
        with session(plain_http=plain_http, ca=ca, env=env) as talk:
            repository = talk.writing(reference, sorted(set(mounts.values())))
            target = RemoteTarget(repository, (reference.tag,), mounts, talk.stop)
            done = told(
                "push",
                reference,
                listen,
                lambda: transfer(source, target, freight, step="push", listen=listen, stop=talk.stop),
            )
        layout.tag(reference.name, Descriptor(root.media_type, root.digest, root.size_bytes, platform=root.platform))
    return done


def _mounts(layout: Layout, source: LocalSource, reference: Reference) -> dict[Digest, str]:
    """Which other repository of the registry has a blob, as far as names of what was pushed or pulled tell."""
    found: dict[Digest, str] = {}
    for other, descriptor in _elsewhere(layout.images(), reference):
        # What cannot be read any more only cannot help.
        try:
            manifests = gather(source, source.manifest(descriptor)).image
        except CortenError:
            continue
        found |= {blob.digest: other for manifest in manifests for blob in manifest.blobs}
    return found


def _beneath(freight: Freight, reference: Reference) -> dict[Digest, str]:
    """The layers of the image that one of ours was built on: they are where that lies, if it is this registry."""
    found: dict[Digest, str] = {}
    for manifest in freight.image:
        try:
            base = Reference.parse(manifest.descriptor.annotations.get(BASE_NAME, ""))
        except UsageError:
            continue
        if base.registry == reference.registry and base.repository != reference.repository:
            layers = (blob for blob in manifest.blobs if blob.annotations.get(KIND_ANNOTATION) == LayerKind.BASE.value)
            found |= {layer.digest: base.repository for layer in layers}
    return found


def _elsewhere(images: Iterable[tuple[str, Descriptor]], reference: Reference) -> Iterable[tuple[str, Descriptor]]:
    for name, descriptor in images:
        try:
            known = Reference.parse(name)
        except UsageError:
            continue
        if known.registry == reference.registry and known.repository != reference.repository:
            yield known.repository, descriptor
