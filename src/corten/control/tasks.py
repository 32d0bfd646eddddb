"""The owner of everything that goes on beside the loop: one task a key, ended with its owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class Tasks:
    """Named tasks. `on_end` is called whenever one has ended."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}
        self._on_end = on_end
        # Few threads: what blocks is the engine, and two cores are usual.
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="engine")

    def ensure(self, key: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start work under a key unless some is running under it."""
        if key in self._running:
            return
        task = asyncio.get_running_loop().create_task(work(), name=key)
        self._running[key] = task
        task.add_done_callback(self._ended)

    def running(self, key: str) -> bool:
        """Whether work of that key is going on."""
        return key in self._running

    def ensure_only(self, kind: str, works: Mapping[str, Callable[[], Coroutine[Any, Any, None]]]) -> None:
        """Of a kind of work, do these by their keys and no other: what is not among them any more is cancelled."""
        wanted = {f"{kind}{key}": work for key, work in works.items()}
        for key, work in wanted.items():
            self.ensure(key, work)
        for key, task in list(self._running.items()):
            if key.startswith(kind) and key not in wanted:
                task.cancel()

    async def off_loop(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """Run what blocks in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def wait_all(self) -> None:
        """Cancel all and wait for their end; threads finish what they are at."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task.get_name(), None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s failed", task.get_name(), exc_info=error)
        self._on_end()


async def settle(awaitable: Awaitable[Result], timeout_s: float) -> Result:
    """Wait with a deadline; TimeoutError after it."""
    async with asyncio.timeout(timeout_s):
        return await awaitable
