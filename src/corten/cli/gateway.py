"""Where requests come in: address, port, TLS with a certificate of your own. Changes lose no request.

`restart` puts a new process in the place of the old one, which answers what it has; Corten does so by itself when it
was upgraded. `set` changes what is given and leaves the rest. The certificate's files are read again whenever they
change, so that a renewal needs no command; a pair that does not fit together, or is out of its dates, is refused or, at
a renewal, left aside with a word in `corten status`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corten.cli import parser as words
from corten.cli.output import Output
from corten.core.home import Home
from corten.errors import UsageError

EXAMPLES = """\
  corten gateway
  corten gateway set --tls-cert fullchain.pem --tls-key privkey.pem --port 8443 --http-port 8080
  corten gateway set --host 0.0.0.0
  corten gateway set --no-tls
  corten gateway restart
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("action", nargs="?", choices=("show", "set", "restart"), default="show", help="default: show")
    parser.add_argument(
        "--host", default=None, metavar="ADDRESS", help="127.0.0.1 (default), 0.0.0.0 for all others too"
    )
    parser.add_argument("--port", type=words.port, default=None, help="default: 8080")
    parser.add_argument(
        "--tls-cert", type=Path, default=None, metavar="FILE", help="PEM, the server's certificate first"
    )
    parser.add_argument("--tls-key", type=Path, default=None, metavar="FILE", help="PEM, without a password")
    parser.add_argument(
        "--cold", action="store_true", help="restart: the old one ends first, connections are refused in between"
    )
    parser.add_argument("--no-tls", action="store_true", help="plain HTTP again")
    parser.add_argument(
        "--http-port",
        type=_port_or_none,
        default=None,
        metavar="PORT",
        help="with TLS: sends plain HTTP on to it; 0: none",
    )


def run(options: argparse.Namespace, output: Output) -> int:
    """Change what is asked for, then print the URL."""
    from corten.ops.gateway import gateway, set_gateway

    home = Home.from_env(os.environ, uid=os.getuid())
    changes = (options.host, options.port, options.tls_cert, options.tls_key, options.http_port)
    if options.action == "restart":
        return _restart(options, output, home)
    if options.action == "show":
        if options.no_tls or any(change is not None for change in changes):
            raise UsageError("cli.usage", "to change anything say `set`", hint="corten gateway set --help")
        found = gateway(home=home)
    else:
        if options.no_tls and (options.tls_cert or options.tls_key):
            raise UsageError("cli.usage", "`--no-tls` and a certificate exclude each other", hint="give one of them")
        found = set_gateway(
            host=options.host,
            port=options.port,
            certificate="" if options.no_tls else options.tls_cert,
            key="" if options.no_tls else options.tls_key,
            http_port=0 if options.no_tls else options.http_port,
            home=home,
        )
    output.document({key: value for key, value in found.items() if key != "chain"})
    for line in _told(found):
        output.note(line)
    output.result(found["url"])
    return 0


def _restart(options: argparse.Namespace, output: Output, home: Home) -> int:
    from corten.ops.gateway import restart_gateway

    found = restart_gateway(cold=options.cold, home=home)
    output.document(dict(found))
    output.note(f"process {found['pid']} took over from {found['was']}")
    output.result(str(found["pid"]))
    return 0


def _told(found: Mapping[str, Any]) -> list[str]:
    told = [f"listens on {found['host']} port {found['port']}"]
    if found["names"]:
        until = time.strftime("%Y-%m-%d", time.localtime(found["expires_s"]))
        told.append(f"TLS for {', '.join(found['names'])}, until {until}: {found['certificate']}")
    if found["http_port"]:
        told.append(f"plain HTTP on port {found['http_port']} is sent on")
    return told


def _port_or_none(text: str) -> int:
    return 0 if text == "0" else words.port(text)
