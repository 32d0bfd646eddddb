"""What a server says of itself: whether it lives and is ready, what it counts, what its model takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from corten import __version__
from corten.http import Request
from corten.observe.metrics import CONTENT_TYPE
from corten.serve.dialect import Route
from corten.serve.job import Runner
from corten.serve.state import State

if TYPE_CHECKING:
    from corten.serve.site import Site


class About:
    """The routes beside predictions; `/` for programs, and for browsers the playground."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._born_s = self._loop.time()
        self._openapi = b""
        self.routes: Mapping[str, Mapping[str, Route]] = {
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
            "/drift": {"GET": self._drift},
            "/openapi.json": {"GET": self._describe},
            "/": {"GET": self._info},
        }

    def _livez(self, request: Request) -> None:
        if stuck_s := self._site.stuck_s():
            request.fail(503, "serve.stuck", f"a call of the model has not returned for {stuck_s:.0f} s")
        else:
            request.respond(200, b'{"status":"live"}')

    def _readyz(self, request: Request) -> None:
        match self._site.state:
            case State.READY:
                request.respond(200, b'{"status":"ready"}')
            case State.LOADING:
                since_s = self._loop.time() - self._born_s
                request.fail(503, "serve.loading", f"the model has been loading for {since_s:.1f} s")
            case State.DRAINING:
                request.fail(503, "serve.draining", "the server is stopping")

    def _metrics(self, request: Request) -> None:
        self._site.meters.ready.set(float(self._site.state is State.READY))
        request.respond(200, self._site.meters.render(), CONTENT_TYPE)

    def _drift(self, request: Request) -> None:
        if report := self._site.meters.drift_report():
            request.respond(200, report)
        else:
            request.fail(404, "serve.not_watched", "distributions are watched of models of rows, once they have loaded")

    def _describe(self, request: Request) -> None:
        runner = self._site.runner
        if runner is None:
            request.fail(503, "serve.loading", "the model is loading", headers=(("Retry-After", "1"),))
            return
        request.respond(200, self._openapi or self._write_openapi(runner))

    def _write_openapi(self, runner: Runner) -> bytes:
        from corten.serve.openapi import openapi  # the first prediction is not to wait for it

        spec, revision = self._site.spec, self._site.settings.revision
        described = openapi(spec.name, revision, runner.schema, abilities=runner.abilities, example=spec.example)
        self._openapi = msgspec.json.encode(described)
        return self._openapi

    def _info(self, request: Request) -> None:
        # Browsers name it; programs take anything.
        if "text/html" in request.headers.get("accept", "") and (pages := self._site.dialect("/docs")) is not None:
            pages.handle(request)
            return
        spec, runner = self._site.spec, self._site.runner
        schema = runner.schema if runner else spec.schema
        request.respond_json(
            200,
            {
                "name": spec.name,
                **self._site.settings.identity,
                "state": self._site.state.value,
                "adapter": spec.adapter,
                "schema": schema,
                "routes": {path: sorted(methods) for path, methods in self._site.routes.items()},
                "corten": __version__,
            },
            (("Vary", "Accept"),),
        )
