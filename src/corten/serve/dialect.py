"""What the protocols beside `/predict` share: their place, their routes, their way of telling errors.

Each is a module with a function `dialect(desk)`, imported when it is first asked: `/predict` knows nothing of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from corten.core.model import ModelSpec
from corten.http import Request
from corten.http.request import HeaderPairs
from corten.serve.call import Call, reading_of
from corten.serve.job import Inputs, Runner
from corten.serve.meters import Meters
from corten.serve.settings import Settings
from corten.serve.state import State

if TYPE_CHECKING:
    from corten.serve.later import Later

Route = Callable[[Request], None]
Refusal = Callable[[Request, int, str, str, str, HeaderPairs], None]  # status, code, message, path, headers

# The first segment of a path, and the module below `corten.serve` that answers it.
DIALECTS: Mapping[str, str] = {
    "v2": "oip",
    "invocations": "mlflow",
    "ping": "mlflow",
    "health": "mlflow",
    "version": "mlflow",
    "predictions": "cog",
    "health-check": "cog",
    "v1": "openai",
    "jobs": "jobs",
    "docs": "pages",
    "assets": "pages",
}


class Desk(Protocol):
    """What a dialect sees of the site."""

    state: State

    @property
    def spec(self) -> ModelSpec:
        """What is served."""
        ...

    @property
    def settings(self) -> Settings:
        """What the server was told from outside."""
        ...

    @property
    def runner(self) -> Runner | None:
        """The model, None before it is installed."""
        ...

    @property
    def meters(self) -> Meters:
        """What is counted."""
        ...

    @property
    def later(self) -> Later:
        """The jobs that nobody waits for. Raises RequestError where there is no place to keep them."""
        ...

    def ask(self, call: Call, decode: Callable[[Runner, Request], Inputs]) -> None:
        """Put what `decode` makes of the request to the model; the call is answered now or later."""
        ...


class Dialect:
    """A protocol: routes by exact path, and errors in its own shape."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.routes: Mapping[str, Mapping[str, Route]] = {}

    def refuse(  # noqa: PLR0917 - a Refusal
        self, request: Request, status: int, code: str, message: str, path: str = "", headers: HeaderPairs = ()
    ) -> None:
        """Answer with an error; protocols with a shape of their own for it override this."""
        request.fail(status, code, message, path=path, headers=headers)

    def find(self, path: str) -> Mapping[str, Route] | None:
        """The methods of a path, None for one that is not there."""
        return self.routes.get(path)

    def handle(self, request: Request) -> None:
        """Answer any request below the dialect's place."""
        methods = self.find(request.path)
        if methods is None:
            self.refuse(request, 404, "request.no_route", f"no route `{request.path[:200]}`")
            return
        # HEAD is GET without the body, which the server leaves out (RFC 9110, 9.3.2).
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            message = f"`{request.path[:200]}` takes {allowed}, not {request.method}"
            self.refuse(request, 405, "request.method", message, "", (("Allow", allowed),))
            return
        route(request)

    def ask(self, request: Request, decode: Callable[[Runner, Request], Inputs]) -> None:
        """Put a request to the model; it is answered in this dialect, errors too."""
        self.desk.ask(ForeignCall(request, asyncio.get_running_loop().time(), reading_of(request), self.refuse), decode)

    def names(self) -> tuple[str, ...]:
        """What callers may call the model: its name, and the deployment's."""
        deployment = self.desk.settings.deployment
        return tuple(dict.fromkeys(name for name in (self.desk.spec.name, deployment) if name))

    @property
    def version(self) -> str:
        """The revision as the model's version; protocols want one always."""
        return self.desk.settings.revision or "1"


class ForeignCall(Call):
    """A request in another protocol than ours."""

    _refuse: Refusal

    def fail(self, status: int, code: str, message: str, path: str, headers: HeaderPairs) -> None:
        """See Call."""
        self._refuse(self.request, status, code, message, path, headers)
