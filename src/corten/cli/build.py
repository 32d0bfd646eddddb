"""Build an image into the local store and print its reference (NAME@sha256:...) on stdout.

The kind of model is told by its content. Dependencies are inferred, locked with hashes and laid into layers; the base
is made of verified Debian packages. The same inputs give the same digest on any machine.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING

from corten.cli import parser as words
from corten.cli.output import Output, megabytes, printable, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from corten.ops.built import Built

_LARGEST = 5

EXAMPLES = """\
  corten build model.joblib
  corten build annotator.py:Annotator --name annotator
  corten build . --platform linux/amd64,linux/arm64 --locked
  corten build . --base docker.io/python:3.12-slim
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    words.add_source(parser)
    parser.add_argument(
        "--platform",
        default="",
        metavar="OS/ARCH,...",
        help="linux/amd64, linux/arm64 or both, then as one index (default: this one)",
    )
    parser.add_argument("--upgrade", action="store_true", help="make the lock anew with the newest versions allowed")
    parser.add_argument(
        "--max-image-mb",
        type=words.megabytes,
        default=None,
        metavar="N",
        help="fail when the image's stored layers take more than N MB, 0 for no limit (default: corten.toml's)",
    )
    parser.add_argument(
        "--test", action="store_true", help="start the image, ask it, compare with what was recorded, then name it"
    )
    parser.add_argument(
        "--max-cold-start-s",
        type=words.seconds,
        default=None,
        metavar="SECONDS",
        help="with the test: fail when it takes longer to get ready, 0 for no limit (default: corten.toml's)",
    )
    parser.add_argument(
        "--weights-image",
        action="store_true",
        help="also make NAME-weights: the model files alone, to mount as a Kubernetes image volume",
    )
    parser.add_argument(
        "--sign-key", default="", metavar="FILE", help="sign the image with this private key (default: CORTEN_SIGN_KEY)"
    )
    parser.add_argument(
        "--compress",
        choices=("auto", "zstd", "gzip"),
        default="",
        help="how layers are stored: auto leaves wheels as they came and puts the rest in zstd, zstd is smaller and "
        "takes longer, gzip is for tools that know no zstd (default: corten.toml's, else auto)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, build nothing")
    words.add_registry_trust(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Build, then print the reference; the report goes to stderr."""
    from corten.core.acceleration import Accelerate
    from corten.core.home import Home
    from corten.core.image import Packing
    from corten.core.platform import Platform
    from corten.ops.build import build

    built = build(
        options.source,
        home=Home.from_env(os.environ, uid=os.getuid()),
        name=options.name,
        platform=tuple(Platform.parse(text.strip()) for text in options.platform.split(","))
        if options.platform
        else None,
        requirements=tuple(options.requirement),
        method=options.method,
        extra_files=tuple(options.file),
        base=options.base,
        accelerate=Accelerate(options.accelerate) if options.accelerate else None,
        trust=tuple(options.trust),
        locked=options.locked,
        frozen=options.frozen,
        offline=options.offline,
        upgrade=options.upgrade,
        weights_image=options.weights_image,
        dry_run=options.dry_run,
        max_image_mb=options.max_image_mb,
        test=options.test,
        max_cold_start_s=options.max_cold_start_s,
        sign_key=options.sign_key,
        packing=Packing(options.compress) if options.compress else None,
        plain_http=options.plain_http,
        ca=options.ca,
        now_s=time.time(),
        listen=output.listen,
    )
    output.document(built.as_dict())
    for one in built.platforms or (built,):
        _report(one, output, dry_run=options.dry_run)
    if not options.dry_run:
        if built.weights:
            output.note(f"weights image: {built.as_dict()['weights_image']}")
        output.note(f"{built.seconds:.2f} s")
        output.result(built.reference)
    return 0


def _report(built: Built, output: Output, *, dry_run: bool) -> None:
    if dry_run:
        output.result(built.plan.describe())
        return
    rows = [("layer", "kind", "stored", "unpacked", "")]
    rows += [
        (
            layer.title,
            layer.kind,
            megabytes(layer.size_bytes),
            megabytes(layer.tar_bytes),
            "cached" if layer.cached else "new",
        )
        for layer in built.layers
    ]
    output.note(table(rows))
    if output.verbose:
        sizes = [("package", "version", "download", "layer")]
        sizes += [
            (one.name, one.version, megabytes(one.size_bytes), layer.title)
            for layer in built.layers
            for one in layer.contents
        ]
        output.note(table(sizes))
    output.note(f"{megabytes(built.size_bytes)} in {len(built.layers)} layers for {built.plan.platform}")
    for line in advice(built):
        output.note(printable(line))


def advice(built: Built) -> Iterator[str]:
    """Where the room goes, and after a test what could be left out."""
    packages = sorted((one for layer in built.layers for one in layer.contents), key=lambda one: -one.size_bytes)
    if packages:
        told = (f"{one.name} {one.version} {megabytes(one.size_bytes)}" for one in packages[:_LARGEST])
        yield f"largest packages: {', '.join(told)}"
    if built.gate and built.gate.unused:
        told = (f"{one.name} {megabytes(one.size_bytes)}" for one in built.gate.unused[:_LARGEST])
        yield f"the test loaded nothing of: {', '.join(told)} (unpacked); without them the image is smaller"
