"""Remove what nothing leads to any more: images without a name, their unpacked layers, old downloads.

Kept are all names, each deployment's newest revisions (`--keep`), whatever serves or runs, and what is attached to
those: lock, SBOM, signatures. Safe while models run and while others build.
"""

from __future__ import annotations

import argparse
import os
import time

from corten.cli.output import Output, megabytes

EXAMPLES = """\
  corten gc --dry-run
  corten gc --keep 2 --cache-max-mb 2000
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument(
        "--keep",
        type=_number,
        default=5,
        metavar="N",
        help="revisions of each deployment that can be gone back to (default: 5)",
    )
    parser.add_argument(
        "--cache-max-mb",
        type=_number,
        default=10_000,
        metavar="N",
        help="the size to cut downloads to (default: 10000)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")


def run(options: argparse.Namespace, output: Output) -> int:
    """Collect, then print how much was freed."""
    from corten.core.home import Home
    from corten.ops.gc import gc

    collected = gc(
        home=Home.from_env(os.environ, uid=os.getuid()),
        keep=options.keep,
        cache_bytes=options.cache_max_mb * 1_000_000,
        dry_run=options.dry_run,
        now_s=time.time(),
        listen=output.listen,
    )
    output.document(collected.as_dict())
    output.result(f"{'would free' if options.dry_run else 'freed'} {megabytes(collected.freed_bytes)}")
    return 0


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number, got `{text}`")
    return int(text)
