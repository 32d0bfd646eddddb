"""Push an image, and what is attached to it (SBOM, provenance, signatures), to a registry; print it with its digest.

The registry gets the very bytes of the store, so the digest stays the same. Blobs it has are not sent; the tag comes
last. Credentials are read from podman's and docker's files and credential helpers.
"""

from __future__ import annotations

import argparse
import os

from corten.cli import parser as words
from corten.cli.output import Output, megabytes

EXAMPLES = """\
  corten push iris ghcr.io/team/iris:1
  corten push iris localhost:5000/iris
  corten push 3f2a9c registry.example.org/team/iris:1 --ca our-ca.pem
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="NAME, NAME@sha256:... or a digest (its first digits do)")
    parser.add_argument("reference", help="where to: REGISTRY/REPOSITORY:TAG (the tag is `latest` if none is given)")
    words.add_registry_trust(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Push, then print the pinned reference."""
    from corten.core.home import Home
    from corten.ops.push import push

    done = push(
        options.image,
        options.reference,
        home=Home.from_env(os.environ, uid=os.getuid()),
        plain_http=options.plain_http,
        ca=options.ca,
        listen=output.listen,
    )
    output.document(done.as_dict())
    output.note(f"{megabytes(done.moved.sent_bytes)} of {megabytes(done.moved.size_bytes)} sent, {done.seconds:.2f} s")
    output.result(done.pinned)
    return 0
