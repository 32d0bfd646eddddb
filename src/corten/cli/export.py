"""Write an image with all its blobs and everything attached to it (lock, SBOM, signatures) into one file.

The file is a plain OCI archive: `corten import`, `podman load -i` and `skopeo copy oci-archive:FILE` read it. With
`--delta-from` it leaves out what the other side has already; only `corten import` reads such a file.
"""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output, megabytes

EXAMPLES = """\
  corten export fraud fraud.tar
  corten export fraud fraud-2.tar --delta-from fraud.tar
  corten export fraud fraud-2.tar --delta-from 6946ebf82c98
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="an image's name or digest")
    parser.add_argument("file", help="the file to write, replaced if it is there")
    parser.add_argument(
        "--delta-from",
        default="",
        metavar="OTHER",
        help="leave out what the other side has: an image here, or a bundle it got",
    )


def run(options: argparse.Namespace, output: Output) -> int:
    """Export, then print the file's path."""
    from corten.core.home import Home
    from corten.ops.export import export

    done = export(
        options.image,
        options.file,
        delta_from=options.delta_from,
        home=Home.from_env(os.environ, uid=os.getuid()),
        listen=output.listen,
    )
    output.document(done.as_dict())
    without = f", {done.left_out} left out" if done.left_out else ""
    output.note(f"{done.name}@{done.digest}: {megabytes(done.size_bytes)}, {done.blobs} blobs{without}")
    output.note(f"sha256 {done.sha256.hex}")
    output.result(str(done.path))
    return 0
