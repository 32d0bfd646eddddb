"""Models with `async` methods: many calls side by side, on an event loop in the model's thread.

The counterpart of `batch.Batcher`, which gives many calls to a model at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque

from corten.serve.batch import Bounds, Hooks, Job, QueueFullError
from corten.serve.job import Result, Runner
from corten.serve.worker import Worker

_WEIGHT = 0.2  # of the newest call in the running mean
_LONGEST_RETRY_S = 60


class Crowd:
    """Owns the queue of one model. All methods are for the server's loop, but for those named `_model_...`.

    `bounds.max_rows` calls are worked on at the same time, the others wait.
    """

    def __init__(
        self, runner: Runner, loop: asyncio.AbstractEventLoop, worker: Worker, bounds: Bounds, hooks: Hooks
    ) -> None:
        self._runner = runner
        self._model_loop = loop
        self._bounds = bounds
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Job] = deque()
        self._queued_bytes = 0
        self._since_s: dict[Job, float] = {}  # of those in the model, when they were last seen to move
        self._tasks: dict[Job, asyncio.Task[None]] = {}  # the model's thread's
        self._call_s = 0.0
        worker.interrupt = self._end
        worker.submit(loop.run_forever, lambda _: None)

    @property
    def waiting(self) -> int:
        """Requests that are not in the model yet."""
        return len(self._queue)

    def running_s(self, now_s: float) -> float:
        """How long the call that has not moved for the longest has been in the model, 0 when there is none."""
        return now_s - min(self._since_s.values()) if self._since_s else 0.0

    def latest_s(self) -> float:
        """By when the call that has not moved for the longest is to have returned."""
        return min(self._since_s, key=lambda job: self._since_s[job]).deadline_s if self._since_s else 0.0

    def submit(self, job: Job) -> None:
        """Start or queue a job; raises QueueFullError."""
        full = len(self._queue) >= self._bounds.queue
        if full or (self._queue and self._queued_bytes + job.size_bytes > self._bounds.queue_bytes):
            rounds = len(self._queue) / self._bounds.max_rows
            raise QueueFullError(len(self._queue), min(max(math.ceil(rounds * self._call_s), 1), _LONGEST_RETRY_S))
        self._queue.append(job)
        self._queued_bytes += job.size_bytes
        self._start()

    def extend(self, job: Job, deadline_s: float) -> None:
        """A job has moved."""
        job.deadline_s = deadline_s
        if job in self._since_s:
            self._since_s[job] = self._loop.time()

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: it is taken out, or its coroutine cancelled."""
        if job in self._since_s:
            self._model_loop.call_soon_threadsafe(self._model_cancel, job)
        elif job in self._queue:
            self._queue.remove(job)
            self._queued_bytes -= job.size_bytes
            self._hooks.wanted(job)

    def expire(self, now_s: float) -> list[Job]:
        """Take out the jobs whose deadline has passed, in the model or not; to be called a few times a second."""
        late = [job for job in (*self._queue, *self._since_s) if job.deadline_s < now_s and not job.answered]
        for job in late:
            job.answered = True
            self.cancel(job)
        return late

    def _start(self) -> None:
        while self._queue and len(self._since_s) < self._bounds.max_rows:
            job = self._queue.popleft()
            self._queued_bytes -= job.size_bytes
            if not job.answered and self._hooks.wanted(job):
                self._since_s[job] = self._loop.time()
                self._model_loop.call_soon_threadsafe(self._model_spawn, job)

    def _back(self, job: Job, result: Result, model_s: float) -> None:
        del self._since_s[job]
        self._call_s += _WEIGHT * (model_s - self._call_s)
        self._hooks.called(job.inputs.rows, model_s)
        if not job.answered:
            job.answered = True
            self._hooks.answer([job], [result])
        self._start()

    def _end(self) -> None:
        self._model_loop.call_soon_threadsafe(self._model_loop.stop)

    # In the model's thread

    def _model_spawn(self, job: Job) -> None:
        self._tasks[job] = self._model_loop.create_task(self._model_answer(job))

    def _model_cancel(self, job: Job) -> None:
        if (task := self._tasks.get(job)) is not None:
            task.cancel()

    async def _model_answer(self, job: Job) -> None:
        start_s = time.perf_counter()
        result: Result
        try:
            result = await self._runner.answer(job.inputs)
        except BaseException as error:  # a cancelled one too: whoever cancelled it has answered, or is gone
            result = error
        del self._tasks[job]
        # The server's loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._back, job, result, time.perf_counter() - start_s)
