"""Have systemd keep the daemon: there after a boot, and again at once whenever it dies.

Root's service is the system's; anybody else's is his own, and runs while he is logged in unless
`loginctl enable-linger` says otherwise. Requests are answered by replicas and gateway, which go on while it restarts.
"""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output

EXAMPLES = """\
  corten service install
  corten service status
  corten service uninstall
  corten service print
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("action", choices=("install", "uninstall", "status", "print"))
    parser.add_argument("--user", action="store_true", help="root too: his own, not the system's")


def run(options: argparse.Namespace, output: Output) -> int:
    """Do it, then print the unit's name, or its text."""
    from corten.core.home import Home
    from corten.ops import service

    home = Home.from_env(os.environ, uid=os.getuid())
    if options.action == "print":
        unit = service.Service.of(home, os.environ, uid=os.geteuid(), user=options.user).unit(home, os.environ)
        output.document({"unit": unit})
        output.result(unit.rstrip())
        return 0
    act = {"install": service.install, "uninstall": service.uninstall, "status": service.status}[options.action]
    found = act(home=home, user=options.user)
    output.document(found.as_dict())
    output.result(f"{found.service.name} {found.state}")
    output.note(str(found.service.file))
    return 0
