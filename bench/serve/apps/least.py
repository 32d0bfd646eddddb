"""The least server with a model: the same loop, parser and JSON as Corten's and nothing else. Its cold start is the floor of any.

`least.py KIND PORT` loads, then listens; it trusts whatever it is sent.
"""

from __future__ import annotations

import asyncio
import sys

import model
import msgspec
import uvloop
from httptools import HttpRequestParser


class Protocol(asyncio.Protocol):
    def connection_made(self, transport) -> None:
        self.transport, self.body = transport, b""
        self.parser = HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        given, self.body = msgspec.json.decode(self.body), b""
        rows = [given["text"]] if "text" in given else given["inputs"]
        body = msgspec.json.encode({"outputs": run(rows).tolist()})
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    run = model.load(sys.argv[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[2])))
