"""What only clusters have: the least Role to deploy with, releases, what differs from them, how many replicas.

The verbs of every day are the same as on one machine, with `--engine kubernetes`: deploy, status, logs, predict,
rollback, stop.
"""

from __future__ import annotations

import argparse
import time

from corten.cli.in_cluster import place
from corten.cli.output import Output, table
from corten.cli.running import add_additions
from corten.errors import UsageError

EXAMPLES = """\
  corten k8s rbac --namespace models | kubectl apply -f -
  corten k8s history fraud
  corten k8s diff fraud
  corten k8s diff fraud r3 r4
  corten k8s scale fraud 5
  corten k8s drill fraud '{"inputs": [[1, 2]]}' --only delete,evict
"""
_ACTIONS = ("rbac", "history", "diff", "scale", "drill")
_UNHEALTHY = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument(
        "action",
        choices=_ACTIONS,
        help="rbac: the least Role, as YAML; history: releases; diff: where what is there is not what was deployed, "
        "or two releases; scale: replicas until the next deployment; drill: break it while it is asked, and count",
    )
    parser.add_argument("words", nargs="*", metavar="NAME ...", help="the deployment, and what the action needs")
    parser.add_argument("--context", default="", help="of the kubeconfig (default: its current one)")
    parser.add_argument("--namespace", default="", help="default: the context's")
    parser.add_argument("--only", default="", metavar="WORDS", help="drill: of delete,evict,rollout (all)")
    parser.add_argument(
        "--with-namespace", action="store_true", help="rbac: the Namespace too, restricted to pods that may do nothing"
    )
    add_additions(parser, "rbac: what the cluster has; repeatable")


def run(options: argparse.Namespace, output: Output) -> int:
    """Do it, then print what there is."""
    wanted = {"rbac": (0,), "history": (1,), "diff": (1, 3), "scale": (2,), "drill": (1, 2)}[options.action]
    if len(options.words) not in wanted:
        raise UsageError(
            "cli.usage", f"`corten k8s {options.action}` takes other words", hint="see `corten k8s --help`"
        )
    match options.action:
        case "rbac":
            return _rbac(options, output)
        case "history":
            return _history(options, output)
        case "diff":
            return _diff(options, output)
        case "drill":
            return _drill(options, output)
        case _:
            return _scale(options, output)


def _rbac(options: argparse.Namespace, output: Output) -> int:
    from corten.exporters.base import Addition, Cluster
    from corten.exporters.manifests.rbac import guarded_namespace, role
    from corten.exporters.yaml_text import documents

    if options.with_namespace and not options.namespace:
        hint = "corten k8s rbac --namespace models --with-namespace"
        raise UsageError("cli.usage", "`--with-namespace` needs the namespace's name", hint=hint)
    additions = frozenset(Addition(word) for word in options.additions)
    found = role(Cluster(namespace=options.namespace, additions=additions))
    if options.with_namespace:
        found.insert(0, guarded_namespace(options.namespace))
    output.document({"objects": found})
    output.result(documents(found).rstrip("\n"))
    return 0


def _history(options: argparse.Namespace, output: Output) -> int:
    from corten.ops.kubernetes import history

    found = history(options.words[0], place(options))
    output.document(
        {
            "releases": [
                {"revision": one.label, "state": one.state.value, "created_s": one.created_s, "image": one.image}
                for one in found
            ]
        }
    )
    rows = [("revision", "state", "when", "image")]
    rows += [
        (one.label, one.state.value, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.created_s)), one.image)
        for one in found
    ]
    output.result(table(rows))
    return 0


def _diff(options: argparse.Namespace, output: Output) -> int:
    from corten.ops.kubernetes import diff

    name, first, second = [*options.words, "", ""][:3]
    found = diff(name, place(options), first, second)
    output.document({"differences": [one.as_dict() for one in found]})
    if not found:
        output.note("no difference")
        return 0
    rows = [("object", "field", first or "wanted", second or "found", "written by")]
    rows += [
        (f"{one.kind}/{one.name}", one.path or "-", _short(one.wanted), _short(one.found), ", ".join(one.owners))
        for one in found
    ]
    output.result(table(rows))
    return 0


def _scale(options: argparse.Namespace, output: Output) -> int:
    from corten.ops.kubernetes import scale

    name, number = options.words
    if not number.isdecimal() or int(number) > 10_000:
        raise UsageError("cli.usage", f"not a number of replicas: `{number[:20]}`", hint=f"corten k8s scale {name} 3")
    scale(name, int(number), place(options))
    output.document({"name": name, "replicas": int(number)})
    output.result(f"{name} {number}")
    return 0


def _drill(options: argparse.Namespace, output: Output) -> int:
    import json
    import os

    from corten.core.home import Home
    from corten.ops.kubernetes import drill

    name, text = [*options.words, ""][:2]
    try:
        body = json.loads(text) if text else None
    except ValueError as error:
        raise UsageError("cli.input_not_json", "the input is not JSON", why=str(error)) from error
    home = Home.from_env(os.environ, uid=os.getuid())
    only = options.only.split(",") if options.only else ()
    scores = drill(name, body, place(options), only, home=home, listen=output.listen)
    output.document({"name": name, "scores": [score.as_dict() for score in scores]})
    rows = [("", "scenario", "answered", "failed", "mended after")]
    for score in scores:
        mended = "never" if score.healed_s is None else f"{score.healed_s:.1f} s"
        mark = "\u2713" if score.passed else "\u2717"
        rows.append((mark, score.scenario, str(score.ok), str(score.failed), mended))
    output.result(table(rows))
    for score in scores:
        for reason, count in score.reasons.items():
            output.note(f"{score.scenario}: {count} x {reason}")
    return 0 if all(score.passed for score in scores) else _UNHEALTHY


def _short(value: object) -> str:
    text = "not there" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
