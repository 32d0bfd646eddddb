"""Pull an image, and what refers to it, from a registry into the local store."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from corten.core.events import Listener, nobody
from corten.core.home import Home
from corten.core.name import parse_name
from corten.core.reference import Reference
from corten.ops.transfers import Transferred, session, told
from corten.registry.local import LocalTarget
from corten.registry.remote import RemoteSource
from corten.registry.transfer import Moved, gather, transfer
from corten.store.guard import using
from corten.store.layout import Layout


def pull(
    reference: str | Reference,
    *,
    name: str = "",
    home: Home | None = None,
    plain_http: bool = False,
    ca: str | Path | None = None,
    listen: Listener = nobody,
    env: Mapping[str, str] | None = None,
) -> Transferred:
    """Pull an image of all its platforms; it is known by its whole reference then, and by `name` if one is given.

    Blobs that are here already are not fetched. Every blob is checked before it is visible, the name comes last.
    Raises NotFoundError `registry.unknown`, RemoteError (`registry.*`), PolicyError `registry.digest_mismatch`.
    """
    env = os.environ if env is None else env
    home = home or Home.from_env(env, uid=os.getuid())
    reference = Reference.parse(reference) if isinstance(reference, str) else reference
    # The short one first: a deployment of the image is called after its first name.
    names = (*([parse_name(name)] if name else ()), reference.name if reference.tag else str(reference))
    layout = Layout(home.store)
    with using(home.store), session(plain_http=plain_http, ca=ca, env=env) as talk:
        layout.sweep(now_s=time.time())
        repository = talk.reading(reference)
        source = RemoteSource(repository)
        target = LocalTarget(layout, names, talk.retries, talk.stop)

        def work() -> Moved:
            freight = gather(source, repository.manifest(reference.version))
            return transfer(source, target, freight, step="pull", listen=listen, stop=talk.stop)

        return told("pull", reference, listen, work)
