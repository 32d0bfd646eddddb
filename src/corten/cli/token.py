"""Tokens for deployments that ask for one (`--auth token`).

`create` prints a token once and keeps it nowhere; clients show it as `Authorization: Bearer TOKEN` or `X-Api-Key`, and
`corten predict` takes it from CORTEN_TOKEN. `revoke` ends one, by its name or id, before it expires. `rotate` signs
with a new key: what the old one signed counts until it expires, or ends `--now`. `trust` lets tokens of your own issuer
count for every deployment that asks for one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from corten.cli import parser as words
from corten.cli.output import Output, table
from corten.core.home import Home
from corten.errors import UsageError

EXAMPLES = """\
  corten token create alice --for fraud --days 30
  corten token list
  corten token revoke alice
  corten token rotate
  corten token trust https://login.example --audience models --keys jwks.json
  corten token trust https://login.example --remove
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("action", choices=tuple(_ACTIONS))
    parser.add_argument("name", nargs="?", default="", help="whose token it is, its id, or the issuer's name")
    parser.add_argument(
        "--for",
        action="append",
        default=[],
        dest="deployments",
        metavar="NAME",
        help="create: the deployment it is for (default: all); repeatable",
    )
    parser.add_argument("--days", type=words.days, default=90.0, help="create: until it expires (default: 90)")
    parser.add_argument("--now", action="store_true", help="rotate: all tokens there are end")
    parser.add_argument("--audience", default="", help="trust: the `aud` its tokens have")
    parser.add_argument("--keys", type=Path, default=None, metavar="FILE", help="trust: its public keys, a JWKS")
    parser.add_argument("--remove", action="store_true", help="trust: no more")


def run(options: argparse.Namespace, output: Output) -> int:
    """Do what is asked for and print what came of it."""
    if (options.action in ("create", "revoke", "trust")) != bool(options.name):
        wanted = "takes no name" if options.name else "wants a name"
        raise UsageError("cli.usage", f"`{options.action}` {wanted}", hint="corten token --help")
    _ACTIONS[options.action](options, output, Home.from_env(os.environ, uid=os.getuid()))
    return 0


def _create(options: argparse.Namespace, output: Output, home: Home) -> None:
    from corten.ops.token import create_token

    made = create_token(options.name, options.deployments, days=options.days, home=home)
    output.document(dict(made))
    where = "all deployments" if made["deployments"] == ["*"] else ", ".join(made["deployments"])
    output.note(f"token {made['id']} of {made['name']} for {where}, until {_day(made['expires_s'])}; shown only now:")
    output.result(made["token"])


def _list(options: argparse.Namespace, output: Output, home: Home) -> None:
    del options
    from corten.ops.token import tokens

    found = tokens(home=home)
    output.document(found.as_dict())
    if not (found.issued or found.issuers):
        output.note("no tokens; try `corten token create NAME`")
    if found.issued:
        rows = [("id", "name", "for", "created", "expires", "")]
        rows += [
            (one.id, one.name, ",".join(one.deployments), _day(one.created_s), _day(one.expires_s), one.state)
            for one in found.issued
        ]
        output.result(table(rows))
    for issuer, audience in found.issuers:
        output.result(f"those of {issuer} for {audience} count too")


def _revoke(options: argparse.Namespace, output: Output, home: Home) -> None:
    from corten.ops.token import revoke_token

    revoked = revoke_token(options.name, home=home)
    output.document({"revoked": list(revoked)})
    output.note("refused from now on" if revoked else "none of them counted any more")
    for each in revoked:
        output.result(each)


def _rotate(options: argparse.Namespace, output: Output, home: Home) -> None:
    from corten.ops.token import rotate_keys

    kid = rotate_keys(at_once=options.now, home=home)
    output.document({"kid": kid})
    output.note("all tokens there were have ended" if options.now else "tokens there are count until they expire")
    output.result(kid)


def _trust(options: argparse.Namespace, output: Output, home: Home) -> None:
    from corten.ops.token import distrust_issuer, trust_issuer

    if options.remove:
        distrust_issuer(options.name, home=home)
    elif options.audience and options.keys:
        trust_issuer(options.name, options.audience, options.keys, home=home)
    else:
        raise UsageError("cli.usage", "an issuer comes with `--audience` and `--keys`", hint="or say `--remove`")
    output.document({"issuer": options.name, "trusted": not options.remove})
    output.result(options.name)


_ACTIONS: dict[str, Callable[[argparse.Namespace, Output, Home], None]] = {
    "create": _create,
    "list": _list,
    "revoke": _revoke,
    "rotate": _rotate,
    "trust": _trust,
}


def _day(at_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at_s))
