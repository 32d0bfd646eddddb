"""Pull an image, and what is attached to it, from a registry into the local store; print it with its digest.

Everything is checked against its digest before it is visible. Deploy it by its reference, or by the name given here.
"""

from __future__ import annotations

import argparse
import os

from corten.cli import parser as words
from corten.cli.output import Output, megabytes

EXAMPLES = """\
  corten pull ghcr.io/team/iris:1 --name iris
  corten pull ghcr.io/team/iris@sha256:0f2c...
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("reference", help="REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:...")
    parser.add_argument("--name", default="", help="a short name for it here (default: only the reference)")
    words.add_registry_trust(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Pull, then print the pinned reference."""
    from corten.core.home import Home
    from corten.ops.pull import pull

    done = pull(
        options.reference,
        name=options.name,
        home=Home.from_env(os.environ, uid=os.getuid()),
        plain_http=options.plain_http,
        ca=options.ca,
        listen=output.listen,
    )
    output.document(done.as_dict())
    output.note(
        f"{megabytes(done.moved.sent_bytes)} of {megabytes(done.moved.size_bytes)} fetched, {done.seconds:.2f} s"
    )
    output.result(done.pinned)
    return 0
