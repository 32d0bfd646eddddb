"""Micro-batching that never waits: what arrives while the model runs goes into the next call.

A fast model is called on the event loop, once a turn of the loop: handing a 20 us call to a thread costs twice as much
as the call. A slow one is called in the worker thread, so that the loop stays free. Which it is, is measured, and of a
slow one how many at once pay (`joining`).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from corten.serve.job import Inputs, Outcome, Result, Runner
from corten.serve.joining import Joining
from corten.serve.worker import Worker

_FAST_S = 0.001
_SLOW_S = 0.002  # twice the other, so that a model between them does not go to and fro
_CALLS_TO_TRUST = 32  # in the thread before it may come back to the loop
_QUICK_ONES = 8  # of them that must be fast: waiting for the loop's thread is part of what is measured there
_WEIGHT = 0.2  # of the newest call in the running mean
_LONGEST_INLINE_S = 0.05
# A busy machine makes some calls of a fast model slow, a slow model makes all of them: so many in a row, or so long,
# and it is the model.
_SLOW_IN_A_ROW = 8
_SLOW_TOGETHER_S = 0.1
_LONGEST_RETRY_S = 60


class QueueFullError(Exception):
    """No room for another request: so many are `waiting`; `retry_after_s` is when there may be."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__("the queue is full")
        self.waiting = waiting
        self.retry_after_s = retry_after_s


class Job(msgspec.Struct, eq=False):
    """A request on its way through the model; `context` is whatever the caller needs to answer it.

    `answered`: by somebody else than the model. A `large` one takes long whatever the model, if only to be written
    down: it is kept off the loop's thread.
    """

    inputs: Inputs
    context: Any
    deadline_s: float
    size_bytes: int
    large: bool = False
    answered: bool = False


class Hooks(msgspec.Struct, frozen=True):
    """What the batcher tells its owner, on the loop's thread."""

    answer: Callable[[Sequence[Job], Sequence[Result]], None]
    called: Callable[[int, float], None]  # rows of a call and its time in the model
    wanted: Callable[[Job], bool]  # whether someone still waits for the answer


class Bounds(msgspec.Struct, frozen=True):
    """`max_rows` in one call, `queue` requests and `queue_bytes` of bodies waiting."""

    max_rows: int
    queue: int
    queue_bytes: int


class Batcher:
    """Owns the queue of one model. All methods are for the loop's thread."""

    def __init__(self, runner: Runner, worker: Worker, bounds: Bounds, hooks: Hooks, *, call_s: float | None) -> None:
        self._runner = runner
        self._worker = worker
        self._bounds = bounds
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Job] = deque()
        self._queued_bytes = 0
        self._running: Sequence[Job] = ()
        self._running_since_s: float | None = None
        self._scheduled = False
        self._some_answered = False  # by `expire`; those of the queue are not put to the model at all
        self._call_s = call_s  # running mean of a call, first as measured while warming up; None: not known yet
        self._jobs_a_call = 1.0
        self._recent_s: deque[float] = deque(maxlen=_CALLS_TO_TRUST)
        self._large = 0  # of the jobs in the queue and in the model; those that expired are not taken off
        self._slow_in_a_row = 0
        self._slow_together_s = 0.0
        self._joining = Joining()  # of calls in the thread
        self.inline = not runner.pinned and call_s is not None and call_s < _FAST_S

    @property
    def waiting(self) -> int:
        """Requests that are not in the model yet."""
        return len(self._queue)

    def running_s(self, now_s: float) -> float:
        """How long the call in hand has taken so far, 0 when there is none."""
        return 0.0 if self._running_since_s is None else now_s - self._running_since_s

    def latest_s(self) -> float:
        """By when the call in hand is to have returned."""
        return max((job.deadline_s for job in self._running), default=0.0)

    def submit(self, job: Job) -> None:
        """Queue a job; raises QueueFullError."""
        full = len(self._queue) >= self._bounds.queue
        if full or (self._queue and self._queued_bytes + job.size_bytes > self._bounds.queue_bytes):
            raise QueueFullError(len(self._queue), self._retry_after_s())
        self._queue.append(job)
        self._queued_bytes += job.size_bytes
        self._large += job.large
        if not self._scheduled and not self._running:
            self._scheduled = True
            # Not now: what else arrived in this turn of the loop is to go along.
            self._loop.call_soon(self._turn)

    def extend(self, job: Job, deadline_s: float) -> None:
        """The job in the model has moved: a piece of its answer is out."""
        job.deadline_s = deadline_s
        if self._running:
            self._running_since_s = self._loop.time()

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more. A call in the model cannot be stopped, and one in the queue is passed over."""

    def expire(self, now_s: float) -> list[Job]:
        """Take out the jobs whose deadline has passed, in the model or not; to be called a few times a second."""
        late = [job for job in (*self._queue, *self._running) if job.deadline_s < now_s and not job.answered]
        for job in late:
            job.answered = self._some_answered = True
        if late and self._queue:
            self._queue = deque(job for job in self._queue if not job.answered)
            self._queued_bytes = sum(job.size_bytes for job in self._queue)
        return late

    def _turn(self) -> None:
        self._scheduled = False
        if self._running:
            return
        jobs, rows = self._take()
        if not jobs:
            return
        batch = [job.inputs for job in jobs]
        large = self._large > 0 and any(job.large for job in jobs)
        if self.inline and not large:
            self._finish(jobs, rows, self._runner.run(batch))
        else:
            self._running = jobs
            self._running_since_s = self._loop.time()
            self._worker.submit(lambda: self._runner.run(batch), lambda outcome: self._back(jobs, rows, outcome, large))

    def _back(self, jobs: Sequence[Job], rows: int, outcome: Outcome, large: bool) -> None:  # noqa: FBT001
        self._running = ()
        self._running_since_s = None
        self._large -= sum(job.large for job in jobs)
        # A model that never runs on the loop takes what it takes, with large ones too.
        self._finish(jobs, rows, outcome, usual=not large or self._runner.pinned)

    def _finish(self, jobs: Sequence[Job], rows: int, outcome: Outcome, *, usual: bool = True) -> None:
        if usual:
            self._learn(len(jobs), rows, outcome.model_s)
        self._hooks.called(rows, outcome.model_s)
        results = outcome.results
        if self._some_answered:  # while the model worked on them
            self._some_answered = False
            results = [result for job, result in zip(jobs, results, strict=True) if not job.answered]
            jobs = [job for job in jobs if not job.answered]
        self._hooks.answer(jobs, results)
        if self._queue and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _take(self) -> tuple[list[Job], int]:
        """The next batch: the oldest job and those behind it that fit, in order; and its rows."""
        jobs: list[Job] = []
        rows, taken_bytes, shape_key = 0, 0, None
        queue, most = self._queue, self._most_rows()
        while queue:
            job = queue[0]
            inputs = job.inputs
            if jobs and (rows + inputs.rows > most or inputs.shape_key != shape_key):
                break
            queue.popleft()
            taken_bytes += job.size_bytes
            # In the thread's case the wait is long enough for clients to leave.
            if job.answered or not (self.inline or self._hooks.wanted(job)):
                continue
            jobs.append(job)
            rows += inputs.rows
            shape_key = inputs.shape_key
        self._queued_bytes -= taken_bytes
        return jobs, rows

    def _most_rows(self) -> int:
        """How many rows the next call may take, unless its first job has more."""
        if not self._runner.joinable:
            return 0
        waiting, most = len(self._queue), self._bounds.max_rows
        if self.inline or waiting < 2 or (jobs := self._joining.most(waiting)) == waiting:
            return most
        return min(most, jobs * self._queue[0].inputs.rows)

    def _learn(self, jobs: int, rows: int, model_s: float) -> None:
        self._call_s = model_s if self._call_s is None else self._call_s + _WEIGHT * (model_s - self._call_s)
        self._jobs_a_call += _WEIGHT * (jobs - self._jobs_a_call)
        if self.inline:
            if model_s <= _SLOW_S:
                self._slow_in_a_row, self._slow_together_s = 0, 0.0
                return
            self._slow_in_a_row += 1
            self._slow_together_s += model_s
            if self._slow_in_a_row >= _SLOW_IN_A_ROW or self._slow_together_s > _SLOW_TOGETHER_S:
                self.inline = False
                self._recent_s.clear()
            return
        self._joining.learn(jobs, rows, model_s)
        if not self._runner.pinned:
            self._recent_s.append(model_s)
            if len(self._recent_s) == _CALLS_TO_TRUST and max(self._recent_s) < _LONGEST_INLINE_S:
                self.inline = sorted(self._recent_s)[_QUICK_ONES] < _FAST_S
                self._slow_in_a_row, self._slow_together_s = 0, 0.0

    def _retry_after_s(self) -> int:
        seconds = math.ceil(len(self._queue) * (self._call_s or 0.0) / max(self._jobs_a_call, 1.0))
        return min(max(seconds, 1), _LONGEST_RETRY_S)
