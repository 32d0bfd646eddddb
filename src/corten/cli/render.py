"""Write a deployment down for another system, as files you keep: nothing is sent anywhere.

The image must be in a registry which that system reaches (`corten push`); it is named by its digest. What a deployment
asks for and the other system cannot give is refused.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from corten.cli.output import Output
from corten.cli.running import add_additions, add_cluster, add_run, add_secret, secret_variables, settings_of

if TYPE_CHECKING:
    from corten.exporters.base import Cluster

EXAMPLES = """\
  corten render fraud --to kubernetes | kubectl apply --server-side -f -
  corten render ghcr.io/team/fraud@sha256:4f0c... --replicas 2..8 --out manifests/
  corten render ghcr.io/team/fraud@sha256:4f0c... --to quadlet --memory 2g --out ~/.config/containers/systemd
  corten render fraud --gateway infra/public --host fraud.example.com --with gateway-api
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="an image here that has been pushed, or REGISTRY/REPOSITORY@sha256:...")
    parser.add_argument(
        "--to",
        default="kubernetes",
        metavar="SYSTEM",
        help="kubernetes (default), helm, kustomize, kserve, knative, argo-rollouts, compose, quadlet, systemd, or a "
        "plugin's name",
    )
    parser.add_argument("--out", type=Path, default=None, metavar="FOLDER", help="one file an object (default: stdout)")
    parser.add_argument("--name", default="", help="the deployment's name (default: the model's)")
    add_run(parser)
    add_cluster(parser)
    add_secret(parser, "KEY=SECRET/ENTRY", "an environment variable out of a Secret of the cluster")
    parser.add_argument(
        "--kubernetes-version", type=version, default=None, metavar="X.Y", help="the oldest it is for (default: 1.34)"
    )
    add_additions(parser, "what the cluster has; repeatable")


def run(options: argparse.Namespace, output: Output) -> int:
    """Render, then print the text, or the paths of what was written."""
    from corten.core.home import Home
    from corten.ops.render import render, write

    rendered = render(
        options.image,
        options.to,
        name=options.name,
        settings=settings_of(options),
        cluster=_cluster(options),
        weights=options.weights,
        secrets=secret_variables(options.secret),
        host=options.host,
        home=Home.from_env(os.environ, uid=os.getuid()),
    )
    output.document(rendered.as_dict())
    if options.out is None:
        output.result(rendered.text.rstrip("\n"))
        return 0
    paths = write(rendered, options.out)
    output.note(f"{rendered.workload.name}: {len(paths)} files")
    output.result("\n".join(str(path) for path in paths))
    return 0


def version(text: str) -> tuple[int, int]:
    """Read a version of Kubernetes, 1.29 or newer."""
    major, dot, minor = text.removeprefix("v").partition(".")
    if not dot or not major.isdecimal() or not minor.isdecimal() or (int(major), int(minor)) < (1, 29):
        raise argparse.ArgumentTypeError(f"expected 1.29 or newer, got `{text}`")
    return int(major), int(minor)


def _cluster(options: argparse.Namespace) -> Cluster:
    from corten.exporters.base import Addition, Cluster

    plain = Cluster()
    return Cluster(
        version=options.kubernetes_version or plain.version,
        additions=frozenset(Addition(word) for word in options.additions),
        namespace=options.namespace,
        gateway=options.gateway,
        pull_secrets=tuple(options.pull_secret),
        priority_class=options.priority_class,
        user_namespaces=not options.no_user_namespaces,
    )
