"""Run an image that is in the local store, by its name or digest, as `corten build` printed it."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from corten.cli import parser as words
from corten.cli.output import Output
from corten.cli.promote import canary_note

EXAMPLES = """\
  corten deploy fraud@sha256:4f0c...
  corten deploy $(corten build model.joblib) --replicas 2
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="NAME, NAME@sha256:... or a digest (its first digits do)")
    parser.add_argument("--name", default="", help="the deployment's name (default: the image's)")
    words.add_replicas(parser)
    words.add_resources(parser)
    parser.add_argument("--port", type=words.port, default=None, help="the gateway's port (default: 8080)")
    parser.add_argument(
        "--env", action="append", default=[], type=words.key_value, metavar="KEY=VALUE", help="repeatable"
    )
    parser.add_argument("--egress", action="store_true", help="let the model open connections to the outside")
    words.add_canary(parser)
    words.add_access(parser)
    words.add_strategy(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Deploy, then print the URL."""
    from corten.core.canary import Canary
    from corten.core.deployment import Settings
    from corten.core.home import Home
    from corten.core.resources import Resources
    from corten.core.rest import Strategy
    from corten.ops.deploy import deploy

    least, most = options.replicas or (1, 1)
    result = deploy(
        options.image,
        name=options.name,
        settings=Settings(
            replicas=least,
            most_replicas=most,
            concurrency=options.concurrency or Settings().concurrency,
            env=dict(options.env),
            egress=options.egress,
            canary=replace(options.canary or Canary(), sticky=options.sticky or "", mirror=options.mirror or 0),
            resources=Resources(options.memory or 0, options.cpus or 0.0),
            auth=options.auth or "",
            rate_per_s=options.rate or 0,
            burst=options.burst or 0,
            pinnable=options.pinnable,
            strategy=Strategy(options.strategy or "auto"),
        ),
        home=Home.from_env(os.environ, uid=os.getuid()),
        port=options.port,
        listen=output.listen,
        wait=options.wait,
    )
    output.document(result.as_dict())
    output.note(f"{result.name} {result.revision} answers, {result.seconds:.1f} s")
    canary_note(result, output)
    output.result(result.url)
    return 0
