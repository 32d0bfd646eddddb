"""What this machine can and cannot do for Corten, and how to mend what is missing."""

from __future__ import annotations

import argparse
import os

from corten.cli import in_cluster
from corten.cli.output import Output

EXAMPLES = """\
  corten doctor
  corten doctor --offline
  corten doctor --security
  corten doctor --engine kubernetes --namespace models
"""

_MARKS = {"ok": ("green", "✓"), "warning": ("yellow", "!"), "failed": ("red", "✗"), "info": ("dim", "·")}

_VERDICTS = {"pass": ("green", "pass"), "fail": ("red", "FAIL"), "cannot": ("yellow", "cannot")}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("--offline", action="store_true", help="leave out the checks that open connections")
    parser.add_argument(
        "--security",
        action="store_true",
        help="look at what runs instead: each rule for image, engine and replica, kept or not",
    )
    in_cluster.add_engine(parser)
    parser.add_argument("--port", type=int, default=8080, help="the gateway port to look at (default: 8080)")


def run(options: argparse.Namespace, output: Output) -> int:
    """Print one line a check; exit 1 when something that is needed is missing, or a rule is not kept."""
    if options.security:
        return _security(output)
    from corten.core.home import Home
    from corten.ops.doctor import Outcome, doctor

    if in_cluster.meant(options):
        from corten.ops.doctor_cluster import doctor as of_cluster

        checks = of_cluster(in_cluster.place(options))
    else:
        home = Home.from_env(os.environ, uid=os.getuid())
        checks = doctor(home=home, env=os.environ, port=options.port, offline=options.offline)
    output.document({"checks": [check.as_dict() for check in checks]})
    for check in checks:
        style, mark = _MARKS[check.outcome.value]
        output.result(f"{output.style(style, mark)} {check.name:12} {check.found}")
        if check.hint:
            output.result(f"  {'':12} {output.style('dim', 'mend: ' + check.hint)}")
    return 1 if any(check.outcome is Outcome.FAILED for check in checks) else 0


def _security(output: Output) -> int:
    from corten.core.security import Verdict
    from corten.ops.security import security

    findings = security()
    output.document({"findings": [finding.as_dict() for finding in findings]})
    if not findings:
        output.note("nothing is deployed, so there is nothing to look at: `corten up` first")
    subject = ""
    for finding in findings:
        if finding.subject != subject:
            subject = finding.subject
            output.result(subject)
        style, mark = _VERDICTS[finding.verdict.value]
        output.result(f"  {output.style(style, f'{mark:6}')} {finding.rule}: {finding.seen}")
        if finding.hint:
            output.result(f"         {output.style('dim', 'mend: ' + finding.hint)}")
    return 1 if any(finding.verdict is Verdict.FAIL for finding in findings) else 0
