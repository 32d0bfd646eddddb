"""Give the canary of a deployment a larger share of the requests, or all of them; no request fails.

A share you choose stays until you choose another: only the shares of `--canary auto` are judged.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from corten.cli import in_cluster
from corten.cli import parser as words
from corten.cli.output import Output

if TYPE_CHECKING:
    from corten.ops.deploy import Deployed

EXAMPLES = """\
  corten promote fraud
  corten promote fraud --to 25
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")
    parser.add_argument(
        "--to", type=words.percent, default=100, metavar="PERCENT", help="its share (default: 100, all)"
    )
    in_cluster.add_engine(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Promote, then print the URL."""
    if in_cluster.meant(options):
        return in_cluster.promote(options, output)
    from corten.core.home import Home
    from corten.ops.change import promote

    result = promote(options.name, options.to, home=Home.from_env(os.environ, uid=os.getuid()), listen=output.listen)
    output.document(result.as_dict())
    output.note(f"{result.name} {result.revision} has {result.share} % of the requests, {result.seconds:.1f} s")
    output.result(result.url)
    return 0


def canary_note(result: Deployed, output: Output) -> None:
    """Say that a revision has only a share of the requests, and what may follow."""
    if result.share < 100:
        name = result.name
        has = f"{result.share} % of the requests" if result.share else "copies of requests only"
        output.note(f"{result.revision} has {has}: see `corten status {name}`;")
        output.note(f"`corten promote {name}` gives it all, `corten rollback {name}` none")
