"""A cluster's API by lightkube: it reads kubeconfigs, gets credentials, opens connections; we speak REST over them."""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from corten.cluster.failures import failure, is_for_ever
from corten.cluster.kinds import Kind, kind_of
from corten.cluster.port import ANSWER_S, JSON, MANAGER, Answer, Change, ExpiredError, Listing, Manifest
from corten.core.events import Event, Listener, Phase, nobody
from corten.errors import CortenError, EngineError, RemoteError, UsageError

if TYPE_CHECKING:
    from corten.cluster.way import Way

# So many requests are under way at a time, watches aside: about what an API server's fairness gives one client.
_IN_FLIGHT = 16
_CONNECT_S = 10.0
_TRIES = 6
_TRYING_S = 30.0
# One that has answered restarts, or is failed over: that takes a minute or two, and what was begun is worth the wait.
_TRIES_OF_AN_OUTAGE = 30
_OUTAGE_S = 120.0
_PAGE = 500
_MOST_PAGES = 1000
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_LONGEST_ASKED_FOR_S = 10.0
_AGAIN = (429, 500, 502, 503, 504)
_APPLY = "application/apply-patch+yaml"  # YAML takes JSON


def connect(
    context: str = "", *, sleep: Callable[[float], None] = time.sleep, listen: Listener = nobody
) -> LightkubeApi:
    """The cluster of a kubeconfig's context (empty: the current one), or, in a pod, the one it is in.

    Raises EngineError `kubernetes.no_client` without the extra, UsageError `kubernetes.no_context`.
    """
    try:
        import httpx2
        from lightkube.config.client_adapter import Client, ConnectionParams
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.config.models import User

        from corten.cluster.way import way_to
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
        way = way_to(chosen.context.cluster, chosen.fname)
        auth = _credentials(chosen, way)
        timeout = httpx2.Timeout(ANSWER_S, connect=_CONNECT_S)
        client = Client(chosen, ConnectionParams(timeout=timeout, trust_env=False, proxy=way.proxy or None))
    except CortenError:
        raise
    except Exception as error:  # a stranger's file may be wrong in any way
        raise UsageError(
            "kubernetes.no_context",
            f"no cluster to talk to{f' in context `{context}`' if context else ''}",
            where=str(_kubeconfig()),
            why=str(error) or type(error).__name__,
            hint="kubectl config get-contexts shows what there is; KUBECONFIG names the file, --context one in it",
        ) from error
    if auth is not None:
        client.auth = auth
    client.event_hooks = {"request": [way.mark]}
    server = way.shown(chosen.cluster.server)
    return LightkubeApi(client, server, chosen.namespace or "default", sleep=sleep, listen=listen)


def _credentials(chosen: Any, way: Way) -> Any:
    """Asks the program of a kubeconfig, if it has one, for a token (gives what shows it) or a certificate."""
    user = chosen.user
    folder = chosen.fname.parent if chosen.fname else Path()
    if user.token_file:
        user.token_file = str(folder / user.token_file)
    if user.exec is None or user.token or user.token_file:
        return None
    from corten.cluster.credentials import ProgramAuth, ask

    program, user.exec = user.exec, None
    found = ask(program, chosen.cluster, way, folder)
    if found.certificate:
        user.client_cert_data = b64encode(found.certificate.encode()).decode()
        user.client_key_data = b64encode(found.key.encode()).decode()
    return ProgramAuth(found, lambda: ask(program, chosen.cluster, way, folder))


def _kubeconfig() -> Path:
    # kubectl merges several files; the first that is there is taken here.
    named = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return next((path for path in named if path.is_file()), named[0] if named else Path("~/.kube/config").expanduser())


class LightkubeApi:
    """See `port.Api`. `calls` counts requests, those tried again included. Who listens hears of an outage."""

    def __init__(
        self, client: Any, server: str, namespace: str, *, sleep: Callable[[float], None], listen: Listener = nobody
    ) -> None:
        self.server = server
        self.namespace = namespace
        self.calls = 0
        self._client = client
        self._sleep = sleep
        self._listen = listen
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_IN_FLIGHT)
        self._reached = False
        self._is_out = False

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
        query = {"limit": str(_PAGE), **_selectors(labels, fields)}
        items: list[Manifest] = []
        for _ in range(_MOST_PAGES):
            try:
                document = _document(self._request("GET", kind.path(namespace), query, what=kind.plural))
            except ExpiredError:
                # The pages of a moment are not kept for ever: from the first one again.
                items, query = [], {key: text for key, text in query.items() if key != "continue"}
                continue
            items += document.get("items", [])
            metadata = document.get("metadata", {})
            if not metadata.get("continue"):
                return Listing(tuple(items), str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]
        raise RemoteError("kubernetes.failed", f"the list of {kind.plural} does not end", where=self.server)

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
                "GET", kind.path(namespace), params=query, timeout=timeout_s + _CONNECT_S
            ) as answer:
                if answer.status_code == 410:
                    raise ExpiredError
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
        headers: Mapping[str, str] | None = None,
        answer_s: float = ANSWER_S,
    ) -> Answer:
        """Errors only of the API server itself, which are documents of kind Status."""
        through = "/proxy/" in path
        answer = self._request(
            method, path, query, body, media_type, headers, what=path, passed_on=through, answer_s=answer_s
        )
        if answer.status in (401, 403) and through and _json(answer.body).get("kind") == "Status":
            raise failure(answer.status, _json(answer.body), what=path, server=self.server)
        return answer

    def _request(  # noqa: PLR0917
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        media_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        *,
        what: str,
        passed_on: bool = False,
        answer_s: float = ANSWER_S,
    ) -> Answer:
        """Tried again where that may help: the verbs we use may all be repeated. Raises CortenError."""
        sent = {"Content-Type": media_type, **(headers or {})}
        timeout = (_CONNECT_S, answer_s, answer_s, answer_s)  # to connect, read, write, get a connection
        pause_s, trouble, begun_s = _FIRST_PAUSE_S, "", time.monotonic()
        answer = None
        for attempt in range(1, _TRIES_OF_AN_OUTAGE + 1):
            self._count()
            try:
                with self._room:
                    got = self._client.request(method, path, params=query, content=body, headers=sent, timeout=timeout)
            except self._broken() as error:
                if passed_on and isinstance(error, self._slow()):
                    # It has reached who is slow: asked again, that is slower still.
                    return Answer(504, {}, json.dumps({"message": f"no answer within {answer_s:g} s"}).encode())
                answer, trouble = None, str(error) or type(error).__name__
                if "CERTIFICATE_VERIFY_FAILED" in trouble:
                    raise _untrusted(self.server, trouble) from error
            except (OSError, self._mistaken()) as error:  # a token's file that is gone
                raise _no_token(self.server, error) from error
            else:
                answer = Answer(
                    got.status_code, {key.lower(): value for key, value in got.headers.items()}, got.content
                )
                self._note_answer()
                if passed_on or answer.status not in _AGAIN or is_for_ever(_json(answer.body)):
                    break
                pause_s = max(pause_s, _retry_after_s(answer))
            if not self._may_try(attempt, time.monotonic() - begun_s, trouble if answer is None else ""):
                break
            self._sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        if answer is None:
            raise RemoteError(
                "kubernetes.unreachable",
                "the cluster does not answer",
                where=self.server,
                why=trouble,
                hint="is it running, and reachable from here? another one: --context (kubectl config get-contexts)",
            )
        if answer.status == 410 and not passed_on:
            raise ExpiredError
        if answer.status >= 400 and not passed_on:
            raise failure(answer.status, _json(answer.body), what=what, server=self.server)
        return answer

    def _may_try(self, attempt: int, spent_s: float, trouble: str) -> bool:
        """Whether to ask once more; `trouble` is why nobody answered, empty where somebody did and refused."""
        with self._lock:
            out = bool(trouble) and self._reached
            tell = out and attempt > 1 and not self._is_out
            self._is_out = self._is_out or tell
        if tell:
            told = f"{self.server} does not answer ({trouble}): asked again for {_OUTAGE_S:.0f} s"
            self._listen(Event("cluster", Phase.WARNING, told))
        return spent_s < _OUTAGE_S if out else attempt < _TRIES and spent_s < _TRYING_S

    def _note_answer(self) -> None:
        with self._lock:
            self._reached, self._is_out = True, False

    def _count(self) -> None:
        with self._lock:
            self.calls += 1

    @staticmethod
    def _mistaken() -> type[Exception]:
        from lightkube.core.exceptions import ConfigError

        return cast("type[Exception]", ConfigError)

    @staticmethod
    def _broken() -> tuple[type[Exception], ...]:
        import httpx2

        return (httpx2.TransportError,)

    @staticmethod
    def _slow() -> type[Exception]:
        import httpx2

        return cast("type[Exception]", httpx2.ReadTimeout)


def _untrusted(server: str, why: str) -> RemoteError:
    return RemoteError(
        "kubernetes.untrusted",
        "the cluster's certificate is by nobody the kubeconfig trusts",
        where=server,
        why=why,
        hint="is `certificate-authority-data` that of this cluster? get the kubeconfig anew from who runs it",
    )


def _no_token(server: str, error: Exception) -> RemoteError:
    return RemoteError(
        "kubernetes.unauthorized",
        "no credentials for the cluster",
        where=server,
        why=str(error) or type(error).__name__,
        hint="is the file there that the kubeconfig names (users: tokenFile)?",
    )


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
                raise ExpiredError
        case _:
            pass  # a bookmark: we list again in any case


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), _LONGEST_ASKED_FOR_S) if text.isdecimal() else 0.0
