"""Check an image without any network: that it is signed by this key, and that every blob of it has its digest.

Exits with 7 when it is not signed, signed by another key, or damaged.
"""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output

EXAMPLES = """\
  corten verify digits --key release.pub
  corten deploy $(corten verify digits --key release.pub --quiet)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="a name, or the first digits of a digest")
    parser.add_argument("--key", required=True, metavar="FILE", help="the public key")


def run(options: argparse.Namespace, output: Output) -> int:
    """Verify, print the digest that was verified: deploy that, a name may have moved meanwhile."""
    from corten.core.home import Home
    from corten.ops.verify import verify

    verified = verify(options.image, options.key, home=Home.from_env(os.environ, uid=os.getuid()))
    output.document(verified.as_dict())
    for statement in verified.statements:
        output.note(f"signed: {statement}")
    output.result(str(verified.digest))
    return 0
