"""What travels through the batcher: a request's inputs on the way in, JSON bytes or an exception on the way out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from corten.core.schema import Schema

if TYPE_CHECKING:
    import asyncio

    from corten.serve.sink import Sink


LARGE_BYTES = 256 << 10  # of a body of text: what takes milliseconds to read is read beside the loop


class Reply(msgspec.Struct, frozen=True):
    """A finished answer in another form than `/predict`'s JSON."""

    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


class Streamed(msgspec.Struct, frozen=True):
    """An answer whose pieces are all on their way to the client."""


Result = bytes | Reply | Streamed | BaseException


class Inputs(msgspec.Struct, eq=False):  # made a request: a dataclass would take three times as long to make
    """One request, decoded: arrays by input name, or rows still to be made one (ROWS), or arguments (CALL).

    Only inputs with equal `shape_key` may be joined; `rows` is how much of a batch they fill. `form` makes the answer
    of the model's outputs (arrays by name; values of calls) where it is not `/predict`'s JSON; it runs where the model
    runs, off the loop for slow ones, and may raise. `sink` takes the pieces of an answer that is wanted piece by piece.
    """

    values: Any
    rows: int = 1
    shape_key: object = None
    form: Callable[[Any], Reply] | None = None
    sink: Sink | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What one turn gave: a result for each of its inputs, in order, and the time spent in the model."""

    results: Sequence[Result]
    model_s: float


# Is shown the inputs, the outputs and the number of rows of a call of a model of rows, where the model runs.
Observer = Callable[[Mapping[str, Any], Mapping[str, Any], int], None]


class Runner(Protocol):
    """A loaded model seen from its server: text in, text out. The same for both styles."""

    schema: Schema
    joinable: bool  # whether several requests may go into one call
    abilities: Collection[str]  # what it can do beside predicting: `embed`, `chat`, `complete`
    pinned: bool  # whether the model must always be called in the thread that loaded it
    observer: Observer | None  # never asked for by models of calls
    loop: asyncio.AbstractEventLoop | None  # of a model with `async` methods: it is asked by `answer`, not by `run`

    def decode(self, body: bytes | bytearray) -> Inputs:
        """Parse a request's body. Raises RequestError for what is not as the schema says."""
        ...

    def run(self, batch: Sequence[Inputs]) -> Outcome:
        """Call the model; never raises: what fails, fails in its own result."""
        ...

    async def answer(self, inputs: Inputs) -> Result:
        """Ask an `async` model, on its loop; never raises but when it is cancelled."""
        ...

    def streamed(self, inputs: Inputs, sink: Sink) -> Inputs:
        """The same inputs, for an answer that comes piece by piece. Only for models whose schema has a `stream`."""
        ...

    def start(self) -> None:
        """This is the process that answers: make what would not survive a fork, `loop` for one."""
        ...

    def blank(self) -> Inputs | None:
        """Made-up inputs to warm the model up with, None when the schema does not tell enough."""
        ...

    def text(self, outputs: Any) -> bytes:
        """JSON of what a `form` is given: the value of `outputs` in `/predict`'s answer."""
        ...


class RequestError(Exception):
    """A request the model's schema does not allow: status 400 (not JSON) or 422, a code, and a JSON path."""

    def __init__(self, status: int, code: str, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.path = path


class ModelOutputError(Exception):
    """The model gave back something else than its contract says."""


def malformed(message: str) -> RequestError:
    """The body is not JSON."""
    return RequestError(400, "request.malformed", message)


def invalid(message: str, path: str) -> RequestError:
    """The body is JSON, but not what the schema says."""
    return RequestError(422, "request.invalid", message, path=path)
