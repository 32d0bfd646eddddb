"""What was decided about a deployment, when, and from what figures; of a canary also how it stands now."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from typing import Any

from corten.cli import parser as words
from corten.cli.output import Output

EXAMPLES = """\
  corten why fraud
  corten why fraud --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")
    parser.add_argument("--most", type=words.count, default=20, metavar="N", help="how many decisions (default: 20)")


def run(options: argparse.Namespace, output: Output) -> int:
    """Print a line for each decision, and below it the comparison it was made from."""
    from corten.control.comparison import Compared
    from corten.core.home import Home
    from corten.ops.why import why

    found = why(options.name, most=options.most, home=Home.from_env(os.environ, uid=os.getuid()))
    output.document(found.as_dict())
    if output.json:
        return 0
    for one in found.decisions:
        output.result(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(one.at_s))}  {one.step:8} {one.message}")
        for line in _compared(one.data.get("judgement") or one.data):
            output.result(line)
    if found.compared is not None:
        output.result(f"in the shadow: {Compared(**found.compared).words()}")
    if found.judgement is not None:
        output.result(
            f"now: {found.share} % of the requests; {found.judgement['verdict']}: {found.judgement['reason']}"
        )
        for line in _compared(found.judgement):
            output.result(line)
    return 0


def _compared(judgement: Mapping[str, Any]) -> list[str]:
    return [
        f"{'':21}{test['bad']} of {test['requests']} {test['what']}, usual {100 * test['usual']:.2g} %,"
        f" log-likelihood ratio {test['ratio']:+.2f}"
        for test in judgement.get("tests", ())
    ]
