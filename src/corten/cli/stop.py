"""End a deployment: requests in hand are answered, replicas end, its image stays in the store."""

from __future__ import annotations

import argparse
import os

from corten.cli import in_cluster
from corten.cli.output import Output
from corten.errors import UsageError

EXAMPLES = """\
  corten stop fraud
  corten stop --all
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", nargs="?", default="", help="the deployment")
    parser.add_argument("--all", action="store_true", help="every deployment, the gateway and the daemon")
    in_cluster.add_engine(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Stop, then say what was stopped."""
    from corten.core.home import Home
    from corten.ops.stop import stop

    if bool(options.name) == options.all:
        raise UsageError("cli.usage", "say which deployment, or `--all`", hint="see `corten status`")
    if in_cluster.meant(options):
        return in_cluster.stop(options, output)
    stopped = stop(options.name, home=Home.from_env(os.environ, uid=os.getuid()))
    output.document({"stopped": list(stopped)})
    for name in stopped:
        output.result(name)
    return 0
