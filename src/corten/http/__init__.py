"""A small HTTP/1.1 server: the model server, the control daemon and the xDS server speak through it.

A handler is a plain function called on the event loop with each whole request; it answers at once or later::

    from corten.http import Limits, Request, Server, parse_address, run

    def handle(request: Request) -> None:
        if request.path == "/livez":
            request.respond(200, b"ok", "text/plain")
        elif request.path == "/wait":
            held.append(request)                 # answer later: held[0].respond_json(200, {...})
            request.on_gone(forget)              # called if the client goes away first
        else:
            request.fail(404, "http.not_found", f"no route `{request.path}`")

    async def main() -> None:
        server = Server(handle, Limits(body_bytes=1 << 20))
        await server.listen(parse_address("unix:/run/x.sock"), mode=0o600)
        ...
        await server.drain(30.0)                 # answers what it has, with `Connection: close`
        await server.close()

    run(main())                                  # uvloop where it can be imported

Handlers that are coroutines: `Server(spawn(coroutine_function))`, see `corten.http.tasks.spawn`. Everything here
must be called on the loop's thread (from another one: `loop.call_soon_threadsafe(request.respond, ...)`).
"""

from __future__ import annotations

from corten.http.address import Address, TcpAddress, UnixAddress, parse_address
from corten.http.limits import Limits
from corten.http.loop import run
from corten.http.request import Handler, Request, Stream
from corten.http.server import Server
from corten.http.tasks import spawn

__all__ = [
    "Address",
    "Handler",
    "Limits",
    "Request",
    "Server",
    "Stream",
    "TcpAddress",
    "UnixAddress",
    "parse_address",
    "run",
    "spawn",
]
