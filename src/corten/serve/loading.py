"""From `corten.json` to a model that has answered once. Runs in the worker thread; knows nothing of HTTP."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import msgspec

from corten.core.model import SPEC_FILE, Example, ModelSpec
from corten.core.schema import Style
from corten.errors import CortenError, UsageError
from corten.plugin import find
from corten.serve.job import Inputs, RequestError, Runner

_log = logging.getLogger(__name__)
_FORMAT = 1
_WARM_UPS = 5


class ReplayError(CortenError):
    """The model does not answer its recorded example as it did when it was packaged."""


class Loaded(msgspec.Struct, frozen=True):
    """A model ready to serve: the time it took to load, and a lone call (None: not known)."""

    runner: Runner
    load_s: float
    call_s: float | None


def read_spec(app: Path) -> ModelSpec:
    """Read the image's model spec; raises UsageError."""
    path = app / SPEC_FILE
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=ModelSpec)
    except OSError as error:
        raise UsageError(
            "serve.spec_missing", "cannot read the model's spec", where=str(path), why=error.strerror or str(error)
        ) from error
    except msgspec.DecodeError as error:
        raise UsageError(
            "serve.spec_invalid", "the model's spec is not what it should be", where=str(path), why=str(error)
        ) from error
    if spec.format != _FORMAT:
        raise UsageError(
            "serve.spec_format",
            f"a spec of format {spec.format}",
            where=str(path),
            why=f"this server reads format {_FORMAT}",
            hint="build the image with the same version of Corten as its runtime",
        )
    return spec


def load(spec: ModelSpec, models: Path, app: Path) -> Loaded:
    """Load the model, warm it up, replay its example. Raises whatever the model raises, and ReplayError."""
    start_s = time.perf_counter()
    runner = _runner(find("adapters", spec.adapter)().load(spec, models, app), spec)
    load_s = time.perf_counter() - start_s
    recorded = _replay(runner, spec.example) if spec.example is not None else None
    call_s = _warm_up(runner, recorded or runner.blank(), spec.batching.max_rows, trusted=recorded is not None)
    return Loaded(runner, load_s, call_s)


def _runner(model: Any, spec: ModelSpec) -> Runner:
    if model.schema.style is Style.CALL:
        from corten.serve.calls import CallsRunner

        if spec.streams == 1:
            return CallsRunner(model)
        from corten.serve.threaded import ThreadedRunner

        return ThreadedRunner(model, spec.streams)
    if spec.streams > 1:
        raise UsageError(
            "adapter.contract",
            f"`streams = {spec.streams}` is for classes whose methods take calls",
            why=f"the {spec.adapter} adapter's models take rows, which are joined instead",
            hint="leave `streams` out",
        )
    from corten.serve.rows import RowsRunner  # imports numpy, which CALL models may do without

    return RowsRunner(model)


def _replay(runner: Runner, example: Example) -> Inputs:
    """Ask the model its recorded question through the very code that answers requests."""
    try:
        inputs = runner.decode(msgspec.json.encode(example.inputs))
    except RequestError as error:
        raise ReplayError(
            "serve.replay_refused",
            "the model's schema refuses its recorded example",
            where=error.path,
            why=error.message,
            hint="record the example again with this model",
        ) from error
    result = runner.run([inputs]).results[0]
    if isinstance(result, BaseException):
        raise result
    assert isinstance(result, bytes)  # noqa: S101 - decoded without a form
    if example.outputs is None:
        return inputs
    from corten.serve.golden import difference

    found = difference(example.outputs, msgspec.json.decode(result)["outputs"], example.tolerance)
    if found is not None:
        raise ReplayError(
            "serve.replay_mismatch",
            "the model does not answer its recorded example as it did when it was packaged",
            where=found.path,
            why=f"expected {found.expected!r}, got {found.got!r} (tolerance {example.tolerance:g})",
            hint="rebuild with the versions the model was trained with, or record the example again",
        )
    return inputs


def _warm_up(runner: Runner, inputs: Inputs | None, max_rows: int, *, trusted: bool) -> float | None:
    """Call the model a few times, alone and as a batch; returns the median time of a lone call, None if unknown.

    Made-up inputs may be nonsense to the model, so what it says to them is noted and no more.
    """
    if inputs is None:
        return None
    times_s = []
    for _ in range(_WARM_UPS):
        outcome = runner.run([inputs])
        times_s.append(outcome.model_s)
        if isinstance(failure := outcome.results[0], BaseException):
            _log.log(
                logging.ERROR if trusted else logging.INFO,
                "the model refused a warm-up call with %s inputs",
                "recorded" if trusted else "made-up",
                extra={"reason": f"{type(failure).__qualname__}: {failure}"[:500]},
            )
            return None
    together = min(_WARM_UPS, max_rows // inputs.rows)
    if runner.joinable and together > 1:
        runner.run([inputs] * together)
    return sorted(times_s)[len(times_s) // 2]
