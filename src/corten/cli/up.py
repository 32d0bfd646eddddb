"""Build a model into an image, run it behind the gateway, print its URL.

Running it again with a changed model replaces the replicas one by one; no request fails meanwhile, and a revision that
does not get ready never takes traffic.
"""

from __future__ import annotations

import argparse
import os
import time

from corten.cli import parser as words
from corten.cli.output import Output
from corten.cli.promote import canary_note
from corten.cli.running import add_secret, secret_values

EXAMPLES = """\
  corten up model.joblib
  corten up annotator.py:Annotator --replicas 2
  corten up . --port 9000
  corten up . --engine podman
  corten up . --secret DB_PASSWORD=password.txt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    words.add_source(parser)
    words.add_replicas(parser)
    words.add_resources(parser)
    words.add_engine(parser)
    parser.add_argument("--port", type=words.port, default=None, help="the gateway's port (default: 8080)")
    parser.add_argument(
        "--env", action="append", default=[], type=words.key_value, metavar="KEY=VALUE", help="repeatable"
    )
    parser.add_argument("--egress", action="store_true", help="let the model open connections to the outside")
    add_secret(
        parser,
        "NAME=PATH",
        "a file the replicas find in memory, as NAME_FILE tells them (`-`: standard input)",
    )
    words.add_registry_trust(parser)
    words.add_canary(parser)
    words.add_access(parser)
    words.add_requests(parser)
    words.add_strategy(parser)
    parser.add_argument(
        "--timeout", type=float, default=None, metavar="SECONDS", help="how long a replica may take to get ready"
    )


def run(options: argparse.Namespace, output: Output) -> int:
    """Build, deploy, then print where it answers and how to ask it."""
    from corten.core.acceleration import Accelerate
    from corten.core.home import Home
    from corten.core.rest import Strategy
    from corten.ops.up import up

    result = up(
        options.source,
        home=Home.from_env(os.environ, uid=os.getuid()),
        name=options.name,
        requirements=tuple(options.requirement),
        method=options.method,
        extra_files=tuple(options.file),
        base=options.base,
        plain_http=options.plain_http,
        ca=options.ca,
        accelerate=Accelerate(options.accelerate) if options.accelerate else None,
        trust=tuple(options.trust),
        locked=options.locked,
        frozen=options.frozen,
        offline=options.offline,
        replicas=options.replicas,
        concurrency=options.concurrency,
        memory=options.memory,
        cpus=options.cpus,
        gpus=options.gpus,
        devices=tuple(options.device),
        port=options.port,
        engine=options.engine,
        env=dict(options.env),
        secrets=secret_values(options.secret),
        egress=options.egress,
        ready_timeout_s=options.timeout,
        auth=options.auth,
        rate_per_s=options.rate,
        burst=options.burst,
        pinnable=options.pinnable,
        max_body_bytes=options.max_body,
        request_timeout_s=options.request_timeout or None,
        resend=not options.no_resend,
        now_s=time.time(),
        canary=options.canary,
        sticky=options.sticky,
        mirror=options.mirror,
        strategy=Strategy(options.strategy) if options.strategy else None,
        wait=options.wait,
        listen=output.listen,
    )
    output.document(result.as_dict())
    output.note(f"\n{result.name} {result.revision} answers, {result.seconds:.1f} s in all. Try:\n\n  {result.curl}\n")
    canary_note(result.deployed, output)
    asked = "--example" if result.has_example else "-i JSON"
    output.note(f"next: corten predict {result.name} {asked} · corten status · corten stop {result.name}")
    output.result(result.url)
    return 0
