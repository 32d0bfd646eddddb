"""How an image is to be run, wherever it is: options that `deploy` and `render` share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from corten.cli import parser as words
from corten.errors import UsageError

if TYPE_CHECKING:
    from corten.core.deployment import Settings
    from corten.core.resources import Resources
    from corten.exporters.base import SecretVariable


def add_run(parser: argparse.ArgumentParser) -> None:
    """Replicas, resources, environment, access and how a new revision takes over."""
    words.add_replicas(parser)
    words.add_resources(parser)
    parser.add_argument(
        "--env", action="append", default=[], type=words.key_value, metavar="KEY=VALUE", help="repeatable"
    )
    parser.add_argument("--egress", action="store_true", help="let the model open connections to the outside")
    words.add_canary(parser)
    words.add_access(parser)
    words.add_strategy(parser)


def resources_of(options: argparse.Namespace) -> Resources:
    """What one replica may use, as it was given."""
    from corten.core.resources import Resources

    return Resources(options.memory or 0, options.cpus or 0.0, options.gpus or 0, tuple(options.device))


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that were given."""
    from corten.core.canary import Canary
    from corten.core.deployment import Settings
    from corten.core.rest import Strategy

    plain = Settings()
    least, most = options.replicas or (1, 1)
    return Settings(
        replicas=least,
        most_replicas=most,
        concurrency=options.concurrency or plain.concurrency,
        env=dict(options.env),
        egress=options.egress,
        canary=replace(options.canary or Canary(), sticky=options.sticky or "", mirror=options.mirror or 0),
        resources=resources_of(options),
        auth=options.auth or "",
        rate_per_s=options.rate or 0,
        burst=options.burst or 0,
        pinnable=options.pinnable,
        strategy=Strategy(options.strategy or "auto"),
    )


def add_additions(parser: argparse.ArgumentParser, told: str) -> None:
    """What the cluster has besides Kubernetes itself, where nobody asks it; `told` is the option's help."""
    parser.add_argument(
        "--with",
        dest="additions",
        action="append",
        default=[],
        choices=("gateway-api", "keda", "keda-http", "keda-http-v1alpha1", "knative", "prometheus"),
        help=told,
    )


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Where in a cluster a deployment is to be, and what of the cluster it uses."""
    group = parser.add_argument_group("in a cluster")
    group.add_argument("--namespace", default="", help="default: that of whoever applies it")
    group.add_argument("--host", default="", help="the host name clients ask by (default: the path /NAME/)")
    group.add_argument("--gateway", default="", metavar="NAMESPACE/NAME", help="the Gateway that routes are bound to")
    group.add_argument(
        "--pull-secret", action="append", default=[], metavar="SECRET", help="to pull the image with; repeatable"
    )
    group.add_argument("--weights", default="", metavar="IMAGE", help="mount the model's files from their own image")
    group.add_argument("--priority-class", default="", metavar="NAME", help="who yields when nodes are full")
    group.add_argument(
        "--no-user-namespaces", action="store_true", help="for nodes whose file systems cannot map users"
    )


def add_secret(parser: argparse.ArgumentParser, metavar: str, told: str) -> None:
    """A secret: what its right side names is up to whoever runs the replicas."""
    parser.add_argument(
        "--secret", action="append", default=[], type=words.key_value, metavar=metavar, help=f"{told}; repeatable"
    )


def secret_variables(given: Sequence[tuple[str, str]]) -> tuple[SecretVariable, ...]:
    """Read `KEY=SECRET/ENTRY`, as clusters have it. Raises UsageError."""
    from corten.exporters.base import SecretVariable

    return tuple(SecretVariable(variable, *_entry(variable, place)) for variable, place in given)


def _entry(variable: str, place: str) -> tuple[str, str]:
    name, slash, entry = place.partition("/")
    # What the API calls a Secret: a DNS subdomain.
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) or not slash or not entry or "/" in entry:
        raise UsageError(
            "cli.usage",
            f"`--secret {variable}={place}` names no entry of a Secret",
            why="a cluster has its own secrets: no file of this machine is sent there",
            hint=f"--secret {variable}=SECRET/ENTRY; `kubectl create secret generic SECRET --from-file ENTRY=PATH`",
        )
    return name, entry


def secret_values(given: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Read `NAME=PATH`, a file of this machine, or `NAME=-`, standard input. Raises UsageError."""
    names, paths = [name for name, _ in given], [path for _, path in given]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UsageError("cli.usage", f"secret `{twice}` is given twice", hint="one `--secret` a name")
    if paths.count("-") > 1:
        raise UsageError("cli.usage", "standard input can be read once", why="two secrets are to come from it")
    return {name: _value(name, path) for name, path in given}


def _value(name: str, path: str) -> bytes:
    """No more than shows that it is too much."""
    from corten.core.secret import MOST_BYTES

    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(
            "secret.unreadable",
            f"secret `{name}` cannot be read",
            where=path,
            why=getattr(error, "strerror", None) or str(error),
            hint=f"--secret {name}=PATH, or {name}=- for standard input (SECRET/ENTRY is for --engine kubernetes)",
        ) from error
