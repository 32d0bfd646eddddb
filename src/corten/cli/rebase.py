"""Put an image on the newest packages of its Debian release, or on the image its base's tag leads to now: security
updates without building the model again.

Only the base changes; wheels, server, weights and code stay the blobs they are. What runs goes on running:
deploy the name afterwards. The project's corten.lock is left alone: `corten build --upgrade` brings it along.
"""

from __future__ import annotations

import argparse
import os
import time

from corten.cli import parser as words
from corten.cli.output import Output, megabytes, table

EXAMPLES = """\
  corten rebase fraud
  corten rebase fraud --test && corten deploy fraud
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="an image's name")
    words.add_registry_trust(parser)
    parser.add_argument("--test", action="store_true", help="start the new image and ask it before the name moves")


def run(options: argparse.Namespace, output: Output) -> int:
    """Rebase, then print the reference; what changed goes to stderr."""
    from corten.core.home import Home
    from corten.ops.rebase import rebase

    done = rebase(
        options.name,
        home=Home.from_env(os.environ, uid=os.getuid()),
        test=options.test,
        plain_http=options.plain_http,
        ca=options.ca,
        now_s=time.time(),
        listen=output.listen,
    )
    output.document(done.as_dict())
    for image in done.images:
        if image.changes:
            rows = [("package", "before", "after")]
            rows += [(one.name, one.before or "(new)", one.after or "(gone)") for one in image.changes]
            output.note(table(rows))
            output.note(f"{image.platform}: new base, {megabytes(image.base_bytes)}; all other layers as they were")
    if not done.changed:
        output.note("the base is the newest already; nothing changed")
    output.result(f"{done.name}@{done.after}")
    return 0
