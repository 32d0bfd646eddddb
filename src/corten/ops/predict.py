"""Ask a running model through the gateway, as any client would."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from typing import Any

import msgspec

from corten.control.client import connect_if_deployed
from corten.core.digest import Digest
from corten.core.front import near_host
from corten.core.home import Home
from corten.core.image import SPEC_LABEL
from corten.core.model import ModelSpec
from corten.core.name import parse_name
from corten.errors import CortenError, NotFoundError, RemoteError, UnhealthyError, UsageError
from corten.ops.missing import no_deployment
from corten.ops.sample import sample_body
from corten.store.layout import Layout

# Longer than any deployment's own request time, so that the gateway's 504 and not our impatience is heard.
LONGEST_ANSWER_S = 600.0
TOKEN_VARIABLE = "CORTEN_TOKEN"  # noqa: S105 -- the variable's name
_END_OF_ONE = "-----END CERTIFICATE-----"


def predict(
    name: str,
    body: Any = None,
    *,
    token: str | None = None,
    home: Home | None = None,
    timeout_s: float = LONGEST_ANSWER_S,
) -> Any:
    """The answer to `POST /predict` with this JSON body; None asks with the model's example, or zeros.

    `token` is what is shown where one is asked for (None: that of CORTEN_TOKEN).

    Raises NotFoundError for a name nobody has, RemoteError `predict.denied` without a token that counts, UsageError
    `predict.refused` when the model does not take the body, UnhealthyError `predict.unavailable` when nothing answers,
    CortenError `predict.failed` when the model broke.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    client = connect_if_deployed(home)
    if client is None:
        raise no_deployment(name)
    view = client.get(f"/v1/deployments/{parse_name(name)}")
    if body is None:
        body = sample_of(home, name, view["image"])
    token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
    status, text = _post(client.get("/v1/gateway"), f"/{name}/predict", body, token, timeout_s)
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {"error": {"message": text[:500].decode("utf-8", "replace")}}
    if status == 200:
        return answer
    raise refusal(name, status, answer)


def _post(front: Mapping[str, Any], path: str, body: Any, token: str, timeout_s: float) -> tuple[int, bytes]:
    host = near_host(front["host"])
    connection = http.client.HTTPConnection(host, front["port"], timeout=timeout_s)
    if front["certificate"]:
        connection = http.client.HTTPSConnection(host, front["port"], timeout=timeout_s, context=pinned(front["chain"]))
    try:
        # Whole, also from models that answer piece by piece.
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection.request("POST", path, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UnhealthyError(
            "predict.unavailable",
            "the gateway does not answer",
            where=f"{front['url']}{path}",
            why=str(error) or type(error).__name__,
            hint="see `corten status`",
        ) from error
    finally:
        connection.close()


def pinned(chain: str) -> ssl.SSLContext:
    """Trusts our own gateway's certificate and nobody else's, by whatever name: it is asked by its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The server's own certificate is enough, whoever signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if chain:
        context.load_verify_locations(cadata=chain.partition(_END_OF_ONE)[0] + _END_OF_ONE)
    return context


def sample_of(home: Home, name: str, image: str) -> Any:
    """A body the model of an image takes, its digest as text. Raises NotFoundError `predict.no_example`."""
    label = Layout(home.store).image(Digest.parse(image)).labels.get(SPEC_LABEL, "")
    try:
        spec = msgspec.json.decode(label, type=ModelSpec)
    except msgspec.MsgspecError:
        spec = None
    body = sample_body(spec) if spec else None
    if body is None:
        raise NotFoundError(
            "predict.no_example",
            f"nothing is known of what `{name}` takes",
            hint=f"say what to ask: corten predict {name} -i JSON, a body or its rows",
        )
    return body


def refusal(name: str, status: int, answer: Any) -> CortenError:
    """What an answer that is no success means."""
    told = answer.get("error", {}) if isinstance(answer, dict) else {}
    message = str(told.get("message", "")) or f"HTTP {status}"
    where = str(told.get("path", ""))
    if status in (401, 403):
        return RemoteError(
            "predict.denied",
            f"`{name}` does not answer without a token that is for it",
            why=message,
            hint=f"CORTEN_TOKEN=$(corten token create NAME --for {name}) corten predict {name} ...",
        )
    if status in (400, 404, 405, 413, 415, 422):
        return UsageError(
            "predict.refused",
            f"`{name}` does not take this request",
            where=where,
            why=message,
            hint=f"see what it takes: corten predict {name} --example",
        )
    if status in (429, 502, 503, 504):
        return UnhealthyError(
            "predict.unavailable",
            f"`{name}` cannot answer now",
            why=f"{message} (HTTP {status})",
            hint=f"see `corten status {name}`",
        )
    return CortenError(
        "predict.failed",
        f"`{name}` failed on this request",
        why=f"{message} (HTTP {status})",
        hint=f"see `corten logs {name}`",
    )
