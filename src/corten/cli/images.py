"""The images in the local store: names, digests, platforms, sizes.

An image without a name lost it to a newer build of that name, or to `remove`. Images share layers: their sizes add up
to more than the store takes. `remove` takes names away, given by name or by digest (then all of that image); what
nothing leads to any more is freed by `corten gc`. The last name of what a deployment runs stays.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from corten.cli.output import Output, megabytes, table
from corten.core.home import Home
from corten.errors import UsageError

EXAMPLES = """\
  corten images
  corten images --json
  corten images remove iris localhost:5000/iris:1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("action", nargs="?", choices=tuple(_ACTIONS), default="list", help="list (default) or remove")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="remove: a name, or a digest or its first digits")
    parser.add_argument("--dry-run", action="store_true", help="remove: say which names would go")


def run(options: argparse.Namespace, output: Output) -> int:
    """Do what is asked for and print what came of it."""
    if (options.action == "remove") != bool(options.images):
        wanted = "takes no image" if options.images else "wants the name of an image"
        raise UsageError("cli.usage", f"`{options.action}` {wanted}", hint="corten images --help")
    _ACTIONS[options.action](options, output, Home.from_env(os.environ, uid=os.getuid()))
    return 0


def _list(options: argparse.Namespace, output: Output, home: Home) -> None:
    from corten.ops.images import images

    del options
    found = images(home=home)
    output.document(found.as_dict())
    if output.json:
        return
    if not found.images:
        output.note("the store is empty; try `corten build model.joblib`")
        return
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


def _remove(options: argparse.Namespace, output: Output, home: Home) -> None:
    from corten.ops.images import remove_images

    removed = remove_images(options.images, home=home, dry_run=options.dry_run)
    output.document(removed.as_dict())
    for name, digest in removed.names:
        output.result(f"{name}@{digest}")
    output.note("nothing was changed" if removed.dry_run else "`corten gc` frees what nothing leads to any more")


_ACTIONS: dict[str, Callable[[argparse.Namespace, Output, Home], None]] = {"list": _list, "remove": _remove}
