"""What this machine can and cannot do for Corten, and how to mend what is missing."""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output

EXAMPLES = """\
  corten doctor
  corten doctor --offline
"""

_MARKS = {"ok": ("green", "✓"), "warning": ("yellow", "!"), "failed": ("red", "✗"), "info": ("dim", "·")}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("--offline", action="store_true", help="leave out the checks that open connections")
    parser.add_argument("--port", type=int, default=8080, help="the gateway port to look at (default: 8080)")


def run(options: argparse.Namespace, output: Output) -> int:
    """Print one line a check; exit 1 when something that is needed is missing."""
    from corten.core.home import Home
    from corten.ops.doctor import Outcome, doctor

    checks = doctor(
        home=Home.from_env(os.environ, uid=os.getuid()), env=os.environ, port=options.port, offline=options.offline
    )
    output.document({"checks": [check.as_dict() for check in checks]})
    for check in checks:
        style, mark = _MARKS[check.outcome.value]
        output.result(f"{output.style(style, mark)} {check.name:12} {check.found}")
        if check.hint:
            output.result(f"  {'':12} {output.style('dim', 'mend: ' + check.hint)}")
    return 1 if any(check.outcome is Outcome.FAILED for check in checks) else 0
