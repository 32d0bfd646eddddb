"""Replace all replicas by new ones of the same image, as a rolling update: no request fails."""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output

EXAMPLES = """\
  corten restart fraud
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")


def run(options: argparse.Namespace, output: Output) -> int:
    """Restart, then print the URL."""
    from corten.core.home import Home
    from corten.ops.change import restart

    result = restart(options.name, home=Home.from_env(os.environ, uid=os.getuid()), listen=output.listen)
    output.document(result.as_dict())
    output.note(f"{result.name} {result.revision} answers, {result.seconds:.1f} s")
    output.result(result.url)
    return 0
