"""MLflow's scoring server: `/invocations`, `/ping`, `/health`, `/version`.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#input-formats
"""

from __future__ import annotations

from typing import Any

import msgspec

from corten import __version__
from corten.http import Request
from corten.http.request import HeaderPairs
from corten.serve.calls import CallsRunner
from corten.serve.decoding import decode
from corten.serve.dialect import Desk, Dialect
from corten.serve.job import Inputs, Reply, RequestError, Runner, invalid
from corten.serve.state import State
from corten.serve.tabular import Table, body_of, calls_of, of_records, of_split, read_csv

_CODES = {503: "TEMPORARILY_UNAVAILABLE", 429: "REQUEST_LIMIT_EXCEEDED", 404: "ENDPOINT_NOT_FOUND"}


class _Split(msgspec.Struct):
    data: list[list[Any]]
    columns: list[str] = []
    index: list[Any] = []


class _Invocation(msgspec.Struct, forbid_unknown_fields=True):
    dataframe_split: _Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: msgspec.Raw = msgspec.Raw(b"")
    inputs: msgspec.Raw = msgspec.Raw(b"")
    params: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Invocation)
_objects = msgspec.json.Decoder(list[dict[str, Any]] | dict[str, Any])


def dialect(desk: Desk) -> Dialect:
    """The dialect of this module."""
    return MLflow(desk)


class MLflow(Dialect):
    """MLflow's routes."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.routes = {
            "/invocations": {"POST": self._invoke},
            "/ping": {"GET": self._ping},
            "/health": {"GET": self._ping},
            "/version": {"GET": self._version},
        }

    def refuse(  # noqa: PLR0917 - a Refusal
        self, request: Request, status: int, code: str, message: str, path: str = "", headers: HeaderPairs = ()
    ) -> None:
        """MLflow's errors; what does not fit is a 400 there."""
        del code
        status = 400 if status == 422 else status
        word = _CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
        text = f"{path}: {message}" if path else message
        request.respond_json(status, {"error_code": word, "message": text}, headers)

    def _ping(self, request: Request) -> None:
        request.respond(200 if self.desk.state is State.READY else 503, b"\n", "application/json")

    def _version(self, request: Request) -> None:
        request.respond(200, __version__.encode(), "text/plain; charset=utf-8")

    def _invoke(self, request: Request) -> None:
        self.ask(request, _decode)


def _decode(runner: Runner, request: Request) -> Inputs:
    def form(outputs: Any) -> Reply:
        return Reply(b'{"predictions":%b}' % runner.text(outputs), "application/json")

    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "text/csv":
        return _of_table(runner, read_csv(request.body), form, texts=True)
    if kind not in {"application/json", "application/x-www-form-urlencoded", ""}:
        raise RequestError(415, "request.media_type", "send application/json or text/csv")
    asked = decode(_decoder, request.body)
    given = [name for name in ("dataframe_split", "dataframe_records", "instances", "inputs") if _has(asked, name)]
    if len(given) != 1:
        raise invalid("expected one of dataframe_split, dataframe_records, instances, inputs", "")
    params = asked.params or {}
    if asked.dataframe_split is not None:
        table = of_split(asked.dataframe_split.columns, asked.dataframe_split.data, "dataframe_split.data")
        return _of_table(runner, table, form, params=params)
    if asked.dataframe_records is not None:
        return _of_table(runner, of_records(asked.dataframe_records, "dataframe_records"), form, params=params)
    return _of_tensors(runner, getattr(asked, given[0]), given[0], form, params)


def _has(asked: _Invocation, name: str) -> bool:
    value = getattr(asked, name)
    return value is not None and not (isinstance(value, msgspec.Raw) and not bytes(value))


def _of_table(
    runner: Runner, table: Table, form: Any, *, texts: bool = False, params: dict[str, Any] | None = None
) -> Inputs:
    if isinstance(runner, CallsRunner):
        calls = calls_of(table, runner.schema, texts=texts)
        return runner.many([{**call, **(params or {})} for call in calls], form, table.path)
    _no_params(params)
    return _placed(runner, body_of(table, runner.schema, texts=texts), table.path, form)


def _of_tensors(runner: Runner, raw: msgspec.Raw, name: str, form: Any, params: dict[str, Any]) -> Inputs:
    if not isinstance(runner, CallsRunner):
        _no_params(params)
        return _placed(runner, b'{"inputs":%b}' % bytes(raw), name, form)
    try:
        found = decode(_objects, bytes(raw))
    except RequestError as error:
        raise RequestError(error.status, error.code, error.message, path=f"{name}{error.path}") from error
    calls = found if isinstance(found, list) else [found]
    return runner.many([{**call, **params} for call in calls], form, name)


def _no_params(params: dict[str, Any] | None) -> None:
    if params:
        raise invalid("this model takes no params", "params")


def _placed(runner: Runner, body: bytes, name: str, form: Any) -> Inputs:
    """What `/predict` makes of the body, its errors told by the caller's name for the inputs."""
    try:
        inputs = runner.decode(body)
    except RequestError as error:
        path = name + error.path.removeprefix("inputs")
        raise RequestError(error.status, error.code, error.message, path=path) from error
    inputs.form = form
    return inputs
