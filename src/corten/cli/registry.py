"""Offer the local store read-only to whoever speaks the registry API: podman, containerd, a cluster.

An image called `iris` here is `HOST:PORT/iris:latest` there. There is no password and no TLS: whoever reaches the port
can read every image, so it listens on this machine only unless told otherwise.
"""

from __future__ import annotations

import argparse
import os

from corten.cli import parser as words
from corten.cli.output import Output

EXAMPLES = """\
  corten registry serve
  podman pull --tls-verify=false localhost:5000/iris
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("action", choices=("serve",), help="serve: until Ctrl-C or SIGTERM")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1")
    parser.add_argument("--port", type=_port, default=5000, help="default: 5000")


def run(options: argparse.Namespace, output: Output) -> int:
    """Serve until interrupted; the URL is the result."""
    from corten.core.home import Home
    from corten.ops.registry import serve_registry

    def ready(url: str) -> None:
        output.document({"url": url})
        output.result(url)

    output.note("read-only, without a password; Ctrl-C ends it")
    serve_registry(home=Home.from_env(os.environ, uid=os.getuid()), host=options.host, port=options.port, ready=ready)
    return 0


def _port(text: str) -> int:
    """As everywhere, and 0 for any free one: the URL that is printed has it."""
    return 0 if text == "0" else words.port(text)
