"""The images in the local store: names, digests, platforms, sizes.

An image without a name lost it to a newer build of that name. Images share layers: their sizes add up to more than the
store takes.
"""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output, megabytes, table

EXAMPLES = """\
  corten images
  corten images --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options: none."""
    del parser


def run(options: argparse.Namespace, output: Output) -> int:
    """Print a table of images."""
    from corten.core.home import Home
    from corten.ops.images import images

    del options
    found = images(home=Home.from_env(os.environ, uid=os.getuid()))
    output.document(found.as_dict())
    if output.json:
        return 0
    if not found.images:
        output.note("the store is empty; try `corten build model.joblib`")
        return 0
    rows = [("name", "digest", "platforms", "size", "")]
    rows += [
        (
            image.name or "-",
            image.digest.short,
            ", ".join(str(platform) for platform in image.platforms),
            megabytes(image.size_bytes),
            image.trouble,
        )
        for image in found.images
    ]
    output.result(table(rows))
    output.note(f"\n{megabytes(found.stored_bytes)} in the store; what images share is stored once")
    return 0
