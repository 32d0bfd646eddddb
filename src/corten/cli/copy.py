"""Copy an image, and what is attached to it, between registries or repositories; print the copy with its digest.

Bytes stream through without being kept here; within one registry they are mounted. The digest stays the same.
"""

from __future__ import annotations

import argparse

from corten.cli import parser as words
from corten.cli.output import Output, megabytes

EXAMPLES = """\
  corten copy ghcr.io/team/iris:1 registry.example.org/prod/iris:1
  corten copy registry.example.org/test/iris:1 registry.example.org/prod/iris:1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("source", help="REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:...")
    parser.add_argument("target", help="REGISTRY/REPOSITORY:TAG")
    words.add_registry_trust(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Copy, then print the pinned reference."""
    from corten.ops.copy import copy

    done = copy(options.source, options.target, plain_http=options.plain_http, ca=options.ca, listen=output.listen)
    output.document(done.as_dict())
    output.note(f"{megabytes(done.moved.sent_bytes)} of {megabytes(done.moved.size_bytes)} sent, {done.seconds:.2f} s")
    output.result(done.pinned)
    return 0
