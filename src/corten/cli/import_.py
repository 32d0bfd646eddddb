"""Read an image out of a file made by `corten export`, `podman save --format oci-archive` or skopeo.

Every blob is checked against its digest before a name points at anything. Links, devices and names that lead elsewhere
are refused.
"""

from __future__ import annotations

import argparse
import os
import time

from corten.cli.output import Output, megabytes

EXAMPLES = """\
  corten import fraud.tar
  corten import fraud.tar --name fraud-copy
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("file", help="the bundle")
    parser.add_argument("--name", default="", help="the image's name here (default: the one in the file)")


def run(options: argparse.Namespace, output: Output) -> int:
    """Import, then print what can be deployed now."""
    from corten.core.home import Home
    from corten.ops.import_ import import_

    done = import_(
        options.file,
        name=options.name,
        home=Home.from_env(os.environ, uid=os.getuid()),
        now_s=time.time(),
        listen=output.listen,
    )
    output.document(done.as_dict())
    output.note(f"{megabytes(done.size_bytes)}, {done.attached} attached, {done.seconds:.1f} s")
    for name, digest in done.images:
        output.result(f"{name}@{digest}")
    return 0
