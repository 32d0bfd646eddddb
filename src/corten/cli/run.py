"""Run one replica of an image here and now, in the foreground: its log on this terminal, gone with Ctrl-C.

No daemon, no gateway: it answers at a unix socket. `corten deploy` is what serves others.
"""

from __future__ import annotations

import argparse

from corten.cli import parser as words
from corten.cli.output import Output
from corten.cli.running import add_secret, resources_of, secret_values

EXAMPLES = """\
  corten run fraud
  corten run fraud@sha256:4f0c... --engine podman --memory 512m
  corten run fraud --secret DB_PASSWORD=password.txt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="NAME, NAME@sha256:... or a digest (its first digits do)")
    words.add_resources(parser)
    words.add_engine(parser)
    parser.add_argument(
        "--env", action="append", default=[], type=words.key_value, metavar="KEY=VALUE", help="repeatable"
    )
    parser.add_argument("--egress", action="store_true", help="let the model open connections to the outside")
    add_secret(parser, "NAME=PATH", "a file the replica finds in memory, as NAME_FILE tells it (`-`: standard input)")


def run(options: argparse.Namespace, output: Output) -> int:
    """Run it; its exit code is ours."""
    from corten.core.events import Event
    from corten.ops.run import run as run_image

    def listen(event: Event) -> None:
        if address := event.data.get("address"):
            output.note(f"ask it:  curl --unix-socket {address} http://localhost/\nend it:  Ctrl-C")

    return run_image(
        options.image,
        engine=options.engine,
        env=dict(options.env),
        egress=options.egress,
        resources=resources_of(options),
        secrets=secret_values(options.secret),
        listen=listen,
        say=output.result,
    )
