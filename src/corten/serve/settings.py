"""The environment a replica is started with (docs/runtime-contract.md, clauses 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from corten.adapters.threads import processors
from corten.core.model import MOST_WORKERS, ModelSpec
from corten.errors import UsageError
from corten.http import Address, TcpAddress, UnixAddress, parse_address
from corten.serve.seat import Seat

_LOG_LEVELS = ("debug", "info", "warning", "error")


class Settings(msgspec.Struct, frozen=True):
    """What the server is told from outside. `access_log` is the share of successful answers that are logged; `trace` a
    file's name beside the unix socket, for the files this process loaded.
    """

    listen: Address
    app_dir: Path = Path("/app")
    models_dir: Path = Path("/models")
    deployment: str = ""
    revision: str = ""
    replica: str = ""
    drain_s: float = 30.0
    access_log: float = 0.0
    log_level: str = "info"
    drift: bool = True  # watch the distributions of features
    trace: str = ""
    grpc_listen: Address | None = None  # None: where `grpc_address` says
    jobs_dir: Path | None = None  # None: a folder of the process's own
    webhook_hosts: tuple[str, ...] = ()
    workers: int | None = None  # processes; 0: as many as there are processors; None: as the model's spec says
    seat: Seat | None = None  # of a process that is one of several

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read CORTEN_*; raises UsageError naming the variable that is wrong."""
        level = env.get("CORTEN_LOG_LEVEL", "info").lower()
        if level not in _LOG_LEVELS:
            raise _wrong("CORTEN_LOG_LEVEL", level, "expected one of " + ", ".join(_LOG_LEVELS))
        # PORT is what hosting platforms set; 8080 is what the image exposes.
        listen = env.get("CORTEN_LISTEN") or f"0.0.0.0:{env.get('PORT') or 8080}"
        return cls(
            listen=parse_address(listen),
            app_dir=Path(env.get("CORTEN_APP_DIR") or "/app"),
            models_dir=Path(env.get("CORTEN_MODELS_DIR") or "/models"),
            deployment=env.get("CORTEN_DEPLOYMENT", ""),
            revision=env.get("CORTEN_REVISION", ""),
            replica=env.get("CORTEN_REPLICA", ""),
            drain_s=_number(env, "CORTEN_DRAIN_S", 30.0, most=86_400.0),
            access_log=_number(env, "CORTEN_ACCESS_LOG", 0.0, most=1.0),
            log_level=level,
            drift=bool(_number(env, "CORTEN_DRIFT", 1.0, most=1.0)),
            trace=_file_name(env, "CORTEN_TRACE_IMPORTS"),
            jobs_dir=Path(given) if (given := env.get("CORTEN_JOBS_DIR")) else None,
            webhook_hosts=tuple(host for host in env.get("CORTEN_WEBHOOK_HOSTS", "").replace(",", " ").split()),
            grpc_listen=parse_address(given) if (given := env.get("CORTEN_GRPC_LISTEN")) else None,
            workers=_workers(env),
            seat=Seat.parse(env["CORTEN_SEAT"]) if env.get("CORTEN_SEAT") else None,
        )

    def workers_of(self, spec: ModelSpec) -> int:
        """How many processes are to answer for this model."""
        given = spec.workers if self.workers is None else self.workers
        return given or max(1, min(int(processors()), MOST_WORKERS))

    @property
    def grpc_address(self) -> Address:
        """Where gRPC is answered, if it is: as told, else beside HTTP."""
        from corten.core.route import GRPC_PORT, grpc_address  # most servers are not asked

        if self.grpc_listen is not None:
            return self.grpc_listen
        if isinstance(self.listen, UnixAddress):
            return UnixAddress(Path(grpc_address(str(self.listen.path))))
        return TcpAddress(self.listen.host, GRPC_PORT)

    @property
    def identity(self) -> dict[str, str]:
        """Who this replica is, as far as it was told."""
        known = {"deployment": self.deployment, "revision": self.revision, "replica": self.replica}
        return {key: text for key, text in known.items() if text}


def _number(env: Mapping[str, str], name: str, default: float, *, most: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 <= number <= most:
        raise _wrong(name, text, f"expected a number from 0 to {most:g}")
    return number


def _workers(env: Mapping[str, str]) -> int | None:
    text = env.get("CORTEN_WORKERS")
    if not text:
        return None
    if text == "auto":
        return 0
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_WORKERS:
        raise _wrong("CORTEN_WORKERS", text, f"expected a number from 1 to {MOST_WORKERS}, or auto")
    return int(text)


def _file_name(env: Mapping[str, str], name: str) -> str:
    text = env.get(name, "")
    if text != Path(text).name:
        raise _wrong(name, text, "expected a file's name, without a folder")
    return text


def _wrong(name: str, text: str, why: str) -> UsageError:
    return UsageError("serve.environment", f"cannot use `{name}={text[:100]}`", why=why)
