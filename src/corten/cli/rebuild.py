"""Build an image of the store again, in a scratch store, and compare every layer's digest.

Packages come by the lock attached to the image, weights and code out of its own layers; nothing gets a name. With
--verify anything but the same manifest is refused (exit 7).
"""

from __future__ import annotations

import argparse
import os

from corten.cli import parser as words
from corten.cli.output import Output, table

EXAMPLES = """\
  corten rebuild digits --verify
  corten rebuild sha256:7550d592a156 --verify --offline
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="a name, or the first digits of a digest")
    parser.add_argument("--verify", action="store_true", help="exit with 7 unless the same image comes out")
    parser.add_argument("--offline", action="store_true", help="open no connection; use what is in the cache")
    words.add_platform(parser)
    words.add_registry_trust(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Print the layers that differ, or that none does."""
    from corten.core.home import Home
    from corten.errors import PolicyError
    from corten.ops.rebuild import rebuild

    rebuilt = rebuild(
        options.image,
        home=Home.from_env(os.environ, uid=os.getuid()),
        platform=words.platform_of(options),
        offline=options.offline,
        plain_http=options.plain_http,
        ca=options.ca,
        listen=output.listen,
    )
    output.document(rebuilt.as_dict())
    if rebuilt.same:
        output.result(f"the same: {rebuilt.after}")
        return 0
    rows = [("layer", "kind", "in the image", "rebuilt")]
    rows += [
        (one.title, one.kind, one.before.short if one.before else "-", one.after.short if one.after else "-")
        for one in rebuilt.differing
    ]
    rows.append(("manifest", "", rebuilt.before.short, rebuilt.after.short))
    output.result(table(rows))
    if options.verify and output.json:
        return PolicyError.exit_code  # the one document is written
    if options.verify:
        rebuilt.verify()
    return 0
