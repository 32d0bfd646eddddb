"""Handlers that are coroutines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from corten.http.request import Request

_log = logging.getLogger(__name__)


class Spawner(msgspec.Struct, eq=False):
    """Runs a coroutine a request and owns its task: cancelled when the client goes away or `close` is called."""

    answer: Callable[[Request], Awaitable[None]]
    tasks: set[asyncio.Task[None]] = msgspec.field(default_factory=set)

    def __call__(self, request: Request) -> None:
        """The handler to give to a Server."""
        task = asyncio.get_running_loop().create_task(self._run(request))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        request.on_gone(task.cancel)

    async def close(self) -> None:
        """Cancel what still runs and wait for its end."""
        for task in (running := list(self.tasks)):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, request: Request) -> None:
        try:
            await self.answer(request)
        except asyncio.CancelledError:
            _give_up(request, 503, "http.stopping", "the server is stopping")
            raise
        except Exception:
            _log.exception("handler failed", extra={"method": request.method, "path": request.path})
            _give_up(request, 500, "http.handler_failed", "the request could not be answered")
        else:
            if not request.done:
                _log.error("handler gave no answer", extra={"method": request.method, "path": request.path})
                _give_up(request, 500, "http.no_answer", "the request was not answered")


def _give_up(request: Request, status: int, code: str, message: str) -> None:
    if not request.answered:
        request.fail(status, code, message)
    elif not request.done:
        request.abandon()


def spawn(answer: Callable[[Request], Awaitable[None]]) -> Spawner:
    """Make a handler of a coroutine function; an exception in it becomes a 500, and its traceback a log line."""
    return Spawner(answer)
