"""Write an image with all its blobs and everything attached to it (lock, SBOM, signatures) into one file.

The file is a plain OCI archive: `corten import`, `podman load -i` and `skopeo copy oci-archive:FILE` read it. With
`--delta-from` it leaves out what the other side has already; only `corten import` reads such a file. With
`--format docker` it is the image alone, as `docker load -i` of any version takes it.
"""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output, megabytes

EXAMPLES = """\
  corten export fraud fraud.tar
  corten export fraud fraud-2.tar --delta-from fraud.tar
  corten export fraud fraud-2.tar --delta-from 6946ebf82c98
  corten export fraud fraud.tar --format docker
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="an image's name or digest")
    parser.add_argument("file", help="the file to write, replaced if it is there")
    parser.add_argument(
        "--format", choices=("oci", "docker"), default="oci", help="oci (default), or for docker load: docker"
    )
    parser.add_argument(
        "--delta-from",
        default="",
        metavar="OTHER",
        help="leave out what the other side has: an image here, or a bundle it got",
    )


def run(options: argparse.Namespace, output: Output) -> int:
    """Export, then print the file's path."""
    from corten.core.home import Home
    from corten.errors import UsageError
    from corten.ops.export import export, export_docker

    home = Home.from_env(os.environ, uid=os.getuid())
    if options.format == "docker":
        if options.delta_from:
            raise UsageError("cli.usage", "`--delta-from` is for `--format oci`", hint="leave one of the two out")
        done = export_docker(options.image, options.file, home=home, listen=output.listen)
    else:
        done = export(options.image, options.file, delta_from=options.delta_from, home=home, listen=output.listen)
    output.document(done.as_dict())
    without = f", {done.left_out} left out" if done.left_out else ""
    parts = "layers" if options.format == "docker" else "blobs"
    output.note(f"{done.name}@{done.digest}: {megabytes(done.size_bytes)}, {done.blobs} {parts}{without}")
    output.note(f"sha256 {done.sha256.hex}")
    output.result(str(done.path))
    return 0
