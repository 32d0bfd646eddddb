"""The other media types of `/predict`: CSV and numpy's own format, in and out, for ROWS models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from corten.http import Request
from corten.serve.call import is_json
from corten.serve.calls import CallsRunner
from corten.serve.job import Inputs, Reply, RequestError, Runner
from corten.serve.tabular import body_of, read_csv

if TYPE_CHECKING:
    import numpy as np

CSV = "text/csv"
NPY = "application/x-npy"
_Form = Callable[[Mapping[str, "np.ndarray"]], Reply]


def decode_as_declared(runner: Runner, request: Request) -> Inputs:
    """The inputs in the form `Content-Type` says, to be answered in the one `Accept` does. Raises RequestError."""
    headers = request.headers
    declared = headers.get("content-type", "application/json")
    kind = declared.partition(";")[0].strip().lower()
    form = _form(headers.get("accept", ""))
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "request.media_type", "send the body as it is, not compressed")
    if isinstance(runner, CallsRunner):
        # Only plain JSON has a place for arguments; what is asked for beside it is a wish (RFC 9110, 12.4.1).
        if not is_json(declared.encode("latin-1")):
            raise RequestError(415, "request.media_type", "send plain JSON as application/json")
        return runner.decode(request.body)
    if kind == CSV:
        inputs = runner.decode(body_of(read_csv(request.body), runner.schema, texts=True))
    elif kind == NPY:
        from corten.serve.npy import read_npy  # imports numpy

        inputs = read_npy(request.body, runner.schema.inputs)
    elif is_json(declared.encode("latin-1")):
        inputs = runner.decode(request.body)
    else:
        raise RequestError(415, "request.media_type", f"send application/json, {CSV} or {NPY}")
    inputs.form = form
    return inputs


def accepted(accept: str) -> Iterator[str]:
    """The media types of an `Accept` in their order, without those that are refused."""
    for part in accept.lower().split(","):
        kind, _, parameters = part.partition(";")
        if parameters.replace(" ", "") not in {"q=0", "q=0.0"}:
            yield kind.strip()


def _form(accept: str) -> _Form | None:
    """How to answer: the first type of the list we have; JSON where we have none."""
    for kind in accepted(accept):
        match kind:
            case "text/csv":
                return _as_csv
            case "application/x-npy":
                return _as_npy
            case "application/json" | "application/*" | "*/*":
                return None
            case _:
                continue
    return None


def _as_csv(outputs: Mapping[str, Any]) -> Reply:
    from corten.serve.npy import columns_of
    from corten.serve.tabular import write_csv

    return Reply(write_csv(columns_of(outputs)), f"{CSV}; charset=utf-8; header=present")


def _as_npy(outputs: Mapping[str, Any]) -> Reply:
    from corten.serve.npy import write_npy

    return Reply(write_npy(outputs), NPY)
