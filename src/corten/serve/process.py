"""What every process of a server does alike, alone or as one of several."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from enum import IntEnum
from typing import TYPE_CHECKING

from corten.core.model import ModelSpec
from corten.errors import CortenError, UsageError
from corten.http import Address, Limits, Server, UnixAddress
from corten.serve.meters import Meters
from corten.serve.settings import Settings
from corten.serve.site import Site
from corten.serve.trace import write_loaded

if TYPE_CHECKING:
    from corten.serve.grpc_server import GrpcServer

_log = logging.getLogger(__name__)

EXPIRE_EVERY_S = 0.1
_JOBS_CUT_S = 0.1  # to write down what became of jobs
# How long one thread may keep the others waiting: the interpreter's 5 ms would be the loop's latency beside a model
# written in Python.
SWITCH_S = 0.001
# A large request is millions of lists, and with the interpreter's 700 the collector looks through all of them again and
# again: 4.3 s for 16 MiB of rows, against 2.
_GC_THRESHOLD = (20_000, 20, 20)
# While loading: most of what is made stays.
_GC_THRESHOLD_LOADING = (100_000, 20, 20)
# Behind a unix socket is a gateway that pools connections; it must be the one to close them, or requests would meet
# connections that are just being closed. Envoy does so after an hour.
_POOL_IDLE_S = 2 * 3600.0


class Exit(IntEnum):
    """What the process says when it ends (docs/runtime-contract.md, clause 8)."""

    DONE = 0  # drained
    MODEL_FAILED = 1  # it did not load, or does not answer as recorded
    WRONG_CONFIG = 2  # environment, corten.json or address
    CUT_SHORT = 3  # requests were still unanswered at the end of CORTEN_DRAIN_S
    SECOND_SIGNAL = 128 + signal.SIGTERM


def set_up(spec: ModelSpec, settings: Settings, meters: Meters) -> tuple[Site, Server]:
    """A site without its model yet and the HTTP server it is asked through, both counted in `meters`."""
    site = Site(spec, settings, meters)
    pooled = isinstance(settings.listen, UnixAddress)
    limits = Limits(body_bytes=spec.limits.max_body_bytes, idle_s=_POOL_IDLE_S if pooled else Limits().idle_s)
    headers = [("X-Corten-Revision", settings.revision)] if settings.revision else []
    server = Server(site.handle, limits, headers=headers, on_refused=site.refused)
    meters.count_in_flight(lambda: server.in_flight)
    return site, server


async def drain(site: Site, server: Server, grpc: GrpcServer | None, drain_s: float, *, linger_s: float = 0.5) -> bool:
    """Finish what is in hand, jobs and calls over gRPC too; whether all of it was.

    `linger_s` is how long connections without a request are kept for one that is on its way.
    """
    jobs_s = max(drain_s - _JOBS_CUT_S, 0.0)
    parts = [server.drain(drain_s, linger_s=linger_s), site.drain_jobs(jobs_s)]
    if grpc is not None:
        parts.append(grpc.drain(drain_s))
    drained = all(await asyncio.gather(*parts))
    if not drained:
        _log.error("requests were left unanswered", extra={"in_flight": site.meters.in_flight})
        site.give_up()
    if grpc is not None:
        await grpc.close()
    return drained


def begin() -> None:
    """What is imported by now is no garbage, and most of what is made next will stay: looking for some would be slow.

    Importing and loading with the interpreter's thresholds takes a twentieth longer.
    """
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD_LOADING)
    gc.enable()


def has_little() -> bool:
    """Whether what was made since `begin` is so little that settling takes some milliseconds: no round was due yet."""
    return not any(gc.get_count()[1:])


def settle() -> None:
    """What is there now stays: without it in their way, the collector's rounds cost next to nothing.

    Nor do they touch what is frozen, so that processes forked later go on sharing it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)


def tell_loaded(settings: Settings) -> None:
    """Write which files this process loaded, where somebody wants to know (clause 2.5)."""
    if settings.trace and isinstance(settings.listen, UnixAddress):
        write_loaded(settings.listen.path.with_name(settings.trace))


async def start_grpc(site: Site, address: Address, *, shared: bool = False) -> GrpcServer:
    """Listen for gRPC too, beside others at the same port if `shared`. Raises UsageError."""
    try:
        from corten.serve.grpc_server import GrpcServer
    except ImportError as error:
        raise UsageError(
            "serve.packages_missing",
            "gRPC is asked for and its library is not there",
            why=str(error),
            hint="build the image again with `grpc = true`, or install `grpcio`",
        ) from error
    server = GrpcServer(site, shared=shared)
    await server.start(address)
    site.meters.count_in_flight(lambda: server.in_flight)
    return server


def log_failure(error: BaseException) -> None:
    """Say why there is no model."""
    extra = error.as_dict() if isinstance(error, CortenError) else {}
    _log.critical("the model could not be loaded", exc_info=error, extra=extra)


def leave(code: int) -> None:
    """End the process without waiting for threads or for what models do at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
