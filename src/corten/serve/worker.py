"""The one thread besides the loop's: loads the model, and runs it when it is slow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from corten.serve.room import with_room

Result = TypeVar("Result")
_Task = tuple[Callable[[], Any], Callable[[Any], None]]

_log = logging.getLogger(__name__)


class Worker:
    """Runs tasks one after the other, in a thread of its own or in the one that calls `run`.

    Their results come back on the thread of `loop`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, name: str = "corten-model") -> None:
        self._loop = loop
        self._name = name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self.interrupt: Callable[[], object] = lambda: None  # ends a task that would run for ever
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread of its own."""
        # A daemon: a model that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self.run, name=self._name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], Result], done: Callable[[Result], None]) -> None:
        """Run `task` in the thread, then `done(result)` on the loop. The task must not raise."""
        self._tasks.put((task, done))

    def stop(self, timeout_s: float) -> bool:
        """End after the task in hand; False when that takes longer than `timeout_s`."""
        self._tasks.put(None)
        self.interrupt()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def run(self) -> None:
        """Run tasks until told to stop."""
        with_room(self._run)

    def _run(self) -> None:
        while (item := self._tasks.get()) is not None:
            task, done = item
            try:
                result = task()
            except BaseException:
                _log.critical("a task of the model's thread raised", exc_info=True)
                continue
            # The loop may be closed while a slow model still runs.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(done, result)
