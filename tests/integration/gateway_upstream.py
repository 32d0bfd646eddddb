"""A replica to route to, for tests of the gateway: real HTTP on a unix socket or port, no model.

argv: ADDRESS (`unix:/path` or `host:port`) NAME. `POST /...?ms=N` answers after N ms, `&pieces=M` in M lines, one each N ms; GET /hang makes /readyz hang. `?fails=NAMES`: 500 of those.
"""

import asyncio
import signal
import sys

from corten.core.headers import AGAIN_HEADER, ATTEMPT_HEADER
from corten.http import Limits, Request, Server, parse_address, run

ADDRESS, NAME = sys.argv[1:]


def drip(loop, stream, pieces, every_s):
    """So many lines, one each `every_s`."""
    if not pieces:
        stream.end()
        return
    stream.write(b"1\n")
    loop.call_later(every_s, drip, loop, stream, pieces - 1, every_s)


async def main() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    def handle(request: Request) -> None:
        if request.path == "/readyz":
            request.respond(503 if ended.is_set() else 200, b"{}")
            return
        if pieces := int(request.params.get("pieces", "0")):
            drip(loop, request.stream(200, "application/x-ndjson"), pieces, float(request.params["ms"]) / 1e3)
            return
        seen = {
            "name": NAME,
            "path": request.path,
            "query": request.query,
            "body_bytes": len(request.body),
            "headers": dict(request.headers),
        }
        delay_s = float(request.params.get("ms", "0")) / 1e3
        status = int(request.params.get("status", "200"))
        headers = (("x-corten-revision", "spoofed"),)
        if NAME in request.params.get("fails", ""):  # as a model server does whose model raises
            first = request.headers[ATTEMPT_HEADER] == "1"
            status, headers = 500, (*headers, *([(AGAIN_HEADER, "1")] if first else []))
        answer = (status, seen, headers)
        if delay_s:
            loop.call_later(delay_s, lambda: None if request.gone else request.respond_json(*answer))
        else:
            request.respond_json(*answer)

    server = Server(handle, Limits(body_bytes=64 << 20))
    await server.listen(parse_address(ADDRESS), mode=0o666)
    print("ready", flush=True)
    await ended.wait()
    await server.drain(10.0)
    await server.close()


run(main())
