"""The test gate of a build: start the image as a replica, ask every endpoint, compare with the recording, stop it."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from corten import plugin
from corten.adapters.distributions import distribution
from corten.builder.plan import GRPC_REQUIREMENT, RUNTIME_REQUIREMENTS
from corten.control.client import UnixConnection
from corten.control.last_lines import advice, for_people
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.events import Listener, nobody
from corten.core.home import Home
from corten.core.model import ModelSpec
from corten.engine.base import Engine, Observed, ReplicaSpec
from corten.errors import CortenError, UnhealthyError
from corten.ops.quarters import quarters
from corten.ops.sample import sample_body
from corten.ops.unused import Unused, unused_packages
from corten.serve.golden import difference
from corten.store.layout import Layout
from corten.store.trees import Trees

_ENGINE: Final = "embedded"
_FOLDER: Final = "gate-"
_TRACE: Final = "loaded"
# The server's own: nobody can leave them out, used or not.
_SERVER: Final = frozenset(distribution(line) for line in (*RUNTIME_REQUIREMENTS, GRPC_REQUIREMENT))
_LOG_LINES: Final = 20
_READY_EVERY_S: Final = 0.01
_ALIVE_EVERY_S: Final = 0.1
_GET_S: Final = 10.0
_STOP_S: Final = 10.0
_REPLAYED: Final = {
    "recorded": "it answers as recorded",
    "answered": "it answers",
    "refused": "it says what it refuses",
    "none": "it was not asked, nothing is known of its inputs",
}


@dataclass(frozen=True, slots=True)
class Gate:
    """What the test of an image found.

    `ready_s` is from the start of its process to its first yes, layers unpacked before; `peak_rss_bytes` its most
    memory (0: not known). `replay`: `recorded` (the answer equals the training process'), `answered` (nothing was
    recorded, it answers), `refused` (made-up zeros, and it says why not), `none` (nothing is known of its inputs).
    """

    ready_s: float
    peak_rss_bytes: int
    sandbox: str
    replay: str
    checks: tuple[str, ...]
    unused: tuple[Unused, ...] = ()

    @property
    def told(self) -> str:
        """What came of it, for people."""
        memory = f", {self.peak_rss_bytes / 1e6:.0f} MB at most" if self.peak_rss_bytes else ""
        return f"{_REPLAYED[self.replay]}, ready in {self.ready_s:.2f} s{memory}"

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "ready_s": round(self.ready_s, 3),
            "peak_rss_bytes": self.peak_rss_bytes,
            "sandbox": self.sandbox,
            "replay": self.replay,
            "checks": list(self.checks),
            "unused": [{"name": one.name, "version": one.version, "size_bytes": one.size_bytes} for one in self.unused],
        }


def run_gate(
    image: Digest,
    spec: ModelSpec,
    settings: Settings,
    *,
    home: Home,
    env: Mapping[str, str],
    max_cold_start_s: float = 0.0,
    listen: Listener = nobody,
) -> Gate:
    """Test an image of this machine's platform that is in the store; it needs no name. Nothing is left running.

    Raises UnhealthyError `gate.failed` (with the last lines it wrote) and, when it took more than `max_cold_start_s`
    (0: no limit) to get ready, `gate.too_slow`; and what the engine raises.
    """
    kind = plugin.find("engines", _ENGINE)
    # With the home itself: unpacking makes its folders, and others profit from it.
    kind.from_env(home, env, listen=listen).prepare(image)
    with quarters(home, kind, _FOLDER) as rooms:
        engine: Engine = kind.from_env(rooms, env)
        replica = ReplicaSpec(
            id=f"gate-r1-{secrets.token_hex(3)}",
            deployment=spec.name,
            revision=1,
            image=image,
            env={**settings.env, "CORTEN_TRACE_IMPORTS": _TRACE},
            egress=settings.egress,
        )
        try:
            return _Test(image, spec, settings, engine, replica, home).run(max_cold_start_s)
        finally:
            engine.remove(replica.id)


@dataclass(slots=True)
class _Test:
    """One replica and what it is asked."""

    image: Digest
    spec: ModelSpec
    settings: Settings
    engine: Engine
    replica: ReplicaSpec
    home: Home
    address: str = ""

    def run(self, max_cold_start_s: float) -> Gate:
        began_s = time.perf_counter()
        observed = self.engine.start(self.replica)
        self.address = observed.address
        self._wait_ready(began_s)
        ready_s = time.perf_counter() - began_s
        if max_cold_start_s and ready_s > max_cold_start_s:
            raise UnhealthyError(
                "gate.too_slow",
                f"`{self.spec.name}` took {ready_s:.2f} s to get ready, its budget is {max_cold_start_s:g} s",
                where=self.image.short,
                why="measured from the start of its process to its first yes on /readyz",
                hint="make it load less, or raise max_cold_start_s (--max-cold-start-s); nothing was named",
            )
        replay = self._replay()
        for path in ("/openapi.json", "/metrics", "/readyz"):
            self._check(path)
        peak = _peak_rss_bytes(observed.pid or self._observed().pid)
        return Gate(
            ready_s=ready_s,
            peak_rss_bytes=peak,
            sandbox=self.engine.describe().get("sandbox", ""),
            replay=replay,
            checks=(*((f"predict: {replay}",) if replay != "none" else ()), "openapi.json", "metrics", "readyz"),
            unused=self._unused(),
        )

    def _wait_ready(self, began_s: float) -> None:
        until_s = began_s + self.settings.ready_timeout_s
        looked_s = began_s
        status, text = 0, b""
        while status != 200:
            now_s = time.perf_counter()
            if now_s > until_s:
                said = text.decode("utf-8", "replace")[:300]
                raise self._failed(f"it was not ready within {self.settings.ready_timeout_s:g} s; it answered: {said}")
            if now_s - looked_s > _ALIVE_EVERY_S:
                looked_s = now_s
                if not (seen := self._observed()).running:
                    raise self._failed(f"its process ended before it was ready, exit code {seen.exit_code}")
            time.sleep(_READY_EVERY_S)
            status, text = self._ask("GET", "/readyz")

    def _replay(self) -> str:
        """Ask the recorded question, or made-up zeros, and judge the answer."""
        body = sample_body(self.spec)
        if body is None:
            return "none"
        status, text = self._ask("POST", "/predict", body, timeout_s=self.settings.request_timeout_s)
        example = self.spec.example
        if example is None and 400 <= status < 500:
            return "refused"  # zeros may be nonsense to it; that it says so in an answer is what can be checked
        if status != 200:
            raise self._failed(f"POST /predict answered {status}: {text.decode('utf-8', 'replace')[:500]}")
        if example is None or example.outputs is None:
            return "answered"
        found = difference(example.outputs, _json(text).get("outputs"), example.tolerance)
        if found is not None:
            raise self._failed(
                f"its answer is not the recorded one: {found.path}: expected {found.expected!r}, got {found.got!r} "
                f"(tolerance {example.tolerance:g})"
            )
        return "recorded"

    def _check(self, path: str) -> None:
        status, text = self._ask("GET", path)
        sound = True
        if path == "/openapi.json":
            sound = "openapi" in _json(text)
        elif path == "/metrics":
            sound = b"corten_requests_total" in text
        if status != 200 or not sound:
            raise self._failed(f"GET {path} answered {status}: {text.decode('utf-8', 'replace')[:300]}")

    def _unused(self) -> tuple[Unused, ...]:
        """Stop it, read what it loaded; nothing where it cannot tell (another engine, an older server)."""
        trace = Path(self.address).parent / _TRACE
        self.engine.terminate(self.replica.id)
        until_s = time.perf_counter() + _STOP_S
        while self._observed().running and time.perf_counter() < until_s:
            time.sleep(_READY_EVERY_S)
        layout = Layout(self.home.store)
        root = Trees(layout, self.home.trees).prepare(layout.image(self.image)).root
        try:
            found = unused_packages(root, trace.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            return ()
        return tuple(one for one in found if distribution(one.name) not in _SERVER)

    def _observed(self) -> Observed:
        return next(one for one in self.engine.list() if one.id == self.replica.id)

    def _ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = _GET_S) -> tuple[int, bytes]:
        """Status and body; status 0 and the reason when there was no answer."""
        connection = _connection(self.address, timeout_s)
        try:
            data = None if body is None else json.dumps(body).encode()
            # Whole, also from models that answer piece by piece.
            headers = {"Content-Type": "application/json", "Accept": "application/json"} if data else {}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, (str(error) or type(error).__name__).encode()
        finally:
            connection.close()

    def _failed(self, why: str) -> CortenError:
        lines = self.engine.logs(self.replica.id, tail=_LOG_LINES)
        return UnhealthyError(
            "gate.failed",
            f"`{self.spec.name}` did not pass its test; nothing was named",
            where=f"image {self.image.short}",
            why="\n".join([why, *map(for_people, lines)]),
            hint=advice(lines) or "mend the model and build again",
        )


def _connection(address: str, timeout_s: float) -> http.client.HTTPConnection:
    if address.startswith("/"):
        return UnixConnection(address, timeout_s)
    return http.client.HTTPConnection(address, timeout=timeout_s)


def _json(text: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        if isinstance(value := json.loads(text), dict):
            return value
    return {}


def _peak_rss_bytes(pid: int) -> int:
    """The most memory a process held in RAM so far (VmHWM of proc_pid_status(5)); 0 when nobody can tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
