"""The routes of a model's server, and what each outcome of the model becomes for the client."""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from corten.adapters.base import InputError
from corten.core.model import ModelSpec
from corten.core.schema import Style
from corten.http import Request
from corten.http.request import JSON
from corten.observe.access import AccessLog
from corten.serve.about import About
from corten.serve.batch import Batcher, Bounds, Hooks, Job, QueueFullError
from corten.serve.call import Call, Reading, read, reading_of
from corten.serve.dialect import DIALECTS, Dialect
from corten.serve.job import LARGE_BYTES, Inputs, Reply, RequestError, Result, Runner, Streamed
from corten.serve.loading import Loaded
from corten.serve.meters import Meters
from corten.serve.settings import Settings
from corten.serve.sink import GoneError
from corten.serve.state import State
from corten.serve.worker import Worker

if TYPE_CHECKING:
    from corten.serve.crowd import Crowd
    from corten.serve.jobs import Jobs
    from corten.serve.later import Later

_log = logging.getLogger(__name__)
_Route = Callable[[Request], None]
_Quick = tuple[Callable[[bytes | bytearray], Inputs], Callable[[Job], None]]

_LONGEST_MESSAGE = 1000
# A call that takes this many times the predict timeout is not coming back, and the one thread waits for it.
_STUCK_TIMES = 2.0
_LEAST_QUEUE_BYTES = 128 << 20


class Site:
    """Answers requests. Made before the model is there; `install` brings it in. `routes`: methods by exact path."""

    def __init__(self, spec: ModelSpec, settings: Settings, meters: Meters) -> None:
        self.state = State.LOADING
        self._spec = spec
        self._settings = settings
        self._meters = meters
        self._loop = asyncio.get_running_loop()
        self._time_s = self._loop.time
        self._predict_s = spec.limits.predict_timeout_s
        self._access = AccessLog(settings.access_log)
        self._model: Loaded | None = None
        self._batcher: Batcher | Crowd | None = None
        self._reader: Worker | None = None  # decodes large bodies
        self._unread_bytes = 0
        self._queue_bytes = max(_LEAST_QUEUE_BYTES, 8 * spec.limits.max_body_bytes)
        self._streams = False
        # All that most requests need; None where they need more, or there is no model yet.
        self._quick: _Quick | None = None
        self._later: Later | None = None
        self.routes: Mapping[str, Mapping[str, _Route]] = {
            "/predict": {"POST": self._predict},
            **About(self).routes,
        }
        self._dialects: dict[str, Dialect] = {}

    @property
    def spec(self) -> ModelSpec:
        """What is served."""
        return self._spec

    @property
    def settings(self) -> Settings:
        """What the server was told from outside."""
        return self._settings

    @property
    def runner(self) -> Runner | None:
        """The model, None before it is installed."""
        return self._model.runner if self._model else None

    @property
    def batcher(self) -> Batcher | Crowd | None:
        """The model's queue, None before the model is installed."""
        return self._batcher

    @property
    def meters(self) -> Meters:
        """What is counted."""
        return self._meters

    @property
    def later(self) -> Later:
        """See Desk. Made when it is first needed, as most servers never do."""
        if self._later is None:
            from corten.serve.later import Later

            try:
                self._later = Later(self)
            except OSError as error:
                message = f"jobs can be kept nowhere: {error.strerror or error}; CORTEN_JOBS_DIR may name a folder"
                raise RequestError(501, "job.no_folder", message) from error
        return self._later

    async def drain_jobs(self, deadline_s: float) -> bool:
        """Finish the jobs nobody waits for; whether all were."""
        return self._later is None or await self._later.drain(deadline_s)

    def close(self) -> None:
        """Leave what other processes may use."""
        if self._later is not None:
            self._later.close()

    def install(self, model: Loaded, worker: Worker) -> None:
        """Take requests for this model from now on."""
        limits, batching = self._spec.limits, self._spec.batching
        bounds = Bounds(
            max_rows=self._spec.streams if self._spec.streams > 1 else batching.max_rows,
            queue=limits.queue,
            queue_bytes=self._queue_bytes,
        )
        hooks = Hooks(self._answer, self._called, self._wanted)
        runner = model.runner
        runner.start()
        if runner.loop is None:
            self._batcher = Batcher(runner, worker, bounds, hooks, call_s=model.call_s)
        else:
            from corten.serve.crowd import Crowd

            self._batcher = Crowd(runner, runner.loop, worker, bounds, hooks)
        self._streams = runner.schema.stream is not None
        if not self._streams and runner.loop is None:
            self._quick = runner.decode, self._batcher.submit
        self._model = model
        self._meters.load_seconds.set(model.load_s)
        if self._settings.drift and runner.schema.style is Style.ROWS:
            runner.observer = self._meters.watch(runner.schema)
        self._meters.queue.read = lambda: self._batcher.waiting if self._batcher else 0

    def handle(self, request: Request) -> None:
        """The server's handler."""
        reading: Reading = request.head.note or read(request.head)
        if reading.usual:
            quick = self._quick
            if quick is None or len(request.body) >= LARGE_BYTES:
                self._predict(request)
                return
            # What nearly everybody sends to most models, in fewer steps.
            decode, submit = quick
            now_s, body = self._time_s(), request.body
            call = Call(request, now_s, reading)
            try:
                submit(Job(decode(body), call, now_s + self._predict_s, len(body)))
            except RequestError as error:
                self._fail(call, error.status, error.code, error.message, path=error.path)
            except QueueFullError as error:
                self._full(call, error)
            return
        methods = self.routes.get(request.path)
        if methods is None:
            if (dialect := self.dialect(request.path)) is not None:
                dialect.handle(request)
                return
            request.fail(404, "request.no_route", f"no route `{request.path[:200]}`")
            return
        # HEAD is GET without the body, which the server leaves out (RFC 9110, 9.3.2).
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            message = f"`{request.path}` takes {allowed}, not {request.method}"
            request.fail(405, "request.method", message, headers=(("Allow", allowed),))
            return
        route(request)

    def dialect(self, path: str) -> Dialect | None:
        """The protocol a path belongs to, made at its first request: most servers are never asked in most of them."""
        first = path[1:].partition("/")[0]
        module = DIALECTS.get(first)
        if module is None:
            return None
        if module not in self._dialects:
            self._dialects[module] = importlib.import_module(f"corten.serve.{module}").dialect(self)
        return self._dialects[module]

    def refused(self, status: int, code: str) -> None:
        """The server answered something that could not become a request."""
        self._meters.count(status)
        if self._access.wants(status, self._loop.time()):
            self._access.write(status, {"code": code})

    def expire(self) -> None:
        """Answer the requests whose time is over. To be called a few times a second."""
        if self._batcher is None:
            return
        for job in self._batcher.expire(self._loop.time()):
            self._fail(job.context, 504, "model.timeout", self._too_slow(job))

    def _too_slow(self, job: Job) -> str:
        limits, sink = self._spec.limits, job.inputs.sink
        if job.deadline_s >= job.context.started_s + job.context.timeout_s:
            return f"there was no answer in the {job.context.timeout_s:g} s the request gives it"
        if sink is not None and job.deadline_s >= job.context.started_s + limits.stream_timeout_s:
            return f"the answer took more than {limits.stream_timeout_s:g} s in all"
        if job.context.patient:
            return f"the model took more than {limits.job_timeout_s:g} s"
        return f"the model took more than {limits.predict_timeout_s:g} s"

    def give_up(self) -> None:
        """Tell whoever still waits that nothing more comes; a gateway asks another replica then."""
        for job in self._batcher.expire(math.inf) if self._batcher else ():
            self._fail(job.context, 503, "serve.draining", "the server is stopping")

    # Predictions

    def _predict(self, request: Request) -> None:
        if self._streams and "prefer" not in request.headers and self._stream(request):
            return
        call = Call(request, self._loop.time(), reading_of(request))
        if call.reading.plain:
            self.ask(call, _plainly)
        elif "respond-async" in request.headers.get("prefer", "").lower():
            self._jobs().predict(request)
        else:
            self.ask(call, _in_its_form)

    def _stream(self, request: Request) -> bool:
        """Answer piece by piece, where the client takes that; whether it does."""
        from corten.serve.streaming import StreamCall, framing

        form = framing(request)
        if form is not None:
            streamed = StreamCall.of(request, self._loop.time(), form)
            self.ask(streamed, streamed.decode)
        return form is not None

    def _jobs(self) -> Jobs:
        found = self.dialect("/jobs/")
        assert found is not None  # noqa: S101 - it is in the table
        return cast("Jobs", found)

    def ask(self, call: Call, decode: Callable[[Runner, Request], Inputs]) -> None:
        """Put what `decode` makes of the request to the model; the call is answered now or later."""
        if self._batcher is None or self._model is None:
            self._fail(call, 503, "serve.loading", "the model is loading", retry_after_s=1)
            return
        if math.isnan(call.timeout_s):
            self._fail(call, 400, "request.bad_timeout", "X-Request-Timeout must be seconds above 0, as in 2.5")
            return
        # Calls are read and answered where the model runs.
        if call.is_long or (self._model.runner.schema.style is Style.ROWS and call.imports):
            self._ask_later(call, decode, self._model.runner)
            return
        try:
            self._put(call, decode(self._model.runner, call.request))
        except RequestError as error:
            self._fail(call, error.status, error.code, error.message, path=error.path)

    def _ask_later(self, call: Call, decode: Callable[[Runner, Request], Inputs], runner: Runner) -> None:
        """The same for what takes long to read, a large body say: the loop goes on with others meanwhile."""
        size_bytes = len(call.request.body)
        if self._unread_bytes and self._unread_bytes + size_bytes > self._queue_bytes:
            self._fail(call, 429, "serve.queue_full", "large bodies are waiting to be read", retry_after_s=1)
            return
        if self._reader is None:
            self._reader = Worker(self._loop, name="corten-reader")
            self._reader.start()
        self._unread_bytes += size_bytes

        def attempt() -> Inputs | Exception:
            try:
                return decode(runner, call.request)
            except Exception as error:
                return error

        def done(result: Inputs | Exception) -> None:
            self._unread_bytes -= size_bytes
            match result:
                case Inputs():
                    self._put(call, result, large=True)
                case RequestError():
                    self._fail(call, result.status, result.code, result.message, path=result.path)
                case _:
                    self._model_failed(call, result)

        self._reader.submit(attempt, done)

    def _put(self, call: Call, inputs: Inputs, *, large: bool = False) -> None:
        """Queue a request that was read."""
        assert self._batcher is not None  # noqa: S101 - who decodes has a model
        limits = self._spec.limits
        most_s = limits.job_timeout_s if call.patient else limits.predict_timeout_s
        deadline_s = call.started_s + min(most_s, call.timeout_s)
        job = Job(inputs, call, deadline_s, len(call.request.body), large)
        if inputs.sink is not None or (self._model and self._model.runner.loop is not None):
            self._follow(job)
        try:
            self._batcher.submit(job)
        except QueueFullError as error:
            self._full(call, error)

    def _full(self, call: Call, error: QueueFullError) -> None:
        message = f"{error.waiting} requests are waiting already"
        self._fail(call, 429, "serve.queue_full", message, retry_after_s=error.retry_after_s)

    def _answer(self, jobs: Sequence[Job], results: Sequence[Result]) -> None:
        """Answer what came out of one call of the model."""
        now_s, logged = self._loop.time(), self._access.share > 0
        took_s: list[float] = []
        for job, result in zip(jobs, results, strict=True):
            call: Call = job.context
            if isinstance(result, bytes):
                reading = call.reading
                call.request.respond(200, result, JSON, reading.reply_headers if reading.request_id else ())
                took_s.append(now_s - call.started_s)
                if logged:
                    self._log_some(call, 200)
            else:
                self._answer_otherwise(call, result)
        self._meters.answered(took_s)

    def _answer_otherwise(self, call: Call, result: Reply | Streamed | BaseException) -> None:
        match result:
            case Reply():
                call.respond(200, result.body, result.content_type, (*call.reply_headers, *result.headers))
                self._done(call, 200)
            case Streamed():
                call.finish()
                self._done(call, 200)
            case GoneError() | asyncio.CancelledError() if not call.wanted:
                self._meters.count(499)
            case InputError():
                self._fail(call, 422, "request.invalid", result.message[:_LONGEST_MESSAGE], path=result.path)
            case RequestError():
                self._fail(call, result.status, result.code, result.message, path=result.path)
            case _:
                self._model_failed(call, result)

    def _follow(self, job: Job) -> None:
        """Let each piece of an answer move its deadline, and a client that leaves end the work for it."""
        call: Call = job.context
        batcher = self._batcher
        if batcher is None:
            return
        limits = self._spec.limits
        if (sink := job.inputs.sink) is not None:
            ends_s = call.started_s + min(limits.stream_timeout_s, call.timeout_s)
            counted = 0

            def moved() -> None:
                nonlocal counted
                now_s = self._loop.time()
                batcher.extend(job, min(now_s + limits.predict_timeout_s, ends_s))
                if not counted:
                    self._meters.first_piece_seconds.observe(now_s - call.started_s)
                self._meters.pieces.value += sink.pieces - counted
                counted = sink.pieces

            sink.on_piece = moved

        def left() -> None:
            if sink is not None:
                sink.close()
            batcher.cancel(job)

        call.request.on_gone(left)

    def _model_failed(self, call: Call, error: BaseException) -> None:
        call.need_id()
        now_s = self._loop.time()
        if self._access.wants(500, now_s):
            _log.error("the model raised an exception", exc_info=error, extra=call.log_fields(now_s))
        message = _text(error)[:_LONGEST_MESSAGE] or type(error).__qualname__
        call.fail(500, "model.failed", message, "", (*call.reply_headers, *call.second_chance))
        self._count(call, 500)

    def _fail(
        self, call: Call, status: int, code: str, message: str, *, path: str = "", retry_after_s: int = 0
    ) -> None:
        headers = call.reply_headers
        if retry_after_s:
            headers = (*headers, ("Retry-After", str(retry_after_s)))
        call.fail(status, code, message, path, headers)
        self._done(call, status)

    def _done(self, call: Call, status: int) -> None:
        self._count(call, status)
        if self._access.share or status >= 500:
            self._log_some(call, status)

    def _count(self, call: Call, status: int) -> None:
        self._meters.count(status)
        self._meters.seconds.observe(self._loop.time() - call.started_s)

    def _log_some(self, call: Call, status: int) -> None:
        now_s = self._loop.time()
        if self._access.wants(status, now_s):
            self._access.write(status, call.log_fields(now_s))

    def _called(self, rows: int, model_s: float) -> None:
        self._meters.rows.observe(rows)
        self._meters.model_seconds.observe(model_s)

    def _wanted(self, job: Job) -> bool:
        call: Call = job.context
        if call.wanted:
            return True
        self._meters.count(499)  # nginx' word for a client that went away
        # Nearly always a client that gave up, as nginx and Go take it too; whoever still reads is told.
        call.fail(408, "request.left", "the connection was closed while the request waited for the model", "", ())
        return False

    def stuck_s(self) -> float:
        """How long a call of the model has not returned, if that is longer than any should take; else 0."""
        limit_s, now_s = self._spec.limits.predict_timeout_s, self._loop.time()
        running_s = self._batcher.running_s(now_s) if self._batcher else 0.0
        # A job may take longer than that, and says so by its deadline.
        late = self._batcher is not None and now_s > self._batcher.latest_s() + limit_s
        return running_s if late and running_s > _STUCK_TIMES * limit_s else 0.0


def _plainly(runner: Runner, request: Request) -> Inputs:
    return runner.decode(request.body)


def _in_its_form(runner: Runner, request: Request) -> Inputs:
    from corten.serve.media import decode_as_declared

    return decode_as_declared(runner, request)


def _text(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return type(error).__qualname__
