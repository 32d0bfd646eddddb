"""What the server inside an image must know of its model: the content of `/app/corten.json`."""

from __future__ import annotations

from typing import Any

import msgspec

from corten.core.schema import Schema

SPEC_FILE = "corten.json"
MOST_WORKERS = 64
MOST_STREAMS = 256


class Example(msgspec.Struct, frozen=True):
    """A request body and the answer the training process gave to it, replayed before a replica is ready.

    `inputs` is the JSON body of `POST /predict`, `outputs` the value of its answer's `outputs` key (None: not
    recorded, so only that the model answers is checked). Numbers may differ by `tolerance` (relative and absolute).
    """

    inputs: Any
    outputs: Any = None
    tolerance: float = 1e-5


class Batching(msgspec.Struct, frozen=True):
    """Joining of concurrent requests: at most this many rows (or calls) in one call of the model; 1 switches it off."""

    max_rows: int = 256


class Limits(msgspec.Struct, frozen=True):
    """What a replica takes on. Bodies in bytes; `queue` counts requests waiting for the model.

    Who does not wait for the answer gives the model `job_timeout_s`.
    An answer that comes piece by piece may pause for `predict_timeout_s`, and take `stream_timeout_s` in all.
    """

    max_body_bytes: int = 16 << 20
    queue: int = 1024
    predict_timeout_s: float = 60.0
    stream_timeout_s: float = 600.0
    job_timeout_s: float = 600.0


class ModelSpec(msgspec.Struct, frozen=True):
    """One model: which adapter loads which files, and what is known of its types.

    `files` are names below the model folder, the main file first. `entry` is `module:Class` for the `pyclass` adapter.
    `method` is the estimator's method to call (`predict`, `predict_proba` ...). With `grpc` it is asked over gRPC too.
    `webhook_hosts` may be told of jobs wherever they are; other hosts only over https and on the public internet.
    `workers` processes answer for it, as many as there are processors if 0; in each, `streams` requests are answered
    side by side, each in a thread of its own, where the model's methods are neither `async` nor joined.
    `trusted` are digests of model files that may name what no model needs, since the user said so.
    """

    name: str
    adapter: str
    files: tuple[str, ...] = ()
    entry: str = ""
    method: str = "predict"
    schema: Schema | None = None
    example: Example | None = None
    batching: Batching = msgspec.field(default_factory=Batching)
    limits: Limits = msgspec.field(default_factory=Limits)
    grpc: bool = False
    webhook_hosts: tuple[str, ...] = ()
    workers: int = 1
    streams: int = 1
    trusted: tuple[str, ...] = ()
    format: int = 1
