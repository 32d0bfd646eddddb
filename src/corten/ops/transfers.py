"""What push, pull and copy share: a session with registries, what a transfer did and how it is told."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.core.events import Event, Listener, Phase
from corten.core.proxy import proxies_from
from corten.core.reference import Reference
from corten.errors import UsageError
from corten.registry.ask import Trust
from corten.registry.session import Chance, Session
from corten.registry.transfer import Moved


@dataclass(frozen=True, slots=True)
class Transferred:
    """An image that is where it was to go. `seconds` for all of it; sizes as in Moved."""

    reference: Reference
    moved: Moved
    seconds: float

    @property
    def pinned(self) -> str:
        """`registry/repository@sha256:...`: what never moves."""
        return f"{self.reference.registry}/{self.reference.repository}@{self.moved.digest}"

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        moved = self.moved
        return {
            "reference": str(self.reference),
            "pinned": self.pinned,
            "digest": str(moved.digest),
            "blobs": moved.blobs,
            "blobs_sent": moved.blobs_sent,
            "blobs_mounted": moved.blobs_mounted,
            "size_bytes": moved.size_bytes,
            "sent_bytes": moved.sent_bytes,
            "referrers": moved.referrers,
            "seconds": round(self.seconds, 3),
        }


def session(*, plain_http: bool, ca: str | Path | None, env: Mapping[str, str]) -> Session:
    """Talk to registries with this machine's clock and chance."""
    trust = Trust(plain_http=plain_http, ca=Path(ca) if ca else None, proxies=proxies_from(env))
    return Session(trust, env, Chance(time.monotonic, random.random))


def told(step: str, reference: Reference, listen: Listener, work: Callable[[], Moved]) -> Transferred:
    """Run a transfer, say when it begins and what became of it."""
    listen(Event(step, Phase.STARTED, str(reference)))
    began_s = time.perf_counter()
    moved = work()
    took_s = time.perf_counter() - began_s
    there = moved.blobs - moved.blobs_sent
    message = f"{moved.sent_bytes / 1e6:.1f} MB in {moved.blobs_sent} blobs, {there} were there"
    if moved.referrers:
        message += f", {moved.referrers} referrers"
    figures = {"seconds": took_s, "bytes": moved.sent_bytes, "digest": str(moved.digest)}
    listen(Event(step, Phase.DONE, message, figures))
    return Transferred(reference, moved, took_s)


def digest_given(target: Reference, command: str) -> UsageError:
    """A target is a name: what its digest will be, the content decides."""
    return UsageError(
        "registry.digest_given",
        f"an image goes to a name, not to `{target.digest}`",
        hint=f"{command} {target.registry}/{target.repository}:{target.tag or 'latest'}",
    )
