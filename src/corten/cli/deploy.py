"""Run an image that is in the local store, by its name or digest, as `corten build` printed it."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from corten.cli import in_cluster
from corten.cli import parser as words
from corten.cli.output import Output
from corten.cli.promote import canary_note
from corten.cli.running import add_cluster, add_run, add_secret, secret_values, settings_of
from corten.errors import UsageError

EXAMPLES = """\
  corten deploy fraud@sha256:4f0c...
  corten deploy $(corten build model.joblib) --replicas 2
  corten deploy fraud --engine kubernetes --namespace models --replicas 2..8
  corten deploy fraud --secret DB_PASSWORD=/etc/fraud/password
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", nargs="+", help="NAME, NAME@sha256:... or a digest (its first digits do)")
    parser.add_argument("--name", default="", help="the deployment's name (default: the image's)")
    add_run(parser)
    words.add_requests(parser)
    parser.add_argument("--port", type=words.port, default=None, help="the gateway's port (default: 8080)")
    parser.add_argument(
        "--timeout", type=words.seconds, default=None, metavar="SECONDS", help="in a cluster: how long it may take"
    )
    in_cluster.add_engine(parser, of_replicas=True)
    add_cluster(parser)
    add_secret(
        parser,
        "NAME=PATH",
        "a file the replicas find in memory, as NAME_FILE tells them (`-`: standard input); "
        "in a cluster KEY=SECRET/ENTRY, a variable out of a Secret there",
    )


def run(options: argparse.Namespace, output: Output) -> int:
    """Deploy, then print the URL."""
    if in_cluster.meant(options):
        return in_cluster.deploy(options, output)
    in_cluster.refuse_its_words(options)
    if len(options.image) > 1:
        raise UsageError("cli.usage", "one image at a time on this machine", hint="corten deploy IMAGE")
    from corten.core.home import Home
    from corten.ops.deploy import deploy

    result = deploy(
        options.image[0],
        name=options.name,
        settings=replace(
            settings_of(options),
            max_body_bytes=options.max_body or 0,
            request_timeout_s=options.request_timeout or 0.0,
            pure=not options.no_resend,
        ),
        secrets=secret_values(options.secret),
        home=Home.from_env(os.environ, uid=os.getuid()),
        port=options.port,
        engine=options.engine,
        listen=output.listen,
        wait=options.wait,
    )
    output.document(result.as_dict())
    output.note(f"{result.name} {result.revision} answers, {result.seconds:.1f} s")
    canary_note(result, output)
    output.result(result.url)
    return 0
