"""Copy an image, and what refers to it, from one registry or repository to another, without keeping it here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from corten.core.digest import Digest
from corten.core.events import Listener, nobody
from corten.core.reference import Reference
from corten.ops.transfers import Transferred, digest_given, session, told
from corten.registry.remote import RemoteSource, RemoteTarget
from corten.registry.transfer import Freight, Moved, gather, transfer


def copy(
    source: str | Reference,
    target: str | Reference,
    *,
    plain_http: bool = False,
    ca: str | Path | None = None,
    listen: Listener = nobody,
    env: Mapping[str, str] | None = None,
) -> Transferred:
    """Copy an image of all its platforms; bytes stream through, and within one registry they are mounted instead.

    The digest is the same on both sides.

    Raises NotFoundError `registry.unknown`, RemoteError (`registry.*`), PolicyError `registry.digest_mismatch`.
    """
    env = os.environ if env is None else env
    source = Reference.parse(source) if isinstance(source, str) else source
    target = Reference.parse(target) if isinstance(target, str) else target
    if target.digest is not None:
        raise digest_given(target, f"corten copy {source}")
    near = source.registry == target.registry and source.repository != target.repository
    with session(plain_http=plain_http, ca=ca, env=env) as talk:
        there = talk.reading(source)
        here = talk.writing(target, [there.name] if near else [])

        def work() -> Moved:
            freight = gather(RemoteSource(there), there.manifest(source.version))
            mounts = _mounts(freight, there.name) if near else {}
            end = RemoteTarget(here, (target.tag,), mounts, talk.stop)
            return transfer(RemoteSource(there), end, freight, step="copy", listen=listen, stop=talk.stop)

        return told("copy", target, listen, work)


def _mounts(freight: Freight, repository: str) -> dict[Digest, str]:
    manifests = (*freight.image, *freight.referrers, *(signed for _, signed in freight.signatures))
    return {blob.digest: repository for manifest in manifests for blob in manifest.blobs}
