"""Serve a model in the foreground with this Python and what is installed in it: no image, no sandbox.

For the loop while writing a model. It is the same server as inside an image; Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os

from corten.cli import parser as words
from corten.cli.output import Output

EXAMPLES = """\
  corten serve model.joblib
  corten serve annotator.py:Annotator --port 8001
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    words.add_source(parser)
    parser.add_argument("--port", type=words.port, default=8000, help="default: 8000")


def run(options: argparse.Namespace, output: Output) -> int:
    """Serve until interrupted."""
    from corten.core.home import Home
    from corten.ops.serve import serve

    output.note(f"serving on http://127.0.0.1:{options.port}/ without a sandbox; Ctrl-C ends it")
    return serve(
        options.source,
        home=Home.from_env(os.environ, uid=os.getuid()),
        name=options.name,
        method=options.method,
        requirements=tuple(options.requirement),
        extra_files=tuple(options.file),
        port=options.port,
    )
