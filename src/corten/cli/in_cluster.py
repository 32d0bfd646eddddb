"""The verbs with `--engine kubernetes`: parse, call, print."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from corten.cli import parser as words
from corten.cli.output import Output, table
from corten.cli.running import secret_variables, settings_of

if TYPE_CHECKING:
    from corten.ops.kubernetes import Place

KUBERNETES = "kubernetes"
VARIABLE = "CORTEN_ENGINE"


def add_engine(parser: argparse.ArgumentParser, *, of_replicas: bool = False) -> None:
    """Where a verb is meant: shared by those that know clusters. `of_replicas`: any engine may be named to run them."""
    if of_replicas:
        words.add_engine(parser, f"; {KUBERNETES}: a cluster (pip install 'corten[k8s]'), as {VARIABLE} may say too")
    else:
        parser.add_argument(
            "--engine",
            choices=(KUBERNETES,),
            default="",
            help=f"in a cluster; {VARIABLE} may say so too (default: here)",
        )
    parser.add_argument("--context", default="", help="of the kubeconfig (default: its current one)")
    if not of_replicas:  # who deploys is asked for more of a cluster
        parser.add_argument("--namespace", default="", help="in the cluster (default: the context's)")


def meant(options: argparse.Namespace) -> bool:
    """Whether it is about a cluster. Raises UsageError for a word in the environment that means nothing."""
    from corten.errors import UsageError

    said = os.environ.get(VARIABLE, "")
    if said not in ("", KUBERNETES):
        raise UsageError(
            "cli.usage", f"{VARIABLE} is `{said}`", why=f"expected nothing, or {KUBERNETES}", hint=f"unset {VARIABLE}"
        )
    return bool((options.engine or said) == KUBERNETES)


def refuse_its_words(options: argparse.Namespace) -> None:
    """Raises UsageError for what only a cluster understands, where none is meant: it would be left out silently."""
    from corten.errors import UsageError

    words = (
        "namespace",
        "host",
        "gateway",
        "pull_secret",
        "weights",
        "priority_class",
        "context",
        "timeout",
    )
    if given := [word for word in words if getattr(options, word)]:
        flag = f"--{given[0].replace('_', '-')}"
        raise UsageError(
            "cli.usage", f"`{flag}` is for clusters", hint=f"corten deploy ... --engine kubernetes {flag} ..."
        )


def place(options: argparse.Namespace) -> Place:
    """Which cluster, where in it."""
    from corten.ops.kubernetes import Place

    return Place(options.context, options.namespace)


@contextmanager
def _resumable(output: Output) -> Iterator[None]:
    """Says to whoever interrupts what is left: a cluster goes on with what it was told."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        output.note("what was begun goes on in the cluster, and nobody looks: the same command again takes it up")
        raise


def deploy(options: argparse.Namespace, output: Output) -> int:
    """Deploy one image or many; the last line of each is its URL within the cluster."""
    from corten.core.home import Home
    from corten.errors import UsageError
    from corten.exporters.base import Cluster
    from corten.ops.kubernetes import deploy as deploy_all
    from corten.ops.workload import workload_of

    if options.port:
        raise UsageError("cli.usage", "`--port` is the gateway's on this machine", hint="--gateway NAMESPACE/NAME")
    if options.max_body or options.request_timeout or options.no_resend:
        raise UsageError(
            "cli.usage",
            "`--max-body`, `--request-timeout` and `--no-resend` are the gateway's on this machine",
            hint="`max_body_bytes` and `request_timeout_s` in corten.toml, for the model itself",
        )
    if options.name and len(options.image) > 1:
        raise UsageError("cli.usage", "`--name` is for one image", hint="leave it out: names come from the models")
    secrets = secret_variables(options.secret)
    home = Home.from_env(os.environ, uid=os.getuid())
    cluster = Cluster(
        gateway=options.gateway,
        pull_secrets=tuple(options.pull_secret),
        priority_class=options.priority_class,
        user_namespaces=not options.no_user_namespaces,
    )
    workloads = [
        replace(
            workload_of(image, options.name, settings_of(options), home=home, weights=options.weights),
            secrets=secrets,
            host=options.host,
            cluster=cluster,
        )
        for image in options.image
    ]
    with _resumable(output):
        results = deploy_all(workloads, place(options), listen=output.listen, timeout_s=options.timeout)
    failed = [one for one in results if one.error]
    documents = [one.as_dict() for one in results]
    output.document(documents[0] if len(documents) == 1 else {"deployments": documents})
    for one in results:
        if one.outcome:
            share = f", {one.outcome.share} % of the requests" if one.outcome.share < 100 else ""
            output.note(
                f"{one.name} {one.outcome.release.label} answers{'' if one.outcome.changed else ' as before'}{share}"
            )
            output.result(one.url)
        elif one.error:
            output.note(f"{one.name} FAILED: {one.error.what} ({one.error.code}); {one.error.hint}")
    return max((one.error.exit_code for one in failed if one.error), default=0)


def status(options: argparse.Namespace, output: Output) -> int:
    """Print a table of deployments, then one of pods."""
    from corten.ops.kubernetes import status as look

    found = look(options.name, place(options))
    output.document({"deployments": [one.as_dict() for one in found]})
    if output.json:
        return 0
    if not found:
        output.note("nothing is deployed in this namespace; try `corten deploy IMAGE --engine kubernetes`")
        return 0
    rows = [("deployment", "revision", "ready", "state", "canary", "image")]
    rows += [
        (one.name, one.revision, f"{one.ready}/{one.wanted}", one.state, one.canary or "-", one.image) for one in found
    ]
    output.result(table(rows))
    for one in found:
        if one.reason:
            output.result(f"\n{one.name}: {one.reason}")
    pods = [("pod", "revision", "track", "state", "restarts", "node", "")]
    pods += [
        (pod.name, pod.revision, pod.track, pod.state, str(pod.restarts), pod.node or "-", pod.reason)
        for one in found
        for pod in one.pods
    ]
    output.result("\n" + table(pods))
    return 0


def logs(options: argparse.Namespace, output: Output) -> int:
    """Print the lines."""
    from corten.ops.kubernetes import logs as last_lines

    lines = last_lines(options.name, place(options), tail=options.tail)
    output.document({"lines": [{"replica": pod, "text": text} for pod, text in lines]})
    for pod, text in lines:
        output.result(f"{pod}  {text}")
    return 0


def predict(options: argparse.Namespace, body: Any, output: Output) -> int:
    """Ask, then print the answer."""
    from corten.core.home import Home
    from corten.ops.kubernetes import predict as ask

    answer = ask(options.name, body, place(options), home=Home.from_env(os.environ, uid=os.getuid()))
    output.document(answer)
    output.result(json.dumps(answer, ensure_ascii=False))
    return 0


def stop(options: argparse.Namespace, output: Output) -> int:
    """Stop, then say what was stopped."""
    from corten.errors import UsageError
    from corten.ops.kubernetes import stop as end

    if options.all:
        raise UsageError("cli.usage", "`--all` is for this machine", hint="in a cluster name what is to be stopped")
    stopped = end(options.name, place(options))
    output.document({"stopped": list(stopped)})
    for name in stopped:
        output.result(name)
    return 0


def promote(options: argparse.Namespace, output: Output) -> int:
    """Promote, then print the URL."""
    from corten.errors import UsageError
    from corten.ops.kubernetes import promote as all_for_it

    if options.to != 100:
        raise UsageError("cli.usage", "in a cluster a canary gets all or none", hint="corten deploy IMAGE --canary 25%")
    with _resumable(output):
        done = all_for_it(options.name, place(options), listen=output.listen)
    output.document(done.as_dict())
    if done.outcome:
        output.note(f"{done.name} {done.outcome.release.label} has all requests")
    output.result(done.url)
    return 0


def rollback(options: argparse.Namespace, output: Output) -> int:
    """Roll back, then print the URL."""
    from corten.ops.kubernetes import rollback as go_back

    with _resumable(output):
        done = go_back(options.name, options.to, place(options), listen=output.listen)
    output.document(done.as_dict())
    if done.outcome:
        output.note(f"{done.name} {done.outcome.release.label} answers")
    output.result(done.url)
    return 0
