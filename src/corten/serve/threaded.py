"""Models that say they are safe in threads: several calls at a time, each in a thread of its own (`streams = n`).

To the server it is a model with an event loop (`crowd`): the loop only waits for the threads.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from corten.adapters.base import CallModel
from corten.errors import UsageError
from corten.serve.calls import CallsRunner
from corten.serve.job import Inputs, Result
from corten.serve.room import with_room


class ThreadedRunner(CallsRunner):
    """A CallModel as a Runner, up to `streams` calls side by side. Raises UsageError for one that goes another way."""

    def __init__(self, model: CallModel, streams: int) -> None:
        super().__init__(model)
        if self.loop is not None or self.joinable:
            other = "run side by side on one event loop" if self.loop is not None else "are joined into batches"
            raise UsageError(
                "adapter.contract",
                f"`streams = {streams}` is for methods without `async`, and without `predict_batch` beside them",
                why=f"the calls of this class {other}",
                hint="leave `streams` out",
            )
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="corten-stream")  # has no thread yet

    def start(self) -> None:
        """See Runner."""
        self.loop = asyncio.new_event_loop()

    async def answer(self, inputs: Inputs) -> Result:
        """See Runner. A thread cannot be cancelled; who leaves has closed its sink, so that the next piece ends it."""
        running = asyncio.get_running_loop().run_in_executor(self._pool, with_room, self.run, [inputs])
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        return running.result().results[0]
