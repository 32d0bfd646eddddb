"""A cluster's API by lightkube: it reads kubeconfigs, gets credentials, opens connections; we speak REST over them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from corten.cluster.failures import failure
from corten.cluster.kinds import Kind, kind_of
from corten.cluster.port import JSON, MANAGER, Answer, Change, Listing, Manifest, WatchExpiredError
from corten.errors import CortenError, EngineError, RemoteError, UsageError

_TIMEOUT_S = 30.0
_TRIES = 6
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_AGAIN = (429, 500, 502, 503, 504)
_CREDENTIALS = "client.authentication.k8s.io"
_APPLY = "application/apply-patch+yaml"  # YAML takes JSON


def connect(context: str = "", *, sleep: Callable[[float], None] = time.sleep) -> LightkubeApi:
    """The cluster of a kubeconfig's context (empty: the current one), or, in a pod, the one it is in.

    Raises EngineError `kubernetes.no_client` without the extra, UsageError `kubernetes.no_context`.
    """
    try:
        from lightkube.config.client_adapter import Client, ConnectionParams
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.config.models import User
    except ImportError as error:
        raise EngineError(
            "kubernetes.no_client",
            "the client for clusters is not installed",
            why=str(error),
            hint="pip install 'corten[k8s]' (uv tool install 'corten[k8s]')",
        ) from error
    try:
        config = KubeConfig.from_file(_kubeconfig()) if context or "KUBECONFIG" in os.environ else KubeConfig.from_env()
        chosen = config.get(context or None)
        chosen = chosen._replace(user=chosen.user or User())
        _speak_v1(chosen.user.exec)
        client = Client(chosen, ConnectionParams(timeout=_TIMEOUT_S, trust_env=False))
    except Exception as error:  # a stranger's file may be wrong in any way
        raise UsageError(
            "kubernetes.no_context",
            f"no cluster to talk to{f' in context `{context}`' if context else ''}",
            where=str(_kubeconfig()),
            why=str(error) or type(error).__name__,
            hint="kubectl config get-contexts shows what there is; KUBECONFIG names the file, --context one in it",
        ) from error
    return LightkubeApi(client, chosen.cluster.server, chosen.namespace or "default", sleep=sleep)


def _speak_v1(program: Any) -> None:
    """Programs of v1 answer as those of v1beta1, the newest that lightkube takes; they are told which one it is."""
    if program is None:
        return
    from lightkube.config.models import NameValue

    told = {"apiVersion": program.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
    program.env = [*(program.env or []), NameValue(name="KUBERNETES_EXEC_INFO", value=json.dumps(told))]
    if program.apiVersion == f"{_CREDENTIALS}/v1":
        program.apiVersion = f"{_CREDENTIALS}/v1beta1"


def _kubeconfig() -> Path:
    # kubectl merges several files; the first that is there is taken here.
    named = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return next((path for path in named if path.is_file()), named[0] if named else Path("~/.kube/config").expanduser())


class LightkubeApi:
    """See `port.Api`. `calls` counts requests, those tried again included."""

    def __init__(self, client: Any, server: str, namespace: str, *, sleep: Callable[[float], None]) -> None:
        self.server = server
        self.namespace = namespace
        self.calls = 0
        self._client = client
        self._sleep = sleep
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def apply(self, manifest: Manifest, namespace: str, *, manager: str = MANAGER, dry_run: bool = False) -> Manifest:
        """Server-side apply, never forced."""
        kind, name = kind_of(manifest), str(manifest["metadata"]["name"])
        query = {"fieldManager": manager, "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        answer = self._request(
            "PATCH",
            kind.path(namespace, name),
            query,
            json.dumps(manifest).encode(),
            _APPLY,
            what=f"{kind.name} {name}",
        )
        return _document(answer)

    def get(self, kind: Kind, name: str, namespace: str) -> Manifest | None:
        """One object or None."""
        try:
            return _document(self._request("GET", kind.path(namespace, name), what=f"{kind.name} {name}"))
        except CortenError as error:
            if error.code == "kubernetes.unknown":
                return None
            raise

    def list(self, kind: Kind, namespace: str, labels: str = "", fields: str = "") -> Listing:
        """The objects that selectors choose, page by page."""
        query = {"limit": "500", **_selectors(labels, fields)}
        items: list[Manifest] = []
        while True:
            document = _document(self._request("GET", kind.path(namespace), query, what=kind.plural))
            items += document.get("items", [])
            metadata = document.get("metadata", {})
            if not metadata.get("continue"):
                return Listing(tuple(items), str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]

    def watch(
        self, kind: Kind, namespace: str, labels: str, since: str, timeout_s: float
    ) -> Iterator[tuple[Change, Manifest]]:
        """Ends when the time is over or the connection breaks: whoever asks lists again."""
        query = {
            **_selectors(labels, ""),
            "watch": "true",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(timeout_s))),
        }
        self._count()
        try:
            with self._client.stream(
                "GET", kind.path(namespace), params=query, timeout=timeout_s + _TIMEOUT_S
            ) as answer:
                if answer.status_code == 410:
                    raise WatchExpiredError
                if answer.status_code != 200:
                    document = _json(answer.read())
                    raise failure(answer.status_code, document, what=kind.plural, server=self.server)
                for line in answer.iter_lines():
                    yield from _changes(line)
        except self._broken():
            return

    def delete(self, kind: Kind, name: str, namespace: str) -> bool:
        """Its pods go too, in the background."""
        body = json.dumps({"propagationPolicy": "Background"}).encode()
        try:
            self._request("DELETE", kind.path(namespace, name), body=body, what=f"{kind.name} {name}")
        except CortenError as error:
            if error.code == "kubernetes.unknown":
                return False
            raise
        return True

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        media_type: str = JSON,
    ) -> Answer:
        """Errors only of the API server itself, which are documents of kind Status."""
        through = "/proxy/" in path
        answer = self._request(method, path, query, body, media_type, what=path, passed_on=through)
        if answer.status in (401, 403) and through and _json(answer.body).get("kind") == "Status":
            raise failure(answer.status, _json(answer.body), what=path, server=self.server)
        return answer

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        media_type: str = JSON,
        *,
        what: str,
        passed_on: bool = False,
    ) -> Answer:
        """Tried again where that may help: the verbs we use may all be repeated. Raises CortenError."""
        pause_s, trouble = _FIRST_PAUSE_S, ""
        answer = None
        for attempt in range(_TRIES):
            if attempt:
                self._sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            self._count()
            try:
                got = self._client.request(
                    method, path, params=query, content=body, headers={"Content-Type": media_type}
                )
            except self._broken() as error:
                trouble = str(error) or type(error).__name__
                continue
            except Exception as error:  # of the program that gets credentials: it is not there, fails, says no token
                raise RemoteError(
                    "kubernetes.unauthorized",
                    "no credentials for the cluster",
                    where=self.server,
                    why=str(error) or type(error).__name__,
                    hint="run the program of your kubeconfig (users: exec) by hand: it says what it lacks",
                ) from error
            answer = Answer(got.status_code, {key.lower(): value for key, value in got.headers.items()}, got.content)
            if passed_on or answer.status not in _AGAIN:
                break
            pause_s = max(pause_s, _retry_after_s(answer))
        if answer is None:
            raise RemoteError(
                "kubernetes.unreachable",
                "the cluster does not answer",
                where=self.server,
                why=trouble,
                hint="is it running, and reachable from here? another one: --context (kubectl config get-contexts)",
            )
        if answer.status >= 400 and not passed_on:
            raise failure(answer.status, _json(answer.body), what=what, server=self.server)
        return answer

    def _count(self) -> None:
        with self._lock:
            self.calls += 1

    @staticmethod
    def _broken() -> tuple[type[Exception], ...]:
        import httpx2

        return (httpx2.TransportError,)


def _document(answer: Answer) -> dict[str, Any]:
    return _json(answer.body)


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {"message": body[:500].decode("utf-8", "replace")}
    return found if isinstance(found, dict) else {}


def _selectors(labels: str, fields: str) -> dict[str, str]:
    given = {"labelSelector": labels, "fieldSelector": fields}
    return {key: text for key, text in given.items() if text}


def _changes(line: str) -> Iterator[tuple[Change, Manifest]]:
    event = _json(line.encode())
    match event.get("type"):
        case "ADDED" | "MODIFIED" | "DELETED":
            yield Change(event["type"]), event["object"]
        case "ERROR":
            if event["object"].get("code") == 410:
                raise WatchExpiredError
        case _:
            pass  # a bookmark: we list again in any case


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isdecimal() else 0.0
