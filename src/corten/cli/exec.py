"""Run a program of the image in a running replica: with its user, environment, files, network and processes.

There is no shell in an image; its Python is. Whoever goes in is nobody there, has no capabilities, and is not counted
among the replica's processes. It takes root, or a podman of one's own.
"""

from __future__ import annotations

import argparse

from corten.cli.output import Output

EXAMPLES = """\
  corten exec fraud -- python3 -c 'import sklearn; print(sklearn.__version__)'
  corten exec fraud --replica fraud-r3-90d7df -- python3 -m corten.serve --help
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")
    parser.add_argument("--replica", default="", metavar="ID", help="which (default: the first that is ready)")
    parser.add_argument("command", nargs="+", help="the program and its arguments, after `--`")


def run(options: argparse.Namespace, output: Output) -> int:
    """Run it on this terminal; its exit code is ours."""
    from corten.ops.enter import run_in

    del output  # what is printed is the program's
    return run_in(options.name, options.command, replica=options.replica)
