"""What runs: deployments, their revisions, replicas and URLs.

A daemon that died is started again first, and adopts what it finds running.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from corten.cli import in_cluster
from corten.cli.output import Output, megabytes, table

if TYPE_CHECKING:
    from corten.ops.status import ReplicaStatus

EXAMPLES = """\
  corten status
  corten status fraud
  corten status --json
  corten status --engine kubernetes --namespace models
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", nargs="?", default="", help="only this deployment")
    in_cluster.add_engine(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Print a table of deployments, then one of replicas."""
    if in_cluster.meant(options):
        return in_cluster.status(options, output)
    from corten.core.home import Home
    from corten.ops.status import status

    seen = status(options.name, home=Home.from_env(os.environ, uid=os.getuid()))
    output.document(seen.as_dict())
    if output.json:
        return 0
    if not seen.deployments:
        output.note("nothing is deployed; try `corten up model.joblib`")
        return 0
    rows = [("deployment", "revision", "ready", "state", "image", "url")]
    rows += [
        (one.name, one.revision, f"{one.ready}/{one.wanted}", one.state, one.image.short, one.url)
        for one in seen.deployments
    ]
    output.result(table(rows))
    for one in seen.deployments:
        if one.reason:
            output.result(f"\n{one.name}: {one.reason}")
    replicas = [("replica", "revision", "state", "since", "pid", "memory", "cpu time", "restarts", "")]
    replicas += [
        (
            each.id,
            f"r{each.revision}",
            each.state,
            each.since,
            str(each.pid or "-"),
            megabytes(each.memory_bytes) if each.memory_bytes else "-",
            f"{each.cpu_s:.1f} s" if each.pid else "-",
            str(each.restarts),
            _told(each),
        )
        for one in seen.deployments
        for each in one.replicas
    ]
    if len(replicas) > 1:
        output.result("\n" + table(replicas))
    output.note(f"\nengine: {seen.engine}  ·  gateway: {seen.gateway}  ·  daemon: {seen.daemon}")
    return 0


def _told(replica: ReplicaStatus) -> str:
    return replica.reason or (f"secrets {', '.join(replica.secrets)}" if replica.secrets else "")
