"""`corten run`: one replica of an image in the foreground, without daemon and gateway, gone with its terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from typing import Final

from corten import plugin
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.image import NAME_ANNOTATION
from corten.core.name import suggest_name
from corten.core.resources import Resources
from corten.core.secret import check_secrets
from corten.engine.base import Engine, Observed, ReplicaSpec
from corten.engine.devices import check_devices
from corten.errors import EngineError
from corten.ops.quarters import quarters
from corten.store.guard import using
from corten.store.layout import Layout

_PREFIX: Final = "one-"
_LOOK_S: Final = 0.2
_LINES: Final = 2000
# What a replica may take to finish what it has, and a moment more.
_DRAIN_S: Final = 35.0


def run(
    image: str,
    *,
    engine: str = "",
    env: Mapping[str, str] | None = None,
    egress: bool = False,
    resources: Resources | None = None,
    secrets: Mapping[str, str | bytes] | None = None,
    home: Home | None = None,
    listen: Listener = nobody,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Run an image of the store until it ends, or until KeyboardInterrupt or SystemExit ends it; its exit code.

    Of each of the `secrets` it finds a file in memory, as in `corten.deploy`. `say` gets the lines it writes. An Event
    `ready` names the unix socket it answers at. Raises what engines raise.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    given = check_secrets(secrets or {}, env or {})
    layout = Layout(home.store)
    kind = plugin.find("engines", engine or "embedded")

    def make(place: Home) -> Engine:
        made: Engine = kind.from_env(place, os.environ) if hasattr(kind, "from_env") else kind(place)
        return made

    home.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    with using(home.store), quarters(home, make, _PREFIX) as place:
        found = layout.resolve(image)
        name = suggest_name(found.annotations.get(NAME_ANNOTATION, "") or "model")
        spec = ReplicaSpec(
            id=f"{name}-r1-{token_hex(3)}",
            deployment=name,
            revision=1,
            image=found.digest,
            env=env or {},
            egress=egress,
            resources=resources or Resources(),
            secrets=given,
        )
        runs = make(place)
        check_devices(runs.describe(), spec.resources)
        listen(Event("image", Phase.STARTED, found.digest.short))
        runs.prepare(spec.image)
        try:
            started = runs.start(spec)
            listen(Event("run", Phase.DONE, f"listens at {started.address}", {"address": started.address}))
            return _follow(runs, spec.id, say)
        finally:
            _end(runs, spec.id, say)


def after(before: Sequence[str], lines: Sequence[str]) -> Sequence[str]:
    """What of the last lines is new, when `before` were the last ones then. Pure."""
    for count in range(min(len(before), len(lines)), 0, -1):
        if before[-count:] == lines[:count]:
            return lines[count:]
    return lines


def _follow(engine: Engine, replica_id: str, say: Callable[[str], None]) -> int:
    said: Sequence[str] = ()
    while True:
        seen = _seen(engine, replica_id)
        lines = engine.logs(replica_id, tail=_LINES)
        for line in after(said, lines):
            say(line)
        said = lines
        if not seen.running:
            if seen.reason:
                raise EngineError("run.ended", "the replica was ended", why=seen.reason, hint="corten run --memory ...")
            return seen.exit_code if seen.exit_code is not None and seen.exit_code >= 0 else 1
        time.sleep(_LOOK_S)


def _end(engine: Engine, replica_id: str, say: Callable[[str], None]) -> None:
    """Have it finish what it has, then nothing is left of it. A second Ctrl-C cuts that short."""
    try:
        engine.terminate(replica_id)
        deadline_s = time.monotonic() + _DRAIN_S
        while any(one.id == replica_id and one.running for one in engine.list()) and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S / 4)
    except KeyboardInterrupt:
        say("ended before it was done")
    finally:
        engine.remove(replica_id)


def _seen(engine: Engine, replica_id: str) -> Observed:
    for one in engine.list():
        if one.id == replica_id:
            return one
    raise EngineError("run.ended", "the replica was ended", why="somebody removed it")
