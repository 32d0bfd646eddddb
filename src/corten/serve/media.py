"""The other media types of `/predict`: tables, arrays, forms, files, in and out, as the model's schema says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from corten.core.schema import Schema
from corten.http import Request
from corten.serve.call import is_json
from corten.serve.calls import CallsRunner
from corten.serve.job import Inputs, Reply, RequestError, Runner, invalid
from corten.serve.tabular import body_of, read_csv

if TYPE_CHECKING:
    import numpy as np

CSV = "text/csv"
NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
FORM = "multipart/form-data"
_SUFFIXES = {"csv": CSV, "npy": NPY, "arrow": ARROW, "json": "application/json"}
_Form = Callable[[Mapping[str, "np.ndarray"]], Reply]


def decode_as_declared(runner: Runner, request: Request) -> Inputs:
    """The inputs in the form `Content-Type` says, to be answered in the one `Accept` does. Raises RequestError."""
    headers = request.headers
    declared = headers.get("content-type", "application/json")
    kind = declared.partition(";")[0].strip().lower()
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "request.media_type", "send the body as it is, not compressed")
    wanted = list(accepted(headers.get("accept", "*/*")))
    if isinstance(runner, CallsRunner):
        inputs = _call(runner, request, kind, plain=is_json(declared.encode("latin-1")))
        inputs.form = _form_of_call(wanted, runner.schema)
        return inputs
    if kind == FORM:
        inputs = _file_of_form(runner, request)
    else:
        inputs = _rows(runner, request.body, kind, plain=is_json(declared.encode("latin-1")))
    inputs.form = _form(wanted)
    return inputs


def _call(runner: CallsRunner, request: Request, kind: str, *, plain: bool) -> Inputs:
    if plain:
        return runner.decode(request.body)
    from corten.serve.uploads import of_file, of_form

    return of_form(runner, request) if kind == FORM else of_file(runner, request, kind)


def _rows(runner: Runner, body: bytes | bytearray, kind: str, *, plain: bool) -> Inputs:
    if kind == CSV:
        return runner.decode(body_of(read_csv(body), runner.schema, texts=True))
    if kind == NPY:
        from corten.serve.npy import read_npy  # imports numpy

        return read_npy(body, runner.schema.inputs)
    if kind == ARROW:
        from corten.serve.arrow import read_arrow

        return read_arrow(body, runner.schema.inputs)
    if plain:
        return runner.decode(body)
    raise RequestError(415, "request.media_type", f"send application/json, {CSV}, {NPY} or {ARROW}")


def _file_of_form(runner: Runner, request: Request) -> Inputs:
    """Rows come as one file, of the type its part or its name says."""
    from corten.serve.multipart import parts

    files = [part for part in parts(request.body, request.headers.get("content-type", "")) if part.filename is not None]
    if len(files) != 1:
        raise invalid(f"expected one file, got {len(files)}", "")
    said, name = files[0].content_type.partition(";")[0].strip().lower(), files[0].filename or ""
    kind = _SUFFIXES.get(name.rpartition(".")[2].lower(), said)
    return _rows(runner, bytes(files[0].content), kind, plain=is_json(kind.encode("latin-1")))


def _form_of_call(wanted: Sequence[str], schema: Schema) -> Callable[[Any], Reply] | None:
    """How to answer a call: JSON, or the file, table or text that its answer is."""
    if not wanted or wanted[0] in {"application/json", "*/*", "application/*"}:
        return None
    from corten.serve import uploads

    if (form := uploads.as_file(wanted, schema)) is not None:
        return form
    for kind in wanted:
        if kind == "application/json":
            return None
        if kind == "text/plain" and schema.returns.get("type") == "string" and "contentEncoding" not in schema.returns:
            return uploads.as_text
        if kind == ARROW and schema.returns.get("type") == "array":
            from corten.serve.arrow import write_records

            return write_records
        if kind == CSV and schema.returns.get("type") == "array":
            return uploads.as_csv
    return None


def accepted(accept: str) -> Iterator[str]:
    """The media types of an `Accept` in their order, without those that are refused."""
    for part in accept.lower().split(","):
        kind, _, parameters = part.partition(";")
        if parameters.replace(" ", "") not in {"q=0", "q=0.0"}:
            yield kind.strip()


def _form(wanted: Sequence[str]) -> _Form | None:
    """How to answer rows: the first type of the list we have; JSON where we have none."""
    for kind in wanted:
        match kind:
            case "text/csv":
                return _as_csv
            case "application/x-npy":
                return _as_npy
            case "application/vnd.apache.arrow.stream":
                from corten.serve.arrow import prepare

                prepare()  # here, and not where the model runs
                return _as_arrow
            case "application/json" | "application/*" | "*/*":
                return None
            case _:
                continue
    return None


def _as_csv(outputs: Mapping[str, Any]) -> Reply:
    from corten.serve.npy import columns_of
    from corten.serve.tabular import write_csv

    return Reply(write_csv(columns_of(outputs)), f"{CSV}; charset=utf-8; header=present")


def _as_arrow(outputs: Mapping[str, Any]) -> Reply:
    from corten.serve.arrow import write_arrow

    return write_arrow(outputs)


def _as_npy(outputs: Mapping[str, Any]) -> Reply:
    from corten.serve.npy import write_npy

    return Reply(write_npy(outputs), NPY)
