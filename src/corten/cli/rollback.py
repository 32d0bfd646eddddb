"""Go back to the revision before, or to a given one, as a rolling update: no request fails."""

from __future__ import annotations

import argparse
import os

from corten.cli import in_cluster
from corten.cli.output import Output
from corten.errors import UsageError

EXAMPLES = """\
  corten rollback fraud
  corten rollback fraud --to r3
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")
    parser.add_argument("--to", default="", metavar="rN", help="which revision (default: the one that served before)")
    in_cluster.add_engine(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Roll back, then print the URL."""
    revision = _revision(options.to)
    if in_cluster.meant(options):
        return in_cluster.rollback(options, output)
    from corten.core.home import Home
    from corten.ops.change import rollback

    result = rollback(options.name, to=revision, home=Home.from_env(os.environ, uid=os.getuid()), listen=output.listen)
    output.document(result.as_dict())
    output.note(f"{result.name} {result.revision} answers, {result.seconds:.1f} s")
    output.result(result.url)
    return 0


def _revision(text: str) -> int | None:
    if not text:
        return None
    number = text.removeprefix("r")
    if not number.isdecimal():
        raise UsageError(
            "cli.usage", f"not a revision: `{text}`", why="expected r1, r2 ...", hint="see `corten status`"
        )
    return int(number)
