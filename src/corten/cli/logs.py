"""The last lines a deployment's replicas wrote, oldest first, each led by its replica's name."""

from __future__ import annotations

import argparse
import os

from corten.cli import in_cluster
from corten.cli.output import Output

EXAMPLES = """\
  corten logs fraud
  corten logs fraud --tail 1000
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")
    parser.add_argument(
        "--tail", type=int, default=100, metavar="N", help="at most this many lines a replica (default: 100)"
    )
    in_cluster.add_engine(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Print the lines."""
    if in_cluster.meant(options):
        return in_cluster.logs(options, output)
    from corten.core.home import Home
    from corten.ops.logs import logs

    lines = logs(options.name, tail=options.tail, home=Home.from_env(os.environ, uid=os.getuid()))
    output.document({"lines": [{"replica": line.replica, "text": line.text} for line in lines]})
    for line in lines:
        output.result(f"{line.replica}  {line.text}")
    return 0
