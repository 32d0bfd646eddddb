"""Coverage-guided fuzzing of the server, from the bytes of a connection to the bytes of its answers, by atheris.

    pip install atheris numpy msgspec httptools uvloop
    PYTHONPATH=src python tests/fuzz/fuzz_serve.py [-max_total_time=300] [FOLDER_OF_INPUTS]

Whatever comes in: no exception leaves the connection, no answer is a 5xx but the two that refuse a transfer coding or a
version, whole requests are answered, each answer is HTTP/1.1 with strict JSON in it. Not run in CI: minutes are too few
for it to find what tests/unit and tests/integration/test_serve_fuzz.py do not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import atheris

with atheris.instrument_imports(include=["corten"]):
    import numpy as np

    from corten.core.model import ModelSpec
    from corten.core.schema import DType, Schema, Style, Tensor
    from corten.http import UnixAddress
    from corten.http.connection import Connection
    from corten.serve import cog, jobs, media, mlflow, npy, oip, oip_rows, openai, tabular  # noqa: F401 - to be covered
    from corten.serve.loading import Loaded
    from corten.serve.meters import Meters
    from corten.serve.process import set_up
    from corten.serve.rows import RowsRunner
    from corten.serve.settings import Settings
    from corten.serve.state import State
    from corten.serve.worker import Worker

REFUSALS = frozenset({501, 505})
TURNS = 3  # of the loop, after which what is answered at once is
TYPES = [
    b"",
    b"application/json",
    b"text/csv",
    b"application/x-npy",
    b"multipart/form-data; boundary=b0",
    b"text/plain",
]
BODIES = [
    b'{"inputs":[[1,2.5,null],[-0.0,1e9,3]]}',
    b'{"inputs":{"x":[[1,2,3]]}}',
    b'{"inputs":[{"a":1,"b":2,"c":3}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}]}abcdefghijkl',
    b'{"dataframe_split":{"columns":["a","b","c"],"data":[[1,2,3]]}}',
    b'{"input":{"x":[[1,2,3]]},"id":"a"}',
    b"a,b,c\n1,2,3\n",
    b'--b0\r\nContent-Disposition: form-data; name="x"; filename="t.csv"\r\n\r\n1,2,3\r\n--b0--',
]
SPACES = [0, 0, 0, 70_000]  # of the last, a part is read past the parser
PATHS = [b"/predict", b"/v2/models/toy/infer", b"/invocations", b"/predictions", b"/v1/embeddings", b"/", b"/drift"]


class Transport:
    """Keeps what is sent, and gives what comes to whoever is its protocol."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def deliver(self, data: bytes) -> None:
        while data and isinstance(self.protocol, asyncio.BufferedProtocol):
            room = self.protocol.get_buffer(-1)
            taken = min(len(room), len(data))
            room[:taken] = data[:taken]
            del room
            self.protocol.buffer_updated(taken)
            data = data[taken:]
        if data:
            self.protocol.data_received(data)

    def write(self, data: bytes) -> None:
        self.sent += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.sent += b"".join(pieces)

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Doubling:
    """A model of rows."""

    schema = Schema(Style.ROWS, (Tensor("x", DType.FLOAT32, (None, 3), ("a", "b", "c")),), ())

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        return {"y": inputs["x"] * 2}


async def site() -> Any:
    """A server with a model, and no socket."""
    settings = Settings(listen=UnixAddress(Path("/nowhere")), drift=False)
    spec = ModelSpec(name="toy", adapter="toy", schema=Doubling.schema, files=())
    made, server = set_up(spec, settings, Meters())
    made.install(Loaded(RowsRunner(Doubling()), 0.0, 0.00001), Worker(asyncio.get_running_loop()))
    made.state = State.READY
    return server


async def feed(transport: Transport, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        transport.deliver(piece)
        for _ in range(TURNS):
            await asyncio.sleep(0)


def requests(given: Any) -> Iterator[bytes]:
    """Pieces of a connection's data: free bytes, or requests whose heads are whole."""
    for _ in range(given.ConsumeIntInRange(1, 4)):
        if given.ConsumeBool():
            yield given.ConsumeBytes(given.ConsumeIntInRange(0, 200))
            continue
        path, kind = given.PickValueInList(PATHS), given.PickValueInList(TYPES)
        body = given.PickValueInList(BODIES)
        for _ in range(given.ConsumeIntInRange(0, 3)):
            start = given.ConsumeIntInRange(0, len(body))
            end = start + given.ConsumeIntInRange(0, 8)
            body = body[:start] + given.ConsumeBytes(given.ConsumeIntInRange(0, 16)) + body[end:]
        body += b" " * given.PickValueInList(SPACES)
        head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % (path, len(body))
        whole = head + (b"Content-Type: %b\r\n\r\n" % kind if kind else b"\r\n") + body
        cut = given.ConsumeIntInRange(0, len(whole))
        yield from (piece for piece in (whole[:cut], whole[cut:]) if piece)


def check(sent: bytes) -> None:
    """All answers of a connection, one after the other."""
    while sent:
        head, _, rest = sent.partition(b"\r\n\r\n")
        status = int(head[9:12])
        assert head.startswith(b"HTTP/1.1 "), head
        assert status < 500 or status in REFUSALS, sent
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"Content-Length", 0))
        if fields.get(b"Content-Type", b"").startswith(b"application/json"):
            json.loads(rest[:length], parse_constant=strange)
        sent = rest[length:]


def strange(text: str) -> NoReturn:
    raise AssertionError(f"{text} is not JSON")


def main() -> None:
    logging.disable(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(site())

    def one(data: bytes) -> None:
        connection, transport = Connection(server), Transport()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        loop.run_until_complete(feed(transport, requests(atheris.FuzzedDataProvider(data))))
        check(bytes(transport.sent))
        connection.connection_lost(None)
        assert server.in_flight == 0

    atheris.Setup([*sys.argv, "-timeout=10"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
