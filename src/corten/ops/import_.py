"""Take an image out of a file: every digest is checked before any name points at anything."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.meter import Meter
from corten.core.name import parse_name, suggest_name
from corten.errors import UsageError
from corten.store import bundle
from corten.store.guard import using
from corten.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Imported:
    """Images that are in the store now, by name; `attached` counts locks, SBOMs, signatures that came along."""

    images: tuple[tuple[str, Digest], ...]
    attached: int
    size_bytes: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "images": [{"name": name, "digest": str(digest)} for name, digest in self.images],
            "attached": self.attached,
            "size_bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
        }


def import_(
    path: str | Path, *, name: str = "", home: Home | None = None, now_s: float | None = None, listen: Listener = nobody
) -> Imported:
    """Read a bundle (or another tool's OCI archive) into the store, under its own name or `name`.

    Raises PolicyError `bundle.refused`, `bundle.wrong_digest`, `store.blob_corrupt`; UsageError `bundle.malformed`,
    `bundle.unreadable`, `bundle.several`; NotFoundError `bundle.incomplete`. No name has moved then.
    """
    began_s = time.perf_counter()
    home = home or Home.from_env(os.environ, uid=os.getuid())
    path = Path(path).absolute()
    layout = Layout(home.store)
    with using(home.store):
        layout.sweep(now_s=time.time() if now_s is None else now_s)
        listen(Event("import", Phase.STARTED, path.name))
        size_bytes = path.stat().st_size if path.is_file() else 0
        arrived = bundle.take(path, layout, Meter("import", size_bytes, listen).add)
        attached = bundle.check_whole(arrived, layout, path)
        if name and len(arrived.images) != 1:
            raise UsageError(
                "bundle.several",
                f"`{path.name}` holds {len(arrived.images)} images",
                why=f"only one could be called `{name}`",
                hint="import without --name",
            )
        images = tuple((parse_name(name) if name else _name(given, path), entry) for given, entry in arrived.images)
        for entry, subject in attached:
            layout.attach(subject, [entry])
        for own, entry in images:
            layout.tag(own, entry)
    figures = {"bytes": arrived.new_bytes}
    listen(Event("import", Phase.DONE, f"{len(arrived.blobs)} blobs, {arrived.new_bytes / 1e6:.1f} MB", figures))
    return Imported(
        images=tuple((own, entry.digest) for own, entry in images),
        attached=len(attached),
        size_bytes=arrived.new_bytes,
        seconds=time.perf_counter() - began_s,
    )


def _name(given: str, path: Path) -> str:
    """The name in the file where it is one of ours; of others' references what is nearest to it."""
    return suggest_name(given or path.name.partition(".")[0])
