"""What changed between two images: packages, weights, code, schema (breaking or not), settings, sizes.

Exits with 0 whatever the difference; --json tells `same` and `breaking`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from corten.cli import parser as words
from corten.cli.output import Output, megabytes, table

if TYPE_CHECKING:
    from corten.ops.diff import Change

EXAMPLES = """\
  corten diff 7550d592a156 digits
  corten diff digits digits-next --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("before", help="an image's name, or the first digits of its digest")
    parser.add_argument("after", help="the same of the other")
    words.add_platform(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Print the differences, kind by kind."""
    from corten.core.home import Home
    from corten.ops.diff import diff

    found = diff(
        options.before,
        options.after,
        home=Home.from_env(os.environ, uid=os.getuid()),
        platform=words.platform_of(options),
    )
    output.document(found.as_dict())
    if output.json:
        return 0
    output.note(table([("before", found.before.reference), ("after", found.after.reference)]) + "\n")
    if found.same:
        output.result("the same image")
        return 0
    if found.schema:
        rows = [("schema", ""), *((change.what, "BREAKING" if change.breaking else "") for change in found.schema)]
        output.result(table(rows) + "\n")
    for title, changes in (("package", found.packages), ("file", found.files), ("setting", found.settings)):
        if changes:
            output.result(_changes(title, changes) + "\n")
    sizes = [("layers", "before", "after")]
    sizes += [(kind, megabytes(old), megabytes(new)) for kind, (old, new) in found.sizes.items() if old != new]
    sizes.append(("all", megabytes(found.before.image.size_bytes), megabytes(found.after.image.size_bytes)))
    output.result(table(sizes))
    return 0


def _changes(title: str, changes: Sequence[Change]) -> str:
    rows = [(title, "kind", "before", "after")]
    rows += [(one.name, one.kind, one.before or "-", one.after or "-") for one in changes]
    return table(rows)
