"""Break a deployment on purpose, with load on it, and count what failed.

For a service you may break: all replicas are replaced, one is killed, one stopped, the gateway replaced, the daemon
killed, each mended before the next. Ends with 6 when a request failed or waited longer than three seconds, or
something was not mended.
"""

from __future__ import annotations

import argparse
import os

from corten.cli import parser as words
from corten.cli.json_input import HELP, read_json
from corten.cli.output import Output, table

EXAMPLES = """\
  corten drill fraud
  corten drill fraud --only kill,redeploy --rate 100
"""
_UNHEALTHY = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")
    parser.add_argument("--only", default="", metavar="WORDS", help="of redeploy,kill,hang,gateway,daemon (all)")
    parser.add_argument("--rate", type=words.rate, default=20, metavar="N", help="requests a second (default: 20)")
    parser.add_argument("-i", "--input", default="", metavar="JSON", help=f"{HELP} (default: the model's example)")


def run(options: argparse.Namespace, output: Output) -> int:
    """Drill, then print the scores."""
    from corten.core.home import Home
    from corten.testing.drill import SCENARIOS, drill

    scores = drill(
        options.name,
        tuple(options.only.split(",")) if options.only else tuple(SCENARIOS),
        rate_per_s=options.rate,
        body=read_json(options.input) if options.input else None,
        home=Home.from_env(os.environ, uid=os.getuid()),
        listen=output.listen,
    )
    output.document({"name": options.name, "scores": [score.as_dict() for score in scores]})
    rows: list[tuple[str, ...]] = [("", "scenario", "answered", "failed", "p50", "p99", "slowest", "mended after")]
    for each in scores:
        report = each.report
        times = [f"{report.latency_s(share) * 1000:.1f} ms" for share in (0.5, 0.99, 1.0)]
        healed = "never" if each.healed_s is None else f"{each.healed_s:.1f} s"
        if each.skipped:
            rows.append(("-", each.scenario, "skipped", *[""] * 5))
            continue
        mark = "\u2713" if each.passed else "\u2717"
        rows.append((mark, each.scenario, str(report.ok), str(report.failed), *times, healed))
    output.result(table(rows))
    for each in scores:
        for reason, count in each.report.reasons.items():
            output.note(f"{each.scenario}: {count} x {reason}")
    played = any(not each.skipped for each in scores)
    return 0 if played and all(each.passed for each in scores) else _UNHEALTHY
