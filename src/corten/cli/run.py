"""Run one replica of an image here and now, in the foreground: its log on this terminal, gone with Ctrl-C.

No daemon, no gateway: it answers at a unix socket. `corten deploy` is what serves others.
"""

from __future__ import annotations

import argparse

from corten.cli import parser as words
from corten.cli.output import Output

EXAMPLES = """\
  corten run fraud
  corten run fraud@sha256:4f0c... --engine podman --memory 512m
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


def run(options: argparse.Namespace, output: Output) -> int:
    """Run it; its exit code is ours."""
    from corten.core.events import Event
    from corten.core.resources import Resources
    from corten.ops.run import run as run_image

    def listen(event: Event) -> None:
        if address := event.data.get("address"):
            output.note(f"ask it:  curl --unix-socket {address} http://localhost/\nend it:  Ctrl-C")

    return run_image(
        options.image,
        engine=options.engine,
        env=dict(options.env),
        egress=options.egress,
        resources=Resources(options.memory or 0, options.cpus or 0.0),
        listen=listen,
        say=output.result,
    )
