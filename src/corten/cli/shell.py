"""A Python prompt in a running replica; with --debug a shell beside it, with this machine's own tools.

With --debug nothing of the image is needed: a shell of this machine sees the replica's processes (`ps`, `strace -p 1`),
its network (`ss`), and its files below /proc/1/root. It is root's, and gone when it is left.
"""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output

EXAMPLES = """\
  corten shell fraud
  sudo corten shell fraud --debug
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")
    parser.add_argument("--replica", default="", metavar="ID", help="which (default: the first that is ready)")
    parser.add_argument("--debug", action="store_true", help="this machine's shell beside it, not its own Python")


def run(options: argparse.Namespace, output: Output) -> int:
    """Open it on this terminal; its exit code is ours."""
    from corten.ops.enter import PYTHON, run_in

    command = (os.environ.get("SHELL", "sh"),) if options.debug else PYTHON
    if options.debug:
        output.note("its files are below /proc/1/root, where you are; its first process is 1")
    return run_in(options.name, command, replica=options.replica, debug=options.debug)
